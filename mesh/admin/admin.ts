import type { IncomingMessage } from 'node:http';
import { isLoopback, type SocketAddress, tryParseAddress } from '../common/address.js';
import { messageOf } from '../common/errors.js';
import { dumpJson } from './dump.js';
import { type Reply, type Route, type Routes, serveText, type TextServer } from './server.js';
import type { AdminCommand, AdminDeps, AdminOptions } from './types.js';

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
  const { address } = plan[2]![0];
  if (!isLoopback(address))
    throw new RangeError(
      `the admin server has no authentication: it listens on loopback only, not on ${address}`,
    );
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
  const commands = { logging: setLevel(deps), ...deps.commands };
  const routes: Record<string, Route> = {
    'GET /config_dump': async () => json(await readSections(deps.config)),
    'GET /connections': async () => json(await deps.connections()),
    'GET /logging': () => ({ status: 200, body: `level is ${deps.logLevel.get()}\n` }),
  };
  const index = Object.keys(routes);
  for (const [path, command] of Object.entries(commands)) {
    routes[`POST /${path}`] = (request, url) => runCommand(command, request, url);
    index.push(`POST /${path}?${command.usage}`);
  }
  routes['GET /'] = () => ({ status: 200, body: `${index.join('\n')}\n` });
  return Object.fromEntries(Object.entries(routes).map(([at, route]) => [at, forLocalNames(route)]));
}

/** A web page can have its own name resolved to 127.0.0.1 and read what is here as if it were its own server. */
function forLocalNames(route: Route): Route {
  return (request, url) => {
    const name = /^(\[.*\]|[^:]*)(?::\d+)?$/.exec(request.headers.host ?? '')?.[1] ?? '';
    const isLocal = name === 'localhost' || tryParseAddress(name.replace(/^\[|\]$/g, '')) !== null;
    return isLocal ? route(request, url) : { status: 403, body: 'only by address, or as localhost\n' };
  };
}

async function readSections(config: AdminDeps['config']): Promise<Record<string, unknown>> {
  const read = Object.entries(config).map(async ([name, provide]) => [name, await provide()] as const);
  return Object.fromEntries(await Promise.all(read));
}

/** A browser sends `origin` with a POST of a foreign page: that one must not change anything here. */
async function runCommand(command: AdminCommand, request: IncomingMessage, url: URL): Promise<Reply> {
  if (request.headers.origin !== undefined) return { status: 403, body: 'not for web pages\n' };
  try {
    return { status: 200, body: `${await command.run(url.searchParams)}\n` };
  } catch (error) {
    return { status: 400, body: `${messageOf(error)}\n` };
  }
}

function setLevel({ logLevel }: AdminDeps): AdminCommand {
  return {
    usage: 'level=LEVEL',
    run(query) {
      const level = query.get('level') ?? '';
      if (!logLevel.levels.includes(level))
        throw new RangeError(`level ${JSON.stringify(level)} is none of ${logLevel.levels.join(', ')}`);
      logLevel.set(level);
      return `level is ${level}`;
    },
  };
}

function json(value: unknown): Reply {
  return { status: 200, contentType: 'application/json', body: dumpJson(value) };
}
