import { join } from 'node:path';
import { killCgroup } from '../../lab/cgroup.js';
import { environmentOf, imageOf, type PodPlace, type ReadData } from './environment.js';
import { LogFile } from './logs.js';
import { pause, runHandler, watchProbe } from './probes.js';
import { type RunningContainer, startContainer } from './runtime.js';
import type { Sandbox } from './sandbox.js';
import type { Container, KubeletConfig, Pod } from './types.js';
import { PodError } from './types.js';
import type { PodVolumes } from './volumes.js';

/** One of `state` of a container's status. */
export interface ContainerState {
  readonly waiting?: { readonly reason: string; readonly message?: string };
  readonly running?: { readonly startedAt: string };
  readonly terminated?: {
    readonly exitCode: number;
    readonly signal?: number;
    readonly reason: string;
    readonly startedAt: string;
    readonly finishedAt: string;
    readonly containerID: string;
  };
}

export interface ContainerDeps {
  readonly config: KubeletConfig;
  readonly sandbox: Sandbox;
  readonly volumes: PodVolumes;
  readonly place: PodPlace;
  readonly read: ReadData;
  /** The pod as the API server has it now. */
  readonly pod: () => Pod;
  /** Something of the status changed. */
  readonly changed: () => void;
  readonly event: (type: 'Normal' | 'Warning', reason: string, message: string) => void;
}

export interface ContainerOptions {
  readonly spec: Container;
  readonly restart: 'Always' | 'OnFailure' | 'Never';
  /** Ends the restarting; what runs is ended by `stop`. */
  readonly signal: AbortSignal;
}

const BACKOFF_MS = { first: 500, most: 30_000, forgottenAfter: 60_000 } as const;

/** A container of a pod through all its restarts: what its status says, and its log. */
export class PodContainer {
  readonly spec: Container;
  readonly logPath: string;
  state: ContainerState;
  lastState: ContainerState;
  restartCount: number;
  ready: boolean;
  started: boolean;
  #restart: ContainerOptions['restart'];
  #signal: AbortSignal;
  #deps: ContainerDeps;
  #running: RunningContainer | null;
  #log: LogFile | null;
  #id: string;

  constructor({ spec, restart, signal }: ContainerOptions, deps: ContainerDeps) {
    this.spec = spec;
    this.logPath = join(deps.sandbox.folder, 'logs', `${spec.name}.log`);
    this.state = { waiting: { reason: 'PodInitializing' } };
    this.lastState = {};
    this.restartCount = 0;
    this.ready = false;
    this.started = false;
    this.#restart = restart;
    this.#signal = signal;
    this.#deps = deps;
    this.#running = null;
    this.#log = null;
    this.#id = '';
  }

  get running(): RunningContainer | null {
    return this.#running?.running ? this.#running : null;
  }

  get log(): LogFile | null {
    return this.#log;
  }

