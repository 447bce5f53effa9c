import { readFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import { sendLog } from './logs.js';
import { KUBELET_PORT } from './node.js';
import type { PodWorker } from './pod.js';
import { runExec, servePortForward } from './streaming.js';
import type { KubeletConfig } from './types.js';

/** Common name of the API server's client certificate, the only one that is let in. */
const API_SERVER = 'kube-apiserver-kubelet-client';

export interface KubeletServerDeps {
  readonly config: KubeletConfig;
  readonly workers: ReadonlyMap<string, PodWorker>;
  readonly say: (line: string) => void;
}

/** Serves 10250: /containerLogs, /exec, /portForward, /pods, /healthz, to the API server alone. */
export function serveKubelet(deps: KubeletServerDeps): Server {
  const { config, say } = deps;
  const server = createServer({
    key: readFileSync(config.credentials.keyFile),
    cert: readFileSync(config.credentials.certificateFile),
    ca: readFileSync(config.caFile),
    requestCert: true,
    rejectUnauthorized: true,
  });
  server.on('request', (request, response) => {
    if (!isApiServer(request)) return refuse(response, 403, 'only the API server may ask');
    answer(deps, request, response).catch((error: Error) => refuse(response, 500, error.message));
  });
  server.on('upgrade', (request, socket, head) => {
    socket.on('error', () => undefined);
    const status = isApiServer(request) ? upgrade(deps, request, socket, head) : 403;
    if (status !== 101)
      socket.end(`HTTP/1.1 ${status} refused\r\ncontent-length: 0\r\nconnection: close\r\n\r\n`);
  });
  server.on('tlsClientError', (error) => say(`10250: ${error.message}`));
  server.listen(KUBELET_PORT, '::');
  return server;
}

function isApiServer(request: IncomingMessage): boolean {
  return (request.socket as TLSSocket).getPeerCertificate().subject?.CN === API_SERVER;
}

function refuse(response: ServerResponse, status: number, message: string): void {
  if (!response.headersSent) response.writeHead(status, { 'content-type': 'text/plain' });
  response.end(`${message}\n`);
}

async function answer(
  deps: KubeletServerDeps,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const url = new URL(request.url!, 'https://kubelet');
  const [, room, namespace, name, container] = url.pathname.split('/');
  if (room === 'healthz') return void response.end('ok');
  if (room === 'pods') {
    const items = [...deps.workers.values()].map(({ pod }) => pod);
    return void response.end(JSON.stringify({ apiVersion: 'v1', kind: 'PodList', items }));
  }
  if (room !== 'containerLogs')
    return refuse(response, 404, `${url.pathname}: the lab's kubelet has no such thing`);
  const found = workerOf(deps, `${namespace}/${name}`)?.container(container!);
  if (found === undefined)
    return refuse(response, 404, `container ${container} of ${namespace}/${name} is not here`);
  const number = (key: string): number | null =>
    url.searchParams.has(key) ? Number(url.searchParams.get(key)) : null;
  const seconds = number('sinceSeconds');
  const time = url.searchParams.get('sinceTime');
  const previous = url.searchParams.get('previous') === 'true';
  const query = {
    follow: url.searchParams.get('follow') === 'true' && !previous,
    timestamps: url.searchParams.get('timestamps') === 'true',
    tailLines: number('tailLines'),
    limitBytes: number('limitBytes'),
    since: seconds !== null ? Date.now() - seconds * 1000 : time !== null ? Date.parse(time) : null,
  };
  response.writeHead(200, { 'content-type': 'text/plain' });
  response.flushHeaders();
  await sendLog(previous ? `${found.logPath}.previous` : found.logPath, found.log, query, response);
  response.end();
}

/** Starts exec or portForward; gives the status where it does not. */
function upgrade(deps: KubeletServerDeps, request: IncomingMessage, socket: Duplex, head: Buffer): number {
  const url = new URL(request.url!, 'https://kubelet');
  const [, room, namespace, name, third, fourth] = url.pathname.split('/');
  const worker = workerOf(deps, `${namespace}/${name}`);
  if (request.headers.upgrade?.toUpperCase() !== 'SPDY/3.1') return 400;
  const offered = String(request.headers['x-stream-protocol-version'] ?? '').split(/,\s*/);
  const choose = (wanted: readonly string[]): string | undefined =>
    wanted.find((protocol) => offered.includes(protocol));
  const accept = (protocol: string): void => {
    const lines = ['HTTP/1.1 101 Switching Protocols', 'Connection: Upgrade', 'Upgrade: SPDY/3.1'];
    socket.write(`${[...lines, `X-Stream-Protocol-Version: ${protocol}`].join('\r\n')}\r\n\r\n`);
  };
  if (room === 'exec') {
    // The API server writes the pod's uid between, if it knows it.
    const running = worker?.container(fourth ?? third!)?.running;
    const protocol = choose(['v4.channel.k8s.io', 'v5.channel.k8s.io']);
    if (running == null || protocol === undefined) return running == null ? 404 : 400;
    accept(protocol);
    runExec({ running, query: url.searchParams }, socket, head).catch((error: Error) =>
      deps.say(`exec: ${error.stack}`),
    );
    return 101;
  }
  if (room === 'portForward') {
    const netns = worker?.sandbox?.netns;
    const protocol = choose(['portforward.k8s.io']);
    if (netns === undefined || protocol === undefined) return netns === undefined ? 404 : 400;
    accept(protocol);
    servePortForward(netns, socket, head);
    return 101;
  }
  return 404;
}

function workerOf({ workers }: KubeletServerDeps, name: string): PodWorker | undefined {
  return [...workers.values()].findLast((worker) => worker.name === name);
}
