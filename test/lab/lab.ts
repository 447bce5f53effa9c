import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type CgroupDriver, makeCgroup } from './cgroup.js';
import {
  ManifestFolder,
  type NamespaceOptions,
  namespaceManifest,
  type ServiceOptions,
  serviceAccountManifest,
  serviceManifest,
} from './manifests.js';
import { addressPlan, makeFabric } from './network.js';
import { LabNode } from './node.js';
import { claimLab, type LabNames, labNames, removeLab, sweep } from './sweep.js';

export interface NodeOptions {
  readonly cgroupDriver?: CgroupDriver;
}

/**
 * Some nodes on one machine. Ends with `close`; where that is not reached (a signal, a crash, even SIGKILL) the lab's reaper removes it,
 * and the next lab sweeps what reaper and all did not survive.
 */
export class Lab {
  readonly manifests: ManifestFolder;
  readonly names: LabNames;
  readonly nodes: LabNode[];
  #closed: boolean;
  #reaper: ChildProcess;
  #nextVip: number;

  private constructor(names: LabNames, reaper: ChildProcess) {
    this.names = names;
    this.manifests = new ManifestFolder(join(names.state, 'manifests'));
    this.nodes = [];
    this.#closed = false;
    this.#reaper = reaper;
    this.#nextVip = 1;
  }

  /** Makes an empty lab. Throws where the machine cannot hold one (not root, no cgroup v2). */
  static async create(): Promise<Lab> {
    if (process.getuid?.() !== 0)
      throw new Error('the lab needs root: it makes network namespaces and cgroups');
    sweep();
    const names = claimNames();
    const reaper = startReaper(names);
    makeCgroup(join(names.cgroup, 'tools'));
    await makeFabric(`${names.netns}fabric`);
    const lab = new Lab(names, reaper);
    lab.manifests.apply(namespaceManifest('default'), serviceAccountManifest('default', 'default'));
    return lab;
  }

  /** Adds a node and the routes between it and the others; at most 250. */
  async node(name: string, options: NodeOptions = {}): Promise<LabNode> {
    const node = await LabNode.create(this, name, this.nodes.length + 1, options.cgroupDriver ?? 'systemd');
    for (const other of this.nodes) await Promise.all([other.routeTo(node), node.routeTo(other)]);
    this.nodes.push(node);
    return node;
  }

  /** Writes the Namespace; label it `istio.io/dataplane-mode: ambient` to put its pods in the mesh. */
  namespace(name: string, options: NamespaceOptions = {}): void {
    this.manifests.apply(namespaceManifest(name, options));
  }

  /** Writes the Service; gives it the next free VIPs, v4 and v6, where none are named. Returns its VIPs. */
  service(
    options: Omit<ServiceOptions, 'clusterIPs'> & Partial<Pick<ServiceOptions, 'clusterIPs'>>,
  ): readonly string[] {
    const index = this.#nextVip++;
    const clusterIPs = options.clusterIPs ?? [addressPlan.vip4(index), addressPlan.vip6(index)];
    this.manifests.apply(serviceManifest({ ...options, clusterIPs }));
    return clusterIPs;
  }

  /** Kills and removes everything of the lab. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    removeLab(this.names);
    this.#reaper.stdin?.end();
  }

  /** `using` for tests. */
  [Symbol.dispose](): void {
    this.close();
  }
}

function claimNames(): LabNames {
  for (;;) {
    const names = labNames(randomBytes(2).toString('hex'));
    if (claimLab(names)) return names;
  }
}

/** A shell that waits for the end of our pipe to it, which the kernel closes however we die, and then removes what is left. */
function startReaper(names: LabNames): ChildProcess {
  const sweepProgram = join(dirname(fileURLToPath(import.meta.url)), 'sweep.js');
  if (!existsSync(sweepProgram)) throw new Error(`${sweepProgram} is missing: build first (npm run build)`);
  const script = 'read -r _; [ -d "$3" ] && exec "$1" "$2" "$4"';
  const reaper = spawn(
    'sh',
    ['-c', script, 'reaper', process.execPath, sweepProgram, names.state, names.id],
    {
      stdio: ['pipe', 'ignore', 'ignore'],
      detached: true,
      cwd: '/',
    },
  );
  reaper.unref();
  // The pipe must not keep our event loop alive.
  (reaper.stdin as unknown as { unref(): void }).unref();
  return reaper;
}
