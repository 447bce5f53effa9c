import { type FSWatcher, readdirSync, statSync, watch } from 'node:fs';
import { join } from 'node:path';
import { messageOf } from '../../mesh/common/errors.js';

/** A manifest file as a scan finds it. `stamp` changes when the file is written or replaced. */
export interface FolderFile {
  readonly path: string;
  readonly stamp: string;
  readonly bytes: number;
}

export interface FolderScan {
  /** Sorted by path. */
  readonly files: readonly FolderFile[];
  readonly directories: readonly string[];
  /** What could not be looked at; nothing below it is known to be gone. */
  readonly unreadable: readonly { readonly path: string; readonly reason: string }[];
}

const MANIFEST = /\.(ya?ml|json)$/;
/** Also ends loops of symbolic links. */
const MAX_DEPTH = 16;

/** All manifests below `folder`. Names that begin with a dot are left out (temporary files, what a ConfigMap volume keeps aside); links are followed. */
export function scanFolder(folder: string): FolderScan {
  const scan = {
    files: [] as FolderFile[],
    directories: [] as string[],
    unreadable: [] as { path: string; reason: string }[],
  };
  scanInto(scan, folder, 0);
  scan.files.sort((a, b) => (a.path < b.path ? -1 : 1));
  return scan;
}

function scanInto(
  scan: { files: FolderFile[]; directories: string[]; unreadable: { path: string; reason: string }[] },
  directory: string,
  depth: number,
): void {
  try {
    const names = readdirSync(directory);
    scan.directories.push(directory);
    for (const name of names) if (!name.startsWith('.')) scanEntry(scan, join(directory, name), depth);
  } catch (error) {
    scan.unreadable.push({ path: directory, reason: messageOf(error) });
  }
}

function scanEntry(scan: Parameters<typeof scanInto>[0], path: string, depth: number): void {
  try {
    const stat = statSync(path, { bigint: true, throwIfNoEntry: false });
    if (stat === undefined) return; // gone since readdir, or a dangling link
    if (stat.isDirectory() && depth < MAX_DEPTH) scanInto(scan, path, depth + 1);
    if (stat.isFile() && MANIFEST.test(path)) {
      // Times tick in steps of some ms: what was written just now may be written again within its stamp.
      const settled = Date.now() - Number(stat.mtimeMs) > 50;
      const stamp = `${stat.dev}:${stat.ino}:${stat.size}:${stat.mtimeNs}:${stat.ctimeNs}${settled ? '' : `:${performance.now()}`}`;
      scan.files.push({ path, stamp, bytes: Number(stat.size) });
    }
  } catch (error) {
    scan.unreadable.push({ path, reason: messageOf(error) });
  }
}

export interface FolderWatchOptions {
  /** A scan is due when nothing has happened for this long: a file being written is not read half. */
  readonly quietMs: number;
  /** ... but at the latest this long after the first event. */
  readonly maxWaitMs: number;
  /** And at least this often: for what inotify cannot see (its queue overflowed, a network file system). */
  readonly rescanMs: number;
}

/** Tells when the folder should be scanned again. */
export class FolderWatch {
  readonly #options: FolderWatchOptions;
  readonly #onDue: () => void;
  readonly #watchers: Map<string, FSWatcher>;
  readonly #rescan: NodeJS.Timeout;
  #timer: NodeJS.Timeout | null;
  #firstEventMs: number;

  constructor(options: FolderWatchOptions, deps: { readonly onDue: () => void }) {
    this.#options = options;
    this.#onDue = deps.onDue;
    this.#watchers = new Map();
    this.#timer = null;
    this.#firstEventMs = 0;
    this.#rescan = setInterval(() => this.#due(), options.rescanMs);
  }

  /** Watches exactly these directories. */
  watch(directories: readonly string[]): void {
    const wanted = new Set(directories);
    for (const directory of this.#watchers.keys()) if (!wanted.has(directory)) this.#drop(directory);
    for (const directory of wanted) {
      if (this.#watchers.has(directory)) continue;
      try {
        const watcher = watch(directory, { persistent: false }, () => this.#event());
        watcher.on('error', () => this.#lost(directory));
        this.#watchers.set(directory, watcher);
      } catch {
        // Gone since the scan, or no inotify watch left: the rescan finds it.
      }
    }
  }

  close(): void {
    clearInterval(this.#rescan);
    if (this.#timer !== null) clearTimeout(this.#timer);
    for (const directory of this.#watchers.keys()) this.#drop(directory);
  }

  #drop(directory: string): void {
    this.#watchers.get(directory)?.close();
    this.#watchers.delete(directory);
  }

  #lost(directory: string): void {
    this.#drop(directory);
    this.#event();
  }

  #event(): void {
    const now = performance.now();
    if (this.#timer === null) this.#firstEventMs = now;
    else clearTimeout(this.#timer);
    const latest = this.#firstEventMs + this.#options.maxWaitMs - now;
    this.#timer = setTimeout(() => this.#due(), Math.max(0, Math.min(this.#options.quietMs, latest)));
  }

  #due(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#onDue();
  }
}
