export { applyStatus, FIELD_MANAGER, pathOf, type StatusWrite } from './apply.js';
export {
  EVENT_DEFAULTS,
  EventRecorder,
  type EventRecorderDeps,
  type EventRecorderOptions,
} from './events.js';
export {
  LEASE_DEFAULTS,
  LeaseElection,
  type LeaseElectionDeps,
  type LeaseElectionOptions,
  WRITE_TIMEOUT_MS,
} from './lease.js';
export type { ClusterEvent, Leadership, LeadershipListener, ObjectReference } from './types.js';
export {
  WRITE_QUEUE_DEFAULTS,
  WriteQueue,
  type WriteQueueDeps,
  type WriteQueueOptions,
} from './write-queue.js';
