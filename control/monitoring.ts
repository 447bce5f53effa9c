import type { Registry } from 'prom-client';
import { jsonReply, serveLoopback, serveText, type TextServer } from '../mesh/admin/index.js';
import type { SocketAddress } from '../mesh/common/address.js';

export interface MonitoringDeps {
  readonly registry: Registry;
  /** Null: ready; else what is awaited. */
  readonly pending: () => string | null;
  readonly onError: (error: unknown, what: string) => void;
}

/** HTTP for people and Prometheus: `/metrics`, `/healthz/ready` (200, or 503 naming what is awaited), `/healthz/live`. Rejects if it cannot listen. */
export function startMonitoring(at: SocketAddress, deps: MonitoringDeps): Promise<TextServer> {
  const { registry, pending, onError } = deps;
  const routes = {
    'GET /metrics': async () => ({
      status: 200,
      contentType: registry.contentType,
      body: await registry.metrics(),
    }),
    'GET /healthz/ready': () => {
      const awaited = pending();
      return { status: awaited === null ? 200 : 503, body: `${awaited ?? 'ready'}\n` };
    },
    'GET /healthz/live': () => ({ status: 200, body: 'live\n' }),
  };
  return serveText(at, routes, onError);
}

/** What a person asks the controller (`culvertctl status`); sections by name, asked for at the moment of the request. */
export type StatusSections = Readonly<Record<string, () => unknown>>;

/** `GET /status` on loopback: every section, as JSON. Rejects if it cannot listen. */
export async function startStatus(
  at: SocketAddress,
  sections: StatusSections,
  onError: MonitoringDeps['onError'],
): Promise<TextServer> {
  const read = () => Object.entries(sections).map(([name, section]) => [name, section()] as const);
  return await serveLoopback(at, { 'GET /status': () => jsonReply(Object.fromEntries(read())) }, onError);
}
