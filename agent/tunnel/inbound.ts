import { isIpv6, type SocketAddress } from '../../mesh/common/address.js';
import { messageOf } from '../../mesh/common/errors.js';
import type { TunnelHandler, TunnelRequest } from '../../mesh/hbone/index.js';
import type { AcceptHandler, Connection, ConnectionHandler } from '../../mesh/io/index.js';
import type { ConnectionFacts, Verdict } from '../../mesh/policy/index.js';
import { serviceKeyOf, type Workload } from '../../mesh/store/index.js';
import type { ConnectionInfo } from '../../mesh/telemetry/index.js';
import type { ApplicationDial } from '../capture/index.js';
import { illegalPorts } from '../routing/index.js';
import { AcceptedTunnel, type AcceptedTunnelParts, PodAcceptor } from './accepted-tunnel.js';
import { type Admission, denialOf } from './connections/policy-guard.js';
import { noHandler, party, type TunnelContext } from './context.js';
import type { WorkerPod } from './messages.js';
import { proxyHeader } from './proxy-header.js';
import { TcpRelay } from './tcp-relay.js';

/** Takes the tunnels that peers open to a pod's 15008: authorises each, dials the application, answers. */
export class InboundAcceptor extends PodAcceptor {
  onTunnel(request: TunnelRequest): TunnelHandler {
    if (this.isStopped) return refused(request, 503);
    const own = this.context.storeView.ownOf(this.pod);
    if (own === undefined) {
      this.context.counters.resetNoWorkload++;
      return refused(request, 503);
    }
    const target = this.#targetOf(request, own);
    if (target === null) return refused(request, 503);
    const application = applicationOf(this.context, own, request, target);
    if (illegalPorts.has(target.port) || illegalPorts.has(application.to.port)) {
      // A service's target port may be anything, and so may an application tunnel's.
      this.context.counters.resetIllegalPort++;
      return refused(request, 503);
    }
    const { guard, telemetry } = this.context;
    const facts = factsOf(request.peerIdentity, request.peer, target);
    const verdict = guard.judge(own, facts);
    const info = infoOf(this.context, request, own, target, verdict);
    if (!verdict.allowed) {
      telemetry.refused(info, denialOf(verdict));
      return refused(request, 401);
    }
    try {
      const admission = guard.admission(this.pod, own, facts);
      return InboundTunnel.dial(this.context, admission, request, info, application);
    } catch (error) {
      // No port to show (NO_SHOWN_PORT): one tunnel's bad luck, not its connection's.
      telemetry.refused(info, { flag: 'CONNECT', message: messageOf(error) });
      return refused(request, 503);
    }
  }

  /** Other addresses are for a pod that takes what is meant for others: its application is told by PROXY, or it is their waypoint (hbone-and-wds.md 1.4). */
  acceptsAddress(address: SocketAddress): boolean {
    const own = this.context.storeView.ownOf(this.pod);
    if (own === undefined) return false;
    if (own.applicationTunnel !== null) return true;
    const { store, network } = this.context;
    const addressed =
      store.serviceByVip(network, address.address, own.namespace) ??
      store.workloadByAddress(network, address.address);
    const waypoint = addressed?.waypoint?.destination;
    return waypoint?.kind === 'hostname'
      ? own.services.has(serviceKeyOf(waypoint.hostname))
      : waypoint !== undefined && own.addresses.includes(waypoint.address);
  }

  /** The pod's own address and the port asked for; of a hostname, the port that the service maps to here. */
  #targetOf(request: TunnelRequest, own: Workload): SocketAddress | null {
    if (request.address !== null) return request.address;
    const { hostname, port } = request.host!;
    for (const [key, ports] of own.services) {
      if (!key.endsWith(`/${hostname}`)) continue;
      const found = ports.find((candidate) => candidate.servicePort === port);
      if (found !== undefined && found.targetPort !== 0)
        return { address: request.local.address, port: found.targetPort };
    }
    return null;
  }
}

/** Where an application takes a tunnel, and what it is told first. */
interface Application {
  readonly to: SocketAddress;
  /** PROXY v2; null: nothing. */
  readonly header: Buffer | null;
}

/** By the workload's application tunnel, if it has one (hbone-and-wds.md 1.8): PROXY goes to a port of the pod's loopback, NONE is another port only. */
function applicationOf(
  context: TunnelContext,
  own: Workload,
  request: TunnelRequest,
  target: SocketAddress,
): Application {
  const tunnel = own.applicationTunnel;
  const port = tunnel?.port || target.port;
  // Whatever address was asked for, it is this pod that takes it: nothing is carried on from here.
  if (tunnel === null || tunnel.protocol === 'none')
    return { to: { address: request.local.address, port }, header: null };
  const address = isIpv6(request.local.address) ? '::1' : '127.0.0.1';
  const source = {
    address: request.peer.address,
    port: request.metadata.forwardedFor?.port ?? request.peer.port,
  };
  const addressed = request.address ?? addressedOf(context, request, target);
  return { to: { address, port }, header: proxyHeader(source, addressed, request.peerIdentity) };
}

/** Of a tunnel to a hostname: a VIP of that service, IPv4 first, with the service's port. */
function addressedOf(
  { store, network }: TunnelContext,
  { host }: TunnelRequest,
  target: SocketAddress,
): SocketAddress {
  const vips = store
    .servicesByHostname(host!.hostname)
    .flatMap((service) => service.vips)
    .filter((vip) => vip.network === network && vip.prefixLength === null)
    .map((vip) => vip.address);
  const address = vips.find((vip) => !isIpv6(vip)) ?? vips[0];
  return address === undefined ? target : { address, port: host!.port };
}

