/** One captured pod's questions: from the mesh's own knowledge, the pod's cache, or its own resolvers. What each pod can make us hold is bounded. */

import { formatAddress } from '../../mesh/common/address.js';
import { messageOf } from '../../mesh/common/errors.js';
import { ResponseCache } from './cache.js';
import type { InFlight } from './limits.js';
import {
  encodeAnswer,
  encodeFormatError,
  encodeQuery,
  maxTcpBytes,
  maxUdpBytes,
  minUdpBytes,
  parseQuery,
  truncate,
} from './message.js';
import type { DnsMetrics } from './metrics.js';
import { addressRecords, type NameAnswer, type NameClient, type Names } from './names.js';
import {
  classIn,
  DnsError,
  DnsFormatError,
  type DnsRecord,
  type Query,
  type Response,
  rcode,
  recordType,
} from './types.js';
import type { Upstream, UpstreamTarget } from './upstream.js';

export type Transport = 'udp' | 'tcp';

export interface ResolverOptions {
  readonly client: NameClient;
  /** Key of the pod in the table of queries under way. */
  readonly uid: string;
  readonly cache: { readonly maxEntries: number; readonly maxBytes: number; readonly maxTtlSeconds: number };
}

export interface ResolverDeps {
  readonly names: Names;
  readonly upstream: Pick<Upstream, 'ask'>;
  /** Read anew for each question. */
  readonly target: () => UpstreamTarget;
  readonly inFlight: InFlight;
  readonly metrics: Pick<DnsMetrics, 'request' | 'upstream'>;
  readonly nowMs: () => number;
  /** Why a question was answered SERVFAIL. */
  readonly onFailure: (error: DnsError) => void;
}

export class PodResolver {
  readonly #options: ResolverOptions;
  readonly #deps: ResolverDeps;
  readonly #cache: ResponseCache;

  constructor(options: ResolverOptions, deps: ResolverDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#cache = new ResponseCache(options.cache, deps);
  }

  get cached(): number {
    return this.#cache.size;
  }

  /** The pod has other resolvers now. */
  forget(): void {
    this.#cache.clear();
  }

  /** Calls `respond` once, now or later, or never (for what is no query at all). Never throws. */
  handle(bytes: Buffer, transport: Transport, respond: (answer: Buffer) => void): void {
    const query = this.#parse(bytes, respond);
    if (query === null) return;
    this.#deps.metrics.request(query.question.type, transport);
    const now = this.#tryAnswerNow(query, transport);
    if (now !== null) {
      respond(now);
      return;
    }
    if (!this.#deps.inFlight.take(this.#options.uid)) {
      respond(this.#failure(query, new DnsError('TOO_MANY_QUERIES', 'too many questions are under way')));
      return;
    }
    void this.#askOthers(query, transport, respond);
  }

  /** Never rejects. */
  async #askOthers(query: Query, transport: Transport, respond: (answer: Buffer) => void): Promise<void> {
    let answer: Buffer;
    try {
      answer = await this.#answerLater(query, transport);
    } catch (error) {
      answer = this.#failure(query, error);
    }
    this.#deps.inFlight.giveBack(this.#options.uid);
    respond(answer);
  }

