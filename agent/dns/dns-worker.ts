/** All that the DNS thread does: a resolver and listeners for each captured pod, on the thread's own copy of the store. */
import { messageOf } from '../../mesh/common/errors.js';
import { NamespaceSockets } from '../../mesh/io/index.js';
import { LOG_LEVELS, type Log } from '../../mesh/log/index.js';
import { createStore, type Store } from '../../mesh/store/index.js';
import { OriginalDestinationMap } from '../capture/index.js';
import { InFlight } from './in-flight.js';
import { dnsPort, PodListeners } from './listeners.js';
import type { DnsPod, DnsWorkerData, FromDns, ToDns } from './messages.js';
import { DnsCells, DnsMetrics, type DnsSource } from './metrics.js';
import { Names } from './names.js';
import { PodServers } from './pod-servers.js';
import { PodResolver } from './resolver.js';
import type { DnsError } from './types.js';
import { Upstream } from './upstream.js';

export const dnsDefaults = {
  upstream: { timeoutMs: 4_500, tryTimeoutMs: 1_500 },
  inFlight: { maxPerPod: 256, max: 4_096 },
  cache: { maxEntries: 1_000, maxBytes: 512 << 10, maxTtlSeconds: 300 },
} as const;

const refreshMs = 5_000;
const reportMs = 1_000;
const failureLogMs = 10_000;

interface ServedPod {
  readonly pod: DnsPod;
  readonly servers: PodServers;
  readonly resolver: PodResolver;
  readonly listeners: PodListeners;
}

export interface DnsWorkerDeps {
  readonly post: (message: FromDns) => void;
  readonly log: Log;
  readonly nowMs: () => number;
}

export class DnsWorker {
  readonly #data: DnsWorkerData;
  readonly #deps: DnsWorkerDeps;
  readonly #store: Store = createStore();
  readonly #sockets = new NamespaceSockets();
  readonly #names: Names;
  readonly #upstream: Upstream;
  readonly #inFlight = new InFlight(dnsDefaults.inFlight);
  readonly #cells = new DnsCells();
  readonly #pods = new Map<string, ServedPod>();
  readonly #failureLoggedMs = new Map<string, number>();

  constructor(data: DnsWorkerData, deps: DnsWorkerDeps) {
    this.#data = data;
    this.#deps = deps;
    this.#names = new Names(data, { store: this.#store, random: Math.random });
    this.#upstream = new Upstream(dnsDefaults.upstream, { sockets: this.#sockets, nowMs: deps.nowMs });
    setInterval(() => this.#refresh(), refreshMs);
    setInterval(() => this.#report(), reportMs);
  }

  onMessage(message: ToDns): void {
    switch (message.kind) {
      case 'store':
        this.#store.apply(message.update);
        return;
      case 'pod':
        this.#deps.post({ kind: 'opened', uid: message.pod.uid, failure: this.#tryOpen(message) });
        return;
      case 'release':
        this.#close(message.uid);
        this.#deps.post({ kind: 'released', uid: message.uid });
        return;
      case 'log-level':
        if (LOG_LEVELS.includes(message.level)) this.#deps.log.level = message.level;
    }
  }

  /** Empty, or why not. */
  #tryOpen(message: ToDns & { kind: 'pod' }): string {
    try {
      this.#close(message.pod.uid);
      this.#open(message);
      return '';
    } catch (error) {
      return messageOf(error);
    }
  }

  #open({ pod, handles }: ToDns & { kind: 'pod' }): void {
    const originals = new OriginalDestinationMap({ handles });
    const servers = this.#serversOf(pod);
    const resolver = this.#resolverOf(pod, servers);
    const listeners = new PodListeners(pod, {
      sockets: this.#sockets,
      isRedirected: (address, port) => originals.take(pod.netnsCookie, { address, port }, dnsPort) !== null,
      handle: (bytes, transport, respond) => resolver.handle(bytes, transport, respond),
      onError: (error) => this.#deps.log.warn({ uid: pod.uid, err: error }, 'a socket for names failed'),
    });
    this.#pods.set(pod.uid, { pod, servers, resolver, listeners });
    servers.refresh();
  }

  #close(uid: string): void {
    this.#pods.get(uid)?.listeners.close();
    this.#pods.delete(uid);
    this.#failureLoggedMs.delete(uid);
  }

  #serversOf(pod: DnsPod): PodServers {
    const { uid, name, namespace } = pod;
    return new PodServers(
      { netnsFd: pod.netnsFd, pid: pod.pid, ownAddresses: pod.addresses },
      {
        sockets: this.#sockets,
        onChange: (servers) => {
          this.#deps.log.info({ uid, pod: name, namespace, servers }, 'resolvers of a pod');
          this.#pods.get(uid)?.resolver.forget();
        },
        onFailure: (reason) =>
          this.#deps.log.warn({ uid, pod: name, namespace, reason }, 'no resolvers from a pod: resolv.conf'),
      },
    );
  }

  #resolverOf(pod: DnsPod, servers: PodServers): PodResolver {
    const { uid, namespace, netnsFd } = pod;
    return new PodResolver(
      { uid, client: { namespace, network: this.#data.network }, cache: dnsDefaults.cache },
      {
        names: this.#names,
        upstream: this.#upstream,
        target: () => ({ netnsFd, servers: this.#pods.has(uid) ? servers.servers : [] }),
        inFlight: this.#inFlight,
        metrics: new DnsMetrics({ cells: this.#cells, source: () => this.#sourceOf(pod) }),
        nowMs: this.#deps.nowMs,
        onFailure: (error) => this.#noteFailure(pod, error),
      },
    );
  }

  #sourceOf({ namespace, name, serviceAccount }: DnsPod): DnsSource {
    const workload = this.#store.workloadOfPod(namespace, name, serviceAccount);
    return {
      canonicalService: workload?.canonicalName ?? '',
      canonicalRevision: workload?.canonicalRevision ?? '',
    };
  }

  /** A line for a pod every now and then: a pod that asks in vain must not fill the log. */
  #noteFailure({ uid, name, namespace }: DnsPod, error: DnsError): void {
    const now = this.#deps.nowMs();
    if (now - (this.#failureLoggedMs.get(uid) ?? Number.NEGATIVE_INFINITY) < failureLogMs) return;
    if (this.#pods.has(uid)) this.#failureLoggedMs.set(uid, now);
    const { code, message } = error;
    this.#deps.log.warn({ uid, pod: name, namespace, code, reason: message }, 'a question for a name failed');
  }

  #refresh(): void {
    for (const { servers } of this.#pods.values()) servers.refresh();
  }

  #report(): void {
    const pods = [...this.#pods.values()].map(({ pod, servers, resolver }) => ({
      uid: pod.uid,
      namespace: pod.namespace,
      name: pod.name,
      servers: servers.servers,
      cached: resolver.cached,
    }));
    this.#deps.post({
      kind: 'report',
      report: { cells: this.#cells.all(), inFlight: this.#inFlight.total, pods },
    });
  }
}
