import type { IncomingMessage } from 'node:http';
import type { SocketAddress } from '../common/address.js';
import { dumpJson } from './dump.js';
import { type Reply, type Routes, serveText, type TextServer } from './server.js';
import type { AdminDeps, AdminOptions } from './types.js';

export interface AdminServers {
  /** As bound. */
  readonly metrics: SocketAddress;
  readonly readiness: SocketAddress;
  readonly admin: SocketAddress;
  close(): Promise<void>;
}

/** Starts the three servers (sheet 7.3) on the main thread; rejects, with none left open, if one cannot listen. */
export async function startAdmin(options: AdminOptions, deps: AdminDeps): Promise<AdminServers> {
  const plan: readonly (readonly [SocketAddress, Routes])[] = [
    [options.metrics ?? { address: '0.0.0.0', port: 15020 }, metricsRoutes(deps)],
    [options.readiness ?? { address: '0.0.0.0', port: 15021 }, readinessRoutes(deps)],
    [options.admin ?? { address: '127.0.0.1', port: 15000 }, adminRoutes(deps)],
  ];
  const servers: TextServer[] = [];
  const close = async () => void (await Promise.all(servers.map((server) => server.close())));
  try {
    for (const [at, routes] of plan) servers.push(await serveText(at, routes, deps.onError));
  } catch (error) {
    await close();
    throw error;
  }
  const [metrics, readiness, admin] = servers.map((server) => server.address);
  return { metrics: metrics!, readiness: readiness!, admin: admin!, close };
}

function metricsRoutes(deps: AdminDeps): Routes {
  const show = async (request: IncomingMessage): Promise<Reply> => ({
    status: 200,
    ...(await deps.metrics(request.headers.accept)),
  });
  return { 'GET /metrics': show, 'GET /stats/prometheus': show };
}

function readinessRoutes(deps: AdminDeps): Routes {
  return {
    'GET /healthz/ready': () => {
      const pending = deps.pending();
      return pending.length === 0
        ? { status: 200, body: 'ready\n' }
        : { status: 500, body: `not ready, waiting for:\n${pending.join('\n')}\n` };
    },
  };
}

function adminRoutes(deps: AdminDeps): Routes {
  const routes: Routes = {
    'GET /config_dump': async () => json(await readSections(deps.config)),
    'GET /connections': async () => json(await deps.connections()),
    'GET /logging': () => ({ status: 200, body: `level is ${deps.logLevel.get()}\n` }),
    'POST /logging': (request, url) => setLevel(deps, request, url),
  };
  const index = Object.keys(routes).map((route) =>
    route === 'POST /logging' ? `${route}?level=LEVEL` : route,
  );
  return { ...routes, 'GET /': () => ({ status: 200, body: `${index.join('\n')}\n` }) };
}

async function readSections(config: AdminDeps['config']): Promise<Record<string, unknown>> {
  const read = Object.entries(config).map(async ([name, provide]) => [name, await provide()] as const);
  return Object.fromEntries(await Promise.all(read));
}

/** A browser sends `origin` with a POST of a foreign page: that one must not change anything here. */
function setLevel({ logLevel }: AdminDeps, request: IncomingMessage, url: URL): Reply {
  if (request.headers.origin !== undefined) return { status: 403, body: 'not for web pages\n' };
  const level = url.searchParams.get('level') ?? '';
  if (!logLevel.levels.includes(level)) {
    return { status: 400, body: `level ${JSON.stringify(level)} is none of ${logLevel.levels.join(', ')}\n` };
  }
  logLevel.set(level);
  return { status: 200, body: `level is ${level}\n` };
}

function json(value: unknown): Reply {
  return { status: 200, contentType: 'application/json', body: dumpJson(value) };
}
