import { join } from 'node:path';
import { type ApiClient, ApiError } from '../api.js';
import { PodContainer } from './container.js';
import type { PodPlace, ReadData } from './environment.js';
import { pause } from './probes.js';
import { type AddressPool, Sandbox } from './sandbox.js';
import { podStatus } from './status.js';
import type { Container, KubeletConfig, Pod } from './types.js';
import { PodError } from './types.js';
import { PodVolumes } from './volumes.js';

export interface PodWorkerDeps {
  readonly config: KubeletConfig;
  readonly api: ApiClient;
  readonly addresses: AddressPool;
  /** Says a line to whoever reads the kubelet's log. */
  readonly say: (line: string) => void;
}

/** Between writes of the status, so that what changes together is written together. */
const STATUS_DELAY_MS = 20;
const RETRY_MS = 500;
/** How old volumes may become; kubelet's own is up to a minute. */
const VOLUMES_MS = 5000;

/** One pod, from being bound to the node until it is gone from the API server. */
export class PodWorker {
  pod: Pod;
  readonly containers: PodContainer[];
  readonly initContainers: PodContainer[];
  #deps: PodWorkerDeps;
  #sandbox: Sandbox | null;
  #stopping: AbortController;
  #startTime: string;
  #phase: 'Pending' | 'Running' | 'Succeeded' | 'Failed';
  #initialized: boolean;
  #gone: boolean;
  #written: string;
  #isStale: boolean;
  #writing: Promise<void> | null;
  #ending: Promise<void> | null;
  #lived: Promise<void>;

  constructor(pod: Pod, deps: PodWorkerDeps) {
    this.pod = pod;
    this.containers = [];
    this.initContainers = [];
    this.#deps = deps;
    this.#sandbox = null;
    this.#stopping = new AbortController();
    this.#startTime = new Date().toISOString();
    this.#phase = 'Pending';
    this.#initialized = false;
    this.#gone = false;
    this.#written = '';
    this.#isStale = false;
    this.#writing = null;
    this.#ending = null;
    this.#lived = this.#live();
  }

  get name(): string {
    return `${this.pod.metadata.namespace}/${this.pod.metadata.name}`;
  }

  get sandbox(): Sandbox | null {
    return this.#sandbox;
  }

  container(name: string): PodContainer | undefined {
    return [...this.containers, ...this.initContainers].find(({ spec }) => spec.name === name);
  }

  /** The object changed. */
  update(pod: Pod): void {
    this.pod = pod;
    if (pod.metadata.deletionTimestamp !== undefined)
      this.#end(pod.metadata.deletionGracePeriodSeconds ?? 30);
    else this.#changed();
  }

  /** The object is gone: by force, or because this worker deleted it. Resolves when nothing of the pod is left on the node. */
  async remove(): Promise<void> {
    this.#gone = true;
    this.#end(1);
    await this.#ending;
  }

  async #live(): Promise<void> {
    const { config, addresses } = this.#deps;
    const signal = this.#stopping.signal;
    try {
      const sandbox = await this.#retry('FailedCreatePodSandBox', () =>
        Sandbox.create(config, addresses, this.pod),
      );
      if (sandbox === undefined) return;
      this.#sandbox = sandbox;
      const place = { podIps: sandbox.ips, hostIps: config.ips };
      const volumes = new PodVolumes(
        { folder: join(sandbox.folder, 'volumes'), config },
        { api: this.#deps.api, read: this.#read },
      );
      this.#changed();
      await this.#retry('FailedMount', () => volumes.write(this.pod, place));
      if (signal.aborted) return;
      void this.#refresh(volumes, place);
      this.#makeContainers(sandbox, volumes, place);
      if (!(await this.#initialize())) {
        if (!signal.aborted) this.#phase = 'Failed';
        return;
      }
      this.#initialized = true;
      this.#phase = 'Running';
      const codes = await Promise.all(this.containers.map((container) => container.run()));
      if (!signal.aborted) this.#phase = codes.every((code) => code === 0) ? 'Succeeded' : 'Failed';
    } catch (thrown) {
      this.#deps.say(`${this.name}: ${(thrown as Error).stack}`);
    } finally {
      this.#changed();
    }
    if (this.#phase === 'Succeeded' || this.#phase === 'Failed') {
      this.#stopping.abort();
      await Promise.all(this.initContainers.map((container) => container.stop(2000)));
      await this.#flush();
    }
  }

