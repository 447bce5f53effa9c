import { formatSocketAddress, isIpv6, type SocketAddress } from '../../mesh/common/address.js';
import type { NextHop, Undelivered } from '../../mesh/hbone/index.js';
import type { AcceptHandler, Connection, ConnectionHandler } from '../../mesh/io/index.js';
import type { Service, Workload } from '../../mesh/store/index.js';
import type { ConnectionInfo } from '../../mesh/telemetry/index.js';
import type { DirectRoute, GatewayRoute, HboneRoute, Route, WorkloadTexts } from '../routing/index.js';
import type { Waiting } from './connections/waiting-room.js';
import { connectTimeoutMs, isOurs, party, type TunnelContext } from './context.js';
import type { WorkerPod } from './messages.js';
import { OutboundTunnel, type Redial } from './outbound-tunnel.js';
import { TcpRelay } from './tcp-relay.js';

type TcpRoute = Extract<Route, { kind: 'passthrough' | 'direct' }>;

/** Endpoints that one connection may try. */
const maxAttempts = 3;

/** Accepts what BPF redirected to a pod's 15001 and sends each connection where the store says. */
export class OutboundAcceptor implements AcceptHandler {
  readonly #pod: WorkerPod;
  readonly #context: TunnelContext;
  readonly #hops: NextHops;

  constructor(pod: WorkerPod, context: TunnelContext) {
    this.#pod = pod;
    this.#context = context;
    this.#hops = new NextHops(pod, context.texts);
  }

  /** The pod is released: its namespace is not dialled from any more, also not by connections that are on their way to another endpoint. */
  stop(): void {
    this.#hops.isStopped = true;
  }

  onAccepted(app: Connection): ConnectionHandler | null {
    const destination = this.#context.originalDestinations.take(
      this.#pod.netnsCookie,
      app.remote,
      app.local.port,
    );
    if (destination === null) {
      // Somebody dialled the listener itself, or BPF could not keep the entry (LOST_ORIGINAL): there is no telling where to.
      this.#context.counters.resetNoOriginalDestination++;
      return null;
    }
    const start = new OutboundStart(app, destination, this.#pod, this.#hops, this.#context);
    app.handler = start;
    if (!start.tryStart()) this.#context.waitingRoom.add(start);
    return app.handler;
  }
}

/** What a failed attempt had been given by the application: nothing. */
const nothingSent: Undelivered = { bytes: null, ended: false };

/**
 * A connection until it stands: it may have to wait for the pod's workload, a certificate or the addresses of a hostname, and goes on to another
 * endpoint where one could not be connected to.
 */
class OutboundStart implements Waiting, ConnectionHandler, Redial {
  readonly podUid: string;
  readonly #app: Connection;
  readonly #destination: SocketAddress;
  readonly #pod: WorkerPod;
  readonly #hops: NextHops;
  readonly #context: TunnelContext;
  /** Attempts that have failed, */
  #failures = 0;
  /** and what the router is not to choose again. */
  #tried: readonly string[] = [];
  /** Attempts are over then; set by the first. */
  #deadlineMs = 0;
  #undelivered: Undelivered | null = null;
  #unresolved: Extract<Route, { kind: 'unresolved' }> | null = null;

  constructor(
    app: Connection,
    destination: SocketAddress,
    pod: WorkerPod,
    hops: NextHops,
    context: TunnelContext,
  ) {
    this.podUid = pod.uid;
    this.#app = app;
    this.#destination = destination;
    this.#pod = pod;
    this.#hops = hops;
    this.#context = context;
  }

