import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import type { ApiClient, KubeObject } from '../api.js';

export interface Service extends KubeObject {
  readonly spec: {
    readonly clusterIPs?: readonly string[];
    readonly type?: string;
    readonly externalName?: string;
    readonly internalTrafficPolicy?: string;
    readonly ports?: readonly {
      readonly name?: string;
      readonly protocol?: string;
      readonly port: number;
      readonly nodePort?: number;
    }[];
  };
}

export interface EndpointSlice extends KubeObject {
  readonly addressType: string;
  readonly ports?:
    | readonly { readonly name?: string; readonly protocol?: string; readonly port?: number }[]
    | null;
  readonly endpoints?:
    | readonly {
        readonly addresses: readonly string[];
        readonly hostname?: string;
        readonly nodeName?: string;
        readonly conditions?: {
          readonly ready?: boolean;
          readonly serving?: boolean;
          readonly terminating?: boolean;
        };
      }[]
    | null;
}

const TABLE = 'culvert-lab-services';
const DEBOUNCE_MS = 50;

/**
 * What kube-proxy does, in this process's network namespace: one nftables table that translates Service addresses to those of endpoints,
 * of what the node sends and what its pods send. Runs until the signal.
 */
export async function serveServices(
  options: { readonly node: string; readonly ranges: readonly string[]; readonly signal: AbortSignal },
  deps: {
    readonly api: ApiClient;
    /** By uid; kept up to date here, for whoever else wants to know. */
    readonly services: Map<string, Service>;
    readonly slices: Map<string, EndpointSlice>;
    readonly say: (line: string) => void;
  },
): Promise<void> {
  const { services, slices } = deps;
  let [due, synced] = [false, 0];
  // One after another: of two at once, the older might be the last to be in force.
  let last = Promise.resolve();
  const change =
    <T extends KubeObject>(map: Map<string, T>) =>
    (object: T, type: string): void => {
      if (type === 'DELETED') map.delete(object.metadata.uid!);
      else map.set(object.metadata.uid!, object);
      schedule();
    };
  const schedule = (): void => {
    if (due) return;
    due = true;
    last = Promise.all([last, delay(DEBOUNCE_MS)]).then(async () => {
      due = false;
      if (synced < 2 || options.signal.aborted) return;
      const rules = rulesOf([...services.values()], [...slices.values()], options.node);
      await nft(rules).catch((error: Error) => deps.say(`services: ${error.message}\n${rules}`));
    });
  };
  const onSynced = (): void => {
    synced += 1;
    schedule();
  };
  await routeServices(options.ranges);
  const { signal } = options;
  await Promise.all([
    deps.api.watch('/api/v1/services', change(services), { signal, onSynced }),
    deps.api.watch('/apis/discovery.k8s.io/v1/endpointslices', change(slices), { signal, onSynced }),
  ]);
}

/** Where a node itself connects to a Service, routing comes before translation: without a route there is none. */
async function routeServices(ranges: readonly string[]): Promise<void> {
  for (const range of ranges) {
    const child = spawn('ip', ['route', 'replace', range, 'dev', 'eth0'], { stdio: 'ignore' });
    await once(child, 'close');
  }
}

interface Port {
  readonly family: 'ip' | 'ip6';
  readonly address: string;
  readonly protocol: string;
  readonly port: number;
  readonly nodePort: number | undefined;
  /** nft's way to write them: `10.244.1.2:8080`, `[fd00::2]:8080`. */
  readonly endpoints: readonly { readonly address: string; readonly port: number }[];
}

