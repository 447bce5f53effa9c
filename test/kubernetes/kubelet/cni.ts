import { spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { KubeletConfig, Pod } from './types.js';
import { hostPath } from './volumes.js';

interface Plugin {
  readonly type: string;
}

/**
 * What a container runtime does with a node's list of CNI plugins, after the first one: that is the lab itself, which has made the network. Nothing where the node
 * has no list. Throws what a plugin says against it.
 */
export async function runChainedPlugins(
  command: 'ADD' | 'DEL',
  config: KubeletConfig,
  pod: Pod,
  place: { readonly id: string; readonly netns: string; readonly ips: readonly string[] },
): Promise<void> {
  const folder = hostPath(config, '/etc/cni/net.d');
  const names = existsSync(folder) ? readdirSync(folder).filter((name) => name.endsWith('.conflist')) : [];
  const [first] = names.sort();
  if (first === undefined) return;
  const list = JSON.parse(readFileSync(join(folder, first), 'utf8')) as {
    readonly cniVersion: string;
    readonly name: string;
    readonly plugins: readonly Plugin[];
  };
  const { cniVersion, name } = list;
  const ips = place.ips.map((ip) => ({ address: `${ip}/${ip.includes(':') ? 128 : 32}` }));
  let result: object = { cniVersion, interfaces: [], ips };
  for (const plugin of list.plugins.slice(1)) {
    const input = JSON.stringify({ cniVersion, name, ...plugin, prevResult: result });
    const output = await runPlugin(command, plugin.type, input, config, pod, place);
    if (command === 'ADD') result = JSON.parse(output) as object;
  }
}

async function runPlugin(
  command: string,
  type: string,
  input: string,
  config: KubeletConfig,
  pod: Pod,
  { id, netns }: { readonly id: string; readonly netns: string },
): Promise<string> {
  const { name, namespace, uid } = pod.metadata;
  const env = {
    PATH: process.env['PATH'],
    CNI_COMMAND: command,
    CNI_CONTAINERID: id,
    CNI_NETNS: `/run/netns/${netns}`,
    CNI_IFNAME: 'eth0',
    CNI_PATH: hostPath(config, '/opt/cni/bin'),
    CNI_ARGS: `IgnoreUnknown=1;K8S_POD_NAMESPACE=${namespace};K8S_POD_NAME=${name};K8S_POD_UID=${uid}`,
  };
  // Plugins run on the host: theirs is the node's bpffs.
  const script = 'mount --rbind "$1" /sys/fs/bpf && exec "$2"';
  const words = ['--mount', 'sh', '-c', script, 'cni', config.bpffsDir, join(env.CNI_PATH, type)];
  const child = spawn('unshare', words, { env });
  let [output, errors] = ['', ''];
  child.stdout.on('data', (data: Buffer) => {
    output += data.toString();
  });
  child.stderr.on('data', (data: Buffer) => {
    errors += data.toString();
  });
  child.stdin.on('error', () => undefined);
  child.stdin.end(input);
  const code = await new Promise<number>((resolve) => child.on('close', (status) => resolve(status ?? -1)));
  if (code !== 0) throw new Error(`CNI plugin ${type}: ${output || errors}`);
  return output;
}
