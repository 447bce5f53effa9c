import { option } from '../../mesh/config/index.js';
import type { GatewayAddress, Service, Workload } from '../../mesh/store/index.js';
import { type AgentDump, readDump } from '../agent-dump.js';
import { command } from '../command.js';
import type { Rows } from '../output.js';

/** What each kind looks like as a table. */
const tables = {
  workloads: ({ workloads }: AgentDump['workloads']): Rows => [
    ['NAMESPACE', 'WORKLOAD', 'ADDRESSES', 'NODE', 'PROTOCOL', 'WAYPOINT', 'HEALTHY', 'SERVICES'],
    ...workloads.map((one: Workload) => [
      one.namespace,
      one.name,
      one.addresses.join(',') || one.hostname,
      one.node,
      one.defect === undefined ? one.tunnelProtocol : `refused: ${one.defect}`,
      gatewayText(one.waypoint),
      one.healthy ? 'yes' : 'no',
      Object.keys(one.services).length,
    ]),
  ],
  services: ({ services, workloads }: AgentDump['workloads']): Rows => {
    const endpoints = new Map<string, number>();
    for (const { services: of } of workloads)
      for (const key of Object.keys(of)) endpoints.set(key, (endpoints.get(key) ?? 0) + 1);
    return [
      ['NAMESPACE', 'HOSTNAME', 'VIPS', 'PORTS', 'WAYPOINT', 'ENDPOINTS'],
      ...services.map((one: Service) => [
        one.namespace,
        one.hostname,
        one.vips.map(vipText).join(','),
        one.ports.map((port) => `${port.servicePort}:${port.targetPort}`).join(','),
        gatewayText(one.waypoint),
        endpoints.get(`${one.namespace}/${one.hostname}`) ?? 0,
      ]),
    ];
  },
  policies: ({ policies }: AgentDump['workloads']): Rows => [
    ['POLICY', 'SCOPE', 'ACTION', 'RULES', 'STATE'],
    ...policies.map((one) => [
      one.key,
      one.scope,
      one.dryRun ? `${one.action} (dry run)` : one.action,
      one.groups.length,
      one.defect === null ? 'sound' : `denies all: ${one.defect}`,
    ]),
  ],
};

export const proxyConfig = command({
  path: 'proxy config',
  isAnyNode: true,
  summary: 'The configuration that is in force in this agent: workloads, services and policies.',
  options: {
    kind: option.choice({
      help: 'What to show.',
      fallback: 'workloads',
      of: ['workloads', 'services', 'policies'],
    }),
    namespace: option.text({ help: 'Only of this namespace.', metavar: 'NAME', fallback: '' }),
  },
  positional: 'kind',
  examples: [
    'culvertctl proxy config workloads',
    'culvertctl proxy config services --namespace shop',
    'culvertctl proxy config policies -o json',
  ],
  async run({ kind, namespace }, { agent }) {
    const { workloads: store } = await readDump(agent, 'workloads');
    const isWanted = (one: { readonly namespace: string }) => namespace === '' || one.namespace === namespace;
    const wanted = {
      ...store,
      workloads: kind === 'services' ? store.workloads : store.workloads.filter(isWanted),
      services: store.services.filter(isWanted),
      policies: store.policies.filter(isWanted),
    };
    return { json: wanted[kind], tables: [{ rows: tables[kind](wanted) }] };
  },
});

function vipText(vip: Service['vips'][number]): string {
  return vip.prefixLength === null ? vip.address : `${vip.address}/${vip.prefixLength}`;
}

function gatewayText(gateway: GatewayAddress | null): string | null {
  if (gateway === null) return null;
  const { destination } = gateway;
  return destination.kind === 'hostname'
    ? `${destination.hostname.namespace}/${destination.hostname.hostname}`
    : destination.address;
}
