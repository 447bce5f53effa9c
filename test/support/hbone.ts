import type {
  ClientTunnelHandler,
  ConnectMetadata,
  HboneClientOptions,
  HboneServerOptions,
  NextHop,
  Tunnel,
  TunnelAcceptor,
  TunnelFailure,
  TunnelHandler,
  TunnelRequest,
  Undelivered,
} from '../../mesh/hbone/index.js';
import { HboneClient, HboneServer } from '../../mesh/hbone/index.js';
import type { TlsMaterial, TlsOptions } from '../../mesh/io/index.js';
import { EngineTlsContexts } from '../../mesh/io/index.js';
import { createLog } from '../../mesh/log/index.js';
import { PeerVerifier } from '../../mesh/tls/index.js';
import { ListeningSocket } from './listening-socket.js';
import { TestReactor } from './reactor.js';
import { TestCa } from './test-ca.js';

const tlsContexts = new EngineTlsContexts();
export const CLIENT_ID = 'spiffe://cluster.local/ns/shop/sa/client';
export const SERVER_ID = 'spiffe://cluster.local/ns/shop/sa/server';

/** Either end's handler: keeps what it hears, and returns credit at once unless `isStalled`. */
export class TunnelRecorder implements ClientTunnelHandler {
  readonly events: string[] = [];
  readonly chunks: Buffer[] = [];
  receivedBytes = 0;
  unconsumedBytes = 0;
  isStalled = false;
  tunnel: Tunnel | null = null;
  response: ConnectMetadata | null = null;
  failure: TunnelFailure | null = null;
  undelivered: Undelivered | null = null;
  resetCause: string | null = null;
  /** Bytes still to be sent, then END_STREAM if `endsAfter`. */
  private outgoing: Buffer = Buffer.alloc(0);
  private endsAfter = false;

  get received(): Buffer {
    return Buffer.concat(this.chunks);
  }

  has(event: string): boolean {
    return this.events.includes(event);
  }

  get isDone(): boolean {
    return this.has('end') || this.failure !== null || this.resetCause !== null;
  }

  /** Queues bytes and sends what may go now. */
  send(bytes: Buffer | string, thenEnd = false): void {
    const added = typeof bytes === 'string' ? Buffer.from(bytes) : bytes;
    this.outgoing = this.outgoing.length === 0 ? added : Buffer.concat([this.outgoing, added]);
    this.endsAfter ||= thenEnd;
    this.pump();
  }

  get unsentBytes(): number {
    return this.outgoing.length;
  }

  onEstablished(response: ConnectMetadata): void {
    this.events.push('established');
    this.response = response;
    this.pump();
  }

  onFailed(failure: TunnelFailure, undelivered: Undelivered | null): void {
    this.events.push('failed');
    this.failure = failure;
    this.undelivered = undelivered;
  }

  onData(bytes: Buffer, start: number, end: number): void {
    this.chunks.push(Buffer.from(bytes.subarray(start, end)));
    this.receivedBytes += end - start;
    this.unconsumedBytes += end - start;
    if (!this.isStalled) this.release();
  }

  release(): void {
    const bytes = this.unconsumedBytes;
    if (bytes === 0 || this.tunnel === null) return;
    this.unconsumedBytes = 0;
    this.tunnel.consumed(bytes);
  }

  onEnd(): void {
    this.events.push('end');
  }

  onReset(cause: string): void {
    this.events.push('reset');
    this.resetCause = cause;
  }

  onWritable(): void {
    this.pump();
  }

  private pump(): void {
    const { tunnel } = this;
    if (tunnel === null) return;
    while (this.outgoing.length > 0) {
      const bytes = Math.min(this.outgoing.length, tunnel.sendCapacity());
      if (bytes === 0) return;
      const slab = tunnel.beginData(bytes);
      this.outgoing.copy(slab.bytes, slab.end, 0, bytes);
      this.outgoing = this.outgoing.subarray(bytes);
      tunnel.commitData(bytes, this.endsAfter && this.outgoing.length === 0);
      if (this.endsAfter && this.outgoing.length === 0) this.endsAfter = false;
    }
    if (this.endsAfter) {
      this.endsAfter = false;
      tunnel.endStream();
    }
  }
}

/** What becomes of a request. */
export type Decide = (request: TunnelRequest, handler: TunnelRecorder) => void;

