/**
 * Decides what a manifest says about enrolment (mesh-apis.md 1.1). Only Pods of this node and Namespaces matter here;
 * everything else in the folder is somebody else's and passes unseen.
 */
import { tryCanonicalAddress } from '../../mesh/common/address.js';

export type DataplaneMode = 'ambient' | 'none';

/** What is wrong with one object of the manifest folder. Unknown parts are empty text. */
export interface ManifestProblem {
  readonly file: string;
  readonly kind: string;
  readonly name: string;
  /** Path inside the object, `status.podIPs[1].ip`. */
  readonly field: string;
  readonly reason: string;
}

export interface PodManifest {
  readonly kind: 'Pod';
  readonly key: string;
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  readonly addresses: readonly string[];
  readonly hostNetwork: boolean;
  readonly hasSidecar: boolean;
  /** The pod's own label; null: the namespace decides. */
  readonly mode: DataplaneMode | null;
}

export interface NamespaceManifest {
  readonly kind: 'Namespace';
  readonly key: string;
  readonly name: string;
  readonly mode: DataplaneMode | null;
}

export type Manifest = PodManifest | NamespaceManifest;

/** One document, read: at most one of `manifest` and `problem` is set; neither: it does not concern us. */
export interface ManifestReading {
  /** `Pod/<namespace>/<name>` or `Namespace/<name>`; null where not even that can be told. */
  readonly key: string | null;
  readonly manifest: Manifest | null;
  readonly problem: Omit<ManifestProblem, 'file'> | null;
}

type Fields = Readonly<Record<string, unknown>>;

const nothing: ManifestReading = { key: null, manifest: null, problem: null };
const modeLabel = 'istio.io/dataplane-mode';
const sidecarAnnotation = 'sidecar.istio.io/status';
/** A static pod's cgroup is named after this, not after its mirror object's metadata.uid. */
const staticPodAnnotation = 'kubernetes.io/config.hash';
/** What may name a pin on bpffs (no dot there) and a cgroup. */
const uidPattern = /^[A-Za-z0-9_-]{1,128}$/;

/** Reads one decoded document as seen from the node `nodeName`. Throws nothing. */
export function readManifest(value: unknown, nodeName: string): ManifestReading {
  if (!isFields(value)) {
    return value === null || value === undefined
      ? nothing
      : { ...nothing, problem: { kind: '', name: '', field: '', reason: 'is not an object' } };
  }
  const kind = value['kind'];
  if (kind !== 'Pod' && kind !== 'Namespace') return nothing;
  const reader = new FieldReader(kind, value);
  const key = reader.key();
  try {
    if (key === null) throw new FieldError('metadata.name', 'is missing or not text');
    if (kind === 'Namespace') return { key, manifest: reader.namespace(key), problem: null };
    return { key, manifest: reader.pod(key, nodeName), problem: null };
  } catch (error) {
    if (!(error instanceof FieldError)) throw error;
    const name = key === null ? '' : key.slice(kind.length + 1);
    return { key, manifest: null, problem: { kind, name, field: error.field, reason: error.reason } };
  }
}

/** The selector of mesh-apis.md 1.1: the pod's label beats its namespace's; the host's network and sidecars are never taken. */
export function isEnrolled(pod: PodManifest, namespaceMode: DataplaneMode | null): boolean {
  if (pod.hostNetwork || pod.hasSidecar) return false;
  return (pod.mode ?? namespaceMode) === 'ambient';
}

class FieldError extends Error {
  readonly field: string;
  readonly reason: string;

  constructor(field: string, reason: string) {
    super(`${field} ${reason}`);
    this.field = field;
    this.reason = reason;
  }
}

class FieldReader {
  readonly #kind: 'Pod' | 'Namespace';
  readonly #object: Fields;
  readonly #metadata: Fields;

  constructor(kind: 'Pod' | 'Namespace', object: Fields) {
    this.#kind = kind;
    this.#object = object;
    this.#metadata = isFields(object['metadata']) ? object['metadata'] : {};
  }

