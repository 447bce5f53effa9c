import { randomBytes, randomUUID } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import {
  containerCgroupName,
  killCgroup,
  makeCgroup,
  podCgroupName,
  type QosClass,
  removeCgroup,
} from './cgroup.js';
import { podManifest, serviceAccountManifest } from './manifests.js';
import { addressPlan, deletePodNetwork, type IpFamilies, makePodNetwork } from './network.js';
import type { LabNode } from './node.js';
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
import { waitFor } from './wait.js';

/** Between the end of a pod's containers and that of its network: what kubelet takes at least. */
const networkOutlivesMs = 50;

export interface PodOptions {
  readonly namespace?: string;
  readonly serviceAccount?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly qos?: QosClass;
  readonly hostNetwork?: boolean;
  readonly families?: IpFamilies;
  readonly uid?: string;
  /** The addresses of this pod, which is deleted, once more. */
  readonly inPlaceOf?: LabPod;
  /** spec.containers of the manifest; it only tells, nothing is started by it. */
  readonly containers?: readonly object[];
  /** What its processes find in /etc/resolv.conf; absent: what the machine has. */
  readonly resolvConf?: string;
  /** False: nobody is told of the pod (no manifest) until `publish`. */
  readonly published?: boolean;
}

/** A pod: kubelet-like cgroup, network namespace kept by a pause process, manifest. Its processes are its containers. */
export class LabPod {
  readonly node: LabNode;
  readonly name: string;
  readonly namespace: string;
  readonly uid: string;
  readonly serviceAccount: string;
  readonly hostNetwork: boolean;
  /** Place in the address plan. */
  readonly index: number;
  /** First address (IPv4 unless the pod has none) and the IPv6 address; '' where it has none. */
  readonly ip: string;
  readonly ip6: string;
  readonly ips: readonly string[];
  /** `pod<uid>` cgroup. */
  readonly cgroup: string;
  /** Name in /run/netns. */
  readonly netns: string;
  /** Host side of its veth; '' for host-network pods. */
  readonly hostDevice: string;
  #labels: Readonly<Record<string, string>>;
  /** Of `PodOptions.resolvConf`; '' without. */
  readonly resolvConf: string;
  #annotations: Readonly<Record<string, string>>;
  #containers: readonly object[];
  #place: Place;
  #pausePid: number;

  private constructor(node: LabNode, name: string, index: number, options: PodOptions) {
    const families = options.families ?? 'dual';
    this.node = node;
    this.name = name;
    this.namespace = options.namespace ?? 'default';
    this.uid = options.uid ?? randomUUID();
    this.serviceAccount = options.serviceAccount ?? 'default';
    this.hostNetwork = options.hostNetwork ?? false;
    this.index = index;
    const ip4 = this.hostNetwork ? node.ip : addressPlan.pod4(node.index, index);
    const ip6 = this.hostNetwork ? node.ip6 : addressPlan.pod6(node.index, index);
    this.ips = families === 'dual' ? [ip4, ip6] : families === 'ipv4' ? [ip4] : [ip6];
    this.ip = this.ips[0]!;
    this.ip6 = families === 'ipv4' ? '' : ip6;
    this.cgroup = join(node.cgroup, podCgroupName(node.cgroupDriver, options.qos ?? 'besteffort', this.uid));
    this.netns = this.hostNetwork ? node.netns : `${node.netns}-p${index}`;
    this.hostDevice = this.hostNetwork ? '' : `veth${index}`;
    this.resolvConf =
      options.resolvConf === undefined ? '' : join(node.stateDir, `resolv-${this.index}-${name}.conf`);
    if (this.resolvConf !== '') writeFileSync(this.resolvConf, options.resolvConf!);
    this.#labels = options.labels ?? {};
    this.#annotations = options.annotations ?? {};
    this.#containers = options.containers ?? [{ name: 'app', image: 'lab' }];
    this.#place = this.#container();
    this.#pausePid = 0;
  }

