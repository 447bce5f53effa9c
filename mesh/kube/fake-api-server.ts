import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import type { ClusterAccess } from './types.js';

/** A request as a test's script sees it. */
export interface FakeRequest {
  readonly path: string;
  readonly query: Readonly<Record<string, string>>;
  readonly token: string;
  /** Who is impersonated; ''. */
  readonly user: string;
  readonly isWatch: boolean;
  readonly method: string;
  /** JSON that was sent; undefined: none was. */
  readonly body: unknown;
}

const verbs = ['get', 'list', 'watch'];
const KINDS = [
  { name: 'configmaps', kind: 'ConfigMap', namespaced: true, verbs },
  { name: 'pods', kind: 'Pod', namespaced: true, verbs },
  { name: 'namespaces', kind: 'Namespace', namespaced: false, verbs },
];

type Script = (request: FakeRequest, response: ServerResponse) => void;

/** For faults only, which a real API server cannot be brought to show: it says what the test's script says. Of v1 three kinds are discovered. */
export class FakeApiServer {
  readonly requests: FakeRequest[] = [];
  /** Of everything but discovery. */
  script: Script = (_request, response) => refuse(response, 500, 'no script');
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  token = 'token-1';

  constructor() {
    this.#server = createServer((request, response) => {
      const pieces: Buffer[] = [];
      request.on('data', (piece: Buffer) => pieces.push(piece));
      request.on('end', () => this.#answer(request, response, Buffer.concat(pieces).toString('utf8')));
    });
    this.#server.on('connection', (socket) => {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
    });
  }

  get access(): ClusterAccess {
    const { port } = this.#server.address() as AddressInfo;
    const none = { ca: null, certificate: null, key: null, serverName: null };
    const read = () => ({ server: `http://127.0.0.1:${port}`, token: this.token, ...none });
    return { origin: 'fake', read };
  }

  /** Requests of the script, as `list`, `watch` with what they asked for. */
  get asked(): string[] {
    return this.requests.map(({ isWatch, query }) => {
      if (!isWatch) return query['continue'] === undefined ? 'list' : `list ${query['continue']}`;
      return query['sendInitialEvents'] === 'true' ? 'stream' : `watch ${query['resourceVersion']}`;
    });
  }

  async start(port = 0): Promise<number> {
    await new Promise<void>((resolve) => this.#server.listen(port, '127.0.0.1', resolve));
    return (this.#server.address() as AddressInfo).port;
  }

  /** Cuts every connection. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async stop(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.cut();
    await closed;
  }

  #answer(
    { url = '', headers, method = 'GET' }: IncomingMessage,
    response: ServerResponse,
    text: string,
  ): void {
    const { pathname: path, searchParams } = new URL(url, 'http://fake');
    const query = Object.fromEntries(searchParams);
    const token = (headers.authorization ?? '').replace('Bearer ', '');
    const user = String(headers['impersonate-user'] ?? '');
    const body: unknown = text === '' ? undefined : JSON.parse(text);
    const request = { path, query, token, user, isWatch: query['watch'] === 'true', method, body };
    if (path === '/api/v1') {
      sendJson(response, { resources: KINDS });
      return;
    }
    this.requests.push(request);
    this.script(request, response);
  }
}

export function sendJson(response: ServerResponse, body: unknown, status = 200): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(body));
}

export function refuse(response: ServerResponse, code: number, message: string, more: object = {}): void {
  sendJson(response, { kind: 'Status', status: 'Failure', message, code, ...more }, code);
}

/** Lines of a watch; it stays open. */
export function send(response: ServerResponse, ...events: readonly object[]): void {
  if (!response.headersSent) response.writeHead(200, { 'content-type': 'application/json' });
  response.flushHeaders();
  for (const event of events) response.write(`${JSON.stringify(event)}\n`);
}

/** A ConfigMap; `value` undefined: malformed for the tests' decoder. */
export function item(
  name: string,
  version: number,
  value: unknown = `v${version}`,
  uid = `uid-${name}`,
): object {
  return {
    metadata: {
      name,
      namespace: 'shop',
      uid,
      resourceVersion: String(version),
      managedFields: [{ manager: 'x' }],
    },
    data: { value },
  };
}

export const added = (object: object) => ({ type: 'ADDED', object });
export const modified = (object: object) => ({ type: 'MODIFIED', object });
export const deleted = (object: object) => ({ type: 'DELETED', object });
export const failed = (code: number, message: string) => ({
  type: 'ERROR',
  object: { kind: 'Status', status: 'Failure', code, message },
});

export function bookmark(version: number, isInitialEnd = false): object {
  const annotations = isInitialEnd ? { 'k8s.io/initial-events-end': 'true' } : {};
  return { type: 'BOOKMARK', object: { metadata: { resourceVersion: String(version), annotations } } };
}

/** A page of a list. */
export function page(version: number, items: readonly object[], next = ''): object {
  return { kind: 'List', metadata: { resourceVersion: String(version), continue: next }, items };
}