/** One tunnel into a pod's application. */
class InboundTunnel extends AcceptedTunnel {
  readonly #releasePort: () => void;

  static dial(
    context: TunnelContext,
    admission: Admission,
    request: TunnelRequest,
    info: ConnectionInfo,
    { to, header }: Application,
  ): InboundTunnel {
    const wantedPort = request.metadata.forwardedFor?.port ?? 0;
    const { pod } = admission;
    const { options, release } = context.applicationDialer.dial(pod, to, request.peer, wantedPort);
    const app = context.reactor.connect(options, noHandler);
    // Before the first of the caller's bytes, which may come while the dial goes on.
    if (header !== null) app.write(header, 0, header.length);
    return new InboundTunnel(app, { context, admission, request, info, via: 'hbone' }, release);
  }

  constructor(app: Connection, parts: AcceptedTunnelParts, releasePort: () => void) {
    super(app, parts);
    this.#releasePort = releasePort;
  }

  protected over(): void {
    this.#releasePort();
  }
}

/**
 * Takes plain TCP that BPF steered from any port of a pod to 15006: from outside the mesh, or to a pod that peers do not know as
 * enrolled yet. It has no identity: what policies say of such connections decides.
 */
export class PlaintextAcceptor implements AcceptHandler {
  readonly #pod: WorkerPod;
  readonly #context: TunnelContext;

  constructor(pod: WorkerPod, context: TunnelContext) {
    this.#pod = pod;
    this.#context = context;
  }

  onAccepted(downstream: Connection): ConnectionHandler | null {
    const { guard, storeView, counters, telemetry, applicationDialer } = this.#context;
    const target = downstream.local;
    if (illegalPorts.has(target.port)) {
      counters.resetIllegalPort++;
      return null;
    }
    const own = storeView.ownOf(this.#pod);
    const source = storeView.peerAt(downstream.remote);
    if (own === undefined) {
      counters.resetNoWorkload++;
      const info = plaintextInfo(downstream, source, null, null);
      telemetry.refused(info, { flag: 'DENY', message: 'workload not known' });
      return null;
    }
    const facts = factsOf(null, downstream.remote, target);
    const verdict = guard.judge(own, facts);
    const info = plaintextInfo(downstream, source, own, verdict);
    if (!verdict.allowed) {
      telemetry.refused(info, denialOf(verdict));
      return null;
    }
    let dial: ApplicationDial;
    try {
      dial = applicationDialer.dial(this.#pod, target, downstream.remote, downstream.remote.port);
    } catch (error) {
      // No port to show (NO_SHOWN_PORT).
      telemetry.refused(info, { flag: 'CONNECT', message: messageOf(error) });
      return null;
    }
    const relay = new TcpRelay({
      context: this.#context,
      podUid: this.#pod.uid,
      pod: `${this.#pod.namespace}/${this.#pod.name}`,
      downstream,
      info,
      via: 'plaintext',
      admission: guard.admission(this.#pod, own, facts),
      onOver: dial.release,
    });
    relay.dial(dial.options);
    return relay;
  }
}

/** What policies are asked: for a tunnel, the address that its own connection comes from. */
export function factsOf(
  identity: string | null,
  source: SocketAddress,
  target: SocketAddress,
): ConnectionFacts {
  return {
    identity,
    sourceAddress: source.address,
    destinationAddress: target.address,
    destinationPort: target.port,
  };
}

function plaintextInfo(
  downstream: Connection,
  source: Workload | undefined,
  own: Workload | null,
  verdict: Verdict | null,
): ConnectionInfo {
  return {
    ...(verdict === null ? {} : { verdict }),
    reporter: 'destination',
    source: party(source, null),
    destination: party(own, null),
    service: null,
    mutualTls: false,
    sourceAddress: downstream.remote,
    destinationAddress: downstream.local,
    hboneAddress: null,
  };
}

function infoOf(
  context: TunnelContext,
  request: TunnelRequest,
  own: Workload,
  target: SocketAddress,
  verdict: Verdict,
): ConnectionInfo {
  const { metadata, peer, peerIdentity, local } = request;
  // Through a gateway it comes from the gateway's address.
  const isForwarded =
    metadata.forwardedNetwork !== undefined && metadata.forwardedNetwork !== context.network;
  const byAddress = isForwarded ? undefined : context.storeView.peerAt(peer);
  // An address is only a hint: its workload's labels count where the certificate says the same.
  const source =
    byAddress !== undefined && context.texts.identityOf(byAddress) === peerIdentity ? byAddress : null;
  return {
    reporter: 'destination',
    source: party(source, peerIdentity, metadata.baggage ?? null),
    destination: party(own, context.texts.identityOf(own)),
    service: serviceOf(context, own, metadata.forwardedHost),
    mutualTls: true,
    sourceAddress: peer,
    destinationAddress: local,
    hboneAddress: target,
    verdict,
  };
}

/** `forwarded` names the service for telemetry, if it is one of the workload's (hbone-and-wds.md 1.3). */
function serviceOf(
  context: TunnelContext,
  own: Workload,
  hostname: string | undefined,
): ConnectionInfo['service'] {
  if (hostname === undefined) return null;
  for (const key of own.services.keys())
    if (key.endsWith(`/${hostname}`))
      return context.store.serviceByHostname(key.slice(0, key.indexOf('/')), hostname) ?? null;
  return null;
}

export function refused(request: TunnelRequest, status: number): TunnelHandler {
  request.refuse(status);
  return { onData() {}, onEnd() {}, onReset() {}, onWritable() {} };
}
