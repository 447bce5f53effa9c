/**
 * What the manifest folder says of this node's pods. Only Pods of this node and Namespaces matter; everything else in the folder is somebody
 * else's and passes unseen.
 */
import type { Log } from '../../mesh/log/index.js';
import {
  checkDataplaneMode,
  dataplaneModeOf,
  decoderOf,
  type Fields,
  FOLDER_SOURCE_DEFAULTS,
  FolderSource,
  isEnrolled,
  type KindDecoder,
  keyOf,
  type Labels,
  type PodFields,
  readPod,
} from '../../mesh/manifests/index.js';
import { readAnnotations } from './annotations.js';
import type { LocalPod } from './types.js';

interface PodManifest extends PodFields {
  readonly kind: 'Pod';
  readonly name: string;
  readonly namespace: string;
}

interface NamespaceManifest {
  readonly kind: 'Namespace';
  readonly labels: Labels;
}

export type Manifest = PodManifest | NamespaceManifest;

const rescanMs = 5_000;
const maxFileBytes = 16 << 20;
/** A static pod's cgroup is named after this, not after its mirror object's metadata.uid. */
const staticPodAnnotation = 'kubernetes.io/config.hash';
/** What may name a pin on bpffs (no dot there) and a cgroup. */
const uidPattern = /^[A-Za-z0-9_-]{1,128}$/;

/** The folder as the node `nodeName` sees it; `onChange` after every change. Not started yet. */
export function openManifests(
  options: { readonly folder: string; readonly nodeName: string },
  deps: { readonly onChange: () => void; readonly log: Log },
): FolderSource<Manifest> {
  const kinds = new Map<string, KindDecoder<Manifest>>([
    ['v1 Namespace', { namespaced: false, nameForm: 'label', decode: decodeNamespace }],
    ['v1 Pod', { namespaced: true, nameForm: 'subdomain', decode: podDecoder(options.nodeName) }],
  ]);
  return new FolderSource<Manifest>(
    {
      ...FOLDER_SOURCE_DEFAULTS,
      folder: options.folder,
      rescanMs,
      maxFileBytes,
      onlyKinds: new Set(['Namespace', 'Pod']),
    },
    { decode: decoderOf(kinds), onBatch: deps.onChange, log: deps.log },
  );
}

/** The node's pods, by uid. A pod whose namespace's label cannot be read is held back (unknown to the kernel, so refused) unless its own decides. */
export function localPods(
  source: FolderSource<Manifest>,
  excludedNamespaces: readonly string[] | undefined,
): readonly LocalPod[] {
  const pods: LocalPod[] = [];
  for (const pod of source.objects.values()) {
    if (pod.kind !== 'Pod') continue;
    const namespaceKey = keyOf('Namespace', '', pod.namespace);
    if (source.invalidKeys.has(namespaceKey) && dataplaneModeOf(pod.labels) === null) continue;
    const namespace = source.objects.get(namespaceKey) as NamespaceManifest | undefined;
    const { uid, name, serviceAccount, addresses, hostNetwork } = pod;
    const enrolled = isEnrolled(pod, namespace, excludedNamespaces);
    pods.push({
      uid,
      name,
      namespace: pod.namespace,
      serviceAccount,
      addresses,
      hostNetwork,
      enrolled,
      isEastWestGateway: pod.labels['gateway.istio.io/managed'] === 'istio.io-eastwest-controller',
      ...readAnnotations(pod.annotations),
    });
  }
  return pods.sort((a, b) => (a.uid < b.uid ? -1 : 1));
}

function decodeNamespace(fields: Fields): NamespaceManifest {
  const metadata = fields.object('metadata');
  const labels = metadata.textMap('labels');
  checkDataplaneMode(metadata, labels);
  return { kind: 'Namespace', labels };
}

/** Null: a pod of another node, or of none yet. */
function podDecoder(nodeName: string): KindDecoder<Manifest>['decode'] {
  return (fields, namespace, name) => {
    const spec = fields.object('spec');
    if (spec.text('nodeName') !== nodeName) return null;
    const metadata = fields.object('metadata');
    const pod = readPod(metadata, spec, fields.object('status'));
    const uid = pod.annotations[staticPodAnnotation] ?? pod.uid;
    if (!uidPattern.test(uid)) metadata.wrong('uid', 'is missing or not a pod uid');
    return { kind: 'Pod', namespace, name, ...pod, uid };
  };
}
