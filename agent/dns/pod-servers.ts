/** The servers of a pod's own resolv.conf, read at first, every few seconds, and before they are used; the last ones stay in force while it cannot be read. */
import { fstatSync, statSync } from 'node:fs';
import { messageOf } from '../../mesh/common/errors.js';
import type { NamespaceSockets } from '../../mesh/io/index.js';
import { maxResolvConfBytes, parseResolvConf } from './resolv-conf.js';

const path = 'etc/resolv.conf';
/** Read again before it is used, if it is older than this. */
const staleMs = 1_000;
/** A container's first process is in the pod's namespace before it is in the pod's root: what is read then may be the node's file. */
const youngMs = 10_000;
const staleWhileYoungMs = 50;

export interface PodServersOptions {
  readonly netnsFd: number;
  readonly pid: number;
  readonly ownAddresses: readonly string[];
}

export interface PodServersDeps {
  readonly sockets: Pick<NamespaceSockets, 'readFileOf'>;
  readonly nowMs: () => number;
  readonly onChange: (servers: readonly string[]) => void;
  /** Once for each reason. */
  readonly onFailure: (reason: string) => void;
}

export class PodServers {
  readonly #options: PodServersOptions;
  readonly #deps: PodServersDeps;
  #servers: readonly string[] = [];
  #text: string | null = null;
  #failure = '';
  readonly #bornMs: number;
  #readMs = Number.NEGATIVE_INFINITY;

  constructor(options: PodServersOptions, deps: PodServersDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#bornMs = deps.nowMs();
  }

  get servers(): readonly string[] {
    return this.#servers;
  }

  /** Whom to ask now: read anew if need be. */
  current(): readonly string[] {
    const now = this.#deps.nowMs();
    const maxAgeMs = now - this.#bornMs < youngMs ? staleWhileYoungMs : staleMs;
    if (now - this.#readMs >= maxAgeMs) this.refresh();
    return this.#servers;
  }

  /** Never throws. */
  refresh(): void {
    this.#readMs = this.#deps.nowMs();
    try {
      this.#read();
    } catch (error) {
      this.#failed(messageOf(error));
    }
  }

  #read(): void {
    const { pid, netnsFd, ownAddresses } = this.#options;
    // Ids of processes are used again: another pod's file must not be taken for this one's.
    if (statSync(`/proc/${pid}/ns/net`).ino !== fstatSync(netnsFd).ino)
      throw new Error('its process has ended');
    const text = this.#deps.sockets.readFileOf(pid, path, maxResolvConfBytes);
    if (text === this.#text) return;
    this.#text = text;
    this.#servers = parseResolvConf(text, ownAddresses);
    this.#failure = '';
    if (this.#servers.length === 0) this.#failed('it names no server that can be asked');
    this.#deps.onChange(this.#servers);
  }

  #failed(reason: string): void {
    if (reason === this.#failure) return;
    this.#failure = reason;
    this.#deps.onFailure(reason);
  }
}
