/** The pod source for hosts without an API server: a watched folder of ordinary manifests. */
import { type FSWatcher, watch } from 'node:fs';
import { messageOf } from '../../mesh/common/errors.js';
import type { Log } from '../../mesh/log/index.js';
import type { ManifestProblem } from './manifest.js';
import { ManifestFolder } from './manifest-folder.js';
import type { LocalPod, PodSource } from './types.js';

export interface FilesPodSourceOptions {
  readonly folder: string;
  readonly nodeName: string;
  /** Pods of these are plain whatever their labels say. */
  readonly excludedNamespaces?: readonly string[];
  /** Quiet time after a change before the folder is read: an editor writes in several steps. */
  readonly debounceMs?: number;
  /** For file systems that tell nothing (NFS): a look at every file's time and size this often. */
  readonly rescanIntervalMs?: number;
}

export class FilesPodSource implements PodSource {
  readonly #options: Required<FilesPodSourceOptions>;
  readonly #log: Log;
  readonly #folder: ManifestFolder;
  /** By `<inode>:<path>`: a directory that was replaced is another one. */
  readonly #watchers = new Map<string, FSWatcher>();
  #onPods: ((pods: readonly LocalPod[]) => void) | null = null;
  #debounce: NodeJS.Timeout | null = null;
  #rescan: NodeJS.Timeout | null = null;
  #reading: Promise<void> | null = null;
  #changedMeanwhile = false;
  #problems: readonly ManifestProblem[] = [];
  #reported = new Set<string>();
  #lastPods = '';

  constructor(options: FilesPodSourceOptions, deps: { log: Log }) {
    this.#options = {
      excludedNamespaces: ['kube-system'],
      debounceMs: 30,
      rescanIntervalMs: 5_000,
      ...options,
    };
    this.#log = deps.log;
    this.#folder = new ManifestFolder(this.#options);
  }

  /** Objects that are invalid now. */
  get problems(): readonly ManifestProblem[] {
    return this.#problems;
  }

  /** Resolves after the first `onPods`. Throws FOLDER_UNREADABLE. */
  async start(onPods: (pods: readonly LocalPod[]) => void): Promise<void> {
    this.#onPods = onPods;
    await this.#read();
    this.#rescan = setInterval(() => this.#changed(), this.#options.rescanIntervalMs);
    // What was written between the first reading and the watches.
    this.#changed();
  }

  async stop(): Promise<void> {
    this.#onPods = null;
    if (this.#debounce !== null) clearTimeout(this.#debounce);
    if (this.#rescan !== null) clearInterval(this.#rescan);
    await this.#reading;
    for (const watcher of this.#watchers.values()) watcher.close();
    this.#watchers.clear();
  }

  #changed(): void {
    if (this.#reading !== null) {
      this.#changedMeanwhile = true;
      return;
    }
    this.#debounce ??= setTimeout(() => {
      this.#debounce = null;
      this.#reading = this.#readAgain();
    }, this.#options.debounceMs);
  }

  async #readAgain(): Promise<void> {
    try {
      await this.#read();
    } catch (error) {
      this.#log.error({ error: messageOf(error) }, 'manifest folder unreadable: the last pods stay in force');
    }
    this.#reading = null;
    if (this.#changedMeanwhile && this.#onPods !== null) {
      this.#changedMeanwhile = false;
      this.#changed();
    }
  }

  async #read(): Promise<void> {
    const { pods, problems, directories } = await this.#folder.read();
    if (this.#onPods === null) return;
    this.#watch(directories);
    this.#report(problems);
    const text = JSON.stringify(pods);
    if (text === this.#lastPods) return;
    this.#lastPods = text;
    this.#onPods(pods);
  }

  #watch(directories: ReadonlyMap<string, number>): void {
    const wanted = new Map([...directories].map(([path, inode]) => [`${inode}:${path}`, path]));
    for (const [key, watcher] of this.#watchers) {
      if (wanted.has(key)) continue;
      watcher.close();
      this.#watchers.delete(key);
    }
    for (const [key, path] of wanted) {
      if (this.#watchers.has(key)) continue;
      try {
        const watcher = watch(path, () => this.#changed());
        watcher.on('error', () => watcher.close());
        this.#watchers.set(key, watcher);
      } catch (error) {
        this.#log.warn(
          { path, error: messageOf(error) },
          'cannot watch: changes are seen at the next rescan',
        );
      }
    }
  }

  #report(problems: readonly ManifestProblem[]): void {
    const now = new Set<string>();
    for (const problem of problems) {
      const text = JSON.stringify(problem);
      now.add(text);
      if (!this.#reported.has(text)) {
        this.#log.warn(
          { ...problem },
          'invalid manifest: its last good version, if there was one, stays in force',
        );
      }
    }
    this.#reported = now;
    this.#problems = problems;
  }
}
