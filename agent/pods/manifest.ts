/**
 * What manifests, of a folder or an API server, say of this node's pods. Only Pods of this node and Namespaces matter; everything else in a
 * folder is somebody else's and passes unseen.
 */
import type { Log } from '../../mesh/log/index.js';
import {
  cgroupUidOf,
  checkDataplaneMode,
  dataplaneModeOf,
  decoderOf,
  type Fields,
  FOLDER_SOURCE_DEFAULTS,
  FolderSource,
  type KindDecoder,
  keyOf,
  type Labels,
  type PodFields,
  readAnnotations,
  readPod,
  whyOutside,
} from '../../mesh/manifests/index.js';
import type { LocalPod } from './types.js';

interface PodManifest extends PodFields {
  readonly kind: 'Pod';
  /** metadata.uid; `uid` is the one that its cgroup is named after. */
  readonly objectUid: string;
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

const NO_ADDRESS = 'status.podIPs has no address: the mesh does not know whose its connections are';

/** What is known of pods and namespaces. */
export interface PodView {
  values(): Iterable<Manifest>;
  get(key: string): Manifest | undefined;
  /** There is such an object, but not what it says. */
  isUnsettled(key: string): boolean;
  /** Pods have their addresses from the start; else they come some time after the pod's processes. */
  readonly hasAddresses: boolean;
}

/** Readers of what matters on the node `nodeName`, by `<apiVersion> <kind>`. */
export function podKinds(nodeName: string): ReadonlyMap<string, KindDecoder<Manifest>> {
  return new Map<string, KindDecoder<Manifest>>([
    ['v1 Namespace', { namespaced: false, nameForm: 'label', decode: decodeNamespace }],
    ['v1 Pod', { namespaced: true, nameForm: 'subdomain', decode: podDecoder(nodeName) }],
  ]);
}

/** The folder as the node `nodeName` sees it; `onChange` after every change. Not started yet. */
export function openManifests(
  options: { readonly folder: string; readonly nodeName: string },
  deps: { readonly onChange: () => void; readonly log: Log },
): FolderSource<Manifest> {
  return new FolderSource<Manifest>(
    {
      ...FOLDER_SOURCE_DEFAULTS,
      folder: options.folder,
      rescanMs,
      maxFileBytes,
      onlyKinds: new Set(['Namespace', 'Pod']),
    },
    { decode: decoderOf(podKinds(options.nodeName)), onBatch: deps.onChange, log: deps.log },
  );
}

/** A folder as `localPods` wants it. */
export function viewOf(folder: FolderSource<Manifest>): PodView {
  return {
    values: () => folder.objects.values(),
    get: (key) => folder.objects.get(key),
    isUnsettled: (key) => folder.invalidKeys.has(key),
    hasAddresses: true,
  };
}

/** The node's pods, by uid. A pod whose namespace's label is not known is held back (unknown to the kernel, so refused) unless its own decides. */
export function localPods(
  view: PodView,
  excludedNamespaces: readonly string[] | undefined,
): readonly LocalPod[] {
  const pods: LocalPod[] = [];
  for (const pod of view.values()) {
    if (pod.kind !== 'Pod') continue;
    const namespaceKey = keyOf('Namespace', '', pod.namespace);
    if (view.isUnsettled(namespaceKey) && dataplaneModeOf(pod.labels) === null) continue;
    const namespace = view.get(namespaceKey) as NamespaceManifest | undefined;
    const { uid, name, serviceAccount, addresses, hostNetwork } = pod;
    const outside = whyOutside(pod, namespace, excludedNamespaces);
    const { fault, ...annotations } = readAnnotations(pod.annotations);
    const lacksAddress = view.hasAddresses && addresses.length === 0 && !hostNetwork;
    pods.push({
      uid,
      name,
      namespace: pod.namespace,
      serviceAccount,
      addresses,
      hostNetwork,
      enrolled: outside === '',
      outside,
      isEastWestGateway: pod.labels['gateway.istio.io/managed'] === 'istio.io-eastwest-controller',
      ...annotations,
      fault:
        fault !== null
          ? `metadata.annotations["${fault.name}"] ${fault.reason}`
          : lacksAddress
            ? NO_ADDRESS
            : '',
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

/** Null: a pod of another node, or of none yet, or one that has ended: its addresses may be another's by now. */
function podDecoder(nodeName: string): KindDecoder<Manifest>['decode'] {
  return (fields, namespace, name) => {
    const spec = fields.object('spec');
    if (spec.text('nodeName') !== nodeName) return null;
    if (['Succeeded', 'Failed'].includes(fields.object('status').text('phase'))) return null;
    const metadata = fields.object('metadata');
    const pod = readPod(metadata, spec, fields.object('status'));
    const uid = cgroupUidOf(pod);
    if (uid === null) metadata.wrong('uid', 'is missing or not a pod uid');
    return { kind: 'Pod', objectUid: pod.uid, namespace, name, ...pod, uid: uid ?? '' };
  };
}