  #makeContainers(sandbox: Sandbox, volumes: PodVolumes, place: PodPlace): void {
    const { config } = this.#deps;
    const restart = this.pod.spec.restartPolicy ?? 'Always';
    const signal = this.#stopping.signal;
    const deps = {
      ...{ config, sandbox, volumes, place, read: this.#read },
      pod: () => this.pod,
      changed: () => this.#changed(),
      event: (type: 'Normal' | 'Warning', reason: string, message: string) =>
        this.#event(type, reason, message),
    };
    const make = (spec: Container, policy: typeof restart): PodContainer =>
      new PodContainer({ spec, restart: policy, signal }, deps);
    for (const spec of this.pod.spec.initContainers ?? []) {
      this.initContainers.push(
        make(spec, spec.restartPolicy ?? (restart === 'Never' ? 'Never' : 'OnFailure')),
      );
    }
    for (const spec of this.pod.spec.containers) this.containers.push(make(spec, restart));
  }

  /** Init containers one after the other; a sidecar runs on once it has started. False: one failed for good, or the pod ends. */
  async #initialize(): Promise<boolean> {
    for (const container of this.initContainers) {
      const ran = container.run();
      if (container.spec.restartPolicy === 'Always') {
        while (!container.started && !this.#stopping.signal.aborted) await pause(50, this.#stopping.signal);
      } else if ((await ran) !== 0) return false;
      if (this.#stopping.signal.aborted) return false;
    }
    return true;
  }

  /** ConfigMaps, Secrets and tokens change while the pod runs. */
  async #refresh(volumes: PodVolumes, place: PodPlace): Promise<void> {
    const signal = this.#stopping.signal;
    for (;;) {
      await pause(VOLUMES_MS, signal);
      if (signal.aborted) return;
      await volumes
        .write(this.pod, place)
        .catch((error: Error) => this.#deps.say(`${this.name}: ${error.message}`));
    }
  }

  /** Tries until it works or the pod ends; then undefined. */
  async #retry<T>(reason: string, attempt: () => Promise<T>): Promise<T | undefined> {
    const signal = this.#stopping.signal;
    let told = '';
    while (!signal.aborted) {
      try {
        return await attempt();
      } catch (thrown) {
        const { message } = thrown as Error;
        if (message !== told)
          this.#event('Warning', thrown instanceof PodError ? thrown.reason : reason, message);
        told = message;
        await pause(RETRY_MS, signal);
      }
    }
    return undefined;
  }

