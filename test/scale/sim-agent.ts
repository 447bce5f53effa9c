import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  type IncomingHttpHeaders,
} from 'node:http2';
import type { SecureContext } from 'node:tls';
import {
  ADDRESS_TYPE_URL,
  AggregatedDiscoveryService,
  AUTHORIZATION_TYPE_URL,
  type envoy,
  PROXY_CONFIG_TYPE_URL,
} from '../../mesh/proto/index.js';
import type { ResponseReader } from './responses.js';

export interface SimAgentOptions {
  readonly url: string;
  readonly secureContext: SecureContext;
  readonly node: string;
  readonly token: () => string;
}

export interface SimAgentDeps {
  readonly dials: Dials;
  readonly reader: ResponseReader;
  /** Of one name: versions by id, 0 where there is none. */
  readonly onChange: (agent: SimAgent, nameId: number, before: number, now: number) => void;
  /** After each response that has been taken. */
  readonly onTaken: (agent: SimAgent, typeUrl: string) => void;
  /** For `initial_resource_versions`: agents that hold the same share one. */
  readonly versionsOf: (agent: SimAgent, typeUrl: string) => Record<string, string>;
}

type Request = envoy.service.discovery.v3.DeltaDiscoveryRequest.$Properties;

/** As the agent asks (mesh/xds/client.ts). */
const TYPE_URLS = [AUTHORIZATION_TYPE_URL, ADDRESS_TYPE_URL, PROXY_CONFIG_TYPE_URL] as const;
const CONNECT_TIMEOUT_MS = 5_000;
const MAX_CONNECT_TIMEOUT_MS = 40_000;
const MIN_BACKOFF_MS = 10;
const MAX_BACKOFF_MS = 15_000;
const HEALTHY_STREAM_MS = 1_000;
const { path, requestSerialize } = AggregatedDiscoveryService.deltaAggregatedResources;

/** An agent as the controller sees it: connection, subscriptions, ACKs, times of mesh/xds; of what it is told only names and versions are kept. */
export class SimAgent {
  readonly node: string;
  /** By id of the name: id of the version that is held. */
  held = new Uint32Array(1024);
  count = 0;
  /** Hashes of all that is held, added up. */
  digest = 0;
  /** On this stream it has been told of addresses. */
  isSynced = false;
  reconnects = -1;
  lastEnd = '';
  #options: SimAgentOptions;
  #deps: SimAgentDeps;
  #session: ClientHttp2Session | null = null;
  #stream: ClientHttp2Stream | null = null;
  #timer: NodeJS.Timeout | null = null;
  #backoffMs = MIN_BACKOFF_MS;
  #connectTimeoutMs = CONNECT_TIMEOUT_MS;
  #openedMs = 0;
  #isStopped = false;
  #isDialling = false;

  constructor(options: SimAgentOptions, deps: SimAgentDeps) {
    this.node = options.node;
    this.#options = options;
    this.#deps = deps;
  }

  start(): void {
    this.#deps.dials.begin(() => this.#connect());
  }

  #connect(): void {
    if (this.#isStopped) {
      this.#deps.dials.end();
      return;
    }
    this.reconnects++;
    this.#isDialling = true;
    const session = connect(this.#options.url, { secureContext: this.#options.secureContext });
    this.#session = session;
    this.#openedMs = Number.POSITIVE_INFINITY;
    session.on('error', (error) => this.#ended(session, error.message));
    session.on('close', () => this.#ended(session, 'closed'));
    session.on('connect', () => {
      if (this.#session !== session) return; // given up
      clearTimeout(this.#timer ?? undefined);
      this.#openedMs = performance.now();
      this.#connectTimeoutMs = CONNECT_TIMEOUT_MS;
      this.#dialled();
    });
    this.#timer = setTimeout(() => {
      this.#connectTimeoutMs = Math.min(MAX_CONNECT_TIMEOUT_MS, this.#connectTimeoutMs * 2);
      this.#ended(session, 'no connection');
    }, this.#connectTimeoutMs);
    this.#open(session);
  }

  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#timer ?? undefined);
    this.#session?.destroy();
  }

  /** No response is read any more, pings are answered: the worst of clients. */
  hang(): void {
    this.#stream?.pause();
  }

  #open(session: ClientHttp2Session): void {
    const stream = session.request({
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/grpc',
      te: 'trailers',
      authorization: `Bearer ${this.#options.token()}`,
      clusterid: 'Kubernetes',
    });
    this.#stream = stream;
    stream.on('error', () => {});
    const told = (headers: IncomingHttpHeaders): void => {
      if (headers['grpc-status'] !== undefined)
        this.lastEnd = `${headers['grpc-status']}: ${headers['grpc-message']}`;
    };
    // A refusal has no trailers, and leaves our half of the stream open.
    stream.on('response', told).on('trailers', told);
    const over = (): void => this.#ended(session, this.lastEnd);
    stream.on('end', over).on('close', over);
    const pieces = new Pieces((message) => this.#take(stream, message));
    stream.on('data', (chunk: Buffer) => pieces.push(chunk));
    for (const typeUrl of TYPE_URLS)
      send(stream, {
        node: nodeOf(this.node),
        typeUrl,
        initialResourceVersions: this.#deps.versionsOf(this, typeUrl),
      });
  }

  #take(stream: ClientHttp2Stream, message: Buffer): void {
    const { reader, onChange, onTaken } = this.#deps;
    const { typeUrl, nonce, content } = reader.read(message);
    if (this.held.length < reader.names.length) this.#grow(reader.names.length);
    for (const versionId of content.versions)
      this.#hold(reader.versions[versionId]!.nameId, versionId, onChange);
    for (const nameId of content.removed) this.#hold(nameId, 0, onChange);
    send(stream, { typeUrl, responseNonce: nonce });
    if (typeUrl === ADDRESS_TYPE_URL) this.isSynced = true;
    onTaken(this, typeUrl);
  }

  #hold(nameId: number, now: number, onChange: SimAgentDeps['onChange']): void {
    const before = this.held[nameId]!;
    if (before === now) return;
    const { versions } = this.#deps.reader;
    this.held[nameId] = now;
    this.count += (now === 0 ? 0 : 1) - (before === 0 ? 0 : 1);
    this.digest = (this.digest + versions[now]!.hash - versions[before]!.hash) >>> 0;
    onChange(this, nameId, before, now);
  }

