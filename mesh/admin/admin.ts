import type { IncomingMessage } from 'node:http';
import type { SocketAddress } from '../common/address.js';
import { messageOf } from '../common/errors.js';
import { jsonReply, serveLoopback } from './loopback.js';
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
  const { onError } = deps;
  const servers: TextServer[] = [];
  const close = async () => void (await Promise.all(servers.map((server) => server.close())));
  try {
    const at = options.admin ?? { address: '127.0.0.1', port: 15000 };
    servers.push(await serveLoopback(at, adminRoutes(deps), onError));
    const metricsAt = options.metrics ?? { address: '0.0.0.0', port: 15020 };
    servers.push(await serveText(metricsAt, metricsRoutes(deps), onError));
    const readinessAt = options.readiness ?? { address: '0.0.0.0', port: 15021 };
    servers.push(await serveText(readinessAt, readinessRoutes(deps), onError));
  } catch (error) {
    await close();
    throw error;
  }
  const [admin, metrics, readiness] = servers.map((server) => server.address);
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
    'GET /config_dump': (_request, url) => dumpConfig(deps.config, url.searchParams.get('sections')),
    'GET /connections': async () => jsonReply(await deps.connections()),
    'GET /logging': () => ({ status: 200, body: `level is ${deps.logLevel.get()}\n` }),
  };
  const index = Object.keys(routes);
  for (const [path, command] of Object.entries(commands)) {
    routes[`POST /${path}`] = (request, url) => runCommand(command, request, url);
    index.push(`POST /${path}?${command.usage}`);
  }
  routes['GET /'] = () => ({ status: 200, body: `${index.join('\n')}\n` });
  return routes;
}

/** All sections, or those that are named: the whole store is 10 MB at 10,000 workloads. */
async function dumpConfig(config: AdminDeps['config'], wanted: string | null): Promise<Reply> {
  const names = wanted === null ? Object.keys(config) : wanted.split(',');
  const unknown = names.filter((name) => !Object.hasOwn(config, name));
  if (unknown.length > 0)
    return {
      status: 400,
      body: `no section ${unknown.join(', ')}; there are ${Object.keys(config).join(', ')}\n`,
    };
  return jsonReply(await readSections(config, names));
}

async function readSections(
  config: AdminDeps['config'],
  names: readonly string[],
): Promise<Record<string, unknown>> {
  const read = names.map(async (name) => [name, await config[name]!()] as const);
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
