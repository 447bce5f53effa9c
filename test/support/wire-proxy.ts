import { once } from 'node:events';
import net from 'node:net';

/** A TCP hop on loopback whose wire can be stopped or cut: for stalled peers and lost connections. */
export class WireProxy implements Disposable {
  readonly port: number;
  /** Bytes that went from the client to the server. */
  forwardedBytes = 0;
  connections = 0;
  private readonly server: net.Server;
  private readonly sockets: net.Socket[] = [];
  private isStopped = false;
  private isUpStopped = false;

  static async to(port: number): Promise<WireProxy> {
    const server = net.createServer({ allowHalfOpen: true });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return new WireProxy(server, port);
  }

  private constructor(server: net.Server, port: number) {
    this.server = server;
    this.port = (server.address() as net.AddressInfo).port;
    server.on('connection', (client) =>
      this.join(client, net.connect({ port, host: '127.0.0.1', allowHalfOpen: true })),
    );
  }

  /** From now on nothing gets through, not even an end. */
  stop(): void {
    this.isStopped = true;
  }

  /** The same from client to server only. */
  stopUp(): void {
    this.isUpStopped = true;
  }

  /** RST to both sides. */
  cut(): void {
    for (const socket of this.sockets) socket.resetAndDestroy();
  }

  /** FIN to both sides, without the close_notify of TLS. */
  end(): void {
    for (const socket of this.sockets) socket.end();
  }

  private join(client: net.Socket, server: net.Socket): void {
    this.connections++;
    for (const [from, to] of [
      [client, server],
      [server, client],
    ] as const) {
      this.sockets.push(from);
      from.on('data', (chunk) => {
        if (from === client) this.forwardedBytes += chunk.length;
        if (!this.isStopped && !(this.isUpStopped && from === client)) to.write(chunk);
      });
      from.on('end', () => this.isStopped || to.end());
      from.on('error', () => this.isStopped || to.resetAndDestroy());
    }
  }

  [Symbol.dispose](): void {
    for (const socket of this.sockets) socket.destroy();
    this.server.close();
  }
}
