import { checkDataplaneMode } from './enrolment.js';
import { remarkOnAnnotations } from './exclusions.js';
import type { Fields } from './fields.js';
import type { Labels } from './types.js';

/** What every program reads of a Pod. */
export interface PodFields {
  /** metadata.uid; may be empty in hand-written manifests. */
  readonly uid: string;
  readonly labels: Labels;
  /** Those that mean something to the mesh. */
  readonly annotations: Labels;
  /** Empty while not scheduled. */
  readonly nodeName: string;
  readonly serviceAccount: string;
  readonly hostNetwork: boolean;
  /** Canonical text, no two alike. */
  readonly addresses: readonly string[];
}

/** A static pod's cgroup is named after this, not after its mirror object's metadata.uid. */
const STATIC_POD_ANNOTATION = 'kubernetes.io/config.hash';
/** One for all: there may be thousands. */
const NONE: Labels = Object.freeze({});
/** What may name a pin on bpffs (no dot there) and a cgroup. */
const UID = /^[A-Za-z0-9_-]{1,128}$/;

/** Reads the parts of a Pod; what is wrong goes to their problems. */
export function readPod(metadata: Fields, spec: Fields, status: Fields): PodFields {
  const labels = metadata.textMap('labels');
  checkDataplaneMode(metadata, labels);
  return {
    uid: metadata.text('uid'),
    labels,
    annotations: ofTheMesh(metadata.textMap('annotations')),
    nodeName: spec.name('nodeName', 'subdomain'),
    serviceAccount: spec.name('serviceAccountName', 'subdomain', 'default'),
    hostNetwork: spec.flag('hostNetwork'),
    addresses: addressesOf(status),
  };
}

/** Others may be large, and change often: they are not kept, and a change of them is none. */
function ofTheMesh(annotations: Labels): Labels {
  const names = Object.keys(annotations).filter(
    (name) => name === STATIC_POD_ANNOTATION || /^([a-z0-9-]+\.)*istio\.io\//.test(name),
  );
  return names.length === 0 ? NONE : Object.fromEntries(names.map((name) => [name, annotations[name]!]));
}

/** The uid that the pod's cgroup is named after; null: none that could name one. */
export function cgroupUidOf({ uid, annotations }: Pick<PodFields, 'uid' | 'annotations'>): string | null {
  const named = annotations[STATIC_POD_ANNOTATION] ?? uid;
  return UID.test(named) ? named : null;
}

/** Tells why the agent of the pod's node could not use it, though the pod is well written: in the agent's log few would look. */
export function remarkOnPod(pod: PodFields, metadata: Fields, status: Fields): void {
  const phase = status.text('phase');
  if (pod.nodeName === '' || phase === 'Succeeded' || phase === 'Failed') return;
  if (cgroupUidOf(pod) === null)
    metadata.remark('uid', {
      reason: 'is missing or not a pod uid',
      effect: 'its agent cannot tell its processes: all its connections are refused',
      isProblem: true,
    });
  if (pod.addresses.length === 0 && !pod.hostNetwork && phase !== 'Pending')
    status.remark('podIPs', {
      reason: 'has no address',
      effect: 'the mesh does not know it: in the mesh its connections are refused, and nobody reaches it',
      isProblem: true,
    });
  remarkOnAnnotations(metadata, pod.annotations);
}

function addressesOf(status: Fields): readonly string[] {
  const several = status.objects('podIPs').map((entry) => {
    if (!entry.has('ip')) entry.wrong('ip', 'is required');
    return entry.address('ip');
  });
  const addresses = several.length > 0 ? several : [status.address('podIP')];
  return [...new Set(addresses.filter((address) => address !== ''))];
}