/** The whole table, for one atomic replacement. */
export function rulesOf(
  services: readonly Service[],
  slices: readonly EndpointSlice[],
  node: string,
): string {
  const ports = services.flatMap((service) => portsOf(service, slices, node));
  const chains = ports.map((port, index) => chainOf(port, index));
  const keys = (family: string): string[] =>
    ports.flatMap((port, index) =>
      port.family === family
        ? [`${port.address} . ${port.protocol} . ${port.port} : goto port-${index}`]
        : [],
    );
  const nodePorts = ports.flatMap((port, index) =>
    port.nodePort === undefined || port.family === 'ip6'
      ? []
      : [`${port.protocol} . ${port.nodePort} : goto port-${index}`],
  );
  const dispatch = (hook: string): string[] => [
    `  chain ${hook} {`,
    `    type nat hook ${hook} priority ${hook === 'output' ? '-100' : 'dstnat'};`,
    '    ip daddr . meta l4proto . th dport vmap @vips4',
    '    ip6 daddr . meta l4proto . th dport vmap @vips6',
    '    ip daddr != 127.0.0.0/8 fib daddr type local meta l4proto . th dport vmap @nodeports',
    '  }',
  ];
  return [
    `table inet ${TABLE} {}`,
    `delete table inet ${TABLE}`,
    `table inet ${TABLE} {`,
    mapOf('vips4', 'ipv4_addr . inet_proto . inet_service', keys('ip')),
    mapOf('vips6', 'ipv6_addr . inet_proto . inet_service', keys('ip6')),
    mapOf('nodeports', 'inet_proto . inet_service', nodePorts),
    ...chains,
    ...dispatch('prerouting'),
    ...dispatch('output'),
    // A pod that reaches itself by a Service, and whoever comes by a node's port, must be answered through the node.
    '  chain postrouting {',
    '    type nat hook postrouting priority srcnat;',
    '    ct mark 0x4000 masquerade',
    '  }',
    '}',
    '',
  ].join('\n');
}

function mapOf(name: string, type: string, elements: readonly string[]): string {
  const held = elements.length === 0 ? '' : ` elements = { ${elements.join(', ')} };`;
  return `  map ${name} { type ${type} : verdict;${held} }`;
}

function portsOf(service: Service, slices: readonly EndpointSlice[], node: string): Port[] {
  const { name, namespace } = service.metadata;
  const own = slices.filter(
    ({ metadata }) =>
      metadata.namespace === namespace && metadata.labels?.['kubernetes.io/service-name'] === name,
  );
  const addresses = (service.spec.clusterIPs ?? []).filter((address) => address !== 'None' && address !== '');
  const local = service.spec.internalTrafficPolicy === 'Local';
  return addresses.flatMap((address) =>
    (service.spec.ports ?? []).map((port) => {
      const family = address.includes(':') ? ('ip6' as const) : ('ip' as const);
      const wanted = own.filter(({ addressType }) => addressType === (family === 'ip6' ? 'IPv6' : 'IPv4'));
      const endpoints = wanted.flatMap((slice) => endpointsOf(slice, port.name ?? '', local ? node : null));
      return {
        ...{ family, address, endpoints, port: port.port, nodePort: port.nodePort },
        protocol: (port.protocol ?? 'TCP').toLowerCase(),
      };
    }),
  );
}

function endpointsOf(slice: EndpointSlice, portName: string, node: string | null): Port['endpoints'] {
  const port = slice.ports?.find(({ name }) => (name ?? '') === portName)?.port;
  if (port === undefined) return [];
  const ready = (slice.endpoints ?? []).filter(
    ({ conditions, nodeName }) => conditions?.ready !== false && (node === null || nodeName === node),
  );
  return ready.flatMap(({ addresses }) => addresses.slice(0, 1).map((address) => ({ address, port })));
}

function chainOf({ family, endpoints, protocol }: Port, index: number): string {
  const head = `  chain port-${index} {\n    fib daddr type local ct mark set 0x4000\n`;
  // To a port of the node where nobody listens: refused at once.
  if (endpoints.length === 0) return `${head}    meta l4proto ${protocol} redirect to :1\n  }`;
  const own = endpoints.map(({ address, port }, number) => {
    const target = family === 'ip6' ? `[${address}]:${port}` : `${address}:${port}`;
    return [
      `  chain port-${index}-${number} {`,
      `    ${family} saddr ${address} ct mark set 0x4000`,
      `    meta l4proto ${protocol} dnat ${family} to ${target}`,
      '  }',
    ].join('\n');
  });
  const choice = endpoints.map((_, number) => `${number} : goto port-${index}-${number}`).join(', ');
  return `${own.join('\n')}\n${head}    numgen random mod ${endpoints.length} vmap { ${choice} }\n  }`;
}

async function nft(rules: string): Promise<void> {
  const child = spawn('nft', ['-f', '-'], { stdio: ['pipe', 'ignore', 'pipe'] });
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  child.stdin.end(rules);
  const [code] = (await once(child, 'close')) as [number | null];
  if (code !== 0) throw new Error(`nft: ${stderr.slice(0, 2000)}`);
}