  #dialled(): void {
    if (this.#isDialling) this.#deps.dials.end();
    this.#isDialling = false;
  }

  #grow(names: number): void {
    const held = new Uint32Array(names * 2);
    held.set(this.held);
    this.held = held;
  }

  #ended(session: ClientHttp2Session, why: string): void {
    if (this.#session !== session) return;
    this.#session = null;
    this.#dialled();
    this.isSynced = false;
    clearTimeout(this.#timer ?? undefined);
    session.destroy();
    if (this.#isStopped) return;
    this.lastEnd = why;
    if (performance.now() - this.#openedMs >= HEALTHY_STREAM_MS) this.#backoffMs = MIN_BACKOFF_MS;
    this.#timer = setTimeout(() => this.start(), this.#backoffMs * (0.5 + Math.random() / 2));
    this.#backoffMs = Math.min(MAX_BACKOFF_MS, this.#backoffMs * 2);
  }
}

function nodeOf(node: string): envoy.config.core.v3.Node.$Properties {
  const name = `culvert-agent-${node}`;
  const text = (stringValue: string) => ({ stringValue });
  return {
    id: `ztunnel~1.1.1.1~${name}.culvert-system~culvert-system.svc.cluster.local`,
    metadata: {
      fields: {
        NAME: text(name),
        NAMESPACE: text('culvert-system'),
        INSTANCE_IPS: text('1.1.1.1'),
        NODE_NAME: text(node),
      },
    },
  };
}

function send(stream: ClientHttp2Stream, request: Request): void {
  if (stream.destroyed || stream.closed) return;
  const body = requestSerialize(request);
  const frame = Buffer.allocUnsafe(5 + body.length);
  frame.writeUInt8(0, 0);
  frame.writeUInt32BE(body.length, 1);
  body.copy(frame, 5);
  stream.write(frame);
}

/** So many connections of a process are made at once, in the order in which they are asked for: its agents share one CPU, where real ones have a node each. */
export class Dials {
  readonly #most: number;
  readonly #waiting: (() => void)[] = [];
  #underWay = 0;

  constructor(most: number) {
    this.#most = most;
  }

  begin(dial: () => void): void {
    if (this.#underWay >= this.#most) this.#waiting.push(dial);
    else {
      this.#underWay++;
      dial();
    }
  }

  /** One has come about, or has failed. */
  end(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#underWay--;
    else next();
  }
}

/** Puts gRPC messages together. */
class Pieces {
  #chunks: Buffer[] = [];
  #bytes = 0;
  #onMessage: (message: Buffer) => void;

  constructor(onMessage: (message: Buffer) => void) {
    this.#onMessage = onMessage;
  }

  push(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    while (this.#bytes >= 5) {
      const first = this.#chunks[0]!.length >= 5 ? this.#chunks[0]! : this.#join();
      const length = first.readUInt32BE(1);
      if (this.#bytes < 5 + length) return;
      const all = this.#join();
      this.#chunks = all.length > 5 + length ? [all.subarray(5 + length)] : [];
      this.#bytes -= 5 + length;
      this.#onMessage(all.subarray(5, 5 + length));
    }
  }

  #join(): Buffer {
    if (this.#chunks.length > 1) this.#chunks = [Buffer.concat(this.#chunks, this.#bytes)];
    return this.#chunks[0]!;
  }
}
