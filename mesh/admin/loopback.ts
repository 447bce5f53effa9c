import { isLoopback, type SocketAddress, tryParseAddress } from '../common/address.js';
import { dumpJson } from './dump.js';
import { type Reply, type Route, type Routes, serveText, type TextServer } from './server.js';

/** `serveText` for people on this machine: there is no authentication, so it listens on loopback only (else a RangeError) and answers to local names only. */
export function serveLoopback(
  at: SocketAddress,
  routes: Routes,
  onError: (error: unknown, what: string) => void,
): Promise<TextServer> {
  if (!isLoopback(at.address))
    throw new RangeError(
      `the admin server has no authentication: it listens on loopback only, not on ${at.address}`,
    );
  const local = Object.entries(routes).map(([path, route]) => [path, forLocalNames(route)] as const);
  return serveText(at, Object.fromEntries(local), onError);
}

/** An answer in JSON, without what looks like a secret. */
export function jsonReply(value: unknown): Reply {
  return { status: 200, contentType: 'application/json', body: dumpJson(value) };
}

/** A web page can have its own name resolved to 127.0.0.1 and read what is here as if it were its own server. */
function forLocalNames(route: Route): Route {
  return (request, url) => {
    const name = /^(\[.*\]|[^:]*)(?::\d+)?$/.exec(request.headers.host ?? '')?.[1] ?? '';
    const isLocal = name === 'localhost' || tryParseAddress(name.replace(/^\[|\]$/g, '')) !== null;
    return isLocal ? route(request, url) : { status: 403, body: 'only by address, or as localhost\n' };
  };
}
