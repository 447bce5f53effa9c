import { createHash } from 'node:crypto';
import {
  type ClientRequest,
  Agent as HttpAgent,
  request as httpRequest,
  type IncomingMessage,
} from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { messageOf } from '../common/errors.js';
import { KubeError } from './errors.js';
import { recordOf, refusal } from './events.js';
import type { ClusterAccess, Credentials } from './types.js';

export interface ApiClientOptions {
  /** Named in the API server's audit log. */
  readonly userAgent: string;
  /** From the request to the head of the answer, and between any two pieces of a JSON answer. */
  readonly answerTimeoutMs: number;
  /** JSON answers that are longer are refused. */
  readonly maxAnswerBytes: number;
}

export const API_CLIENT_DEFAULTS = { answerTimeoutMs: 30_000, maxAnswerBytes: 64 << 20 } as const;

export interface ApiRequest {
  readonly method?: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  readonly path: string;
  readonly query?: Readonly<Record<string, string>>;
  /** Impersonated. */
  readonly asUser?: string | undefined;
  readonly body?: unknown;
  /** Of the body; default `application/json`. */
  readonly contentType?: string;
  readonly signal?: AbortSignal;
}

/** A stream is told about as long as it lasts. */
export interface StreamSink {
  /** The API server has agreed; pieces follow. */
  onOpen(): void;
  /** What it throws ends the stream. */
  onData(chunk: Buffer): void;
  /** Longest silence in milliseconds: then the stream ends with KUBE_SILENT. */
  readonly maxSilenceMs: number;
}

const MAX_ERROR_BYTES = 64 << 10;
/** A dead peer of an idle watch is found after this and ten probes a second apart. */
const TCP_KEEPALIVE_MS = 15_000;
/** As many as ask at once where much is asked (TokenReviews when all agents come back): a connection made for each costs both sides a handshake. */
const MAX_IDLE_CONNECTIONS = 32;

/**
 * HTTP/1.1 to the API server: a connection for each watch, so that none can starve another, a few kept ones for everything else. Every request
 * reads its credentials anew; connections that were made with older ones are not used again.
 */
export class ApiClient {
  readonly #options: ApiClientOptions;
  readonly #access: ClusterAccess;
  #agent: HttpAgent | null = null;
  #agentKey = '';

  constructor(options: ApiClientOptions, deps: { readonly access: ClusterAccess }) {
    this.#options = options;
    this.#access = deps.access;
  }

