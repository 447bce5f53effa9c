import { KubeError } from './errors.js';

const NEWLINE = 0x0a;

/** Cuts a byte stream into lines. Chunks may end anywhere; a line that never ends is an error, not memory. What is left at the end is dropped: it was cut. */
export class LineSplitter {
  readonly #maxLineBytes: number;
  readonly #onLine: (line: string) => void;
  /** Pieces of a line that has not ended; joined once (an object of 1 MB comes in dozens). */
  #pieces: Buffer[];
  #pieceBytes: number;

  constructor(options: { readonly maxLineBytes: number }, onLine: (line: string) => void) {
    this.#maxLineBytes = options.maxLineBytes;
    this.#onLine = onLine;
    this.#pieces = [];
    this.#pieceBytes = 0;
  }

  /** @throws KubeError KUBE_PROTOCOL, and what `onLine` throws. */
  push(chunk: Buffer): void {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, start)) {
      const line = this.#complete(chunk.subarray(start, end));
      start = end + 1;
      if (line.trim() !== '') this.#onLine(line);
    }
    if (start < chunk.length) this.#keep(chunk.subarray(start));
  }

  #complete(last: Buffer): string {
    if (this.#pieces.length === 0) {
      this.#check(last.length);
      return last.toString('utf8');
    }
    this.#keep(last);
    const line = Buffer.concat(this.#pieces, this.#pieceBytes).toString('utf8');
    this.#pieces = [];
    this.#pieceBytes = 0;
    return line;
  }

  #keep(piece: Buffer): void {
    this.#pieceBytes += piece.length;
    this.#check(this.#pieceBytes);
    this.#pieces.push(piece);
  }

  #check(bytes: number): void {
    if (bytes > this.#maxLineBytes)
      throw new KubeError('KUBE_PROTOCOL', `an event of more than ${this.#maxLineBytes} bytes`);
  }
}
