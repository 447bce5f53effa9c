import { createWriteStream, readFileSync, type WriteStream } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { request as httpsRequest, type RequestOptions } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ControlPlane, KubeObject } from '../kubernetes/index.js';

/** Kinds whose watches are recorded; of all others the list at the beginning is all there is. */
const RECORDED = ['/api/v1/pods', '/apis/discovery.k8s.io/v1/endpointslices'] as const;
const LISTED = [
  ...RECORDED,
  '/api/v1/namespaces',
  '/api/v1/nodes',
  '/api/v1/serviceaccounts',
  '/api/v1/services',
] as const;

interface Listed {
  readonly metadata: { readonly resourceVersion: string };
  readonly items: readonly KubeObject[];
}

interface RecordedEvent {
  readonly path: string;
  /** Since the recording began. */
  readonly atMs: number;
  /** The event as the API server wrote it. */
  readonly line: string;
}

/** What the API server said: the lists at the beginning, then every event of the watches. */
export interface Recording {
  readonly lists: ReadonlyMap<string, Listed>;
  readonly discovery: ReadonlyMap<string, string>;
  readonly events: readonly RecordedEvent[];
}

/** Records until `stop`; the events go to a file meanwhile, as they are large. */
export async function record(plane: ControlPlane, file: string): Promise<{ stop(): Promise<Recording> }> {
  const { api } = plane;
  const lists = new Map<string, Listed>();
  const discovery = new Map<string, string>();
  for (const root of ['/api/v1', '/apis/discovery.k8s.io/v1']) discovery.set(root, await api.raw(root));
  for (const path of LISTED) lists.set(path, await api.get<Listed>(path));
  const out = createWriteStream(file);
  const stopping = new AbortController();
  const startMs = performance.now();
  const watches = RECORDED.map((path) =>
    follow(plane, path, lists.get(path)!, { out, startMs }, stopping.signal),
  );
  return {
    stop: async () => {
      stopping.abort();
      await Promise.all(watches);
      await new Promise<void>((resolve) => out.end(resolve));
      const events = readFileSync(file, 'utf8')
        .split('\n')
        .filter(Boolean)
        .map((line) => JSON.parse(line) as RecordedEvent);
      return { lists, discovery, events };
    },
  };
}

/** Every line of one watch, until the signal. */
function follow(
  plane: ControlPlane,
  path: string,
  list: Listed,
  sink: { readonly out: WriteStream; readonly startMs: number },
  signal: AbortSignal,
): Promise<void> {
  const watch = `${path}?watch=1&resourceVersion=${list.metadata.resourceVersion}`;
  return new Promise((resolve, reject) => {
    const sent = httpsRequest(new URL(watch, plane.url), { ...asAdmin(plane), signal }, (answer) => {
      let rest = '';
      answer.setEncoding('utf8');
      answer.on('data', (text: string) => {
        const atMs = performance.now() - sink.startMs;
        const lines = (rest + text).split('\n');
        rest = lines.pop()!;
        for (const line of lines) sink.out.write(`${JSON.stringify({ path, atMs, line })}\n`);
      });
      answer.on('error', () => resolve());
      answer.on('end', resolve);
    });
    sent.on('error', (error) => (signal.aborted ? resolve() : reject(error)));
    sent.end();
  });
}

function asAdmin({ admin, ca }: ControlPlane): RequestOptions {
  return {
    ca: ca.certificate,
    cert: readFileSync(admin.certificateFile),
    key: readFileSync(admin.keyFile),
  };
}

/** An API server that says again what was recorded, so many times as fast; whatever was not is asked of the real one. HTTP on loopback, lists as streams of events. */
export class ReplayServer {
  readonly #recording: Recording;
  readonly #plane: ControlPlane;
  readonly #server: Server;
  readonly #watches = new Map<string, ServerResponse>();

  private constructor(recording: Recording, plane: ControlPlane) {
    this.#recording = recording;
    this.#plane = plane;
    this.#server = createServer((request, response) => this.#answer(request, response));
  }

  static async start(recording: Recording, plane: ControlPlane): Promise<ReplayServer> {
    const server = new ReplayServer(recording, plane);
    await new Promise<void>((resolve) => server.#server.listen(0, '127.0.0.1', resolve));
    return server;
  }

  get url(): string {
    const { port } = this.#server.address() as { port: number };
    return `http://127.0.0.1:${port}`;
  }

  /** Resolves when the last event has been said; gives the seconds it took. */
  async play(speed: number): Promise<number> {
    const startMs = performance.now();
    for (const { path, atMs, line } of this.#recording.events) {
      const waitMs = startMs + atMs / speed - performance.now();
      if (waitMs > 1) await sleep(waitMs);
      this.#watches.get(path)?.write(`${line}\n`);
    }
    return (performance.now() - startMs) / 1000;
  }

  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const { pathname, searchParams } = new URL(request.url!, 'http://localhost');
    const { discovery, lists } = this.#recording;
    const found = discovery.get(pathname);
    const list = lists.get(pathname);
    if (found !== undefined) response.end(found);
    else if (list === undefined) this.#forward(request, response);
    else if (searchParams.get('sendInitialEvents') === 'true') void this.#stream(pathname, list, response);
    else this.#watches.set(pathname, response);
  }

  #forward(request: IncomingMessage, response: ServerResponse): void {
    const { method, url, headers } = request;
    const { host: _host, authorization: _authorization, ...others } = headers;
    const options = { ...asAdmin(this.#plane), method, headers: others };
    const asked = httpsRequest(new URL(url!, this.#plane.url), options, (answer) => {
      response.writeHead(answer.statusCode!, answer.headers);
      answer.on('error', () => response.destroy());
      answer.pipe(response);
    });
    asked.on('error', () => response.destroy());
    response.on('close', () => asked.destroy());
    request.pipe(asked);
  }

  async #stream(path: string, list: Listed, response: ServerResponse): Promise<void> {
    for (const object of list.items) {
      const isRoom = response.write(`${JSON.stringify({ type: 'ADDED', object })}\n`);
      if (!isRoom) await new Promise((resolve) => response.once('drain', resolve));
    }
    const annotations = { 'k8s.io/initial-events-end': 'true' };
    const { resourceVersion } = list.metadata;
    response.write(
      `${JSON.stringify({ type: 'BOOKMARK', object: { metadata: { resourceVersion, annotations } } })}\n`,
    );
    this.#watches.set(path, response);
  }
}
