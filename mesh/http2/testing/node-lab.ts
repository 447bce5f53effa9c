import { once } from 'node:events';
import http2 from 'node:http2';
import net, { type AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import tls from 'node:tls';
import type { SessionHandler, SessionOptions } from '../types.js';
import { makeCertificate } from './certificate.js';
import { SocketTransport } from './socket-transport.js';

export type Wire = 'tcp' | 'tls';

/** node:http2 as the peer of our session, over loopback TCP or TLS. `close` ends everything. For tests. */
export class NodeLab {
  private readonly wire: Wire;
  private readonly closers: (() => void)[] = [];
  private readonly material: { key: Buffer; cert: Buffer } | null;

  constructor(wire: Wire) {
    this.wire = wire;
    this.material = wire === 'tls' ? makeCertificate() : null;
  }

  /** Our client session on a node:http2 server. */
  async clientOf(
    setUp: (server: http2.Http2Server) => void,
    handler: SessionHandler,
    options: Partial<SessionOptions> = {},
    serverOptions: http2.ServerOptions = {},
  ): Promise<SocketTransport> {
    const server =
      this.material === null
        ? http2.createServer(serverOptions)
        : http2.createSecureServer({ ...this.material, ...serverOptions });
    server.on('session', (session) => session.on('error', () => {}));
    server.on('sessionError', () => {});
    setUp(server);
    const port = await this.listen(server);
    const socket = await this.dial(port);
    return new SocketTransport(socket, { role: 'client', ...options }, handler);
  }

  /** A node:http2 client on our server session. */
  async serverOf(
    handler: SessionHandler,
    options: Partial<SessionOptions> = {},
    clientOptions: http2.ClientSessionOptions = {},
  ): Promise<{ client: http2.ClientHttp2Session; transport: SocketTransport }> {
    const transport = makeResolvers<SocketTransport>();
    const accept = (socket: Duplex) => {
      this.closers.push(() => socket.destroy());
      transport.resolve(new SocketTransport(socket, { role: 'server', ...options }, handler));
    };
    const server =
      this.material === null
        ? net.createServer(accept)
        : tls.createServer({ ...this.material, ALPNProtocols: ['h2'] }, accept);
    const port = await this.listen(server);
    const scheme = this.wire === 'tls' ? 'https' : 'http';
    const client = http2.connect(`${scheme}://localhost:${port}`, {
      ...clientOptions,
      ...(this.material === null ? {} : { ca: this.material.cert }),
    });
    client.on('error', () => {});
    this.closers.push(() => client.destroy());
    return { client, transport: await transport.promise };
  }

  close(): void {
    for (const closer of this.closers.splice(0).reverse()) closer();
  }

  private async listen(server: net.Server): Promise<number> {
    server.listen(0, 'localhost');
    this.closers.push(() => server.close());
    await once(server, 'listening');
    return (server.address() as AddressInfo).port;
  }

  private async dial(port: number): Promise<Duplex> {
    const socket =
      this.material === null
        ? net.connect(port, 'localhost')
        : tls.connect({ port, host: 'localhost', ca: this.material.cert, ALPNProtocols: ['h2'] });
    this.closers.push(() => socket.destroy());
    await once(socket, this.material === null ? 'connect' : 'secureConnect');
    return socket;
  }
}

function makeResolvers<T>(): { promise: Promise<T>; resolve: (value: T) => void } {
  let resolve!: (value: T) => void;
  const promise = new Promise<T>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}
