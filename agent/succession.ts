import { setTimeout as sleep } from 'node:timers/promises';
import type { Log } from '../mesh/log/index.js';
import type { Capture, CapturedPod } from './capture/index.js';
import {
  type HandedPod,
  HandoverError,
  type HandoverHost,
  HandoverServer,
  hasPredecessor,
  type Takeover,
  takeOver,
} from './handover/index.js';
import type { LocalIdentities } from './identities.js';
import type { Workers } from './workers.js';

const pollMs = 50;
/** From having the predecessor's sockets to being ready in its place; less than it waits itself. */
const readyTimeoutMs = 40_000;

export interface SuccessionOptions {
  readonly runDir: string;
  readonly node: string;
  readonly bpffs: string;
}

export interface SuccessionDeps {
  readonly capture: Capture;
  readonly workers: Workers;
  readonly identities: LocalIdentities;
  readonly log: Log;
  /** What of the controller's configuration is not here yet. */
  readonly pending: () => readonly string[];
  /** The next agent serves: stop accepting, free the admin ports, drain. Resolves when the first two are done. */
  readonly onSucceeded: () => Promise<void>;
}

/** How agents of one node follow one another without a connection lost: agent/handover's two sides, with what this agent has to give and to wait for. */
export class Succession implements HandoverHost {
  readonly #options: SuccessionOptions;
  readonly #deps: SuccessionDeps;
  readonly #server: HandoverServer;
  #takeover: Takeover | null = null;
  readonly #certified = new Set<string>();
  #isStopped = false;

  constructor(options: SuccessionOptions, deps: SuccessionDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#server = new HandoverServer(options, { host: this, log: deps.log });
  }

  /** What the agent that runs here has handed over, or null. Waits for the controller first: until we know all that it knows, it serves alone. */
  async begin(): Promise<readonly HandedPod[] | null> {
    const { log, pending } = this.#deps;
    const { runDir } = this.#options;
    if (!(await hasPredecessor(runDir))) return null;
    log.info({}, 'an agent runs on this node: taking over from it when the controller has told all');
    // If it ends meanwhile, the node needs whoever is there.
    while (pending().length > 0 && (await hasPredecessor(runDir))) await sleep(pollMs);
    this.#takeover = await takeOver(this.#options);
    if (this.#takeover === null) return null;
    const { pods } = this.#takeover;
    for (const { uid, hasCertificate } of pods) if (hasCertificate) this.#certified.add(uid);
    log.info({ pods: pods.length }, 'sockets of the agent that runs are here');
    return pods;
  }

  /** Before workers accept from a pod: its connections go on being served by the predecessor until we have what that has. */
  async ready(pod: CapturedPod): Promise<void> {
    const { identities, workers } = this.#deps;
    const hasContext = () => workers.hasContext(identities.identityOf(pod.pod));
    // A pod that has ended meanwhile gets no certificate: it must not wait any longer than the takeover.
    while (this.#certified.has(pod.pod.uid) && !hasContext() && !this.#isStopped) await sleep(pollMs);
  }

  /** Once every pod is in our hands the predecessor stops accepting. Throws HandoverError (NOT_READY, TAKEOVER_LOST): then this process has to end. */
  async complete(): Promise<void> {
    const { capture, log } = this.#deps;
    const takeover = this.#takeover;
    if (takeover === null) return;
    const untilMs = performance.now() + readyTimeoutMs;
    for (;;) {
      const waiting = capture.status().pods.filter(({ state }) => state === 'waiting' || state === 'absent');
      const late = waiting.filter(({ uid }) => takeover.pods.some((pod) => pod.uid === uid));
      if (late.length === 0 || this.#isStopped) break;
      if (performance.now() > untilMs) {
        const names = late.map(({ namespace, name }) => `${namespace}/${name}`).join(', ');
        throw new HandoverError('NOT_READY', `not ready in time to take over: ${names}`, { pods: names });
      }
      await sleep(pollMs);
    }
    if (this.#isStopped) return;
    await takeover.commit();
    this.#takeover = null;
    this.#certified.clear();
    capture.dropInherited();
    log.info({}, 'the agent before this one stops accepting; this one serves');
  }

  /** From now on the next agent can take over from this one. */
  async serve(): Promise<void> {
    await this.#server.start();
  }

  /** An unfinished takeover is given up: its predecessor goes on. */
  abandon(): void {
    this.#isStopped = true;
    this.#takeover?.abandon();
  }

  /** Nobody takes over from us any more. */
  stop(): void {
    this.#server.stop();
  }

  async hold(): Promise<readonly HandedPod[]> {
    const { capture, identities, workers } = this.#deps;
    const captured = await capture.hold();
    return captured.map(({ pod, netnsCookie, outboundFds, inboundFds, hboneFds }) => ({
      uid: pod.uid,
      netnsCookie,
      hasCertificate: workers.hasContext(identities.identityOf(pod)),
      sockets: { outbound: outboundFds, inbound: inboundFds, hbone: hboneFds },
    }));
  }

  resume(): void {
    const { capture, log } = this.#deps;
    capture.resume().catch((error: unknown) => log.error({ err: error }, 'pods are not as before'));
  }

  async yield(): Promise<void> {
    await this.#deps.onSucceeded();
  }
}
