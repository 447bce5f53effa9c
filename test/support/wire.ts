import { once } from 'node:events';
import net from 'node:net';

/** What a wire does with bytes of one direction: hands on what it returns; null cuts the connection with RST, 'fin' ends that direction. */
export type Tap = (chunk: Buffer, offset: number) => Buffer | null | 'fin';

/** A wire between a client and 127.0.0.1:`toPort` that can flip, hold back, cut and reset. */
export class Wire {
  readonly server: net.Server;
  readonly #sockets = new Set<net.Socket>();

  constructor(toPort: number, taps: { readonly toServer?: Tap; readonly toClient?: Tap }) {
    this.server = net.createServer({ allowHalfOpen: true }, (client) => {
      const server = net.connect({ port: toPort, host: '127.0.0.1', allowHalfOpen: true });
      this.#join(client, server, taps.toServer);
      this.#join(server, client, taps.toClient);
    });
  }

  async listen(): Promise<number> {
    this.server.listen(0, '127.0.0.1');
    await once(this.server, 'listening');
    return (this.server.address() as net.AddressInfo).port;
  }

  #join(from: net.Socket, to: net.Socket, tap: Tap = (chunk) => chunk): void {
    this.#sockets.add(from);
    let offset = 0;
    from.on('data', (chunk) => {
      const result = tap(chunk, offset);
      offset += chunk.length;
      if (result === 'fin') to.end();
      else if (result !== null) {
        if (to.writable) to.write(result);
      } else {
        from.resetAndDestroy();
        to.resetAndDestroy();
      }
    });
    from.on('end', () => to.end());
    from.on('error', () => to.resetAndDestroy());
    from.on('close', () => to.destroy());
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.server.close();
  }
}
