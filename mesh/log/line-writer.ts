import { write } from 'node:fs';

export interface LineWriterOptions {
  /** @default 1 (stdout) */
  readonly fd?: number;
  /** Lines that would wait on top of this are dropped and counted. @default 4194304 */
  readonly maxPendingBytes?: number;
}

/** Up to this many bytes a write to a pipe is one piece (PIPE_BUF, pipe(7)): nobody else's line ends up inside of ours. */
const ATOMIC_BYTES = 4096;
const NEWLINE = 0x0a;
const RETRY_MS = 10;

/** Writes many lines without ever blocking its thread: who reads them may stand still. In order, whole lines, one write at a time. */
export class LineWriter {
  /** Lost because the reader was too slow, or because the descriptor failed. */
  droppedLines = 0;
  readonly #fd: number;
  readonly #maxPendingBytes: number;
  #pending: Buffer[] = [];
  #pendingBytes = 0;
  #isWriting = false;
  #onIdle: (() => void)[] = [];

  constructor(options: LineWriterOptions = {}) {
    this.#fd = options.fd ?? 1;
    this.#maxPendingBytes = options.maxPendingBytes ?? 4 * 1024 * 1024;
  }

  /** Lines, each ended by a line feed. */
  write(lines: string): void {
    const bytes = Buffer.from(lines);
    if (bytes.length === 0) return;
    if (this.#pendingBytes + bytes.length > this.#maxPendingBytes) {
      this.#drop(bytes);
      return;
    }
    this.#pending.push(bytes);
    this.#pendingBytes += bytes.length;
    this.#next();
  }

  /** Resolves when everything is written, or after `timeoutMs`. */
  flush(timeoutMs: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, timeoutMs);
      this.#onIdle.push(() => {
        clearTimeout(timer);
        resolve();
      });
      this.#next();
    });
  }

  #next(): void {
    if (this.#isWriting) return;
    const bytes = this.#pending[0];
    if (bytes === undefined) {
      for (const resolve of this.#onIdle.splice(0)) resolve();
      return;
    }
    this.#isWriting = true;
    write(this.#fd, bytes, 0, pieceOf(bytes), null, (error, written) => this.#wrote(error, written));
  }

  #wrote(error: NodeJS.ErrnoException | null, written: number): void {
    if (error?.code === 'EAGAIN') {
      // Whoever shares the descriptor has made it non-blocking.
      setTimeout(() => this.#wrote(null, 0), RETRY_MS).unref();
      return;
    }
    this.#isWriting = false;
    const bytes = this.#pending[0]!;
    if (error !== null) this.#drop(bytes);
    const done = error === null ? written : bytes.length;
    this.#pendingBytes -= done;
    if (done < bytes.length) this.#pending[0] = bytes.subarray(done);
    else this.#pending.shift();
    this.#next();
  }

  #drop(bytes: Buffer): void {
    for (const byte of bytes) if (byte === NEWLINE) this.droppedLines++;
  }
}

/** As many whole lines as one atomic write takes; of a longer line all. */
function pieceOf(bytes: Buffer): number {
  if (bytes.length <= ATOMIC_BYTES) return bytes.length;
  const end = bytes.lastIndexOf(NEWLINE, ATOMIC_BYTES - 1);
  return (end < 0 ? bytes.indexOf(NEWLINE) : end) + 1 || bytes.length;
}
