import type { Fields, Labels } from '../../mesh/manifests/index.js';

/** What of a NetworkPolicy tells whether the mesh's connections pass it. */
export interface NetworkPolicy {
  readonly kind: 'NetworkPolicy';
  readonly namespace: string;
  readonly name: string;
  readonly podSelector: LabelSelector;
  /** Null: it says nothing of this direction. */
  readonly ingress: readonly NetworkRule[] | null;
  readonly egress: readonly NetworkRule[] | null;
}

export interface LabelSelector {
  readonly labels: Labels;
  readonly expressions: readonly {
    readonly key: string;
    readonly operator: string;
    readonly values: readonly string[];
  }[];
}

export interface NetworkRule {
  /** The peers as one text, alike where they are the same; '': all. */
  readonly peers: string;
  /** Null: all ports. TCP only; empty: none of TCP. */
  readonly ports: readonly { readonly first: number | string; readonly last: number }[] | null;
}

const PATH_OF_PEERS = { ingress: 'from', egress: 'to' } as const;

export function decodeNetworkPolicy(fields: Fields, namespace: string, name: string): NetworkPolicy {
  const spec = fields.object('spec');
  const types = spec.texts('policyTypes');
  const has = (type: string, isDefault: boolean) => (types.length === 0 ? isDefault : types.includes(type));
  return {
    kind: 'NetworkPolicy',
    namespace,
    name,
    podSelector: readSelector(spec.object('podSelector')),
    ingress: has('Ingress', true) ? readRules(spec, 'ingress') : null,
    egress: has('Egress', spec.has('egress')) ? readRules(spec, 'egress') : null,
  };
}

function readSelector(fields: Fields): LabelSelector {
  const expressions = fields.objects('matchExpressions').map((one) => ({
    key: one.text('key'),
    operator: one.text('operator'),
    values: one.texts('values'),
  }));
  return { labels: fields.textMap('matchLabels'), expressions };
}

function readRules(spec: Fields, direction: 'ingress' | 'egress'): readonly NetworkRule[] {
  return spec.objects(direction).map((rule) => {
    const ports = rule.objects('ports');
    return {
      peers: peersOf(rule, PATH_OF_PEERS[direction]),
      ports: ports.length === 0 ? null : ports.flatMap(readPort),
    };
  });
}

function peersOf(rule: Fields, field: 'from' | 'to'): string {
  const peers = rule.objects(field).map((peer) => peer.json);
  return peers.length === 0 ? '' : peers.toSorted().join(' ');
}

function readPort(fields: Fields): { first: number | string; last: number }[] {
  if ((fields.text('protocol') || 'TCP') !== 'TCP') return [];
  const first = fields.portOrName('port') ?? 1;
  if (!fields.has('port')) return [{ first: 1, last: 65535 }];
  return [{ first, last: fields.port('endPort') || (typeof first === 'number' ? first : 0) }];
}

/** How much there is to look at. */
export function sizeOf({ podSelector: { labels, expressions }, ingress, egress }: NetworkPolicy): number {
  const rules = [...(ingress ?? []), ...(egress ?? [])];
  const values = expressions.reduce((sum, one) => sum + 1 + one.values.length, 0);
  const ports = rules.reduce((sum, { ports }) => sum + 1 + (ports?.length ?? 0), 0);
  return 1 + Object.keys(labels).length + values + ports;
}

export function takes({ labels, expressions }: LabelSelector, of: Labels): boolean {
  for (const [key, value] of Object.entries(labels)) if (of[key] !== value) return false;
  return expressions.every(({ key, operator, values }) => {
    const value = of[key];
    if (operator === 'In') return value !== undefined && values.includes(value);
    if (operator === 'NotIn') return value === undefined || !values.includes(value);
    return operator === 'Exists' ? value !== undefined : value === undefined;
  });
}

/** Whether the rule lets this port through, or one other than it. */
export function admits({ ports }: NetworkRule, port: number): boolean {
  if (ports === null) return true;
  return ports.some(({ first, last }) => typeof first === 'number' && first <= port && port <= last);
}

export function admitsOtherThan({ ports }: NetworkRule, port: number): boolean {
  if (ports === null) return true;
  return ports.some(({ first, last }) => first !== port || last !== port);
}

/** The rule's ports for people: `80, http, 8000-8100`. */
export function portsText({ ports }: NetworkRule): string {
  if (ports === null) return 'all ports';
  return ports
    .map(({ first, last }) => (last > Number(first) ? `${first}-${last}` : String(first)))
    .join(', ');
}
