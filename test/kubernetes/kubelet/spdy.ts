import { once } from 'node:events';
import type { Duplex } from 'node:stream';
import { constants, createDeflate, createInflate, type Deflate, type Inflate } from 'node:zlib';

/** SPDY/3.1 as kube-apiserver's client speaks it: no flow control, no priorities. https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1 */
const VERSION = 3;
const TYPE = {
  synStream: 1,
  synReply: 2,
  rstStream: 3,
  settings: 4,
  ping: 6,
  goAway: 7,
  headers: 8,
  windowUpdate: 9,
} as const;
const FIN = 1;
const CANCEL = 5;
const MAX_FRAME = 1 << 24;

/** A stream that the client opened. */
export class SpdyStream {
  readonly id: number;
  readonly headers: ReadonlyMap<string, string>;
  /** Called with each piece of data. Set it at once: what comes before is kept. */
  onData: ((data: Buffer) => void) | null;
  /** Called when the client sends no more. */
  onEnd: (() => void) | null;
  #session: SpdySession;
  #early: Buffer[];
  #finished: boolean;
  #ended: boolean;

  constructor(session: SpdySession, id: number, headers: ReadonlyMap<string, string>) {
    this.id = id;
    this.headers = headers;
    this.onData = null;
    this.onEnd = null;
    this.#session = session;
    this.#early = [];
    this.#finished = false;
    this.#ended = false;
  }

