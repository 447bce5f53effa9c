/** Keeps the chained CNI plugin in the container runtime's network configuration. */
import {
  chmodSync,
  existsSync,
  type FSWatcher,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  watch,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { messageOf } from '../../mesh/common/errors.js';
import type { Log } from '../../mesh/log/index.js';
import { packageRoot } from '../../native/index.js';

export interface CniInstallerOptions {
  /** Where the runtime looks for plugins. */
  readonly binDir: string;
  /** Where its network configuration is. */
  readonly confDir: string;
  /** The agent's pins, as the host has them. */
  readonly pins: string;
  /** Their pods come up whether or not there is an agent. */
  readonly excludedNamespaces: readonly string[];
}

/** Name of the plugin: its type in a configuration, and its file. */
export const cniPlugin = 'culvert-cni';

const RECHECK_MS = 10_000;
/** Who writes a list often writes it in several steps. */
const SETTLE_MS = 100;

interface NetworkList {
  readonly plugins: readonly { readonly type?: string }[];
  readonly [field: string]: unknown;
}

export class CniInstaller {
  readonly #options: CniInstallerOptions;
  readonly #log: Log;
  #watcher: FSWatcher | null = null;
  #poll: NodeJS.Timeout | null = null;
  #settling: NodeJS.Timeout | null = null;
  #trouble = 'not looked at yet';

  constructor(options: CniInstallerOptions, deps: { readonly log: Log }) {
    this.#options = options;
    this.#log = deps.log;
  }

  /** Why the plugin is not in place; else empty. */
  get trouble(): string {
    return this.#trouble;
  }

  /** Installs it, and sees to it that it stays. */
  start(): void {
    this.#repair();
    this.#poll = setInterval(() => this.#repair(), RECHECK_MS).unref();
    try {
      this.#watcher = watch(this.#options.confDir, () => {
        this.#settling ??= setTimeout(() => this.#repair(), SETTLE_MS).unref();
      });
      this.#watcher.on('error', () => this.#watcher?.close());
    } catch (error) {
      this.#log.warn({ error: messageOf(error) }, 'the network configuration is looked at every 10 s only');
    }
  }

  /** What is installed stays. */
  stop(): void {
    this.#watcher?.close();
    if (this.#poll !== null) clearInterval(this.#poll);
    if (this.#settling !== null) clearTimeout(this.#settling);
    this.#settling = null;
  }

  /** As `uninstallPlugin`, and it is not put back. */
  uninstall(): void {
    this.stop();
    uninstallPlugin(this.#options);
    this.#trouble = 'uninstalled';
  }

  #repair(): void {
    this.#settling = null;
    let trouble = '';
    try {
      this.#copyPlugin();
      trouble = this.#chain();
    } catch (error) {
      trouble = messageOf(error);
    }
    if (trouble !== this.#trouble && trouble !== '')
      this.#log.warn({ folder: this.#options.confDir, trouble }, 'the CNI plugin is not in place');
    this.#trouble = trouble;
  }

  #copyPlugin(): void {
    const source = join(packageRoot(), 'native/build', cniPlugin);
    const target = join(this.#options.binDir, cniPlugin);
    if (existsSync(target) && readFileSync(target).equals(readFileSync(source))) return;
    mkdirSync(this.#options.binDir, { recursive: true });
    replaceFile(target, readFileSync(source), 0o755);
  }

  /** Of the list that the runtime uses. Why it cannot be chained, or ''. */
  #chain(): string {
    for (const name of configurations(this.#options.confDir)) {
      const file = join(this.#options.confDir, name);
      const list = readList(file);
      if (list === null) continue; // no runtime can use it either
      if (list.plugins.length === 0) return `${file} is no list of plugins: nothing can be chained to it`;
      if (this.#isChained(list)) return '';
      writePlugins(file, list, [this.#entry()]);
      this.#log.info({ file }, 'the CNI plugin stands in the network configuration');
      return '';
    }
    return `${this.#options.confDir} has no network configuration yet`;
  }

  /** Behind another plugin, which makes the network. What came behind ours is none of our business: two that want to be the last would never end. */
  #isChained({ plugins }: NetworkList): boolean {
    const [own, ...more] = plugins.filter(isOurs);
    return more.length === 0 && plugins[0] !== own && isDeepStrictEqual(own, this.#entry());
  }

  #entry(): { readonly type: string } & Record<string, unknown> {
    const { pins, excludedNamespaces } = this.#options;
    return { type: cniPlugin, pins, exclude: excludedNamespaces };
  }
}

/**
 * For good: no list names the plugin any more, and its file is gone. How many lists did; none where the runtime has no such folder.
 * Throws where something cannot be written.
 */
export function uninstallPlugin({
  binDir,
  confDir,
}: Pick<CniInstallerOptions, 'binDir' | 'confDir'>): number {
  let changed = 0;
  for (const name of existsSync(confDir) ? configurations(confDir) : []) {
    const list = readList(join(confDir, name));
    if (!list?.plugins.some(isOurs)) continue;
    writePlugins(join(confDir, name), list, []);
    changed += 1;
  }
  rmSync(join(binDir, cniPlugin), { force: true });
  return changed;
}

/** In the order in which runtimes try them. */
function configurations(folder: string): readonly string[] {
  return readdirSync(folder)
    .filter((name) => /^[^.].*\.(?:conf|conflist|json)$/.test(name))
    .sort();
}

/** The list with these of ours behind all others'. */
function writePlugins(file: string, list: NetworkList, ours: readonly { readonly type: string }[]): void {
  const changed = { ...list, plugins: [...list.plugins.filter((plugin) => !isOurs(plugin)), ...ours] };
  replaceFile(file, `${JSON.stringify(changed, null, 2)}\n`, statSync(file).mode & 0o777);
}

function isOurs({ type }: { readonly type?: string }): boolean {
  return type === cniPlugin;
}

/** In one step, also for whoever reads after a power cut. */
function replaceFile(target: string, content: string | Buffer, mode: number): void {
  // No name that a runtime would read, and our own: two agents may be at it, while one follows the other.
  const temporary = join(dirname(target), `.${basename(target)}.${process.pid}`);
  try {
    writeFileSync(temporary, content, { mode, flush: true });
    chmodSync(temporary, mode); // whatever our umask
    renameSync(temporary, target);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}

/** Without plugins: a single configuration. Null: neither. */
function readList(file: string): NetworkList | null {
  try {
    const content = JSON.parse(readFileSync(file, 'utf8')) as Partial<NetworkList> & { type?: unknown };
    if (Array.isArray(content.plugins) && content.plugins.length > 0) return content as NetworkList;
    return typeof content.type === 'string' ? { ...content, plugins: [] } : null;
  } catch {
    return null;
  }
}
