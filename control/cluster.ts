import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { API_CLIENT_DEFAULTS, ApiClient, openAccess } from '../mesh/kube/index.js';
import { LEASE_DEFAULTS, LeaseElection } from '../mesh/kube-write/index.js';
import type { Log } from '../mesh/log/index.js';
import type { ControllerOptions } from './options.js';

/** What a controller on Kubernetes shares: its way to the API server, and whether it is the replica that writes. */
export interface Cluster {
  /** For logs. */
  readonly origin: string;
  readonly client: ApiClient;
  /** Not started. */
  readonly election: LeaseElection;
  /** Of this replica; no two alike. */
  readonly identity: string;
}

/** Of the Lease by which one replica leads. */
export const LEASE_NAME = 'culvert-controller-leader';

/** Null with source `files`. @throws KubeError KUBE_ACCESS */
export function openCluster(options: ControllerOptions, log: Log): Cluster | null {
  if (options.source === 'files') return null;
  const access = openAccess(options);
  const client = new ApiClient({ ...API_CLIENT_DEFAULTS, userAgent: 'culvert-controller' }, { access });
  const identity = `${hostname()}_${randomUUID()}`;
  const election = new LeaseElection(
    { ...LEASE_DEFAULTS, namespace: options.namespace, name: LEASE_NAME, identity },
    { client, log: log.child({ room: 'leader' }) },
  );
  return { origin: access.origin, client, election, identity };
}