  /** Takes what comes from now on, and what came already. */
  read(onData: (data: Buffer) => void, onEnd: () => void): void {
    this.onData = onData;
    this.onEnd = onEnd;
    for (const data of this.#early) onData(data);
    this.#early = [];
    if (this.#finished) onEnd();
  }

  /** Sends data; false: wait for `session.drained` before more. */
  write(data: Buffer): boolean {
    return this.#ended ? true : this.#session.sendData(this.id, data, 0);
  }

  /** Sends the end of the stream, once. */
  end(data: Buffer = Buffer.alloc(0)): void {
    if (this.#ended) return;
    this.#session.sendData(this.id, data, FIN);
    this.#ended = true;
  }

  /** Used by the session. */
  take(data: Buffer, finished: boolean): void {
    if (data.length > 0) {
      if (this.onData === null) this.#early.push(data);
      else this.onData(data);
    }
    if (!finished || this.#finished) return;
    this.#finished = true;
    this.onEnd?.();
  }
}

/** The server's side of a connection. Tells each stream that the client opens, in order. */
export class SpdySession {
  readonly closed: Promise<void>;
  #socket: Duplex;
  #inflate: Inflate;
  #inflated: Buffer[];
  #deflate: Deflate;
  #deflated: Buffer[];
  #streams: Map<number, SpdyStream>;
  #onStream: (stream: SpdyStream) => void;

  constructor(socket: Duplex, head: Buffer, onStream: (stream: SpdyStream) => void) {
    this.#socket = socket;
    this.#onStream = onStream;
    this.#streams = new Map();
    const dictionary = dictionaryOf();
    this.#inflated = [];
    this.#inflate = createInflate({ dictionary });
    this.#inflate.on('data', (data: Buffer) => this.#inflated.push(data));
    this.#inflate.on('error', () => socket.destroy());
    this.#deflated = [];
    this.#deflate = createDeflate({ dictionary });
    this.#deflate.on('data', (data: Buffer) => this.#deflated.push(data));
    this.closed = this.#read(head).finally(() => this.#close());
  }

  /** Resolves when the client can take more. */
  async drained(): Promise<void> {
    if (this.#socket.destroyed || !this.#socket.writableNeedDrain) return;
    await Promise.race([once(this.#socket, 'drain'), once(this.#socket, 'close')]);
  }

  sendData(id: number, data: Buffer, flags: number): boolean {
    if (this.#socket.destroyed) return true;
    const head = Buffer.alloc(8);
    head.writeUInt32BE(id, 0);
    head.writeUInt32BE((flags << 24) | data.length, 4);
    this.#socket.write(head);
    return this.#socket.write(data);
  }

  /** Sends what is left and closes. */
  end(): void {
    this.#socket.end();
  }

  async #read(head: Buffer): Promise<void> {
    let rest = head;
    const take = async (chunk: Buffer): Promise<void> => {
      rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
      while (rest.length >= 8) {
        const length = rest.readUInt32BE(4) & (MAX_FRAME - 1);
        if (rest.length < 8 + length) return;
        await this.#frame(rest.subarray(0, 8), rest.subarray(8, 8 + length));
        rest = rest.subarray(8 + length);
      }
    };
    try {
      await take(Buffer.alloc(0));
      for await (const chunk of this.#socket) await take(chunk as Buffer);
    } catch {
      // Broken off.
    }
  }

  async #frame(head: Buffer, body: Buffer): Promise<void> {
    const word = head.readUInt32BE(0);
    const flags = head[4]!;
    if ((word & 0x80000000) === 0) {
      this.#streams.get(word)?.take(Buffer.from(body), (flags & FIN) !== 0);
      return;
    }
    const type = word & 0xffff;
    if (type === TYPE.synStream) await this.#open(body, flags);
    else if (type === TYPE.headers) await this.#headers(body.subarray(4));
    else if (type === TYPE.ping) this.#control(TYPE.ping, 0, body);
    else if (type === TYPE.rstStream)
      this.#streams.get(body.readUInt32BE(0) & 0x7fffffff)?.take(Buffer.alloc(0), true);
  }

  async #open(body: Buffer, flags: number): Promise<void> {
    const id = body.readUInt32BE(0) & 0x7fffffff;
    const stream = new SpdyStream(this, id, await this.#headers(body.subarray(10)));
    this.#streams.set(id, stream);
    const reply = Buffer.alloc(4);
    reply.writeUInt32BE(id, 0);
    this.#control(TYPE.synReply, 0, Buffer.concat([reply, await this.#noHeaders()]));
    this.#onStream(stream);
    if ((flags & FIN) !== 0) stream.take(Buffer.alloc(0), true);
  }

  /** Refuses a stream. */
  reset(id: number): void {
    const body = Buffer.alloc(8);
    body.writeUInt32BE(id, 0);
    body.writeUInt32BE(CANCEL, 4);
    this.#control(TYPE.rstStream, 0, body);
  }

  #control(type: number, flags: number, body: Buffer): void {
    if (this.#socket.destroyed) return;
    const head = Buffer.alloc(8);
    head.writeUInt32BE((0x80000000 | (VERSION << 16) | type) >>> 0, 0);
    head.writeUInt32BE(((flags << 24) | body.length) >>> 0, 4);
    this.#socket.write(Buffer.concat([head, body]));
  }

  /** Names and values of a block; all blocks of a direction are one zlib stream. */
  async #headers(block: Buffer): Promise<ReadonlyMap<string, string>> {
    await new Promise<void>((resolve) => this.#inflate.write(block, () => resolve()));
    const plain = Buffer.concat(this.#inflated.splice(0));
    const headers = new Map<string, string>();
    let at = 4;
    const text = (): string => {
      const length = plain.readUInt32BE(at);
      at += 4 + length;
      return plain.toString('utf8', at - length, at);
    };
    for (let left = plain.readUInt32BE(0); left > 0; left -= 1) headers.set(text().toLowerCase(), text());
    return headers;
  }

  async #noHeaders(): Promise<Buffer> {
    this.#deflate.write(Buffer.alloc(4));
    await new Promise<void>((resolve) => this.#deflate.flush(constants.Z_SYNC_FLUSH, () => resolve()));
    return Buffer.concat(this.#deflated.splice(0));
  }

  #close(): void {
    for (const stream of this.#streams.values()) stream.take(Buffer.alloc(0), true);
    this.#socket.destroy();
    this.#inflate.close();
    this.#deflate.close();
  }
}

const WORDS =
  'options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow authorization cache-control connection content-base content-encoding content-language content-length content-location content-md5 content-range content-type date etag expect expires from host if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie keep-alive origin';
const TEXT =
  '100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.';

/** The dictionary of SPDY/3, 1423 bytes: words with their lengths, then text. */
function dictionaryOf(): Buffer {
  const words = WORDS.split(' ').map((word) => {
    const text = Buffer.from(word.replace('_', ' '));
    const length = Buffer.alloc(4);
    length.writeUInt32BE(text.length);
    return Buffer.concat([length, text]);
  });
  return Buffer.concat([...words, Buffer.from(TEXT)]);
}
