import { once } from 'node:events';
import tls from 'node:tls';
import type { TlsMaterial } from '../../mesh/io/index.js';
import { nodeTlsOptions } from './test-ca.js';

export interface RawFrame {
  readonly type: number;
  readonly flags: number;
  readonly stream: number;
  readonly payload: Buffer;
}

export const FRAME = {
  DATA: 0,
  HEADERS: 1,
  RST_STREAM: 3,
  SETTINGS: 4,
  PING: 6,
  GOAWAY: 7,
  WINDOW_UPDATE: 8,
} as const;
export const FLAG = { END_STREAM: 1, ACK: 1, END_HEADERS: 4 } as const;

/** An HTTP/2 client that sends exactly the frames it is told to, over node:tls; SETTINGS and PING of the peer are not answered by themselves. */
export class RawHttp2 implements Disposable {
  readonly frames: RawFrame[] = [];
  readonly socket: tls.TLSSocket;
  hasEnded = false;
  private unread: Buffer = Buffer.alloc(0);

  constructor(port: number, material: TlsMaterial) {
    this.socket = tls.connect({
      port,
      host: '127.0.0.1',
      ...nodeTlsOptions(material),
      ALPNProtocols: ['h2'],
      checkServerIdentity: () => undefined,
    });
    this.socket.on('data', (chunk) => this.take(chunk));
    this.socket.on('close', () => {
      this.hasEnded = true;
    });
    this.socket.on('error', () => {});
  }

  get connected(): Promise<unknown> {
    return once(this.socket, 'secureConnect');
  }

  preface(): void {
    this.socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
    this.send(FRAME.SETTINGS, 0, 0);
  }

  send(type: number, flags: number, stream: number, payload: Buffer = Buffer.alloc(0)): void {
    const header = Buffer.alloc(9);
    header.writeUIntBE(payload.length, 0, 3);
    header[3] = type;
    header[4] = flags;
    header.writeUInt32BE(stream, 5);
    this.socket.write(Buffer.concat([header, payload]));
  }

  /** HPACK literals without indexing, no Huffman. */
  headers(
    stream: number,
    list: readonly (readonly [string, string])[],
    flags: number = FLAG.END_HEADERS,
  ): void {
    const parts = list.flatMap(([name, value]) => [
      Buffer.of(0, name.length),
      Buffer.from(name),
      Buffer.of(value.length),
      Buffer.from(value),
    ]);
    this.send(FRAME.HEADERS, flags, stream, Buffer.concat(parts));
  }

  connect(stream: number, authority: string, flags?: number): void {
    this.headers(
      stream,
      [
        [':method', 'CONNECT'],
        [':authority', authority],
      ],
      flags,
    );
  }

  reset(stream: number, code: number): void {
    const payload = Buffer.alloc(4);
    payload.writeUInt32BE(code);
    this.send(FRAME.RST_STREAM, 0, stream, payload);
  }

  of(type: number, stream?: number): RawFrame[] {
    return this.frames.filter((one) => one.type === type && (stream === undefined || one.stream === stream));
  }

  private take(chunk: Buffer): void {
    this.unread = Buffer.concat([this.unread, chunk]);
    while (this.unread.length >= 9) {
      const end = 9 + this.unread.readUIntBE(0, 3);
      if (this.unread.length < end) return;
      const payload = Buffer.from(this.unread.subarray(9, end));
      const stream = this.unread.readUInt32BE(5);
      this.frames.push({ type: this.unread[3]!, flags: this.unread[4]!, stream, payload });
      this.unread = this.unread.subarray(end);
    }
  }

  [Symbol.dispose](): void {
    this.socket.destroy();
  }
}