  tryStart(): boolean {
    if (!this.#app.isOpen) return true;
    if (this.#hops.isStopped) return false;
    const source = this.#context.storeView.ownOf(this.#pod);
    if (source === undefined) return false;
    const chosen = this.#route(source);
    if (!this.#isReady(chosen, source)) return false;
    this.#follow(chosen, source);
    return true;
  }

  giveUp(): void {
    const { storeView, counters } = this.#context;
    const source = storeView.ownOf(this.#pod);
    if (source !== undefined && this.#unresolved !== null) {
      const { hostname, service } = this.#unresolved;
      this.#refuse(source, service, `the addresses of ${hostname} did not come in time`);
      return;
    }
    if (source !== undefined) {
      const identity = this.#context.texts.identityOf(source);
      const message = `no valid certificate for ${identity}: the CA gave none in time, and the last one, if any, has expired`;
      this.#refuse(source, null, message, 'IDENTITY_ERROR');
      return;
    }
    counters.resetNoWorkload++;
    this.#app.reset();
  }

  attemptFailed(failed: DirectRoute | HboneRoute, undelivered: Undelivered | null): boolean {
    const { router, storeView, reactor, counters, waitingRoom } = this.#context;
    const { endpoint } = failed;
    if (endpoint === null || this.#hops.isStopped) return false;
    router.failed(endpoint);
    const isLast = ++this.#failures >= maxAttempts || reactor.nowMs >= this.#deadlineMs;
    const source = storeView.ownOf(this.#pod);
    if (undelivered === null || isLast || source === undefined || !this.#app.isOpen) return false;
    const gateway = failed.kind === 'hbone' ? failed.gateway : null;
    this.#tried = [...this.#tried, endpoint.key, ...(gateway === null ? [] : [gateway.key])];
    const next = this.#route(source);
    // Nobody else: what is told is why this one failed.
    if (next.kind === 'refused' || next.kind === 'passthrough') return false;
    const isEmpty = undelivered.bytes === null && !undelivered.ended;
    if (!isEmpty && next.kind !== 'hbone') return false;
    counters.retriedConnects++;
    this.#undelivered = isEmpty ? null : undelivered;
    this.#app.handler = this;
    if (this.#isReady(next, source)) this.#follow(next, source);
    else waitingRoom.add(this);
    return true;
  }

  #route(source: Workload): Route {
    const client = this.#app.remote.address;
    return this.#context.router.route({ source, destination: this.#destination, client, tried: this.#tried });
  }

  #isReady(chosen: Route, source: Workload): boolean {
    this.#unresolved = chosen.kind === 'unresolved' ? chosen : null;
    if (chosen.kind === 'unresolved') return false;
    return chosen.kind !== 'hbone' || this.#context.hasCertificate(this.#context.texts.identityOf(source));
  }

  #follow(chosen: Route, source: Workload): void {
    switch (chosen.kind) {
      case 'hbone':
        this.#tunnel(chosen, source);
        return;
      case 'passthrough':
      case 'direct':
        this.#relay(chosen, source);
        return;
      case 'refused':
        this.#refuse(source, chosen.service, chosen.reason);
        return;
      case 'unresolved':
        throw new Error('a route that is not known yet cannot be followed');
    }
  }

  #tunnel(chosen: HboneRoute, source: Workload): void {
    const { hop, authority } = this.#hops.of(chosen, source, this.#boundSource(chosen.nextHop));
    const point = { app: this.#app, pod: this.#pod, source, context: this.#context };
    const tunnel = new OutboundTunnel(point, chosen, this);
    tunnel.open(hop, authority, this.#attemptMs(chosen), this.#undelivered);
  }

  #relay(chosen: TcpRoute, source: Workload): void {
    const { router } = this.#context;
    const [workload, endpoint] = chosen.kind === 'direct' ? [chosen.workload, chosen.endpoint] : [null, null];
    if (endpoint !== null) router.joined(endpoint);
    const relay = new TcpRelay({
      context: this.#context,
      podUid: this.#pod.uid,
      pod: `${this.#pod.namespace}/${this.#pod.name}`,
      downstream: this.#app,
      info: this.#infoOf(source, workload, chosen.service, chosen.to),
      via: chosen.kind,
      onConnected: () => endpoint !== null && router.connected(endpoint),
      maxAgeMs: chosen.service?.trafficPolicy?.maxConnectionAgeMs ?? 0,
      onDialFailed: ({ code }) =>
        chosen.kind === 'direct' && !isOurs(code) && this.attemptFailed(chosen, nothingSent),
      onOver: () => endpoint !== null && router.left(endpoint),
    });
    const fromAddress = this.#boundSource(chosen.to);
    relay.dial({
      to: chosen.to,
      netnsFd: this.#pod.netnsFd,
      connectTimeoutMs: this.#attemptMs(chosen),
      ...(fromAddress === undefined ? {} : { fromAddress }),
    });
  }

  /** How long this attempt may take: those that may follow it get as much. */
  #attemptMs(chosen: TcpRoute | HboneRoute): number {
    const { nowMs } = this.#context.reactor;
    if (this.#deadlineMs === 0)
      this.#deadlineMs = nowMs + (chosen.service?.trafficPolicy?.connectTimeoutMs || connectTimeoutMs);
    const endpoint = chosen.kind === 'passthrough' ? null : chosen.endpoint;
    const left = maxAttempts - this.#failures;
    const others = endpoint === null ? 0 : endpoint.set.endpoints.length - this.#failures - 1;
    return Math.max(1, (this.#deadlineMs - nowMs) / Math.max(1, Math.min(left, others + 1)));
  }

  #refuse(
    source: Workload,
    service: Service | null,
    message: string,
    flag: 'CONNECT' | 'IDENTITY_ERROR' = 'CONNECT',
  ): void {
    const info = this.#infoOf(source, null, service, this.#destination);
    this.#context.telemetry.refused(info, { flag, message });
    this.#app.reset();
  }

  #infoOf(
    source: Workload,
    workload: Workload | null,
    service: Service | null,
    to: SocketAddress,
  ): ConnectionInfo {
    return {
      reporter: 'source',
      source: party(source, null),
      destination: party(workload, null),
      service,
      mutualTls: false,
      sourceAddress: this.#app.remote,
      destinationAddress: to,
      hboneAddress: null,
    };
  }

  /** BPF redirects to the pod's own address, so an unbound client shows that one; another is one that the application has bound. */
  #boundSource(to: SocketAddress): string | undefined {
    const { local, remote } = this.#app;
    const isOwn = remote.address === local.address;
    return isOwn || isIpv6(remote.address) !== isIpv6(to.address) ? undefined : remote.address;
  }

  onConnected(): void {}

  onReadable(app: Connection): void {
    app.pauseReading();
  }

  onDrained(): void {}

  onClosed(): void {
    this.#context.waitingRoom.remove(this);
  }
}

interface KnownHop {
  readonly hop: NextHop;
  readonly target: SocketAddress;
  readonly authority: string;
}

/**
 * The next hops of one pod, each made once: connections to one workload share the object, so that its key in the pool and the text of the
 * authority are not made and hashed for each of them (3 us).
 */
class NextHops {
  /** Nothing is dialled from the pod any more. */
  isStopped = false;
  readonly #pod: WorkerPod;
  readonly #texts: WorkloadTexts;
  /** Used last, by the workload to be reached. */
  readonly #last = new WeakMap<Workload, KnownHop>();

  constructor(pod: WorkerPod, texts: WorkloadTexts) {
    this.#pod = pod;
    this.#texts = texts;
  }

  of(chosen: HboneRoute, source: Workload, fromAddress: string | undefined): KnownHop {
    const sourceIdentity = this.#texts.identityOf(source);
    const last = this.#last.get(chosen.workload);
    if (last !== undefined && fits(last, chosen, sourceIdentity, fromAddress)) return last;
    const { nextHop, target, gateway, expectedIdentities } = chosen;
    const direct: NextHop = {
      sourceUid: this.#pod.uid,
      sourceIdentity,
      expectedIdentities,
      address: nextHop,
      netnsFd: this.#pod.netnsFd,
      ...(fromAddress === undefined ? {} : { fromAddress }),
    };
    const authority = gateway?.authority ?? formatSocketAddress(target);
    const made = { hop: gateway === null ? direct : throughGateway(direct, gateway), target, authority };
    this.#last.set(chosen.workload, made);
    return made;
  }
}

function throughGateway(hop: NextHop, { expectedIdentities, authority }: GatewayRoute): NextHop {
  return { ...hop, through: { hop: { ...hop, expectedIdentities }, authority } };
}

function fits(
  { hop, target }: KnownHop,
  chosen: HboneRoute,
  sourceIdentity: string,
  fromAddress: string | undefined,
): boolean {
  return (
    hop.sourceIdentity === sourceIdentity &&
    hop.fromAddress === fromAddress &&
    isSame(hop.address, chosen.nextHop) &&
    isSame(target, chosen.target) &&
    hop.through?.authority === chosen.gateway?.authority &&
    areSame(hop.expectedIdentities, chosen.expectedIdentities) &&
    areSame(hop.through?.hop.expectedIdentities ?? [], chosen.gateway?.expectedIdentities ?? [])
  );
}

function areSame(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((identity, index) => identity === b[index]);
}

function isSame(a: SocketAddress, b: SocketAddress): boolean {
  return a.port === b.port && a.address === b.address;
}
