import { once } from 'node:events';
import type net from 'node:net';
import tls from 'node:tls';
import { type Connection, EngineTlsContexts, type TlsMaterial } from '../../mesh/io/index.js';
import { ListeningSocket } from './listening-socket.js';
import { Echo, Recorder, TestReactor } from './reactor.js';
import { nodeTlsOptions, TestCa } from './test-ca.js';

/** Our TLS server and client, and node:tls as the other side. */
export const HOST = '127.0.0.1';
export const SERVER = 'spiffe://cluster.local/ns/shop/sa/server';
export const CLIENT = 'spiffe://cluster.local/ns/shop/sa/client';
export const HOUR_MS = 3_600_000;
const tlsContexts = new EngineTlsContexts();
export const ca = new TestCa();
export const serverMaterial = ca.issue(SERVER);
export const clientMaterial = ca.issue(CLIENT);

/** Our TLS server; `accepted` has a recorder per connection. */
export class TlsServer implements Disposable {
  readonly t: TestReactor;
  readonly listening = new ListeningSocket();
  readonly accepted: Recorder[] = [];
  readonly connections: Connection[] = [];
  context: number;

  constructor(options: { material?: TlsMaterial; t?: TestReactor; handshakeTimeoutMs?: number } = {}) {
    this.t = options.t ?? new TestReactor();
    this.context = tlsContexts.create(options.material ?? serverMaterial);
    const tlsOptions = () => ({
      context: this.context,
      handshakeTimeoutMs: options.handshakeTimeoutMs ?? 10_000,
    });
    const onAccepted = (connection: Connection) => {
      const echo = new Echo(this.t.reactor);
      this.accepted.push(echo);
      this.connections.push(connection);
      return echo;
    };
    this.t.reactor.listen({ fd: this.listening.fd, tls: tlsOptions }, { onAccepted });
  }

  get port(): number {
    return this.listening.port;
  }

  async firstClosed(): Promise<Recorder['error']> {
    await this.t.until(() => this.accepted[0]?.isClosed === true, 'the server side to fail');
    return this.accepted[0]!.error;
  }

  [Symbol.dispose](): void {
    this.t[Symbol.dispose]();
    this.listening.close();
    tlsContexts.release(this.context);
  }
}

export function dialNode(port: number, extra: tls.ConnectionOptions = {}): tls.TLSSocket {
  const socket = tls.connect({
    port,
    host: HOST,
    ...nodeTlsOptions(clientMaterial),
    ALPNProtocols: ['h2'],
    checkServerIdentity: () => undefined,
    ...extra,
  });
  socket.on('error', () => {});
  return socket;
}

/** The error that ended it; empty if it ended without. */
export function failureOf(socket: tls.TLSSocket): Promise<string> {
  let message = '';
  socket.on('error', (error) => {
    message = error.message;
  });
  return new Promise((resolve) => socket.on('close', () => resolve(message)));
}

/** node:tls as the server. */
export async function nodeTlsServer(
  onSocket: (socket: tls.TLSSocket) => void,
  extra: tls.TlsOptions = {},
): Promise<{ server: tls.Server; port: number }> {
  const server = tls.createServer({
    ...nodeTlsOptions(serverMaterial),
    requestCert: true,
    ALPNProtocols: ['h2'],
    allowHalfOpen: true,
    ...extra,
  });
  server.on('secureConnection', (socket) => {
    socket.on('error', () => {});
    onSocket(socket);
  });
  server.on('tlsClientError', () => {});
  server.listen(0, HOST);
  await once(server, 'listening');
  return { server, port: (server.address() as net.AddressInfo).port };
}

export interface Dialled {
  readonly connection: Connection;
  readonly recorder: Recorder;
}

export function dialOurs(
  t: TestReactor,
  port: number,
  context: number,
  handshakeTimeoutMs = 10_000,
): Dialled {
  const recorder = new Recorder(t.reactor);
  const connection = t.reactor.connect(
    { to: { address: HOST, port }, connectTimeoutMs: 10_000, tls: { context, handshakeTimeoutMs } },
    recorder,
  );
  return { connection, recorder };
}
