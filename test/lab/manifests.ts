import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseAllDocuments, stringify } from 'yaml';

/** Any Kubernetes object, as users write them. */
export interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string; readonly [key: string]: unknown };
  readonly [key: string]: unknown;
}

/** Objects of a file or string of YAML documents. */
export function readManifests(text: string): Manifest[] {
  return parseAllDocuments(text)
    .map((document) => document.toJS() as Manifest | null)
    .filter((manifest) => manifest !== null);
}

/** The folder of manifests that controller and agents watch: one object a file, replaced in one step. */
export class ManifestFolder {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
    mkdirSync(path, { recursive: true });
  }

  /** Writes or replaces objects. */
  apply(...manifests: readonly Manifest[]): void {
    for (const manifest of manifests) {
      const file = this.#fileOf(manifest.kind, manifest.metadata.name, manifest.metadata.namespace);
      const temporary = join(this.path, `.${process.pid}.tmp`);
      writeFileSync(temporary, stringify(manifest));
      renameSync(temporary, file);
    }
  }

  /** Removes an object; not an error where there is none. */
  delete(kind: string, name: string, namespace?: string): void {
    rmSync(this.#fileOf(kind, name, namespace), { force: true });
  }

  #fileOf(kind: string, name: string, namespace?: string): string {
    return join(this.path, `${[kind.toLowerCase(), namespace, name].filter(Boolean).join('.')}.yaml`);
  }
}

export interface NamespaceOptions {
  readonly labels?: Readonly<Record<string, string>>;
}

export function namespaceManifest(name: string, options: NamespaceOptions = {}): Manifest {
  const labels = { 'kubernetes.io/metadata.name': name, ...options.labels };
  return { apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels } };
}

export function serviceAccountManifest(namespace: string, name: string): Manifest {
  return { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name, namespace } };
}

export function nodeManifest(
  name: string,
  addresses: readonly string[],
  labels: Readonly<Record<string, string>> = {},
): Manifest {
  return {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name, labels: { 'kubernetes.io/hostname': name, ...labels } },
    status: { addresses: addresses.map((address) => ({ type: 'InternalIP', address })) },
  };
}

export interface ServiceOptions {
  readonly name: string;
  readonly namespace?: string;
  readonly selector: Readonly<Record<string, string>>;
  readonly ports: readonly {
    readonly name?: string;
    readonly port: number;
    readonly targetPort?: number | string;
  }[];
  /** Empty: headless. */
  readonly clusterIPs: readonly string[];
  readonly labels?: Readonly<Record<string, string>>;
  readonly externalIPs?: readonly string[];
}

export function serviceManifest(options: ServiceOptions): Manifest {
  const { name, namespace = 'default', clusterIPs } = options;
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, namespace, labels: options.labels ?? {} },
    spec: {
      type: 'ClusterIP',
      clusterIP: clusterIPs[0] ?? 'None',
      clusterIPs: clusterIPs.length === 0 ? ['None'] : clusterIPs,
      ipFamilies: clusterIPs.map((address) => (address.includes(':') ? 'IPv6' : 'IPv4')),
      selector: options.selector,
      externalIPs: options.externalIPs ?? [],
      ports: options.ports.map((port) => ({ protocol: 'TCP', targetPort: port.port, ...port })),
    },
  };
}

export interface PodManifestOptions {
  readonly name: string;
  readonly namespace: string;
  readonly uid: string;
  readonly serviceAccount: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  readonly nodeName: string;
  readonly hostIPs: readonly string[];
  readonly podIPs: readonly string[];
  readonly hostNetwork: boolean;
  readonly ready: boolean;
  /** spec.containers. */
  readonly containers: readonly object[];
}

export function podManifest(options: PodManifestOptions): Manifest {
  const { name, namespace, uid, labels, annotations } = options;
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace, uid, labels, annotations },
    spec: {
      nodeName: options.nodeName,
      serviceAccountName: options.serviceAccount,
      ...(options.hostNetwork ? { hostNetwork: true } : {}),
      containers: options.containers,
    },
    status: {
      phase: 'Running',
      conditions: [{ type: 'Ready', status: options.ready ? 'True' : 'False' }],
      hostIP: options.hostIPs[0],
      hostIPs: options.hostIPs.map((address) => ({ ip: address })),
      podIP: options.podIPs[0],
      podIPs: options.podIPs.map((address) => ({ ip: address })),
    },
  };
}