  /** The JSON of a successful answer. @throws KubeError */
  async request(request: ApiRequest): Promise<unknown> {
    const { path } = request;
    const response = await this.#open(request);
    const text = await this.#textOf(response, this.#options.maxAnswerBytes, path);
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new KubeError('KUBE_PROTOCOL', `${path} is not answered with JSON`, { path }, error);
    }
  }

  /** Resolves when the API server ends the stream in good order. @throws KubeError, and what the sink throws. */
  async stream(request: ApiRequest, sink: StreamSink): Promise<void> {
    const response = await this.#open(request);
    sink.onOpen();
    await this.#read(response, sink.maxSilenceMs, request.path, (chunk) => sink.onData(chunk));
  }

  /** Closes kept connections; what is under way ends by its signal. */
  close(): void {
    this.#retire();
  }

  async #open(request: ApiRequest): Promise<IncomingMessage> {
    const { path } = request;
    const response = await this.#send(request, this.#access.read());
    const status = response.statusCode ?? 0;
    if (status >= 200 && status < 300) return response;
    const text = await this.#textOf(response, MAX_ERROR_BYTES, path);
    throw refusal(statusObjectOf(text, response.headers['retry-after']), status, { path });
  }

  #send(request: ApiRequest, credentials: Credentials): Promise<IncomingMessage> {
    const { path, signal } = request;
    return new Promise((resolve, reject) => {
      const failed = (reason: string, cause?: unknown) =>
        reject(new KubeError('KUBE_UNREACHABLE', `${credentials.server}${path}: ${reason}`, { path }, cause));
      const sent = this.#dispatch(request, credentials);
      const timer = setTimeout(() => {
        failed(`no answer within ${this.#options.answerTimeoutMs} ms`);
        sent.destroy();
      }, this.#options.answerTimeoutMs);
      sent.on('socket', (socket) => socket.setKeepAlive(true, TCP_KEEPALIVE_MS));
      sent.on('response', (response) => {
        clearTimeout(timer);
        resolve(response);
      });
      sent.on('error', (error) => {
        clearTimeout(timer);
        failed(signal?.aborted === true ? endOf(signal) : messageOf(error), error);
      });
    });
  }

  #dispatch(request: ApiRequest, credentials: Credentials): ClientRequest {
    const { method = 'GET', path, query = {}, signal } = request;
    const url = new URL(`${credentials.server}${path}`);
    url.search = new URLSearchParams(query).toString();
    const body = request.body === undefined ? null : JSON.stringify(request.body);
    const headers: Record<string, string> = {
      accept: 'application/json',
      'user-agent': this.#options.userAgent,
    };
    if (credentials.token !== null) headers['authorization'] = `Bearer ${credentials.token}`;
    if (request.asUser !== undefined) headers['impersonate-user'] = request.asUser;
    if (body !== null) {
      headers['content-type'] = request.contentType ?? 'application/json';
      headers['content-length'] = String(Buffer.byteLength(body));
    }
    const send = url.protocol === 'https:' ? httpsRequest : httpRequest;
    const agent = this.#agentFor(credentials);
    const sent = send(url, { method, headers, agent, ...(signal === undefined ? {} : { signal }) });
    sent.end(body ?? undefined);
    return sent;
  }

  /** One agent for the same material: a rotated CA or certificate makes another, and what the old one still carries ends by itself. */
  #agentFor({ server, ca, certificate, key, serverName }: Credentials): HttpAgent {
    const hash = createHash('sha256').update(JSON.stringify([server, ca, certificate, key, serverName]));
    const agentKey = hash.digest('hex');
    if (this.#agent !== null && agentKey === this.#agentKey) return this.#agent;
    this.#retire();
    const kept = { keepAlive: true, maxFreeSockets: MAX_IDLE_CONNECTIONS };
    this.#agentKey = agentKey;
    this.#agent = server.startsWith('http:')
      ? new HttpAgent(kept)
      : new HttpsAgent({
          ...kept,
          ...(ca === null ? {} : { ca }),
          ...(certificate === null ? {} : { cert: certificate }),
          ...(key === null ? {} : { key }),
          ...(serverName === null ? {} : { servername: serverName }),
        });
    return this.#agent;
  }

  #retire(): void {
    if (this.#agent === null) return;
    this.#agent.maxFreeSockets = 0;
    for (const sockets of Object.values(this.#agent.freeSockets))
      for (const socket of sockets ?? []) socket.destroy();
    this.#agent = null;
  }

  async #textOf(response: IncomingMessage, maxBytes: number, path: string): Promise<string> {
    const chunks: Buffer[] = [];
    let bytes = 0;
    await this.#read(response, this.#options.answerTimeoutMs, path, (chunk) => {
      bytes += chunk.length;
      if (bytes > maxBytes)
        throw new KubeError('KUBE_PROTOCOL', `${path}: more than ${maxBytes} bytes`, { path });
      chunks.push(chunk);
    });
    return Buffer.concat(chunks, bytes).toString('utf8');
  }

  #read(
    response: IncomingMessage,
    maxSilenceMs: number,
    path: string,
    onData: (chunk: Buffer) => void,
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      const fail = (error: unknown) => {
        clearTimeout(timer);
        reject(error);
        response.destroy();
      };
      const lost = (reason: string, cause?: unknown) =>
        fail(new KubeError('KUBE_UNREACHABLE', `${path}: ${reason}`, { path }, cause));
      const timer = setTimeout(
        () => fail(new KubeError('KUBE_SILENT', `${path}: silent for ${maxSilenceMs} ms`, { path })),
        maxSilenceMs,
      );
      response.on('data', (chunk: Buffer) => {
        timer.refresh();
        try {
          onData(chunk);
        } catch (error) {
          fail(error);
        }
      });
      response.on('end', () => {
        clearTimeout(timer);
        resolve();
      });
      response.on('error', (error) => lost(messageOf(error), error));
      response.on('close', () => lost('cut'));
    });
  }
}

/** Why a request was given up. */
function endOf({ reason }: AbortSignal): string {
  return (reason as Error).name === 'TimeoutError' ? 'no answer in time' : 'stopped';
}

/** The answer's `Status`, or one made of whatever a proxy says in its stead. */
function statusObjectOf(text: string, retryAfter: string | undefined): Record<string, unknown> {
  let status: Record<string, unknown> | undefined;
  try {
    status = recordOf(JSON.parse(text));
  } catch {
    status = { message: text.trim().slice(0, 300) };
  }
  const details = recordOf(status?.['details']) ?? {};
  return { ...status, details: { retryAfterSeconds: Number(retryAfter ?? 0), ...details } };
}