  #end(graceSeconds: number): void {
    this.#ending ??= this.#shutDown(graceSeconds).catch((error: Error) =>
      this.#deps.say(`${this.name}: ${error.stack}`),
    );
  }

  async #shutDown(graceSeconds: number): Promise<void> {
    this.#stopping.abort();
    this.#changed();
    const started = performance.now();
    await Promise.all(this.containers.map((container) => container.stop(graceSeconds * 1000)));
    // Sidecars last, the last one first.
    for (const container of this.initContainers.toReversed()) {
      await container.stop(Math.max(0, graceSeconds * 1000 - (performance.now() - started)));
    }
    await this.#lived;
    if (this.#phase === 'Pending' || this.#phase === 'Running') {
      const bad = this.containers.some(({ state }) => (state.terminated?.exitCode ?? 1) !== 0);
      this.#phase = bad ? 'Failed' : 'Succeeded';
    }
    await this.#flush();
    await this.#sandbox?.remove();
    if (!this.#gone) await this.#deleteObject();
  }

  async #deleteObject(): Promise<void> {
    const { namespace, name, uid } = this.pod.metadata;
    const options = {
      apiVersion: 'v1',
      kind: 'DeleteOptions',
      gracePeriodSeconds: 0,
      preconditions: { uid },
    };
    while (!this.#gone) {
      try {
        await this.#deps.api.delete(`/api/v1/namespaces/${namespace}/pods/${name}`, options);
        return;
      } catch (thrown) {
        if (thrown instanceof ApiError && (thrown.status === 404 || thrown.status === 409)) return;
        await pause(RETRY_MS, AbortSignal.timeout(60_000));
      }
    }
  }

  #changed(): void {
    this.#isStale = true;
    this.#writing ??= this.#writeChanges();
  }

  /** One write after the other: of two on their way at once the API server may take the older one last, and that status would stay. */
  async #writeChanges(): Promise<void> {
    while (this.#isStale) {
      await pause(STATUS_DELAY_MS, AbortSignal.timeout(1000));
      this.#isStale = false;
      await this.#write();
    }
    this.#writing = null;
  }

  async #flush(): Promise<void> {
    this.#changed();
    await this.#writing;
  }

  /** Writes the status if it is another than the one written last; tries again where the API server is away. */
  async #write(): Promise<void> {
    if (this.#gone) return;
    const { namespace, name, uid } = this.pod.metadata;
    const status = podStatus({
      pod: this.pod,
      phase: this.#phase,
      startTime: this.#startTime,
      hostIps: this.#deps.config.ips,
      podIps: this.#sandbox?.ips ?? [],
      initialized: this.#initialized,
      containers: this.containers,
      initContainers: this.initContainers,
    });
    const text = JSON.stringify(status);
    if (text === this.#written) return;
    this.#written = text;
    try {
      const path = `/api/v1/namespaces/${namespace}/pods/${name}/status`;
      await this.#deps.api.patch(
        path,
        { metadata: { uid }, status },
        'application/strategic-merge-patch+json',
      );
    } catch (thrown) {
      if (thrown instanceof ApiError && thrown.status === 404) return;
      this.#deps.say(`${this.name}: ${(thrown as Error).message}`);
      this.#written = '';
      setTimeout(() => this.#changed(), RETRY_MS);
    }
  }

  readonly #read: ReadData = async (kind, name) => {
    try {
      const path = `/api/v1/namespaces/${this.pod.metadata.namespace}/${kind}/${name}`;
      const found = await this.#deps.api.get<{
        data?: Record<string, string>;
        binaryData?: Record<string, string>;
      }>(path);
      const encoding = kind === 'secrets' ? 'base64' : 'utf8';
      const data = new Map(
        Object.entries(found.data ?? {}).map(([key, value]) => [key, Buffer.from(value, encoding)]),
      );
      for (const [key, value] of Object.entries(found.binaryData ?? {}))
        data.set(key, Buffer.from(value, 'base64'));
      return data;
    } catch (thrown) {
      if (thrown instanceof ApiError && thrown.status === 404) return null;
      throw thrown;
    }
  };

  #event(type: 'Normal' | 'Warning', reason: string, message: string): void {
    const { namespace, name, uid, resourceVersion } = this.pod.metadata;
    const { api, config, say } = this.#deps;
    const now = new Date().toISOString();
    const event = {
      apiVersion: 'v1',
      kind: 'Event',
      metadata: { name: `${name}.${process.hrtime.bigint().toString(16)}`, namespace },
      involvedObject: { apiVersion: 'v1', kind: 'Pod', name, namespace, uid, resourceVersion },
      ...{ type, reason, message, count: 1, firstTimestamp: now, lastTimestamp: now },
      source: { component: 'kubelet', host: config.node },
    };
    api
      .post(`/api/v1/namespaces/${namespace}/events`, event)
      .catch((error: Error) => say(`event ${reason}: ${error.message}`));
  }
}