  /** Used by `LabNode.pod`. */
  static async create(node: LabNode, name: string, index: number, options: PodOptions): Promise<LabPod> {
    const pod = new LabPod(node, name, index, options);
    if (!pod.hostNetwork) {
      await makePodNetwork({
        node: node.index,
        pod: index,
        nodeNetns: node.netns,
        podNetns: pod.netns,
        hostDevice: pod.hostDevice,
        families: options.families ?? 'dual',
      });
    }
    await pod.#pause();
    if (options.published ?? true) pod.publish();
    return pod;
  }

  /** Process id of the process that keeps the namespace. */
  get pausePid(): number {
    return this.#pausePid;
  }

  get labels(): Readonly<Record<string, string>> {
    return this.#labels;
  }

  /** Writes the manifest (and its ServiceAccount), so that controller and agent know the pod. */
  publish(options: { readonly ready?: boolean } = {}): void {
    const { node, name, namespace, uid, serviceAccount, hostNetwork } = this;
    node.lab.manifests.apply(
      serviceAccountManifest(namespace, serviceAccount),
      podManifest({
        name,
        namespace,
        uid,
        serviceAccount,
        hostNetwork,
        containers: this.#containers,
        labels: this.#labels,
        annotations: this.#annotations,
        nodeName: node.name,
        hostIPs: [node.ip, node.ip6],
        podIPs: this.ips,
        ready: options.ready ?? true,
      }),
    );
  }

  /** Replaces the labels of the running pod: enrols it, or takes it out of the mesh. */
  relabel(labels: Readonly<Record<string, string>>): void {
    this.#labels = labels;
    this.publish();
  }

  /** Removes the manifest only; the pod runs on. */
  unpublish(): void {
    this.node.lab.manifests.delete('Pod', this.name, this.namespace);
  }

  /** A shell command that becomes its arguments, inside the pod: for people. */
  get enterCommand(): string {
    const { cgroup, netns } = this.#place;
    const enter = `echo $$ >${join(cgroup, 'cgroup.procs')}; exec nsenter --net=/run/netns/${netns} "$@"`;
    return `sh -c '${enter}' sh`;
  }

  /** Starts a process in the pod. */
  spawn(command: readonly string[], options: SpawnOptions = {}): LabProcess {
    return spawnIn(this.#place, command, options);
  }

  /** Runs a process in the pod to its end. */
  async exec(command: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
    return await execIn(this.#place, command, options);
  }

  /** Like `exec`, but gives standard output and throws where the exit code is not 0. */
  async output(command: readonly string[], options: ExecOptions = {}): Promise<string> {
    return await outputIn(this.#place, command, options);
  }

  /** Ends the pod as kubelet and the CNI plugin do: its processes, its network (some time later), its cgroup, then its manifest. */
  async delete(): Promise<void> {
    killCgroup(this.cgroup);
    await delay(networkOutlivesMs);
    if (!this.hostNetwork) await deletePodNetwork(this.node.netns, this.hostDevice, this.netns);
    removeCgroup(this.cgroup);
    this.unpublish();
    this.node.pods.delete(`${this.namespace}/${this.name}`);
  }

  #container(): Place {
    const id = randomBytes(32).toString('hex');
    const cgroup = makeCgroup(join(this.cgroup, containerCgroupName(this.node.cgroupDriver, id)));
    return { cgroup, netns: this.netns, ...(this.resolvConf === '' ? {} : { resolvConf: this.resolvConf }) };
  }

  /** Waits until the pause process is what it will be: then the namespace is to be found from the cgroup. */
  async #pause(): Promise<void> {
    const pause = spawnIn(this.#container(), ['sh', '-c', 'echo up; exec sleep infinity']);
    await waitFor(`pause process of ${this.name}`, () => pause.stdout.includes('up'));
    this.#pausePid = pause.pid;
  }
}
