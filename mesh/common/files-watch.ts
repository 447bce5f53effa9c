import { statSync } from 'node:fs';

export interface FilesWatchOptions {
  readonly files: readonly string[];
  /** How often they are looked at. */
  readonly intervalMs: number;
}

/**
 * Tells when one of a few files was written, replaced, made or removed. Their stamps are compared instead of listening for events: links are
 * followed (a mounted Secret or ConfigMap is swapped by one), network file systems and lost events are no matter. Does not keep the process alive.
 */
export class FilesWatch {
  readonly #files: readonly string[];
  readonly #onChange: () => void;
  readonly #timer: NodeJS.Timeout;
  #stamp: string;

  constructor(options: FilesWatchOptions, onChange: () => void) {
    this.#files = options.files;
    this.#onChange = onChange;
    this.#stamp = stampOf(options.files);
    this.#timer = setInterval(() => this.check(), options.intervalMs).unref();
  }

  /** Looks now. */
  check(): void {
    const stamp = stampOf(this.#files);
    if (stamp === this.#stamp) return;
    this.#stamp = stamp;
    this.#onChange();
  }

  close(): void {
    clearInterval(this.#timer);
  }
}

function stampOf(files: readonly string[]): string {
  return files.map(stampOfFile).join(' ');
}

function stampOfFile(file: string): string {
  try {
    const { dev, ino, size, mtimeNs, ctimeNs } = statSync(file, { bigint: true });
    return `${dev}:${ino}:${size}:${mtimeNs}:${ctimeNs}`;
  } catch (error) {
    return String((error as NodeJS.ErrnoException).code);
  }
}
