import { isIpv6, type SocketAddress } from '../../mesh/common/address.js';
import type { AcceptHandler, Connection, ConnectionHandler } from '../../mesh/io/index.js';
import { identityOf, type Service, type Workload } from '../../mesh/store/index.js';
import type { ConnectionInfo } from '../../mesh/telemetry/index.js';
import { connectTimeoutMs, party, type TunnelContext, workloadOf } from './context.js';
import type { WorkerPod } from './messages.js';
import { OutboundTunnel } from './outbound-tunnel.js';
import { type HboneRoute, type Route, route } from './route.js';
import { TcpRelay } from './tcp-relay.js';
import type { Waiting } from './waiting-room.js';

type TcpRoute = Extract<Route, { kind: 'passthrough' | 'direct' }>;

/** Accepts what BPF redirected to a pod's 15001 and sends each connection where the store says. */
export class OutboundAcceptor implements AcceptHandler {
  readonly #pod: WorkerPod;
  readonly #context: TunnelContext;

  constructor(pod: WorkerPod, context: TunnelContext) {
    this.#pod = pod;
    this.#context = context;
  }

  onAccepted(app: Connection): ConnectionHandler | null {
    const destination = this.#context.originalDestinations.take(this.#pod.netnsCookie, app.remote);
    if (destination === null) {
      // Somebody dialled 15001 itself, or BPF could not keep the entry (LOST_ORIGINAL): there is no telling where to.
      this.#context.counters.resetNoOriginalDestination++;
      return null;
    }
    const start = new OutboundStart(app, destination, this.#pod, this.#context);
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
  readonly #context: TunnelContext;

  constructor(app: Connection, destination: SocketAddress, pod: WorkerPod, context: TunnelContext) {
    this.podUid = pod.uid;
    this.#app = app;
    this.#destination = destination;
    this.#pod = pod;
    this.#context = context;
  }

  tryStart(): boolean {
    if (!this.#app.isOpen) return true;
    const source = workloadOf(this.#context.store, this.#pod);
    if (source === undefined) return false;
    const { store, network } = this.#context;
    const chosen = route(store, { network }, source, this.#destination, Math.random);
    if (chosen.kind === 'hbone' && !this.#context.hasCertificate(identityOf(source))) return false;
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
      case 'hbone':
        new OutboundTunnel({ app: this.#app, pod: this.#pod, source, context }, chosen).open(
          this.#nextHop(chosen, source),
        );
        return;
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
    relay.dial({
      to: chosen.to,
      netnsFd: this.#pod.netnsFd,
      connectTimeoutMs,
      ...this.#boundSource(chosen.to),
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

  #nextHop(chosen: HboneRoute, source: Workload) {
    return {
      sourceUid: this.#pod.uid,
      sourceIdentity: identityOf(source),
      expectedIdentities: chosen.expectedIdentities,
      address: chosen.nextHop,
      netnsFd: this.#pod.netnsFd,
      ...this.#boundSource(chosen.nextHop),
    };
  }

  /** BPF redirects to the pod's own address, so an unbound client shows that one; another is one that the application has bound. */
  #boundSource(to: SocketAddress): { fromAddress?: string } {
    const { local, remote } = this.#app;
    if (remote.address === local.address || isIpv6(remote.address) !== isIpv6(to.address)) return {};
    return { fromAddress: remote.address };
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
