import { type BigIntStats, type FSWatcher, readdirSync, statSync, watch } from 'node:fs';
import { join } from 'node:path';
import { messageOf } from '../common/errors.js';
import type { Log } from '../log/index.js';

/** A manifest file as a scan finds it. `stamp` changes when the file is written or replaced. */
export interface FolderFile {
  readonly path: string;
  readonly stamp: string;
  readonly bytes: number;
  /** Wall clock, milliseconds: when it was written last. */
  readonly writtenAtMs: number;
}

export interface FolderScan {
  /** Sorted by path. */
  readonly files: readonly FolderFile[];
  /** Paths by `<device>:<inode>:<path>`: a directory that was replaced is another one. */
  readonly directories: ReadonlyMap<string, string>;
  /** What could not be looked at; nothing below it is known to be gone. */
  readonly unreadable: readonly { readonly path: string; readonly reason: string }[];
}

const MANIFEST = /\.(ya?ml|json)$/;
/** A folder that is gone may come back, and nobody tells. */
const RETRY_MS = 100;
/** Also ends loops of symbolic links. */
const MAX_DEPTH = 16;

/** All manifests below `folder`, or the one file that it is. Names that begin with a dot are left out (temporary files, what a ConfigMap volume keeps aside); links are followed. */
export function scanFolder(folder: string): FolderScan {
  const scan = {
    files: [] as FolderFile[],
    directories: new Map<string, string>(),
    unreadable: [] as { path: string; reason: string }[],
  };
  attempt(scan, folder, () => {
    const stat = statSync(folder, { bigint: true });
    if (stat.isDirectory()) scanDirectory(scan, folder, stat, 0);
    else addFile(scan, folder, stat);
  });
  scan.files.sort((a, b) => (a.path < b.path ? -1 : 1));
  return scan;
}

interface OpenScan {
  readonly files: FolderFile[];
  readonly directories: Map<string, string>;
  readonly unreadable: { path: string; reason: string }[];
}

function attempt(scan: OpenScan, path: string, look: () => void): void {
  try {
    look();
  } catch (error) {
    scan.unreadable.push({ path, reason: messageOf(error) });
  }
}

function scanDirectory(scan: OpenScan, path: string, { dev, ino }: BigIntStats, depth: number): void {
  const names = readdirSync(path);
  scan.directories.set(`${dev}:${ino}:${path}`, path);
  for (const name of names) {
    if (name.startsWith('.')) continue;
    const entry = join(path, name);
    attempt(scan, entry, () => scanEntry(scan, entry, depth));
  }
}

function scanEntry(scan: OpenScan, path: string, depth: number): void {
  const stat = statSync(path, { bigint: true, throwIfNoEntry: false });
  if (stat === undefined) return; // gone since readdir, or a dangling link
  if (stat.isDirectory() && depth < MAX_DEPTH) scanDirectory(scan, path, stat, depth + 1);
  if (stat.isFile() && MANIFEST.test(path)) addFile(scan, path, stat);
}

function addFile(scan: OpenScan, path: string, stat: BigIntStats): void {
  // Times tick in steps of some ms: what was written just now may be written again within its stamp.
  const settled = Date.now() - Number(stat.mtimeMs) > 50;
  const stamp = `${stat.dev}:${stat.ino}:${stat.size}:${stat.mtimeNs}:${stat.ctimeNs}${settled ? '' : `:${performance.now()}`}`;
  scan.files.push({ path, stamp, bytes: Number(stat.size), writtenAtMs: Number(stat.mtimeMs) });
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
  readonly #log: Log;
  /** By the keys of FolderScan.directories. */
  readonly #watchers: Map<string, FSWatcher>;
  #unwatched: ReadonlySet<string>;
  readonly #rescan: NodeJS.Timeout;
  #timer: NodeJS.Timeout | null;
  #firstEventMs: number;

  constructor(options: FolderWatchOptions, deps: { readonly onDue: () => void; readonly log: Log }) {
    this.#options = options;
    this.#onDue = deps.onDue;
    this.#log = deps.log;
    this.#watchers = new Map();
    this.#unwatched = new Set();
    this.#timer = null;
    this.#firstEventMs = 0;
    this.#rescan = setInterval(() => this.#due(), options.rescanMs);
  }

  /** Watches exactly these directories. */
  watch(directories: FolderScan['directories']): void {
    for (const key of this.#watchers.keys()) if (!directories.has(key)) this.#drop(key);
    const unwatched = new Set<string>();
    for (const [key, path] of directories) {
      if (this.#watchers.has(key)) continue;
      try {
        const watcher = watch(path, { persistent: false }, () => this.#event());
        watcher.on('error', () => this.#lost(key));
        this.#watchers.set(key, watcher);
        this.#event(); // for what was written since the scan
      } catch (error) {
        unwatched.add(key);
        if (!this.#unwatched.has(key))
          this.#log.warn(
            { path, error: messageOf(error) },
            'cannot watch: changes are seen at the next rescan',
          );
      }
    }
    this.#unwatched = unwatched;
  }

  /** What could not be looked at has no events: it is looked at again soon. */
  again(): void {
    this.#timer ??= setTimeout(() => this.#due(), RETRY_MS);
  }

  close(): void {
    clearInterval(this.#rescan);
    if (this.#timer !== null) clearTimeout(this.#timer);
    for (const key of this.#watchers.keys()) this.#drop(key);
  }

  #drop(key: string): void {
    this.#watchers.get(key)?.close();
    this.#watchers.delete(key);
  }

  #lost(key: string): void {
    this.#drop(key);
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
