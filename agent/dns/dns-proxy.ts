/** All that answers names: a resolver and listeners for each captured pod, on the main thread and its store. */
import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf } from '../../mesh/common/errors.js';
import { TokenBucket } from '../../mesh/common/token-bucket.js';
import { NamespaceSockets } from '../../mesh/io/index.js';
import type { Log } from '../../mesh/log/index.js';
import type { Store } from '../../mesh/store/index.js';
import type { MetricFamily } from '../../mesh/telemetry/index.js';
import { type CapturedPod, type CaptureHandles, OriginalDestinationMap } from '../capture/index.js';
import { InFlight } from './limits.js';
import { dnsPort, PodListeners, PodSockets } from './listeners.js';
import { DnsCells, DnsMetrics, type DnsSource, dnsMetricFamilies } from './metrics.js';
import { Names } from './names.js';
import { PodServers } from './pod-servers.js';
import { PodResolver } from './resolver.js';
import type { DnsError } from './types.js';
import { Upstream } from './upstream.js';

export const dnsDefaults = {
  upstream: { timeoutMs: 4_500, tryTimeoutMs: 1_500 },
  inFlight: { maxPerPod: 256, max: 4_096 },
  /** Of one pod, over UDP; what is above goes unanswered, as if it had been lost. */
  rate: { perSecond: 5_000, burst: 5_000 },
  cache: { maxEntries: 1_000, maxBytes: 512 << 10, maxTtlSeconds: 300 },
} as const;

const refreshMs = 5_000;
const failureLogMs = 10_000;
const retireMs = 5_000;
const retirePollMs = 5;

export interface DnsProxyOptions {
  /** Of this node. */
  readonly network: string;
  readonly clusterDomain: string;
}

export interface DnsProxyDeps {
  readonly store: Store;
  readonly log: Log;
}

/** For admin. */
export interface DnsPodReport {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  /** Of its resolv.conf, in order. */
  readonly servers: readonly string[];
  readonly cached: number;
}

interface ServedPod {
  readonly captured: CapturedPod;
  readonly servers: PodServers;
  readonly resolver: PodResolver;
  readonly listeners: PodListeners;
  failureLoggedMs: number;
}

export class DnsProxy {
  readonly #options: DnsProxyOptions;
  readonly #store: Store;
  readonly #log: Log;
  readonly #sockets = new NamespaceSockets();
  readonly #names: Names;
  readonly #upstream: Upstream;
  readonly #inFlight = new InFlight(dnsDefaults.inFlight);
  readonly #cells = new DnsCells();
  /** Added, and not served yet. */
  readonly #waiting = new Map<string, { readonly captured: CapturedPod; readonly sockets: PodSockets }>();
  readonly #pods = new Map<string, ServedPod>();
  readonly #refreshing: NodeJS.Timeout;
  #originals: OriginalDestinationMap | null = null;

  constructor(options: DnsProxyOptions, deps: DnsProxyDeps) {
    this.#options = options;
    this.#store = deps.store;
    this.#log = deps.log;
    this.#names = new Names(options, { store: deps.store, random: Math.random });
    this.#upstream = new Upstream(dnsDefaults.upstream, { sockets: this.#sockets, nowMs });
    this.#refreshing = setInterval(() => this.#refresh(), refreshMs).unref();
  }

