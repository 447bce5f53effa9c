/**
 * Where things are pinned on bpffs (names there have no dots), and how all of it is removed:
 *   <bpffsDir>/abi-<version>/maps/<map>, links/<hook>, pods/<uid>/{listeners,link}
 */
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmdirSync,
  statfsSync,
  statSync,
  unlinkSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { messageOf } from '../../mesh/common/errors.js';
import { abiVersion, Bpf, type BpfLink } from '../../native/bpf/index.js';
import { NativeError } from '../../native/index.js';
import { CaptureError } from './types.js';

const bpffsMagic = 0xcafe4a11;
const versionPrefix = 'abi-';
const standardMount = '/sys/fs/bpf';

export class Pins {
  readonly #root: string;
  /** Folders of older versions. Their links are taken over hook by hook, with programs of ours; their maps are never read. */
  readonly #older: readonly string[];

  private constructor(bpffsDir: string, older: readonly string[]) {
    this.#root = join(bpffsDir, nameOfVersion(abiVersion));
    this.#older = older.map((name) => join(bpffsDir, name));
  }

  /**
   * Makes the folders, and a bpffs below them where there is none. Throws BPFFS_UNUSABLE; ABI_MISMATCH where a newer version is pinned; AGENT_ALIVE
   * where an agent of an older one is at work.
   */
  static open(bpffsDir: string, bpf: Bpf): Pins {
    try {
      mountBpffs(bpffsDir, bpf);
    } catch (error) {
      const reason = `nothing can be pinned below ${bpffsDir}: ${messageOf(error)}`;
      throw new CaptureError('BPFFS_UNUSABLE', reason, { bpffsDir }, error);
    }
    const others = versionsIn(bpffsDir).filter((name) => name !== nameOfVersion(abiVersion));
    const newer = others.find((name) => !(Number(name.slice(versionPrefix.length)) < abiVersion));
    if (newer !== undefined) {
      const reason = `${bpffsDir} holds ${newer}, we are ${nameOfVersion(abiVersion)}: an agent of that version goes on here, or release the node (culvertctl node release), then start this one`;
      throw new CaptureError('ABI_MISMATCH', reason, { bpffsDir, found: newer });
    }
    refuseLiveAgents(bpffsDir, others, bpf);
    const pins = new Pins(bpffsDir, others);
    for (const folder of ['maps', 'links', 'pods'])
      mkdirSync(join(pins.#root, folder), { recursive: true, mode: 0o700 });
    return pins;
  }

  map(name: string): string {
    return join(this.#root, 'maps', name);
  }

  link(hook: string): string {
    return join(this.#root, 'links', hook);
  }

  /** Where older versions have pinned the link of a hook. */
  olderLinks(hook: string): string[] {
    return this.#older.map((folder) => join(folder, 'links', hook)).filter((path) => existsSync(path));
  }

  olderPodLinks(uid: string): string[] {
    return this.#older.map((folder) => join(folder, 'pods', uid, 'link')).filter((path) => existsSync(path));
  }

  /** True until `dropOlder`: there was an agent of an older version here. */
  get hasOlder(): boolean {
    return this.#older.some((folder) => existsSync(folder));
  }

  /** Takes off and forgets what is left of older versions. */
  dropOlder(bpf: Bpf): void {
    for (const folder of this.#older) detachAll(bpf, folder);
  }

  links(): string[] {
    return readdirSync(join(this.#root, 'links'));
  }

  /** Creates the pod's folder if `create`. */
  pod(uid: string, what: 'listeners' | 'link', create = false): string {
    const folder = join(this.#root, 'pods', uid);
    if (create) mkdirSync(folder, { recursive: true, mode: 0o700 });
    return join(folder, what);
  }

  pods(): string[] {
    return readdirSync(join(this.#root, 'pods'));
  }

  removePod(uid: string): void {
    removeTree(join(this.#root, 'pods', uid));
  }
}

/** Unlinks everything below, then the folder; what is not there is no error. A pinned object ends with its last descriptor. */
function removeTree(path: string): void {
  if (!existsSync(path)) return;
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    const child = join(path, entry.name);
    if (entry.isDirectory()) removeTree(child);
    else unlinkSync(child);
  }
  rmdirSync(path);
}

function isOnBpffs(path: string): boolean {
  return existsSync(path) && statfsSync(path).type === bpffsMagic;
}

/** At /sys/fs/bpf for what is below it, as everybody has it; else at the folder itself. */
function mountBpffs(bpffsDir: string, bpf: Bpf): void {
  let existing = bpffsDir;
  while (!existsSync(existing)) existing = dirname(existing);
  if (!isOnBpffs(existing)) {
    const isStandard = bpffsDir.startsWith(`${standardMount}/`);
    // A folder of the host that a container was given: what we mounted over it would end with the container, and all pins with it.
    if (isStandard && isMounted(standardMount))
      throw new Error(
        `the host has no bpffs at ${standardMount}: \`mount -t bpf bpf ${standardMount}\` there`,
      );
    bpf.ensureBpffs(isStandard ? standardMount : bpffsDir);
  }
  mkdirSync(bpffsDir, { recursive: true, mode: 0o700 });
}

function isMounted(path: string): boolean {
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
  return mounts.some((line) => line.split(' ')[4] === path);
}

export interface CleanOptions {
  readonly bpffsDir: string;
  /** Also under a live agent, whose pods are then plain, and whose next start makes everything anew. */
  readonly force?: boolean;
}

/**
 * Detaches all programs pinned below `bpffsDir`, of whatever version, whether their targets live or not, and unlinks everything; unmounts
 * the bpffs if it was mounted at `bpffsDir` itself. Every pod's connections are plain afterwards, those of enrolled ones too. Throws AGENT_ALIVE,
 * with nothing changed, where an agent lives (unless `force`). Returns how many links there were.
 */
export function clean(options: CleanOptions, deps: { bpf: Bpf } = { bpf: new Bpf() }): number {
  const { bpffsDir } = options;
  if (!existsSync(bpffsDir)) return 0;
  if (!isOnBpffs(bpffsDir)) return 0;
  if (!options.force) refuseLiveAgents(bpffsDir, versionsIn(bpffsDir), deps.bpf);
  let links = 0;
  for (const name of versionsIn(bpffsDir)) links += detachAll(deps.bpf, join(bpffsDir, name));
  if (isMountPoint(bpffsDir)) execFileSync('umount', [bpffsDir]);
  if (readdirSync(bpffsDir).length === 0) rmdirSync(bpffsDir);
  return links;
}

/** Detaches the links of one version, and unlinks everything. Returns how many links there were. */
function detachAll(bpf: Bpf, folder: string): number {
  if (!existsSync(folder)) return 0;
  const links = pinnedLinks(bpf, folder);
  try {
    // Those that refuse and redirect come off first: nothing may be sent to listeners that are no more.
    for (const link of links.sort(byHook)) if (link.info().target !== 0n) link.detach();
  } finally {
    for (const link of links) link.close();
  }
  removeTree(folder);
  return links.length;
}

/** Throws AGENT_ALIVE if a process has pinned maps of these versions open. */
function refuseLiveAgents(bpffsDir: string, versions: readonly string[], bpf: Bpf): void {
  const ids = new Set<number>();
  for (const version of versions) {
    using map = bpf.openPinnedMap(join(bpffsDir, version, 'maps/pod_cgroups'));
    if (map !== null) ids.add(map.info.id);
  }
  const pids = usersOfMaps(ids);
  if (pids.length === 0) return;
  const reason = `an agent is alive (process ${pids.join(', ')}) and uses ${bpffsDir}: stop it first`;
  throw new CaptureError('AGENT_ALIVE', reason, { bpffsDir, pids });
}

function nameOfVersion(version: number): string {
  return `${versionPrefix}${version}`;
}

function versionsIn(bpffsDir: string): string[] {
  return readdirSync(bpffsDir).filter((name) => name.startsWith(versionPrefix));
}

function pinnedLinks(bpf: Bpf, folder: string): BpfLink[] {
  const found: BpfLink[] = [];
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) found.push(...pinnedLinks(bpf, path));
    else found.push(...tryOpenLink(bpf, path));
  }
  return found;
}

/** None: a map, or a link that cannot be opened; unlinking it will end it. */
function tryOpenLink(bpf: Bpf, path: string): BpfLink[] {
  try {
    return [bpf.openPinnedLink(path)].filter((link) => link !== null);
  } catch (error) {
    if (error instanceof NativeError) return [];
    throw error;
  }
}

/** cgroup/connect4, 6 (10, 11) before everything else. */
function byHook(a: BpfLink, b: BpfLink): number {
  return Number(isConnect(b)) - Number(isConnect(a));
}

function isConnect(link: BpfLink): boolean {
  return [10, 11].includes(link.info().attachType);
}

function isMountPoint(path: string): boolean {
  return statSync(path).dev !== statSync(dirname(path)).dev;
}

/** Ids of processes, other than our own, that have one of these maps open. Needs the host's PID namespace to see them all. */
function usersOfMaps(mapIds: ReadonlySet<number>): number[] {
  if (mapIds.size === 0) return [];
  return entriesOf('/proc')
    .map(Number)
    .filter((pid) => pid > 0 && pid !== process.pid && hasMap(pid, mapIds));
}

function hasMap(pid: number, mapIds: ReadonlySet<number>): boolean {
  return entriesOf(`/proc/${pid}/fd`).some((fd) => {
    try {
      if (!readlinkSync(`/proc/${pid}/fd/${fd}`).includes('bpf-map')) return false;
      const info = readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'utf8');
      return mapIds.has(Number(/^map_id:\s*(\d+)$/m.exec(info)?.[1]));
    } catch {
      return false; // closed meanwhile
    }
  });
}

function entriesOf(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return []; // it has ended
  }
}
