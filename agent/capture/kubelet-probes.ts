/** Keeps the writer of tickets attached to kubelet's cgroup, wherever that is now. */
import { messageOf } from '../../mesh/common/errors.js';
import type { Log } from '../../mesh/log/index.js';
import { findKubeletCgroup, type KubeletSearch, tryCgroupId } from '../pods/index.js';
import type { NodeDatapath } from './node-datapath.js';

export class KubeletProbes {
  readonly #search: KubeletSearch;
  readonly #datapath: NodeDatapath;
  readonly #log: Log;
  /** Null: there is no kubelet. */
  #path: string | null = null;
  #id: bigint | null = null;
  #trouble = '';

  constructor(search: KubeletSearch, deps: { readonly datapath: NodeDatapath; readonly log: Log }) {
    this.#search = search;
    this.#datapath = deps.datapath;
    this.#log = deps.log;
  }

  /** Why kubelet's connections get no tickets; else empty. */
  get trouble(): string {
    return this.#trouble;
  }

  /** Attaches where kubelet is now. False: it is not found, which is logged once. */
  follow(): boolean {
    try {
      const path = findKubeletCgroup(this.#search);
      this.#datapath.attachProbes(path);
      this.#path = path;
      this.#id = path === null ? null : tryCgroupId(path);
      this.#trouble = '';
      return true;
    } catch (error) {
      const trouble = messageOf(error);
      if (trouble !== this.#trouble) this.#log.error({ error: trouble }, 'probes cannot be let through');
      this.#trouble = trouble;
      return false;
    }
  }

  /** Cheap. systemd makes the cgroup anew when kubelet starts anew, and the program goes with the old one. */
  check(): void {
    if (this.#path !== null && tryCgroupId(this.#path) !== this.#id) this.follow();
  }
}