  /** An entry of containerStatuses. */
  get status(): object {
    const { name, image } = this.spec;
    return {
      name,
      image,
      imageID: this.#id === '' ? '' : `lab://${image}`,
      ...(this.#id === '' ? {} : { containerID: `containerd://${this.#id}` }),
      ready: this.ready,
      started: this.started,
      restartCount: this.restartCount,
      state: this.state,
      lastState: this.lastState,
    };
  }

  /** Runs it, again and again as its restart policy says. Resolves with the last exit code, when it is not started again. */
  async run(): Promise<number> {
    let backoff: number = BACKOFF_MS.first;
    for (;;) {
      const started = performance.now();
      const code = await this.#runOnce();
      if (this.#signal.aborted) return code ?? 137;
      if (code !== null && (this.#restart === 'Never' || (this.#restart === 'OnFailure' && code === 0)))
        return code;
      if (performance.now() - started > BACKOFF_MS.forgottenAfter) backoff = BACKOFF_MS.first;
      if (code !== null) {
        this.lastState = this.state;
        this.#set({
          waiting: {
            reason: 'CrashLoopBackOff',
            message: `back-off ${backoff} ms restarting container ${this.spec.name}`,
          },
        });
      }
      await pause(backoff, this.#signal);
      if (this.#signal.aborted) {
        if (this.lastState.terminated) this.#set(this.lastState);
        return code ?? 137;
      }
      backoff = Math.min(2 * backoff, BACKOFF_MS.most);
      if (code !== null) this.restartCount += 1;
    }
  }

  /** preStop, SIGTERM, and SIGKILL at the end of the grace. Resolves when it is gone. */
  async stop(graceMs: number): Promise<void> {
    const running = this.running;
    if (running === null) return;
    const deadline = performance.now() + graceMs;
    const left = (): number => Math.max(0, deadline - performance.now());
    const preStop = this.spec.lifecycle?.preStop;
    if (preStop && graceMs > 0) {
      const target = { container: this.spec, running, ip: this.#deps.sandbox.ips[0]! };
      const hook = runHandler(preStop, target, left());
      const failed = await Promise.race([hook, pause(left(), AbortSignal.timeout(left() + 1000))]);
      if (failed !== undefined) this.#deps.event('Warning', 'FailedPreStopHook', failed);
    }
    running.signal('SIGTERM');
    const timer = setTimeout(() => running.signal('SIGKILL'), left());
    await running.ended;
    clearTimeout(timer);
  }

  /** Its exit code; null where it could not even be started. */
  async #runOnce(): Promise<number | null> {
    const { config, sandbox, volumes, place, read, pod, event } = this.#deps;
    const over = new AbortController();
    try {
      const image = imageOf(config.images, this.spec.image);
      const env = await environmentOf(pod(), this.spec, image, place, read);
      this.#log = new LogFile(this.logPath);
      const running = await startContainer({
        config,
        pod: pod(),
        container: this.spec,
        sandbox,
        volumes,
        env,
        log: this.#log,
      });
      this.#running = running;
      this.#id = running.id;
      this.started = this.spec.startupProbe === undefined;
      this.ready = this.started && this.spec.readinessProbe === undefined;
      this.#set({ running: { startedAt: running.startedAt } });
      event('Normal', 'Started', `Container ${this.spec.name} started`);
      void this.#probe(running, over.signal);
      const { code, signal } = await running.ended;
      killCgroup(running.cgroup); // What it left behind ends with it.
      this.#ended(running, code, signal);
      return code;
    } catch (thrown) {
      const reason = thrown instanceof PodError ? thrown.reason : 'RunContainerError';
      this.#set({ waiting: { reason, message: (thrown as Error).message } });
      event('Warning', 'Failed', (thrown as Error).message);
      return null;
    } finally {
      over.abort();
    }
  }

  #ended(running: RunningContainer, exitCode: number, signal: number): void {
    this.ready = false;
    this.started = false;
    this.#set({
      terminated: {
        exitCode,
        ...(signal === 0 ? {} : { signal }),
        reason: exitCode === 0 ? 'Completed' : 'Error',
        startedAt: running.startedAt,
        finishedAt: new Date().toISOString(),
        containerID: `containerd://${running.id}`,
      },
    });
  }

  /** postStart, then the startup probe, then the other two at once. */
  async #probe(running: RunningContainer, signal: AbortSignal): Promise<void> {
    const target = { container: this.spec, running, ip: this.#deps.sandbox.ips[0]! };
    const { startupProbe, readinessProbe, livenessProbe, lifecycle } = this.spec;
    if (lifecycle?.postStart) {
      const failed = await runHandler(lifecycle.postStart, target, 60_000);
      if (failed !== undefined && !signal.aborted) this.#fail(running, 'FailedPostStartHook', failed);
    }
    if (startupProbe) {
      const passed = new AbortController();
      await watchProbe(startupProbe, target, AbortSignal.any([signal, passed.signal]), (good, reason) => {
        if (good) passed.abort();
        else this.#fail(running, 'Unhealthy', `Startup probe failed: ${reason}`);
      });
      if (signal.aborted) return;
      this.started = true;
      this.ready = readinessProbe === undefined;
      this.#deps.changed();
    }
    if (livenessProbe) {
      void watchProbe(livenessProbe, target, signal, (good, reason) => {
        if (!good) this.#fail(running, 'Unhealthy', `Liveness probe failed: ${reason}`);
      });
    }
    if (!readinessProbe) return;
    await watchProbe(readinessProbe, target, signal, (good, reason) => {
      if (this.ready === good) return;
      this.ready = good;
      this.#deps.changed();
      if (!good) this.#deps.event('Warning', 'Unhealthy', `Readiness probe failed: ${reason}`);
    });
  }

  /** Ends the container so that it is started again. */
  #fail(running: RunningContainer, reason: string, message: string): void {
    this.#deps.event('Warning', reason, message);
    running.signal('SIGTERM');
    const grace = (this.#deps.pod().spec.terminationGracePeriodSeconds ?? 30) * 1000;
    const timer = setTimeout(() => running.signal('SIGKILL'), grace);
    running.ended.then(
      () => clearTimeout(timer),
      () => undefined,
    );
  }

  #set(state: ContainerState): void {
    this.state = state;
    this.#deps.changed();
  }
}