  /** The pod's questions may come from here on; they wait until `serve`. Throws where its sockets cannot be opened (EADDRINUSE, …). */
  addPod(captured: CapturedPod, handles: CaptureHandles): void {
    const { netnsFd, addresses, pod } = captured;
    this.releasePod(pod.uid);
    // One for all pods: binding the C functions for each would leave some KB behind.
    this.#originals ??= new OriginalDestinationMap({ handles });
    const sockets = new PodSockets({ netnsFd, addresses }, { sockets: this.#sockets });
    this.#waiting.set(pod.uid, { captured, sockets });
  }

  /** Its questions are answered from here on. Nothing happens for a pod that was not added, or has been released. */
  serve(uid: string): void {
    const waiting = this.#waiting.get(uid);
    if (waiting === undefined) return;
    this.#waiting.delete(uid);
    const { captured, sockets } = waiting;
    const { netnsCookie } = captured;
    const servers = this.#serversOf(captured);
    const resolver = this.#resolverOf(captured, servers);
    const listeners = new PodListeners(
      { sockets },
      {
        rate: new TokenBucket(dnsDefaults.rate, { nowMs }),
        isRedirected: (address, port) =>
          this.#originals!.take(netnsCookie, { address, port }, dnsPort) !== null,
        handle: (bytes, transport, respond) => resolver.handle(bytes, transport, respond),
        onError: (error) => this.#log.warn({ uid, err: error }, 'a socket for names failed'),
      },
    );
    this.#pods.set(uid, { captured, servers, resolver, listeners, failureLoggedMs: -failureLogMs });
    servers.refresh();
  }

  /** Nothing of the pod's namespace is used from here on: what is under way has its own descriptors. */
  releasePod(uid: string): void {
    this.#waiting.get(uid)?.sockets.close();
    this.#waiting.delete(uid);
    this.#pods.get(uid)?.listeners.close();
    this.#pods.delete(uid);
  }

  /**
   * The next agent listens beside us: a pod's listeners close at a moment when none of its questions waits for an answer; 5 s at most, which is
   * what resolvers wait.
   */
  async retire(): Promise<void> {
    const untilMs = nowMs() + retireMs;
    while (this.#pods.size > 0 && nowMs() < untilMs) {
      for (const [uid, { listeners }] of [...this.#pods])
        if (listeners.isIdle && this.#inFlight.of(uid) === 0) this.releasePod(uid);
      await sleep(retirePollMs);
    }
    this.close();
  }

  close(): void {
    clearInterval(this.#refreshing);
    for (const uid of [...this.#waiting.keys(), ...this.#pods.keys()]) this.releasePod(uid);
  }

  metrics(): MetricFamily[] {
    return dnsMetricFamilies(this.#cells.all());
  }

  report(): { readonly inFlight: number; readonly pods: readonly DnsPodReport[] } {
    const pods = [...this.#pods.values()].map(({ captured: { pod }, servers, resolver }) => ({
      uid: pod.uid,
      namespace: pod.namespace,
      name: pod.name,
      servers: servers.servers,
      cached: resolver.cached,
    }));
    return { inFlight: this.#inFlight.total, pods };
  }

  #serversOf({ pod, netnsFd, pid, addresses }: CapturedPod): PodServers {
    const { uid, name, namespace } = pod;
    return new PodServers(
      { netnsFd, pid, ownAddresses: addresses },
      {
        sockets: this.#sockets,
        nowMs,
        onChange: (servers) => {
          this.#log.debug({ uid, pod: name, namespace, servers }, 'resolvers of a pod');
          this.#pods.get(uid)?.resolver.forget();
        },
        onFailure: (reason) =>
          this.#log.warn({ uid, pod: name, namespace, reason }, 'no resolvers from a pod: resolv.conf'),
      },
    );
  }

  #resolverOf({ pod, netnsFd }: CapturedPod, servers: PodServers): PodResolver {
    const { uid, namespace } = pod;
    return new PodResolver(
      { uid, client: { namespace, network: this.#options.network }, cache: dnsDefaults.cache },
      {
        names: this.#names,
        upstream: this.#upstream,
        // No further try once the descriptor of its namespace may be another's.
        target: () => ({
          netnsFd,
          servers: servers.current(),
          isThere: () => this.#pods.get(uid)?.servers === servers,
        }),
        inFlight: this.#inFlight,
        metrics: new DnsMetrics({ cells: this.#cells, source: () => this.#sourceOf(pod) }),
        nowMs,
        onFailure: (error) => this.#noteFailure(uid, error),
      },
    );
  }

  #sourceOf({ namespace, name, serviceAccount }: CapturedPod['pod']): DnsSource {
    const workload = this.#store.workloadOfPod(namespace, name, serviceAccount);
    return {
      canonicalService: workload?.canonicalName ?? '',
      canonicalRevision: workload?.canonicalRevision ?? '',
    };
  }

  /** A line for a pod every now and then: a pod that asks in vain must not fill the log. */
  #noteFailure(uid: string, { code, message }: DnsError): void {
    const served = this.#pods.get(uid);
    const now = nowMs();
    if (served === undefined || now - served.failureLoggedMs < failureLogMs) return;
    served.failureLoggedMs = now;
    const { name, namespace } = served.captured.pod;
    this.#log.warn({ uid, pod: name, namespace, code, reason: message }, 'a question for a name failed');
  }

  #refresh(): void {
    for (const [uid, { servers }] of this.#pods) {
      try {
        servers.refresh();
      } catch (error) {
        this.#log.error({ uid, error: messageOf(error) }, 'resolv.conf of a pod');
      }
    }
  }
}

function nowMs(): number {
  return performance.now();
}
