/**
 * This node's pods as the API server had them last, in a file of the run folder: by it an agent that starts while the API server is away knows
 * the pods that run. Who is not in it stays unknown, and so refused.
 */
import { readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf } from '../../mesh/common/errors.js';
import type { Log } from '../../mesh/log/index.js';
import { openRunFolder } from '../handover/index.js';
import type { Exclusions, LocalPod } from './types.js';

export interface PodSnapshotOptions {
  /** The agent's run folder, root only. */
  readonly folder: string;
  readonly nodeName: string;
}

export interface PodSnapshotDeps {
  /** Of pods whose cgroup lives. */
  readonly liveUids: () => Iterable<string>;
  readonly log: Log;
}

/** Of another version nothing is read. */
const VERSION = 1;
const FILE = 'pods.json';
const MAX_BYTES = 8 << 20;
/** As many as the kernel's maps hold. */
const MAX_PODS = 4_096;
/** 30 pods that start at once are written together. */
const DELAY_MS = 100;

export class PodSnapshot {
  readonly #options: PodSnapshotOptions;
  readonly #deps: PodSnapshotDeps;
  readonly #file: string;
  #pods: readonly LocalPod[];
  #timer: NodeJS.Timeout | null;

  constructor(options: PodSnapshotOptions, deps: PodSnapshotDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#file = join(options.folder, FILE);
    this.#pods = [];
    this.#timer = null;
  }

  /** Those of the pods that were saved whose cgroup lives; null: there is nothing that can be gone by. */
  load(): readonly LocalPod[] | null {
    try {
      if (statSync(this.#file, { throwIfNoEntry: false }) === undefined) return null;
      const live = new Set(this.#deps.liveUids());
      return this.#read().filter(({ uid }) => live.has(uid));
    } catch (error) {
      const what = { file: this.#file, reason: messageOf(error) };
      this.#deps.log.warn(what, 'saved pods are not gone by: pods stay unknown until the API server answers');
      return null;
    }
  }

  /** Writes them soon. */
  save(pods: readonly LocalPod[]): void {
    this.#pods = pods;
    this.#timer ??= setTimeout(() => this.flush(), DELAY_MS);
  }

  /** Writes at once what is not written yet. */
  flush(): void {
    if (this.#timer === null) return;
    clearTimeout(this.#timer);
    this.#timer = null;
    // Two agents may be at it, while one follows the other.
    const temporary = `${this.#file}.${process.pid}`;
    try {
      openRunFolder(this.#options.folder);
      const content = { version: VERSION, node: this.#options.nodeName, pods: this.#pods.slice(0, MAX_PODS) };
      writeFileSync(temporary, JSON.stringify(content), { mode: 0o600 });
      renameSync(temporary, this.#file);
    } catch (error) {
      rmSync(temporary, { force: true });
      const what = { file: this.#file, reason: messageOf(error) };
      this.#deps.log.warn(what, 'pods could not be saved for a start without the API server');
    }
  }

  /** Nothing of it is left. */
  remove(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    rmSync(this.#file, { force: true });
  }

  #read(): readonly LocalPod[] {
    const { uid, mode, size } = statSync(this.#file);
    if (uid !== process.geteuid!() || (mode & 0o022) !== 0)
      throw new Error('others may have written it: it must be ours, and writable by nobody else');
    if (size > MAX_BYTES) throw new Error(`more than ${MAX_BYTES} bytes`);
    const content = JSON.parse(readFileSync(this.#file, 'utf8')) as Record<string, unknown> | null;
    if (content?.['version'] !== VERSION) throw new Error(`version ${content?.['version']}, not ${VERSION}`);
    if (content['node'] !== this.#options.nodeName) throw new Error(`of node ${content['node']}`);
    const pods = content['pods'];
    if (!Array.isArray(pods) || pods.length > MAX_PODS)
      throw new Error(`no list of at most ${MAX_PODS} pods`);
    const bad = pods.findIndex((pod) => !isLocalPod(pod));
    if (bad >= 0) throw new Error(`pods[${bad}] is none`);
    // An earlier agent may not have saved it.
    return (pods as LocalPod[]).map((pod) => ({ ...pod, outside: String(pod.outside ?? '') }));
  }
}

/** Every field that there is, of its type. */
function isLocalPod(value: unknown): value is LocalPod {
  const pod = value as LocalPod | null;
  const texts = [pod?.uid, pod?.name, pod?.namespace, pod?.serviceAccount, pod?.fault];
  const flags = [pod?.hostNetwork, pod?.enrolled, pod?.dnsCapture, pod?.isEastWestGateway];
  return (
    texts.every((text) => typeof text === 'string') &&
    flags.every((flag) => typeof flag === 'boolean') &&
    isListOf('string', pod?.addresses) &&
    isExclusions(pod?.exclusions)
  );
}

function isExclusions(value: Exclusions | undefined): boolean {
  return (
    isListOf('number', value?.outboundPorts) &&
    isListOf('string', value?.outboundRanges) &&
    isListOf('number', value?.inboundPorts)
  );
}

function isListOf(type: 'string' | 'number', value: unknown): boolean {
  return Array.isArray(value) && value.every((item) => typeof item === type);
}
