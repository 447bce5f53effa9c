import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  containerCgroupName,
  killCgroup,
  kubepodsName,
  makeCgroup,
  podCgroupName,
  type QosClass,
  removeCgroup,
} from '../../lab/cgroup.js';
import { addressPlan, deletePodNetwork, makePodNetwork } from '../../lab/network.js';
import { spawnIn } from '../../lab/process.js';
import { runChainedPlugins } from './cni.js';
import type { KubeletConfig, Pod } from './types.js';

const MAX_PODS = 250;

/** The pod addresses of a node that are free, by their place in the address plan. */
export class AddressPool {
  readonly #free: number[];
  readonly #reuse: boolean;

  constructor(options: { readonly reuse: boolean }) {
    this.#reuse = options.reuse;
    this.#free = Array.from({ length: MAX_PODS }, (_, index) => index + 1);
  }

  take(): number {
    const index = this.#free.shift();
    if (index === undefined) throw new Error(`the node has no pod address left (of ${MAX_PODS})`);
    return index;
  }

  give(index: number): void {
    if (this.#reuse) this.#free.unshift(index);
    else this.#free.push(index);
  }
}

/** What the containers of a pod share: cgroup, network namespace, name, /etc/hosts and /etc/resolv.conf. */
export class Sandbox {
  readonly pod: Pod;
  readonly ips: readonly string[];
  readonly hostname: string;
  readonly netns: string;
  readonly cgroup: string;
  /** Folder of the pod's files. */
  readonly folder: string;
  #config: KubeletConfig;
  #addresses: AddressPool;
  #index: number;

  private constructor(config: KubeletConfig, addresses: AddressPool, pod: Pod) {
    const host = pod.spec.hostNetwork === true;
    this.pod = pod;
    this.#config = config;
    this.#addresses = addresses;
    this.#index = host ? 0 : addresses.take();
    const own = [addressPlan.pod4(config.index, this.#index), addressPlan.pod6(config.index, this.#index)];
    this.ips = host ? config.ips : own;
    this.hostname = host ? config.node : (pod.spec.hostname ?? pod.metadata.name).slice(0, 63);
    this.netns = host ? config.netns : `${config.netns}-k${this.#index}`;
    const uid = pod.metadata.uid!;
    this.cgroup = join(config.cgroup, podCgroupName(config.cgroupDriver, qosOf(pod), uid));
    this.folder = join(config.stateDir, 'pods', uid);
  }

  /** Makes cgroup, network and pause process, in this order, as kubelet, containerd and a CNI plugin do. */
  static async create(config: KubeletConfig, addresses: AddressPool, pod: Pod): Promise<Sandbox> {
    const sandbox = new Sandbox(config, addresses, pod);
    try {
      makeCgroup(sandbox.cgroup);
      mkdirSync(sandbox.folder, { recursive: true });
      if (sandbox.#index > 0) await sandbox.#wire();
      if (sandbox.#index > 0) await runChainedPlugins('ADD', config, pod, sandbox.#place);
      spawnIn({ cgroup: sandbox.container().cgroup, netns: sandbox.netns }, ['sleep', 'infinity']);
      sandbox.#writeFiles();
      return sandbox;
    } catch (thrown) {
      await sandbox.remove();
      throw thrown;
    }
  }

  /** A new container's id and cgroup. */
  container(): { readonly id: string; readonly cgroup: string } {
    const id = randomBytes(32).toString('hex');
    return { id, cgroup: makeCgroup(join(this.cgroup, containerCgroupName(this.#config.cgroupDriver, id))) };
  }

  /** Kills what runs in it and takes everything away. */
  async remove(): Promise<void> {
    killCgroup(this.cgroup);
    if (this.#index > 0) {
      await runChainedPlugins('DEL', this.#config, this.pod, this.#place).catch(() => undefined);
      await deletePodNetwork(this.#config.netns, `vk${this.#index}`, this.netns).catch(() => undefined);
      this.#addresses.give(this.#index);
    }
    removeCgroup(this.cgroup);
    rmSync(this.folder, { recursive: true, force: true });
  }

  get #place(): { readonly id: string; readonly netns: string; readonly ips: readonly string[] } {
    return { id: this.pod.metadata.uid!, netns: this.netns, ips: this.ips };
  }

  async #wire(): Promise<void> {
    const { index: node, netns: nodeNetns } = this.#config;
    const link = { node, pod: this.#index, nodeNetns, podNetns: this.netns, hostDevice: `vk${this.#index}` };
    await makePodNetwork({ ...link, families: 'dual' });
    // As the default of containerd: whoever runs without capabilities may still use every port.
    const sysctl = 'echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start';
    execFileSync('nsenter', [`--net=/run/netns/${this.netns}`, 'sh', '-c', sysctl]);
  }

  #writeFiles(): void {
    const { hostname, ips, pod } = this;
    const aliases = (pod.spec.hostAliases ?? []).map(
      ({ ip, hostnames }) => `${ip}\t${(hostnames ?? []).join('\t')}`,
    );
    const own = ips.map((ip) => `${ip}\t${hostname}`);
    const hosts = ['127.0.0.1\tlocalhost', '::1\tlocalhost ip6-localhost', ...own, ...aliases];
    writeFileSync(join(this.folder, 'hosts'), `${hosts.join('\n')}\n`);
    writeFileSync(join(this.folder, 'resolv.conf'), `${resolvConfOf(pod).join('\n')}\n`);
  }
}

/** The address that CoreDNS has wherever it is installed. */
export const CLUSTER_DNS = addressPlan.vip4(10);

function resolvConfOf({ metadata, spec }: Pod): string[] {
  const own = spec.dnsConfig;
  const cluster =
    spec.dnsPolicy !== 'None' &&
    spec.dnsPolicy !== 'Default' &&
    !(spec.hostNetwork && spec.dnsPolicy !== 'ClusterFirstWithHostNet');
  const zone = 'svc.cluster.local';
  const searches = [
    ...(cluster ? [`${metadata.namespace}.${zone}`, zone, 'cluster.local'] : []),
    ...(own?.searches ?? []),
  ];
  const options = (own?.options ?? []).map(({ name, value }) =>
    value === undefined ? name : `${name}:${value}`,
  );
  const servers = [...(cluster ? [CLUSTER_DNS] : []), ...(own?.nameservers ?? [])];
  return [
    ...servers.map((server) => `nameserver ${server}`),
    ...(searches.length > 0 ? [`search ${searches.join(' ')}`] : []),
    ...(cluster || options.length > 0
      ? [`options ${[...(cluster ? ['ndots:5'] : []), ...options].join(' ')}`]
      : []),
  ];
}

function qosOf(pod: Pod): QosClass {
  return (pod.status?.qosClass ?? 'BestEffort').toLowerCase() as QosClass;
}

/** Takes away what an earlier kubelet of the node left: its pods do not outlive it. */
export async function sweepPods(config: KubeletConfig): Promise<void> {
  const kubepods = join(config.cgroup, kubepodsName(config.cgroupDriver));
  killCgroup(kubepods);
  removeCgroup(kubepods);
  makeCgroup(kubepods);
  const prefix = `${config.netns}-k`;
  for (const netns of readdirSync('/run/netns').filter((name) => name.startsWith(prefix))) {
    await deletePodNetwork(config.netns, `vk${netns.slice(prefix.length)}`, netns).catch(() => undefined);
  }
  rmSync(join(config.stateDir, 'pods'), { recursive: true, force: true });
}
