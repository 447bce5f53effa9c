import type { Log } from '../mesh/log/index.js';

export interface AgentDeps {
  readonly log: Log;
  /** Another agent has taken over, and the last connection here has ended. */
  readonly onSucceeded: () => void;
  /** The node was released, and is to be captured again: by a new process. The last connection here has ended. */
  readonly onWithdrawn: () => void;
}
