import { HboneServer } from '../../mesh/hbone/index.js';
import type { Listener, TlsOptions } from '../../mesh/io/index.js';
import type { Log } from '../../mesh/log/index.js';
import type { PeerVerifier } from '../../mesh/tls/index.js';
import type { TunnelContext } from './context.js';
import { EastWestAcceptor } from './east-west.js';
import { InboundAcceptor, PlaintextAcceptor } from './inbound.js';
import type { WorkerPod } from './messages.js';
import { OutboundAcceptor } from './outbound.js';

export interface MeshPodDeps {
  readonly context: TunnelContext;
  readonly verifier: PeerVerifier;
  readonly tlsOf: (identity: string) => TlsOptions | null;
  readonly log: Log;
}

/** One captured pod in one worker: its listeners and its HBONE server. */
export class MeshPod {
  readonly pod: WorkerPod;
  readonly hbone: HboneServer;
  readonly #listeners: Listener[] = [];
  readonly #acceptor: InboundAcceptor | EastWestAcceptor;
  readonly #outbound: OutboundAcceptor;

  constructor(pod: WorkerPod, deps: MeshPodDeps) {
    const { context, verifier, log } = deps;
    const { reactor } = context;
    this.pod = pod;
    this.#acceptor = pod.isEastWestGateway
      ? new EastWestAcceptor(pod, context)
      : new InboundAcceptor(pod, context);
    this.hbone = new HboneServer(
      {},
      {
        reactor,
        acceptor: this.#acceptor,
        verifyClient: (leaf) => verifier.clientIdentity(leaf),
        revocationOf(peer) {
          const revocation = verifier.revocationOf(peer);
          if (revocation !== null) context.counters.revokedClients++;
          return revocation;
        },
        log,
      },
    );
    const serverTls = () => {
      const own = context.storeView.ownOf(pod);
      return own === undefined ? null : deps.tlsOf(context.texts.identityOf(own));
    };
    this.#outbound = new OutboundAcceptor(pod, context);
    const plaintext = new PlaintextAcceptor(pod, context);
    try {
      for (const fd of pod.outboundFds) this.#listeners.push(reactor.listen({ fd }, this.#outbound));
      for (const fd of pod.inboundFds) this.#listeners.push(reactor.listen({ fd }, plaintext));
      for (const fd of pod.hboneFds) this.#listeners.push(reactor.listen({ fd, tls: serverTls }, this.hbone));
    } catch (error) {
      this.stopAccepting();
      throw error;
    }
  }

  stopAccepting(): void {
    for (const listener of this.#listeners) listener.stop();
  }

  /**
   * No new connections, nothing is dialled any more in the pod's namespace, whose descriptor is about to be closed, and peers are told to open their
   * tunnels elsewhere; what is open goes on to its end.
   */
  release(): void {
    this.#acceptor.stop();
    this.#outbound.stop();
    this.stopAccepting();
    this.hbone.retire();
  }
}
