/** The pod source for hosts without an API server: a watched folder of ordinary manifests. */
import type { Log } from '../../mesh/log/index.js';
import type { FolderSource, ManifestProblem } from '../../mesh/manifests/index.js';
import type { Manifest } from './manifest.js';
import type { LocalPod, PodSource } from './types.js';

export interface FilesPodSourceOptions {
  readonly folder: string;
  readonly nodeName: string;
  /** Pods of these are plain whatever their labels say. Default: kube-system. */
  readonly excludedNamespaces?: readonly string[];
}

export class FilesPodSource implements PodSource {
  readonly #options: FilesPodSourceOptions;
  readonly #log: Log;
  #folder: FolderSource<Manifest> | null;
  #stopped: boolean;

  constructor(options: FilesPodSourceOptions, deps: { log: Log }) {
    this.#options = options;
    this.#log = deps.log;
    this.#folder = null;
    this.#stopped = false;
  }

  get pending(): readonly string[] {
    return []; // a folder is there or an error
  }

  /** Everything wrong right now, by file and line. */
  get problems(): readonly ManifestProblem[] {
    return this.#folder?.problems ?? [];
  }

  get ages(): ReadonlyMap<string, number> {
    return new Map(this.#folder === null ? [] : [['files', this.#folder.ageMs]]);
  }

  async open(): Promise<void> {}

  /** Nobody to tell: a folder's controller goes by labels. */
  noteCaptured(): void {}

  stopNoting(): void {}

  async release(): Promise<void> {}

  /** Resolves after the first `onPods`. Throws MANIFESTS_UNREADABLE. */
  async start(onPods: (pods: readonly LocalPod[]) => void): Promise<void> {
    // Workers load this room too: the YAML parser (1 MB of heap a thread) comes only where manifests are read.
    const { localPods, openManifests, viewOf } = await import('./manifest.js');
    if (this.#stopped) return;
    let lastPods = '';
    const publish = () => {
      const pods = localPods(viewOf(folder), this.#options.excludedNamespaces);
      const text = JSON.stringify(pods);
      if (text !== lastPods) onPods(pods);
      lastPods = text;
    };
    const folder = openManifests(this.#options, { onChange: publish, log: this.#log });
    this.#folder = folder;
    await folder.start();
    publish(); // an empty folder brings no change
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#folder?.stop();
  }
}
