import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { SocketAddress } from '../../mesh/common/address.js';
import { messageOf } from '../../mesh/common/errors.js';
import type { Log } from '../../mesh/log/index.js';
import type { TranslateOptions } from '../translate/index.js';
import { review } from './review.js';
import type { AdmissionResponse, Verdict } from './types.js';

/** Certificate and key, PEM. */
export interface ServingPair {
  readonly cert: string;
  readonly key: string;
}

export interface AdmissionServerOptions extends TranslateOptions {
  readonly listen: SocketAddress;
}

export interface AdmissionServerDeps {
  readonly pair: ServingPair;
  readonly onVerdict: (verdict: Verdict) => void;
  readonly log: Log;
}

/** An object of 1.5 MB, etcd's limit, as it is and as it was, both as JSON inside JSON. */
const MAX_BODY_BYTES = 8 << 20;
/** Of all bodies together: whoever reaches the port may send some, and this process is the mesh's CA, too. */
const MAX_HELD_BYTES = 32 << 20;
/** API servers wait 10 s at most by default, and give up before. */
const TIMEOUT_MS = 8_000;
/** API servers keep few connections each. */
const MAX_CONNECTIONS = 256;

/** HTTPS: `POST /validate` takes an AdmissionReview, `GET /healthz` says that it listens. */
export class AdmissionServer {
  readonly #options: AdmissionServerOptions;
  readonly #deps: AdmissionServerDeps;
  readonly #server: Server;
  /** Of bodies that are being read. */
  #heldBytes: number;

  private constructor(options: AdmissionServerOptions, deps: AdmissionServerDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#heldBytes = 0;
    this.#server = createServer({ ...deps.pair, minVersion: 'TLSv1.2' }, (request, response) => {
      this.#answer(request, response);
    });
    this.#server.headersTimeout = TIMEOUT_MS;
    this.#server.requestTimeout = TIMEOUT_MS;
    this.#server.maxConnections = MAX_CONNECTIONS;
    // Whoever does not speak TLS.
    this.#server.on('tlsClientError', (_error, socket) => socket.destroy());
  }

  /** Resolves when it listens. */
  static async start(options: AdmissionServerOptions, deps: AdmissionServerDeps): Promise<AdmissionServer> {
    const server = new AdmissionServer(options, deps);
    await new Promise<void>((resolve, reject) => {
      server.#server.once('error', reject);
      server.#server.listen(options.listen.port, options.listen.address, () => {
        server.#server.off('error', reject);
        resolve();
      });
    });
    return server;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** For connections from now on. */
  set pair(pair: ServingPair) {
    this.#server.setSecureContext({ ...pair, minVersion: 'TLSv1.2' });
  }

  async close(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
      this.#server.closeAllConnections();
    });
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const path = (request.url ?? '').split('?')[0];
    if (request.method === 'GET' && path === '/healthz') send(response, 200, 'ok\n');
    else if (request.method === 'POST' && path === '/validate') this.#read(request, response);
    else send(response, 404, 'POST /validate\n');
  }

  #read(request: IncomingMessage, response: ServerResponse): void {
    const chunks: Buffer[] = [];
    let bytes = 0;
    const release = () => {
      this.#heldBytes -= bytes;
      bytes = 0;
      chunks.length = 0;
    };
    const refuse = (status: number, reason: string) => {
      this.#fail(response, status, reason);
      release();
      response.once('finish', () => request.destroy());
    };
    request.on('data', (chunk: Buffer) => {
      if (response.headersSent) return;
      bytes += chunk.length;
      this.#heldBytes += chunk.length;
      chunks.push(chunk);
      if (bytes > MAX_BODY_BYTES) refuse(413, `more than ${MAX_BODY_BYTES} bytes`);
      else if (this.#heldBytes > MAX_HELD_BYTES) refuse(503, 'too much at once');
    });
    request.on('end', () => {
      if (!response.headersSent) this.#review(Buffer.concat(chunks, bytes).toString('utf8'), response);
    });
    request.on('error', () => response.destroy());
    request.on('close', release);
  }

  #review(text: string, response: ServerResponse): void {
    let answer: AdmissionResponse | null;
    try {
      answer = review(JSON.parse(text), this.#options);
    } catch (error) {
      const isTheirs = error instanceof SyntaxError;
      this.#fail(response, isTheirs ? 400 : 500, messageOf(error));
      return;
    }
    if (answer === null) {
      this.#fail(response, 400, 'not an AdmissionReview of admission.k8s.io/v1');
      return;
    }
    this.#deps.onVerdict(verdictOf(answer));
    if (!answer.allowed) this.#deps.log.info({ reason: answer.status?.message }, 'object refused');
    const body = { apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview', response: answer };
    send(response, 200, JSON.stringify(body), 'application/json');
  }

  #fail(response: ServerResponse, status: number, reason: string): void {
    this.#deps.onVerdict('failed');
    this.#deps.log.warn({ status, reason }, 'admission review failed');
    send(response, status, `${reason}\n`);
  }
}

function verdictOf({ allowed, warnings }: AdmissionResponse): Verdict {
  if (!allowed) return 'denied';
  return warnings === undefined ? 'allowed' : 'warned';
}

function send(
  response: ServerResponse,
  status: number,
  body: string,
  type = 'text/plain; charset=utf-8',
): void {
  response.writeHead(status, {
    'content-type': type,
    'content-length': Buffer.byteLength(body),
    'x-content-type-options': 'nosniff',
  });
  response.end(body);
}
