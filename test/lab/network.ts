import { spawn } from 'node:child_process';
import { once } from 'node:events';

/**
 * Address plan. Every lab has a fabric namespace of its own and touches no interface of the machine, so all labs use the same addresses.
 *
 *   fabric bridge   172.30.0.0/24    fd00:30::/64          node n: 172.30.0.n, fd00:30::n (n from 1), on its eth0
 *   pods of node n  10.244.n.0/24    fd00:244:0:n::/64     pod i: 10.244.n.(i+1), fd00:244:0:n::(i+1) (i from 1), on its eth0
 *   pod gateway     10.244.n.1       fe80::1               on the host side of every pod's veth, as the CNI plugin `ptp` does it
 *   service VIPs    10.96.0.0/16     fd00:96::/112         given in Service manifests; routed nowhere
 */
export const addressPlan = {
  fabric4: (node: number): string => `172.30.0.${node}`,
  fabric6: (node: number): string => `fd00:30::${node.toString(16)}`,
  podRange4: (node: number): string => `10.244.${node}.0/24`,
  podRange6: (node: number): string => `fd00:244:0:${node.toString(16)}::/64`,
  gateway4: (node: number): string => `10.244.${node}.1`,
  gateway6: 'fe80::1',
  pod4: (node: number, pod: number): string => `10.244.${node}.${pod + 1}`,
  pod6: (node: number, pod: number): string => `fd00:244:0:${node.toString(16)}::${(pod + 1).toString(16)}`,
  vip4: (index: number): string => `10.96.${index >> 8}.${index & 0xff}`,
  vip6: (index: number): string => `fd00:96::${index.toString(16)}`,
} as const;

/** Which address families a pod has. */
export type IpFamilies = 'dual' | 'ipv4' | 'ipv6';

export interface PodLink {
  readonly node: number;
  readonly pod: number;
  readonly nodeNetns: string;
  readonly podNetns: string;
  /** Host side of the veth, at most 15 characters. */
  readonly hostDevice: string;
  readonly families: IpFamilies;
}

/** Makes the fabric: a namespace with a bridge. */
export async function makeFabric(netns: string): Promise<void> {
  await ip(`netns add ${netns}`);
  await ip('link add br0 type bridge', 'link set br0 up', 'link set lo up', { netns });
}

/** Makes a node's namespace, its uplink to the fabric and its forwarding. */
export async function makeNodeNetwork(fabric: string, netns: string, node: number): Promise<void> {
  await ip(`netns add ${netns}`);
  await sysctl(netns, {
    'net.ipv4.ip_forward': '1',
    'net.ipv6.conf.all.forwarding': '1',
    'net.ipv6.conf.default.accept_dad': '0',
  });
  await ip(`link add eth0 netns ${netns} type veth peer name n${node} netns ${fabric}`);
  await ip(`link set n${node} master br0 up`, { netns: fabric });
  await ip(
    'link set lo up',
    `addr add ${addressPlan.fabric4(node)}/24 dev eth0`,
    `addr add ${addressPlan.fabric6(node)}/64 dev eth0 nodad`,
    'link set eth0 up',
    { netns },
  );
}

/** Routes from the node in `netns` to the pods of the other node. */
export async function routeToPodsOf(netns: string, other: number): Promise<void> {
  await ip(
    `route replace ${addressPlan.podRange4(other)} via ${addressPlan.fabric4(other)}`,
    `route replace ${addressPlan.podRange6(other)} via ${addressPlan.fabric6(other)}`,
    { netns },
  );
}

/** Makes a pod's namespace and wires it to its node. */
export async function makePodNetwork(link: PodLink): Promise<void> {
  const { node, pod, nodeNetns, podNetns, hostDevice } = link;
  await ip(`netns add ${podNetns}`);
  const dad = { 'net.ipv6.conf.default.accept_dad': '0' };
  await sysctl(podNetns, link.families === 'ipv4' ? { 'net.ipv6.conf.all.disable_ipv6': '1' } : dad);
  await ip(`link add ${hostDevice} netns ${nodeNetns} type veth peer name eth0 netns ${podNetns}`);
  const host = [`link set ${hostDevice} up`];
  const inside = ['link set lo up', 'link set eth0 up'];
  if (link.families !== 'ipv6') {
    const [address, gateway] = [addressPlan.pod4(node, pod), addressPlan.gateway4(node)];
    host.push(`addr add ${gateway}/32 dev ${hostDevice}`, `route add ${address}/32 dev ${hostDevice}`);
    inside.push(
      `addr add ${address}/32 dev eth0`,
      `route add ${gateway}/32 dev eth0 scope link`,
      `route add default via ${gateway} dev eth0`,
    );
  }
  if (link.families !== 'ipv4') {
    const address = addressPlan.pod6(node, pod);
    host.push(
      `addr add ${addressPlan.gateway6}/64 dev ${hostDevice} nodad`,
      `route add ${address}/128 dev ${hostDevice}`,
    );
    inside.push(
      `addr add ${address}/128 dev eth0 nodad`,
      `route add ::/0 via ${addressPlan.gateway6} dev eth0`,
    );
  }
  await ip(...host, { netns: nodeNetns });
  await ip(...inside, { netns: podNetns });
}

/** Takes a pod's network away. The link first: the namespace itself lives on for as long as anybody has it open. */
export async function deletePodNetwork(
  nodeNetns: string,
  hostDevice: string,
  podNetns: string,
): Promise<void> {
  await ip(`link del ${hostDevice}`, { netns: nodeNetns });
  await ip(`netns del ${podNetns}`);
}

type IpArgument = string | { readonly netns: string };

/** Runs the lines as one `ip -batch`, inside `netns` where given; throws with what `ip` said. */
async function ip(...args: IpArgument[]): Promise<void> {
  const lines = args.filter((arg) => typeof arg === 'string');
  const netns = args.find((arg) => typeof arg === 'object')?.netns;
  const into = netns === undefined ? [] : ['-n', netns];
  await run('ip', [...into, '-batch', '-'], `${lines.join('\n')}\n`, lines.join('; '));
}

/** Writes network sysctls of a namespace; /proc/sys/net shows that of the task that opens it. */
async function sysctl(netns: string, values: Readonly<Record<string, string>>): Promise<void> {
  const script = Object.entries(values)
    .map(([key, value]) => `echo ${value} > /proc/sys/${key.replaceAll('.', '/')}`)
    .join(' && ');
  await run('nsenter', [`--net=/run/netns/${netns}`, 'sh', '-c', script], '', script);
}

async function run(command: string, args: readonly string[], input: string, what: string): Promise<void> {
  const child = spawn(command, args, { stdio: ['pipe', 'ignore', 'pipe'] });
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  child.stdin.on('error', () => undefined);
  child.stdin.end(input);
  const [code] = (await once(child, 'close')) as [number | null];
  if (code !== 0) throw new Error(`${command} failed (${what}): ${stderr.trim()}`);
}