/** Takes every tunnel and sends back what comes. */
export const echo: Decide = (request, handler) => {
  const tunnel = request.accept({ workloadType: 'pod', workloadName: 'server', namespace: 'shop' });
  handler.tunnel = tunnel;
  const { onData } = handler;
  handler.onData = function (bytes, start, end) {
    onData.call(this, bytes, start, end);
    this.send(Buffer.from(bytes.subarray(start, end)));
  };
  handler.onEnd = function () {
    this.events.push('end');
    this.send('', true);
  };
};

export const accept: Decide = (request, handler) => {
  handler.tunnel = request.accept({});
};

/** The server's side of a test. */
export class TestAcceptor implements TunnelAcceptor {
  readonly requests: TunnelRequest[] = [];
  readonly handlers: TunnelRecorder[] = [];
  decide: Decide;

  constructor(decide: Decide) {
    this.decide = decide;
  }

  onTunnel(request: TunnelRequest): TunnelHandler {
    const handler = new TunnelRecorder();
    this.requests.push(request);
    this.handlers.push(handler);
    this.decide(request, handler);
    return handler;
  }
}

export interface HboneLabOptions {
  readonly client?: HboneClientOptions;
  readonly server?: HboneServerOptions;
  readonly trustDomainAliases?: readonly string[];
  readonly decide?: Decide;
  readonly peerAt?: () => string | null;
  /** URI in the server's certificate. */
  readonly serverId?: string;
}

/** An HBONE client and server on one engine over loopback, real TLS. */
export class HboneLab implements Disposable {
  readonly ca = new TestCa();
  readonly t = new TestReactor({ lingerMs: 200 });
  readonly listening = new ListeningSocket();
  readonly acceptor: TestAcceptor;
  readonly server: HboneServer;
  readonly client: HboneClient;
  /** Of the client, by identity; null: no certificate. */
  readonly clientTls = new Map<string, TlsOptions | null>();
  private readonly contexts: number[] = [];
  serverTls: TlsOptions;

  constructor(options: HboneLabOptions = {}) {
    const { reactor } = this.t;
    const verifier = new PeerVerifier({
      trustDomain: 'cluster.local',
      trustDomainAliases: options.trustDomainAliases ?? [],
    });
    this.acceptor = new TestAcceptor(options.decide ?? echo);
    const log = createLog({ level: 'silent', component: 'test' });
    this.server = new HboneServer(options.server ?? {}, {
      reactor,
      acceptor: this.acceptor,
      verifyClient: (leaf) => verifier.clientIdentity(leaf),
      log,
    });
    this.client = new HboneClient(options.client ?? {}, {
      reactor,
      tlsOf: (identity) => this.tlsOf(identity),
      verifyServer: (leaf, expected) => verifier.serverIdentity(leaf, expected),
      ...(options.peerAt === undefined ? {} : { peerAt: options.peerAt }),
    });
    this.serverTls = this.context(this.ca.issue(options.serverId ?? SERVER_ID));
    reactor.listen({ fd: this.listening.fd, tls: () => this.serverTls }, this.server);
  }

  context(material: TlsMaterial): TlsOptions {
    const context = tlsContexts.create(material);
    this.contexts.push(context);
    return { context, handshakeTimeoutMs: 5000 };
  }

  hop(over: Partial<NextHop> = {}): NextHop {
    return {
      sourceUid: 'cluster//Pod/shop/client',
      sourceIdentity: CLIENT_ID,
      expectedIdentities: [SERVER_ID],
      address: { address: '127.0.0.1', port: this.listening.port },
      netnsFd: -1,
      ...over,
    };
  }

  open(authority = '127.0.0.1:8080', hop = this.hop(), metadata: ConnectMetadata = {}): TunnelRecorder {
    const handler = new TunnelRecorder();
    handler.tunnel = this.client.open(hop, authority, metadata, handler);
    return handler;
  }

  async established(authority?: string, hop?: NextHop): Promise<TunnelRecorder> {
    const handler = this.open(authority, hop);
    await this.t.until(() => handler.has('established') || handler.isDone, 'a tunnel');
    if (!handler.has('established')) throw new Error(`no tunnel: ${handler.failure?.message}`);
    return handler;
  }

  private tlsOf(identity: string): TlsOptions | null {
    const known = this.clientTls.get(identity);
    if (known !== undefined) return known;
    const made = this.context(this.ca.issue(identity));
    this.clientTls.set(identity, made);
    return made;
  }

  [Symbol.dispose](): void {
    this.t[Symbol.dispose]();
    this.listening.close();
    for (const context of this.contexts) tlsContexts.release(context);
  }
}