  #parse(bytes: Buffer, respond: (answer: Buffer) => void): Query | null {
    try {
      return parseQuery(bytes);
    } catch (error) {
      if (!(error instanceof DnsFormatError)) throw error;
      const answer = encodeFormatError(bytes);
      if (answer !== null) respond(answer);
      return null;
    }
  }

  /** A name in the configuration that is none must cost its own question only. */
  #tryAnswerNow(query: Query, transport: Transport): Buffer | null {
    try {
      return this.#answerNow(query, transport);
    } catch (error) {
      return this.#failure(query, error);
    }
  }

  /** Null: others must be asked. */
  #answerNow(query: Query, transport: Transport): Buffer | null {
    const maxBytes = roomFor(query, transport);
    if (query.opcode !== 0) return encodeAnswer(query, { rcode: rcode.notImplemented, maxBytes });
    if ((query.edns?.version ?? 0) !== 0) return encodeAnswer(query, { rcode: rcode.badVersion, maxBytes });
    if (query.question.class !== classIn) return encodeAnswer(query, { rcode: rcode.refused, maxBytes });
    const own = this.#deps.names.answer(this.#options.client, query.question);
    if (own?.alias === null) return this.#ownAnswer(query, own.records, maxBytes);
    if (own !== null) return null;
    const cached = this.#cache.get(query);
    return cached === null ? null : fitting(cached, query, maxBytes);
  }

  async #answerLater(query: Query, transport: Transport): Promise<Buffer> {
    const own = this.#deps.names.answer(this.#options.client, query.question);
    const maxBytes = roomFor(query, transport);
    if (own !== null) return await this.#aliasAnswer(query, own, transport, maxBytes);
    return fitting(await this.#ask(query, transport), query, maxBytes);
  }

  /** An alias of ours to a name that others know: their addresses behind our CNAME. */
  async #aliasAnswer(query: Query, own: NameAnswer, transport: Transport, maxBytes: number): Promise<Buffer> {
    if (own.alias === null) return this.#ownAnswer(query, own.records, maxBytes);
    const further = parseQuery(encodeQuery(0, { ...query.question, name: own.alias }));
    const response = this.#cache.get(further) ?? (await this.#ask(further, transport));
    return encodeAnswer(query, {
      rcode: response.rcode,
      records: [...own.records, ...addressesOf(response, own.alias, query.question.type)],
      maxBytes,
    });
  }

  async #ask(query: Query, transport: Transport): Promise<Response> {
    const startMs = this.#deps.nowMs();
    const { type } = query.question;
    try {
      const response = await this.#deps.upstream.ask(this.#deps.target(), query, transport);
      this.#deps.metrics.upstream(type, transport, this.#deps.nowMs() - startMs, false);
      this.#cache.put(query, response);
      return response;
    } catch (error) {
      this.#deps.metrics.upstream(type, transport, this.#deps.nowMs() - startMs, true);
      throw error;
    }
  }

  #ownAnswer(query: Query, records: readonly DnsRecord[], maxBytes: number): Buffer {
    return encodeAnswer(query, { rcode: rcode.noError, records, authoritative: true, maxBytes });
  }

  #failure(query: Query, error: unknown): Buffer {
    const known =
      error instanceof DnsError ? error : new DnsError('UPSTREAM_FAILED', messageOf(error), {}, error);
    this.#deps.onFailure(known);
    return encodeAnswer(query, { rcode: rcode.serverFailure, maxBytes: maxTcpBytes });
  }
}

/** What the client takes: over UDP what it says, within what a path carries. */
function roomFor({ edns }: Query, transport: Transport): number {
  if (transport === 'tcp') return maxTcpBytes;
  return edns === null ? minUdpBytes : Math.min(edns.udpBytes, maxUdpBytes);
}

/** With the client's own id and spelling of the name. */
function fitting(response: Response, query: Query, maxBytes: number): Buffer {
  if (response.bytes.length > maxBytes) return truncate(response, query);
  const bytes = Buffer.from(response.bytes);
  bytes.writeUInt16BE(query.id, 0);
  bytes.set(query.questionBytes, 12);
  return bytes;
}

function addressesOf(response: Response, owner: string, type: number): DnsRecord[] {
  return response.records.flatMap((record): DnsRecord[] => {
    const isAddress = record.type === recordType.a || record.type === recordType.aaaa;
    if (record.section !== 'answer' || record.class !== classIn || !isAddress) return [];
    if (record.dataBytes !== (record.type === recordType.a ? 4 : 16)) return [];
    const address = formatAddress(response.bytes, record.dataAt, record.dataBytes);
    return addressRecords(owner, [address], type).map((one) => ({ ...one, ttlSeconds: record.ttlSeconds }));
  });
}
