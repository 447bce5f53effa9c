import { checkDataplaneMode } from './enrolment.js';
import type { Fields } from './fields.js';
import type { Labels } from './types.js';

/** What every program reads of a Pod. */
export interface PodFields {
  /** metadata.uid; may be empty in hand-written manifests. */
  readonly uid: string;
  readonly labels: Labels;
  readonly annotations: Labels;
  /** Empty while not scheduled. */
  readonly nodeName: string;
  readonly serviceAccount: string;
  readonly hostNetwork: boolean;
  /** Canonical text, no two alike. */
  readonly addresses: readonly string[];
}

/** Reads the parts of a Pod; what is wrong goes to their problems. */
export function readPod(metadata: Fields, spec: Fields, status: Fields): PodFields {
  const labels = metadata.textMap('labels');
  checkDataplaneMode(metadata, labels);
  return {
    uid: metadata.text('uid'),
    labels,
    annotations: metadata.textMap('annotations'),
    nodeName: spec.name('nodeName', 'subdomain'),
    serviceAccount: spec.name('serviceAccountName', 'subdomain', 'default'),
    hostNetwork: spec.flag('hostNetwork'),
    addresses: addressesOf(status),
  };
}

function addressesOf(status: Fields): readonly string[] {
  const several = status.objects('podIPs').map((entry) => {
    if (!entry.has('ip')) entry.wrong('ip', 'is required');
    return entry.address('ip');
  });
  const addresses = several.length > 0 ? several : [status.address('podIP')];
  return [...new Set(addresses.filter((address) => address !== ''))];
}
