import { MeshError } from '../../mesh/common/errors.js';

/** A captured pod as one agent hands it to the next. */
export interface HandedPod {
  readonly uid: string;
  readonly netnsCookie: bigint;
  /** Its agent has a certificate for it: the next one is not ready before it has one, too. */
  readonly hasCertificate: boolean;
  /** Sockets in the pod's namespace, by what they are for. */
  readonly sockets: Readonly<Record<string, readonly number[]>>;
}

/** What two agents must have in common: one takes over from another only where it would do the same. */
export interface HandoverIdentity {
  readonly node: string;
  readonly bpffs: string;
}

/** The agent that serves, as its handover sees it. */
export interface HandoverHost {
  /** Nothing changes in the kernel from now on. Resolves with what is captured; descriptors stay its own. */
  hold(): Promise<readonly HandedPod[]>;
  /** The next one has failed: as before. */
  resume(): void;
  /** The next one serves: resolves when nothing here accepts any more and the admin ports are free. */
  yield(): Promise<void>;
}

export type HandoverErrorCode =
  | 'RUN_DIR_UNSAFE' // others may write in the run folder, or it is not ours
  | 'PEER_REFUSED' // who is at the other end may not be: another user, another node's agent
  | 'PREDECESSOR_SILENT' // the agent that runs does not answer
  | 'NOT_READY' // this agent was not ready to serve in time; the one before it goes on
  | 'TAKEOVER_LOST'; // the agent before us has gone on by itself

/** A takeover that failed. The agent that ran before goes on. */
export class HandoverError extends MeshError<HandoverErrorCode> {}
