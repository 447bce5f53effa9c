import { readFileSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { Agent, request } from 'node:https';
import { setTimeout as delay } from 'node:timers/promises';
import type { Credentials } from './certificates.js';

/** An object as the API server gives it. */
export interface KubeObject {
  apiVersion?: string;
  kind?: string;
  metadata: {
    name: string;
    namespace?: string;
    uid?: string;
    resourceVersion?: string;
    generation?: number;
    labels?: Record<string, string>;
    annotations?: Record<string, string>;
    creationTimestamp?: string;
    deletionTimestamp?: string;
    deletionGracePeriodSeconds?: number;
    ownerReferences?: object[];
  };
}

interface Listed<T> {
  readonly metadata: { readonly resourceVersion: string };
  readonly items: T[];
}

interface WatchEvent<T> {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK' | 'ERROR';
  readonly object: T;
}

/** What the API server refused; `status` is HTTP's. */
export class ApiError extends Error {
  readonly status: number;
  readonly reason: string;

  constructor(what: string, status: number, body: string) {
    let [reason, message] = ['', body.slice(0, 500)];
    try {
      const parsed = JSON.parse(body) as { reason?: string; message?: string };
      [reason, message] = [parsed.reason ?? '', parsed.message ?? message];
    } catch {
      // Not a Status: taken as it is.
    }
    super(`${what}: ${status} ${message}`);
    this.status = status;
    this.reason = reason;
  }
}

export interface ApiOptions {
  readonly url: string;
  readonly caFile: string;
  readonly credentials: Credentials;
}

/** How a watched collection changes; the maps of `Watched.items` are already as told. */
export type Change<T> = (object: T, type: 'ADDED' | 'MODIFIED' | 'DELETED') => void;

const REQUEST_TIMEOUT_MS = 20_000;

/** The little of a Kubernetes client that lab kubelets and tests of the cluster need; the mesh's own is another. */
export class ApiClient {
  readonly url: string;
  #agent: Agent;
  /** Watches hold a connection each. */
  #tls: { readonly ca: Buffer; readonly cert: Buffer; readonly key: Buffer };

  constructor({ url, caFile, credentials }: ApiOptions) {
    this.url = url;
    this.#tls = {
      ca: readFileSync(caFile),
      cert: readFileSync(credentials.certificateFile),
      key: readFileSync(credentials.keyFile),
    };
    this.#agent = new Agent({ keepAlive: true, maxSockets: 16, ...this.#tls });
  }

  async get<T>(path: string): Promise<T> {
    return (await this.#json('GET', path)) as T;
  }

  async post<T>(path: string, body: object): Promise<T> {
    return (await this.#json('POST', path, body)) as T;
  }

  async put<T>(path: string, body: object): Promise<T> {
    return (await this.#json('PUT', path, body)) as T;
  }

  /** Merge patch unless `type` says another. */
  async patch<T>(path: string, body: object, type = 'application/merge-patch+json'): Promise<T> {
    return (await this.#json('PATCH', path, body, type)) as T;
  }

  async delete(path: string, body: object = {}): Promise<void> {
    await this.#json('DELETE', path, body);
  }

  /** Text of any path, as `kubectl get --raw`. */
  async raw(path: string): Promise<string> {
    return await this.#send('GET', path);
  }

  /** Lists and then watches, again and again until the signal; tells each change. */
  async watch<T extends KubeObject>(
    path: string,
    change: Change<T>,
    options: { readonly signal: AbortSignal; readonly onSynced?: () => void; readonly query?: string },
  ): Promise<void> {
    const known = new Map<string, T>();
    const query = options.query === undefined ? '' : `&${options.query}`;
    for (let failures = 0; !options.signal.aborted; ) {
      try {
        let version = await this.#list(`${path}?limit=0${query}`, known, change);
        options.onSynced?.();
        failures = 0;
        for (;;) {
          const from = `watch=1&allowWatchBookmarks=true&timeoutSeconds=300&resourceVersion=${version}`;
          version = await this.#follow(`${path}?${from}${query}`, version, known, change, options.signal);
          if (options.signal.aborted) return;
        }
      } catch {
        // Expired, cut off, or refused for now: list again.
        failures += 1;
        await delay(Math.min(5000, 100 * 2 ** failures) * (0.5 + Math.random() / 2));
      }
    }
  }

  async #list<T extends KubeObject>(path: string, known: Map<string, T>, change: Change<T>): Promise<string> {
    const { items, metadata } = await this.get<Listed<T>>(path);
    const now = new Map(items.map((item) => [item.metadata.uid!, item]));
    for (const [uid, item] of [...known]) {
      if (now.has(uid)) continue;
      known.delete(uid);
      change(item, 'DELETED');
    }
    for (const [uid, item] of now) {
      const before = known.get(uid);
      known.set(uid, item);
      if (before?.metadata.resourceVersion === item.metadata.resourceVersion) continue;
      change(item, before === undefined ? 'ADDED' : 'MODIFIED');
    }
    return metadata.resourceVersion;
  }

  /** One watch request to its end; gives the version reached. */
  #follow<T extends KubeObject>(
    path: string,
    version: string,
    known: Map<string, T>,
    change: Change<T>,
    signal: AbortSignal,
  ): Promise<string> {
    return new Promise((resolve, reject) => {
      const sent = request(new URL(path, this.url), { ...this.#tls, agent: false, signal }, (answer) => {
        if (answer.statusCode !== 200) {
          textOf(answer).then((text) => reject(new ApiError(path, answer.statusCode!, text)), reject);
          return;
        }
        let rest = '';
        answer.setEncoding('utf8');
        answer.on('data', (text: string) => {
          const lines = (rest + text).split('\n');
          rest = lines.pop()!;
          for (const line of lines) {
            const event = JSON.parse(line) as WatchEvent<T>;
            if (event.type === 'ERROR') {
              sent.destroy(new ApiError(path, 410, line));
              return;
            }
            version = event.object.metadata.resourceVersion!;
            if (event.type === 'BOOKMARK') continue;
            if (event.type === 'DELETED') known.delete(event.object.metadata.uid!);
            else known.set(event.object.metadata.uid!, event.object);
            change(event.object, event.type);
          }
        });
        answer.on('end', () => resolve(version));
        answer.on('error', reject);
      });
      // A node that was cut off must notice: the API server sends a bookmark about once a minute.
      sent.setTimeout(120_000, () => sent.destroy(new Error(`${path}: the watch fell silent`)));
      sent.on('error', (error) => (signal.aborted ? resolve(version) : reject(error)));
      sent.end();
    });
  }

  async #json(method: string, path: string, body?: object, type = 'application/json'): Promise<unknown> {
    return JSON.parse(await this.#send(method, path, body, type));
  }

  async #send(method: string, path: string, body?: object, type = 'application/json'): Promise<string> {
    const text = body === undefined ? undefined : JSON.stringify(body);
    const headers =
      text === undefined ? {} : { 'content-type': type, 'content-length': Buffer.byteLength(text) };
    const answer = await new Promise<IncomingMessage>((resolve, reject) => {
      const sent = request(new URL(path, this.url), { method, headers, agent: this.#agent }, resolve);
      sent.setTimeout(REQUEST_TIMEOUT_MS, () => sent.destroy(new Error(`${method} ${path}: no answer`)));
      sent.on('error', reject);
      sent.end(text);
    });
    const received = await textOf(answer);
    if (answer.statusCode! >= 300) throw new ApiError(`${method} ${path}`, answer.statusCode!, received);
    return received;
  }

  close(): void {
    this.#agent.destroy();
  }
}

async function textOf(message: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of message) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString('utf8');
}
