import {
  closeSync,
  createReadStream,
  existsSync,
  mkdirSync,
  openSync,
  renameSync,
  statSync,
  writeSync,
} from 'node:fs';
import { dirname } from 'node:path';
import type { Readable, Writable } from 'node:stream';

/** Query of GET /containerLogs, as the API server passes it on. */
export interface LogQuery {
  readonly follow: boolean;
  readonly timestamps: boolean;
  readonly tailLines: number | null;
  readonly limitBytes: number | null;
  /** Milliseconds since 1970; lines before are left out. */
  readonly since: number | null;
}

/** What one container printed, a file of lines `<time> <stream> <text>`; that of its predecessor is kept beside it. */
export class LogFile {
  readonly path: string;
  #file: number;
  /** Lines not yet ended, by stream. */
  #rest: Map<string, string>;
  #open: number;
  #waiting: Set<() => void>;

  /** Begins a new log; what was there becomes the previous one. */
  constructor(path: string) {
    this.path = path;
    mkdirSync(dirname(path), { recursive: true });
    if (existsSync(path)) renameSync(path, `${path}.previous`);
    this.#file = openSync(path, 'a');
    this.#rest = new Map();
    this.#open = 0;
    this.#waiting = new Set();
  }

  /** Takes the stream's lines until its end. */
  follow(stream: Readable, name: 'stdout' | 'stderr'): void {
    this.#open += 1;
    stream.setEncoding('utf8');
    stream.on('data', (text: string) => this.#add(name, text));
    stream.on('error', () => undefined);
    stream.on('close', () => {
      const rest = this.#rest.get(name);
      if (rest) this.#add(name, '\n');
      this.#open -= 1;
      if (this.#open === 0) closeSync(this.#file);
      this.#wake();
    });
  }

  get ended(): boolean {
    return this.#open === 0;
  }

  /** Resolves as soon as there is more, or the container ended. */
  change(): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.add(resolve);
    });
  }

  #add(name: string, text: string): void {
    const lines = ((this.#rest.get(name) ?? '') + text).split('\n');
    this.#rest.set(name, lines.pop()!);
    if (lines.length === 0) return;
    const now = new Date().toISOString();
    writeSync(this.#file, lines.map((line) => `${now} ${name} ${line}\n`).join(''));
    this.#wake();
  }

  #wake(): void {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const resolve of waiting) resolve();
  }
}

/** Writes the log as asked for; with `follow` until the container ended or the reader went. `log` is null for one that is closed. */
export async function sendLog(
  path: string,
  log: LogFile | null,
  query: LogQuery,
  out: Writable,
): Promise<void> {
  let left = query.limitBytes ?? Number.POSITIVE_INFINITY;
  const put = (line: string): boolean => {
    const [time = '', , ...rest] = line.split(' ');
    if (query.since !== null && Date.parse(time) < query.since) return true;
    const text = `${query.timestamps ? `${time} ` : ''}${rest.join(' ')}\n`;
    out.write(text.slice(0, left));
    left -= text.length;
    return left > 0;
  };
  let gone = false;
  out.on('close', () => {
    gone = true;
  });
  let offset = 0;
  let first = true;
  for (;;) {
    const more = query.follow && log !== null && !log.ended;
    const changed = more ? log.change() : null;
    const { lines, next } = await linesFrom(path, offset);
    offset = next;
    const chosen =
      first && query.tailLines !== null ? lines.slice(Math.max(0, lines.length - query.tailLines)) : lines;
    first = false;
    for (const line of chosen) if (!put(line)) return;
    if (changed === null || gone) return;
    await changed;
  }
}

async function linesFrom(path: string, offset: number): Promise<{ lines: string[]; next: number }> {
  if (!existsSync(path)) return { lines: [], next: offset };
  const end = statSync(path).size;
  if (end <= offset) return { lines: [], next: offset };
  const chunks: Buffer[] = [];
  for await (const chunk of createReadStream(path, { start: offset, end: end - 1 }))
    chunks.push(chunk as Buffer);
  const lines = Buffer.concat(chunks).toString('utf8').split('\n');
  lines.pop(); // Only whole lines are written.
  return { lines, next: end };
}
