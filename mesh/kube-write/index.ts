export { LEASE_DEFAULTS, LeaseElection, type LeaseElectionDeps, type LeaseElectionOptions } from './lease.js';
export type { ClusterEvent, Leadership, LeadershipListener, ObjectReference } from './types.js';
