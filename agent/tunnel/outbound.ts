import { formatSocketAddress, isIpv6, type SocketAddress } from '../../mesh/common/address.js';
import type { NextHop } from '../../mesh/hbone/index.js';
import type { AcceptHandler, Connection, ConnectionHandler } from '../../mesh/io/index.js';
import type { Service, Workload } from '../../mesh/store/index.js';
import type { ConnectionInfo } from '../../mesh/telemetry/index.js';
import { type HboneRoute, identityTextOf, type Route, route } from '../routing/index.js';
import { connectTimeoutMs, party, type TunnelContext } from './context.js';
import type { WorkerPod } from './messages.js';
import { OutboundTunnel } from './outbound-tunnel.js';
import { TcpRelay } from './tcp-relay.js';
import type { Waiting } from './waiting-room.js';

type TcpRoute = Extract<Route, { kind: 'passthrough' | 'direct' }>;

/** Accepts what BPF redirected to a pod's 15001 and sends each connection where the store says. */
export class OutboundAcceptor implements AcceptHandler {
  readonly #pod: WorkerPod;
  readonly #context: TunnelContext;
  readonly #hops: NextHops;

  constructor(pod: WorkerPod, context: TunnelContext) {
    this.#pod = pod;
    this.#context = context;
    this.#hops = new NextHops(pod);
  }

  onAccepted(app: Connection): ConnectionHandler | null {
    const destination = this.#context.originalDestinations.take(this.#pod.netnsCookie, app.remote);
    if (destination === null) {
      // Somebody dialled 15001 itself, or BPF could not keep the entry (LOST_ORIGINAL): there is no telling where to.
      this.#context.counters.resetNoOriginalDestination++;
      return null;
    }
    const start = new OutboundStart(app, destination, this.#pod, this.#hops, this.#context);
    app.handler = start;
    if (!start.tryStart()) this.#context.waitingRoom.add(start);
    return app.handler;
  }
}

/** A connection until its route is known: it may have to wait for the pod's workload or certificate. */
class OutboundStart implements Waiting, ConnectionHandler {
  readonly podUid: string;
  readonly #app: Connection;
  readonly #destination: SocketAddress;
  readonly #pod: WorkerPod;
  readonly #hops: NextHops;
  readonly #context: TunnelContext;

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
    const source = this.#context.storeView.ownOf(this.#pod);
    if (source === undefined) return false;
    const { store, network } = this.#context;
    const chosen = route(store, { network }, source, this.#destination, Math.random);
    if (chosen.kind === 'hbone' && !this.#context.hasCertificate(identityTextOf(source))) return false;
    this.#follow(chosen, source);
    return true;
  }

  giveUp(): void {
    this.#context.counters.resetNoWorkload++;
    this.#app.reset();
  }

  #follow(chosen: Route, source: Workload): void {
    const context = this.#context;
    switch (chosen.kind) {
      case 'hbone': {
        const { hop, authority } = this.#hops.of(chosen, source, this.#boundSource(chosen.nextHop));
        new OutboundTunnel({ app: this.#app, pod: this.#pod, source, context }, chosen).open(hop, authority);
        return;
      }
      case 'passthrough':
      case 'direct':
        this.#relay(chosen, source);
        return;
      case 'refused':
        context.telemetry.refused(this.#infoOf(source, null, chosen.service, this.#destination), {
          flag: 'CONNECT',
          message: chosen.reason,
        });
        this.#app.reset();
        return;
    }
  }

  #relay(chosen: TcpRoute, source: Workload): void {
    const workload = chosen.kind === 'direct' ? chosen.workload : null;
    const relay = new TcpRelay({
      context: this.#context,
      podUid: this.#pod.uid,
      pod: `${this.#pod.namespace}/${this.#pod.name}`,
      downstream: this.#app,
      info: this.#infoOf(source, workload, chosen.service, chosen.to),
      via: chosen.kind,
    });
    const fromAddress = this.#boundSource(chosen.to);
    relay.dial({
      to: chosen.to,
      netnsFd: this.#pod.netnsFd,
      connectTimeoutMs,
      ...(fromAddress === undefined ? {} : { fromAddress }),
    });
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
  readonly #pod: WorkerPod;
  /** Used last, by the workload to be reached. */
  readonly #last = new WeakMap<Workload, KnownHop>();

  constructor(pod: WorkerPod) {
    this.#pod = pod;
  }

  of(chosen: HboneRoute, source: Workload, fromAddress: string | undefined): KnownHop {
    const sourceIdentity = identityTextOf(source);
    const last = this.#last.get(chosen.workload);
    if (last !== undefined && fits(last, chosen, sourceIdentity, fromAddress)) return last;
    const hop = {
      sourceUid: this.#pod.uid,
      sourceIdentity,
      expectedIdentities: chosen.expectedIdentities,
      address: chosen.nextHop,
      netnsFd: this.#pod.netnsFd,
      ...(fromAddress === undefined ? {} : { fromAddress }),
    };
    const made = { hop, target: chosen.target, authority: formatSocketAddress(chosen.target) };
    this.#last.set(chosen.workload, made);
    return made;
  }
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
    hop.expectedIdentities.length === chosen.expectedIdentities.length &&
    hop.expectedIdentities.every((identity, index) => identity === chosen.expectedIdentities[index])
  );
}

function isSame(a: SocketAddress, b: SocketAddress): boolean {
  return a.port === b.port && a.address === b.address;
}
