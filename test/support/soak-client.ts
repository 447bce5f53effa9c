// Load of the soak: `node soak-client.js '{"seed": 1, "concurrency": 4, "targets": [...]}'`. Makes connections of all kinds to tcp-app servers, each judged by
// what arrived, until standard input says `stop`; prints a line of JSON for each that failed (`SoakFailure`), and at last how many of each kind there were (`SoakCounts`).
import { createHash, randomUUID } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { pattern } from './pattern.js';
import { randomFrom } from './random.js';

export interface SoakTarget {
  /** As the soak names it: `b/server`, `vip`. */
  readonly name: string;
  readonly host: string;
  readonly port: number;
}

export interface SoakClientOptions {
  readonly seed: number;
  readonly concurrency: number;
  readonly targets: readonly SoakTarget[];
}

export interface SoakFailure {
  readonly kind: Kind;
  readonly target: string;
  /** Wall clock, ms: one clock for all processes of this machine. */
  readonly fromMs: number;
  readonly toMs: number;
  readonly failure: string;
}

export interface SoakCounts {
  readonly done: Readonly<Record<string, number>>;
}

const kinds = [
  'short',
  'chat',
  'upload',
  'download',
  'reset-by-server',
  'reset-by-client',
  'stalled',
] as const;
export type Kind = (typeof kinds)[number];

/** Nothing of the soak takes longer unless it hangs. */
const deadlineMs = 60_000;
const maxBytes = 4 << 20;

const options = JSON.parse(process.argv[2]!) as SoakClientOptions;
const random = randomFrom(options.seed);
const done: Record<string, number> = {};
const print = (line: SoakFailure | SoakCounts) => process.stdout.write(`${JSON.stringify(line)}\n`);
let isStopped = false;
createInterface({ input: process.stdin }).on('line', (line) => {
  isStopped ||= line === 'stop';
});

const pick = <Item>(items: readonly Item[]): Item => items[Math.floor(random() * items.length)]!;

async function loop(): Promise<void> {
  while (!isStopped) {
    const kind = pick(kinds);
    const target = pick(options.targets);
    const fromMs = Date.now();
    const failure = await attempt(kind, target);
    done[kind] = (done[kind] ?? 0) + 1;
    if (failure !== null) print({ kind, target: target.name, fromMs, toMs: Date.now(), failure });
    await delay(failure === null ? 5 + random() * 100 : 200);
  }
}

/** Null: all that was sent came back, and it ended as it should. */
async function attempt(kind: Kind, target: SoakTarget): Promise<string | null> {
  const socket = connect({ host: target.host, port: target.port, allowHalfOpen: true, noDelay: true });
  const timer = setTimeout(() => socket.destroy(new Error('nothing happened for too long')), deadlineMs);
  try {
    return await exchanges[kind](new Talk(socket));
  } catch (error) {
    return (error as Error).message;
  } finally {
    clearTimeout(timer);
    socket.destroy();
  }
}

/** What tcp-app sends, and gets, of any length. */
function content(bytes: number): Buffer {
  const blocks: Buffer[] = [];
  for (let at = 0; at < bytes; at += 65_536) blocks.push(pattern(at, Math.min(65_536, bytes - at)));
  return Buffer.concat(blocks);
}

/** One connection, with what has come so far. */
class Talk {
  readonly socket: Socket;
  readonly hash = createHash('sha256');
  received = 0;
  text = '';
  ended = false;
  error: Error | null = null;
  #wake: () => void = () => {};

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.received += chunk.length;
      this.hash.update(chunk);
      if (this.text.length < 4096) this.text += chunk.toString('latin1');
      this.#wake();
    });
    socket.on('end', () => {
      this.ended = true;
      this.#wake();
    });
    socket.on('error', (error) => {
      this.error = error;
      this.#wake();
    });
    socket.on('close', () => {
      this.error ??= this.ended ? null : new Error('closed');
      this.#wake();
    });
  }

  /** Resolves when `isDone`; throws what ended the connection before. */
  async until(isDone: () => boolean): Promise<void> {
    while (!isDone()) {
      if (this.error !== null) throw this.error;
      if (this.ended) throw new Error(`ended after ${this.received} bytes: ${this.text.slice(0, 60)}`);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  async untilEnd(): Promise<void> {
    await this.until(() => this.ended);
  }
}

const exchanges: Readonly<Record<Kind, (talk: Talk) => Promise<string | null>>> = {
  async short(talk) {
    talk.socket.write('peer\n');
    await talk.untilEnd();
    return talk.text.startsWith('{"peer"') ? null : `answered ${talk.text.slice(0, 60)}`;
  },

  async chat(talk) {
    talk.socket.write('echo\n');
    let expected = '';
    for (let turn = Math.ceil(random() * 20); turn > 0; turn--) {
      const word = `${randomUUID()}\n`;
      expected += word;
      talk.socket.write(word);
      await talk.until(() => talk.text.length >= Math.min(expected.length, 4096));
      await delay(random() * 200);
    }
    talk.socket.end();
    await talk.untilEnd();
    return `${expected}over`.startsWith(talk.text) ? null : 'answered other words';
  },

  async upload(talk) {
    const bytes = Math.ceil(random() * maxBytes);
    const bytesSent = content(bytes);
    talk.socket.write('count\n');
    talk.socket.end(bytesSent);
    await talk.untilEnd();
    const sha256 = createHash('sha256').update(bytesSent).digest('hex');
    const answer = JSON.parse(talk.text) as { bytes: number; sha256: string };
    return answer.bytes === bytes && answer.sha256 === sha256 ? null : `the server had ${talk.text}`;
  },

  async download(talk) {
    const bytes = Math.ceil(random() * maxBytes);
    talk.socket.write(`send ${bytes}\n`);
    await talk.untilEnd();
    const expected = createHash('sha256').update(content(bytes)).digest('hex');
    return talk.hash.digest('hex') === expected ? null : `${talk.received} of ${bytes} bytes came`;
  },

  async 'reset-by-server'(talk) {
    talk.socket.write('reset\n');
    const how = await talk.untilEnd().then(
      () => 'a clean end',
      (error: NodeJS.ErrnoException) => error.code ?? error.message,
    );
    return how === 'ECONNRESET' ? null : `saw ${how} instead of a reset`;
  },

  async 'reset-by-client'(talk) {
    talk.socket.write('send 100000000\n');
    await talk.until(() => talk.received > 1 << 16);
    talk.socket.resetAndDestroy();
    return null;
  },

  /** The server reads no more: everything backs up to us and stays there for a while. */
  async stalled(talk) {
    talk.socket.write('stall 4000\n');
    await talk.until(() => talk.text === 'held');
    talk.socket.write(content(1 << 20));
    await delay(500 + random() * 2000);
    if (talk.error !== null) throw talk.error;
    if (random() < 0.5) talk.socket.resetAndDestroy();
    return null;
  },
};

await Promise.all(Array.from({ length: options.concurrency }, loop));
print({ done });
process.exit(0);
