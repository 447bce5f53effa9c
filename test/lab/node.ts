import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { type CgroupDriver, kubepodsName, makeCgroup } from './cgroup.js';
import type { Lab } from './lab.js';
import { nodeManifest } from './manifests.js';
import { addressPlan, makeNodeNetwork, routeToPodsOf } from './network.js';
import { type CaptureOptions, PacketCapture } from './pcap.js';
import { LabPod, type PodOptions } from './pod.js';
import {
  type ExecOptions,
  type ExecResult,
  execIn,
  type LabProcess,
  outputIn,
  type Place,
  type SpawnOptions,
  spawnIn,
} from './process.js';

/** A machine of the lab: a network namespace on the fabric, a cgroup tree like a node's, a kubelet. */
export class LabNode {
  readonly lab: Lab;
  readonly name: string;
  readonly index: number;
  readonly cgroupDriver: CgroupDriver;
  readonly ip: string;
  readonly ip6: string;
  /** The node's own network namespace: "host network". */
  readonly netns: string;
  /** The node's root cgroup. */
  readonly cgroup: string;
  /** Parent of all pod cgroups of this node: where an agent attaches. */
  readonly kubepods: string;
  /** Folder of the node's files: logs, captures. */
  readonly stateDir: string;
  /** Where this node's agent is to mount its bpffs and pin; one per node, because all share a kernel. */
  readonly bpffsDir: string;
  readonly pods: Map<string, LabPod>;
  #nextPod: number;
  #nextCapture: number;

  private constructor(lab: Lab, name: string, index: number, cgroupDriver: CgroupDriver) {
    this.lab = lab;
    this.name = name;
    this.index = index;
    this.cgroupDriver = cgroupDriver;
    this.ip = addressPlan.fabric4(index);
    this.ip6 = addressPlan.fabric6(index);
    this.netns = `${lab.names.netns}${name}`;
    this.cgroup = join(lab.names.cgroup, name);
    this.kubepods = join(this.cgroup, kubepodsName(cgroupDriver));
    this.stateDir = join(lab.names.state, name);
    this.bpffsDir = join(this.stateDir, 'bpffs');
    this.pods = new Map();
    this.#nextPod = 1;
    this.#nextCapture = 1;
  }

  /** Used by `Lab.node`. */
  static async create(lab: Lab, name: string, index: number, cgroupDriver: CgroupDriver): Promise<LabNode> {
    if (!/^[a-z0-9-]{1,20}$/.test(name)) throw new Error(`node name ${name}: 1 to 20 of a-z, 0-9 and -`);
    const node = new LabNode(lab, name, index, cgroupDriver);
    mkdirSync(node.bpffsDir, { recursive: true });
    makeCgroup(node.kubepods);
    makeCgroup(node.hostPlace('kubelet').cgroup);
    await makeNodeNetwork(`${lab.names.netns}fabric`, node.netns, index);
    lab.manifests.apply(nodeManifest(name, [node.ip, node.ip6]));
    return node;
  }

  /** Used by `Lab.node`. */
  async routeTo(other: LabNode): Promise<void> {
    await routeToPodsOf(this.netns, other.index);
  }

  /** Makes a running pod and writes its manifest. */
  async pod(name: string, options: PodOptions = {}): Promise<LabPod> {
    const index = options.inPlaceOf?.index ?? this.#nextPod++;
    const pod = await LabPod.create(this, name, index, options);
    this.pods.set(`${pod.namespace}/${pod.name}`, pod);
    return pod;
  }

  /** Cgroup and network namespace of a system service of this node, outside kubepods. */
  hostPlace(service: string): Place {
    return { cgroup: makeCgroup(join(this.cgroup, 'system.slice', `${service}.service`)), netns: this.netns };
  }

  /** Starts a program of the node itself (no pod). */
  spawn(command: readonly string[], options: SpawnOptions & { readonly service?: string } = {}): LabProcess {
    return spawnIn(this.hostPlace(options.service ?? 'host'), command, options);
  }

  /** Runs a program of the node itself to its end. */
  async exec(command: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
    return await execIn(this.hostPlace('host'), command, options);
  }

  /** Like `exec`, but gives standard output and throws where the exit code is not 0. */
  async output(command: readonly string[], options: ExecOptions = {}): Promise<string> {
    return await outputIn(this.hostPlace('host'), command, options);
  }

  /** Runs a command as kubelet would (its cgroup, the node's namespace): probes. */
  async kubelet(command: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
    return await execIn(this.hostPlace('kubelet'), command, options);
  }

  /** Captures packets, by default on the uplink: the wire between nodes. */
  async capture(options: CaptureOptions = {}): Promise<PacketCapture> {
    const file = join(this.stateDir, `capture-${this.#nextCapture++}.pcap`);
    const place = { cgroup: join(this.lab.names.cgroup, 'tools'), netns: this.netns };
    return await PacketCapture.start(place, file, options);
  }
}
