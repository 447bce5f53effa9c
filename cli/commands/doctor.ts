import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { release } from 'node:os';
import { type CommandDeps, command } from '../command.js';
import { type Finding, finding } from '../finding.js';
import { bpffsOption } from './bpffs-option.js';
import { clusterFindings } from './cluster-doctor.js';

export const doctor = command({
  path: 'doctor',
  summary:
    'Whether this machine, or a cluster, can carry the mesh: kernel, cgroups, other meshes and CNIs in the way, Kubernetes, and what to do.',
  options: {
    bpffs: bpffsOption,
  },
  asksController: true,
  examples: [
    'culvertctl doctor',
    'culvertctl doctor -o json',
    'culvertctl doctor --kubeconfig ~/.kube/config',
    'culvertctl doctor --node worker-1',
    'culvertctl doctor --agent 127.0.0.1:15000',
  ],
  async run({ bpffs }, { cluster, ...deps }) {
    const findings =
      cluster === null ? await machineFindings(bpffs, deps.agent) : await clusterFindings(cluster, deps);
    const rows = findings.map((one) => [
      one.check,
      one.verdict,
      one.found,
      one.verdict === 'ok' ? '' : one.advice,
    ]);
    return {
      json: findings,
      tables: [{ rows: [['CHECK', 'VERDICT', 'FOUND', 'WHAT TO DO'], ...rows] }],
      exitCode: findings.some((one) => one.verdict === 'fails') ? 1 : 0,
    };
  },
});

async function machineFindings(bpffs: string, agent: CommandDeps['agent']): Promise<Finding[]> {
  return [
    kernelVersion(),
    rights(),
    btf(),
    cgroup2(),
    bpffsMount(bpffs),
    podsParent(),
    cniPlugins(),
    ...otherMeshes(),
    routeLocalnet(),
    ...(await agentFindings(agent)),
  ];
}

/** Linux 5.15 is the oldest that the programs are made for (README). */
function kernelVersion(): Finding {
  const text = release();
  const [major, minor] = text.split('.').map(Number) as [number, number];
  const isNew = major > 5 || (major === 5 && minor >= 15);
  return finding('kernel', isNew ? 'ok' : 'fails', text, 'Linux 5.15 or newer is needed');
}

function rights(): Finding {
  const effective = BigInt(`0x${/^CapEff:\s*(\w+)/m.exec(read('/proc/self/status') ?? '')?.[1] ?? '0'}`);
  // CAP_NET_ADMIN 12, CAP_SYS_ADMIN 21, CAP_BPF 39.
  const missing = [
    ['CAP_NET_ADMIN', 12n],
    ['CAP_SYS_ADMIN', 21n],
    ['CAP_BPF', 39n],
  ].flatMap(([name, bit]) => ((effective >> (bit as bigint)) & 1n ? [] : [name as string]));
  return finding(
    'rights',
    missing.length === 0 ? 'ok' : 'fails',
    missing.length === 0 ? 'as root' : `without ${missing.join(', ')}`,
    'run the agent, and this, as root',
  );
}

function btf(): Finding {
  const isThere = existsSync('/sys/kernel/btf/vmlinux');
  return finding(
    'kernel types (BTF)',
    isThere ? 'ok' : 'fails',
    isThere ? '/sys/kernel/btf/vmlinux' : 'none',
    'a kernel built with CONFIG_DEBUG_INFO_BTF is needed',
  );
}

function cgroup2(): Finding {
  const mounts = mountsOf('cgroup2');
  return finding(
    'cgroup v2',
    mounts.length > 0 ? 'ok' : 'fails',
    mounts.join(', ') || 'not mounted',
    'mount it, or boot with systemd.unified_cgroup_hierarchy=1',
  );
}

function bpffsMount(folder: string): Finding {
  const mounts = mountsOf('bpf');
  const isThere = mounts.some((mount) => folder === mount || folder.startsWith(`${mount}/`));
  return finding(
    'bpffs',
    isThere ? 'ok' : 'warning',
    mounts.join(', ') || 'not mounted',
    `the agent mounts one at ${folder}; in a container, mount the host's /sys/fs/bpf with mountPropagation Bidirectional`,
  );
}

function podsParent(): Finding {
  const found = mountsOf('cgroup2').flatMap((mount) =>
    [
      'kubepods',
      'kubepods.slice',
      'kubelet.slice',
      'kubelet/kubepods',
      'kubelet.slice/kubelet-kubepods.slice',
    ]
      .map((name) => `${mount}/${name}`)
      .filter((path) => existsSync(path)),
  );
  return finding(
    'cgroup of all pods',
    found.length > 0 ? 'ok' : 'warning',
    found.join(', ') || 'none found',
    'give it to the agent as --pods-cgroup; kubelet makes it at its first pod',
  );
}

function cniPlugins(): Finding {
  const folder = '/etc/cni/net.d';
  const files = existsSync(folder) ? readdirSync(folder).filter((name) => /\.conf(list)?$/.test(name)) : [];
  const first = files.toSorted()[0];
  const text = first === undefined ? '' : (read(`${folder}/${first}`) ?? '');
  const plugins = [...text.matchAll(/"type"\s*:\s*"([^"]+)"/g)].map((match) => match[1]!);
  const hasIstio = plugins.includes('istio-cni');
  return finding(
    'CNI',
    hasIstio ? 'fails' : 'ok',
    plugins.join(', ') || 'no configuration here',
    'istio-cni redirects pods as well: remove it, or keep its namespaces out of this mesh',
  );
}

/** Programs of others on the hooks that are ours, and their redirections in pods. */
function otherMeshes(): Finding[] {
  const findings: Finding[] = [];
  const pods = processNames();
  for (const [process, mesh] of Object.entries({
    ztunnel: 'Istio ambient',
    'linkerd2-proxy': 'Linkerd',
    'pilot-agent': 'Istio sidecars',
    'cilium-agent': 'Cilium',
  })) {
    if (!pods.has(process)) continue;
    const isCilium = process === 'cilium-agent';
    findings.push(
      finding(
        'other meshes',
        isCilium ? 'warning' : 'fails',
        `${mesh} (${process})`,
        isCilium
          ? 'set socketLB.hostNamespaceOnly=true and bpf-lb-sock-hostns-only, or its socket load balancing answers connect() before ours'
          : 'take the namespaces of this mesh out of that one first: two redirections fight',
      ),
    );
  }
  return findings.length > 0 ? findings : [finding('other meshes', 'ok', 'none runs here', '')];
}

function routeLocalnet(): Finding {
  const isSet = read('/proc/sys/net/ipv4/conf/all/route_localnet')?.trim() === '1';
  return finding(
    'route_localnet',
    isSet ? 'warning' : 'ok',
    isSet ? '1 on this host' : '0',
    'pods that inherit it are not captured: a caller could pose as the agent',
  );
}

async function agentFindings(agent: {
  text(method: 'GET', path: string): Promise<string>;
}): Promise<Finding[]> {
  try {
    await agent.text('GET', '/logging');
    return [finding('agent', 'ok', 'answers', '')];
  } catch (error) {
    return [
      finding(
        'agent',
        'warning',
        String((error as Error).message),
        'start it; pods that were captured are refused until then',
      ),
    ];
  }
}

function mountsOf(type: string): string[] {
  return (read('/proc/self/mounts') ?? '')
    .split('\n')
    .map((line) => line.split(' '))
    .flatMap(([, at, kind]) => (kind === type ? [at!] : []));
}

function processNames(): ReadonlySet<string> {
  const names = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => (read(`/proc/${pid}/comm`) ?? '').trim());
  return new Set(names);
}

function read(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return null;
  }
}
