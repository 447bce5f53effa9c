import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import type { ClusterAccess } from '../../mesh/kube/index.js';

/** The network between a client and the API server, which can be cut or fall silent. */
export class Way {
  readonly #server: Server;
  readonly #pairs = new Set<readonly [Socket, Socket]>();
  #isCut = false;

  private constructor(to: URL) {
    this.#server = createServer({ pauseOnConnect: false }, (client) => {
      if (this.#isCut) {
        client.destroy();
        return;
      }
      const server = connect({ host: to.hostname, port: Number(to.port) });
      const pair = [client, server] as const;
      this.#pairs.add(pair);
      for (const [from, other] of [pair, [server, client] as const]) {
        from.on('error', () => other.destroy());
        from.on('close', () => {
          other.destroy();
          this.#pairs.delete(pair);
        });
        from.pipe(other);
      }
    });
  }

  static async to(url: string): Promise<Way> {
    const way = new Way(new URL(url));
    way.#server.listen(0, '127.0.0.1');
    await once(way.#server, 'listening');
    return way;
  }

  /** The same access, by this way. */
  access(access: ClusterAccess): ClusterAccess {
    const { port } = this.#server.address() as AddressInfo;
    return { origin: 'way', read: () => ({ ...access.read(), server: `https://127.0.0.1:${port}` }) };
  }

  /** Connections that are open now end. */
  drop(): void {
    for (const [client] of this.#pairs) client.destroy();
  }

  /** They end, and nobody gets through until `mend`. */
  cut(): void {
    this.#isCut = true;
    this.drop();
  }

  mend(): void {
    this.#isCut = false;
  }

  /** Connections that are open now stay open and carry nothing any more. */
  stall(): void {
    for (const [client, server] of this.#pairs) {
      server.unpipe(client);
      server.resume();
    }
  }

  close(): void {
    this.cut();
    this.#server.close();
  }
}