  key(): string | null {
    const name = this.#metadata['name'];
    if (typeof name !== 'string' || name === '') return null;
    if (this.#kind === 'Namespace') return `Namespace/${name}`;
    const namespace = this.#metadata['namespace'] ?? 'default';
    return typeof namespace === 'string' ? `Pod/${namespace}/${name}` : null;
  }

  namespace(key: string): NamespaceManifest {
    return { kind: 'Namespace', key, name: String(this.#metadata['name']), mode: this.#mode() };
  }

  /** Null: a pod of another node, or of none yet. */
  pod(key: string, nodeName: string): PodManifest | null {
    const spec = fieldsAt(this.#object, 'spec', 'spec');
    if (textAt(spec, 'nodeName', 'spec.nodeName', '') !== nodeName) return null;
    const annotations = textsAt(this.#metadata, 'annotations', 'metadata.annotations');
    const uid = annotations[staticPodAnnotation] ?? textAt(this.#metadata, 'uid', 'metadata.uid', '');
    if (!uidPattern.test(uid)) throw new FieldError('metadata.uid', 'is missing or not a pod uid');
    return {
      kind: 'Pod',
      key,
      uid,
      name: String(this.#metadata['name']),
      namespace: textAt(this.#metadata, 'namespace', 'metadata.namespace', 'default'),
      serviceAccount: textAt(spec, 'serviceAccountName', 'spec.serviceAccountName', 'default') || 'default',
      addresses: this.#addresses(),
      hostNetwork: booleanAt(spec, 'hostNetwork', 'spec.hostNetwork'),
      hasSidecar: annotations[sidecarAnnotation] !== undefined,
      mode: this.#mode(),
    };
  }

  #mode(): DataplaneMode | null {
    const field = `metadata.labels["${modeLabel}"]`;
    const mode = textsAt(this.#metadata, 'labels', 'metadata.labels')[modeLabel];
    if (mode === undefined || mode === '') return null;
    if (mode === 'ambient' || mode === 'none') return mode;
    throw new FieldError(field, `is "${mode}": only "ambient" and "none" are known`);
  }

  #addresses(): string[] {
    const status = fieldsAt(this.#object, 'status', 'status');
    const list = status['podIPs'];
    if (list === undefined || list === null) {
      const single = textAt(status, 'podIP', 'status.podIP', '');
      return single === '' ? [] : [addressOf(single, 'status.podIP')];
    }
    if (!Array.isArray(list)) throw new FieldError('status.podIPs', 'is not a list');
    return list.map((item: unknown, index) => {
      const field = `status.podIPs[${index}].ip`;
      return addressOf(isFields(item) ? item['ip'] : undefined, field);
    });
  }
}

function addressOf(value: unknown, field: string): string {
  const address = typeof value === 'string' ? tryCanonicalAddress(value) : null;
  if (address === null) throw new FieldError(field, 'is not an IP address');
  return address;
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function fieldsAt(parent: Fields, name: string, field: string): Fields {
  const value = parent[name] ?? {};
  if (!isFields(value)) throw new FieldError(field, 'is not an object');
  return value;
}

function textAt(parent: Fields, name: string, field: string, absent: string): string {
  const value = parent[name] ?? absent;
  if (typeof value !== 'string') throw new FieldError(field, 'is not text');
  return value;
}

function booleanAt(parent: Fields, name: string, field: string): boolean {
  const value = parent[name] ?? false;
  if (typeof value !== 'boolean') throw new FieldError(field, 'is neither true nor false');
  return value;
}

function textsAt(parent: Fields, name: string, field: string): Readonly<Record<string, string>> {
  const map = fieldsAt(parent, name, field);
  for (const [key, value] of Object.entries(map)) {
    if (typeof value !== 'string') throw new FieldError(`${field}["${key}"]`, 'is not text');
  }
  return map as Readonly<Record<string, string>>;
}
