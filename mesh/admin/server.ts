import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import { formatAddress, type SocketAddress, tryParseAddress } from '../common/address.js';
import { messageOf } from '../common/errors.js';

export interface Reply {
  readonly status: number;
  readonly contentType?: string;
  readonly body: string;
}

/** Answers one request; `url` has a path and a query, its host means nothing. */
export type Route = (request: IncomingMessage, url: URL) => Reply | Promise<Reply>;

/** Routes by `METHOD /path`. */
export type Routes = Readonly<Record<string, Route>>;

export interface TextServer {
  /** As bound. */
  readonly address: SocketAddress;
  close(): Promise<void>;
}

const compress = promisify(gzip);
/** Below this, a body goes as it is. */
const MIN_GZIP_CHARS = 1024;

/** An HTTP server for small texts. HEAD is GET without its body; unknown paths are 404, other methods of known ones 405, what is no path 400. */
export async function serveText(
  at: SocketAddress,
  routes: Routes,
  onError: (error: unknown, what: string) => void,
): Promise<TextServer> {
  const server = createServer((request, response) => {
    void answer(routes, request, response).catch((error: unknown) => {
      onError(error, `${request.method} ${request.url}`);
      if (response.headersSent) response.destroy();
      else void send(request, response, { status: 500, body: `${messageOf(error)}\n` });
    });
  });
  server.headersTimeout = 10_000;
  server.requestTimeout = 10_000;
  await listen(server, at);
  const bound = server.address() as AddressInfo;
  return {
    address: { address: formatAddress(tryParseAddress(bound.address)!), port: bound.port },
    close: () => close(server),
  };
}

async function answer(routes: Routes, request: IncomingMessage, response: ServerResponse): Promise<void> {
  request.resume(); // no route reads a body
  const path = request.url ?? '/';
  if (!URL.canParse(path, 'http://localhost')) {
    await send(request, response, { status: 400, body: 'this is no path\n' });
    return;
  }
  const url = new URL(path, 'http://localhost');
  const method = request.method === 'HEAD' ? 'GET' : request.method;
  const route = routes[`${method} ${url.pathname}`];
  await send(
    request,
    response,
    route === undefined ? noRoute(routes, url.pathname) : await route(request, url),
  );
}

function noRoute(routes: Routes, path: string): Reply {
  const methods = Object.keys(routes)
    .filter((key) => key.endsWith(` ${path}`))
    .map((key) => key.split(' ')[0]!);
  if (methods.length === 0) return { status: 404, body: `nothing at ${path}\n` };
  return { status: 405, body: `${path} takes ${methods.join(', ')}\n` };
}

async function send(request: IncomingMessage, response: ServerResponse, reply: Reply): Promise<void> {
  const isZipped = reply.body.length >= MIN_GZIP_CHARS && acceptsGzip(request.headers['accept-encoding']);
  const body = isZipped ? await compress(reply.body) : Buffer.from(reply.body);
  response.writeHead(reply.status, {
    'content-type': reply.contentType ?? 'text/plain; charset=utf-8',
    'content-length': body.length,
    ...(isZipped ? { 'content-encoding': 'gzip' } : {}),
    vary: 'accept, accept-encoding',
    'x-content-type-options': 'nosniff',
  });
  response.end(request.method === 'HEAD' ? undefined : body);
}

function acceptsGzip(header: string | string[] | undefined): boolean {
  return String(header ?? '')
    .split(',')
    .some((coding) => /^\s*(gzip|\*)\s*(;\s*q=(1(\.0*)?|0?\.\d*[1-9]\d*)\s*)?$/i.test(coding));
}

function listen(server: Server, at: SocketAddress): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(at.port, at.address, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}
