import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Registry } from 'prom-client';
import type { SocketAddress } from '../mesh/common/address.js';
import { messageOf } from '../mesh/common/errors.js';

export interface MonitoringDeps {
  readonly registry: Registry;
  /** Null: ready; else what is awaited. */
  readonly pending: () => string | null;
}

/** HTTP for people and Prometheus: `/metrics`, `/healthz/ready` (200, or 503 naming what is awaited), `/healthz/live`. */
export class Monitoring {
  readonly #deps: MonitoringDeps;
  readonly #server: Server;

  constructor(deps: MonitoringDeps) {
    this.#deps = deps;
    this.#server = createServer((request, response) => void this.#serve(request, response));
    this.#server.headersTimeout = 10_000;
  }

  /** Resolves to the port; rejects if it cannot listen. */
  async listen({ address, port }: SocketAddress): Promise<number> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(port, address, resolve);
    });
    return (this.#server.address() as AddressInfo).port;
  }

  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { registry, pending } = this.#deps;
    const path = new URL(request.url ?? '/', 'http://localhost').pathname;
    try {
      if (path === '/metrics') answer(response, 200, registry.contentType, await registry.metrics());
      else if (path === '/healthz/live') answer(response, 200, 'text/plain', 'live\n');
      else if (path === '/healthz/ready') {
        const awaited = pending();
        answer(response, awaited === null ? 200 : 503, 'text/plain', `${awaited ?? 'ready'}\n`);
      } else answer(response, 404, 'text/plain', '/metrics /healthz/ready /healthz/live\n');
    } catch (error) {
      answer(response, 500, 'text/plain', `${messageOf(error)}\n`);
    }
  }
}

function answer(response: ServerResponse, code: number, type: string, body: string): void {
  response.writeHead(code, { 'content-type': type }).end(body);
}
