import type { Fields } from '../../mesh/manifests/index.js';
import { isHostname, readVisibility } from './decode-service-entry.js';
import { Limits, NEEDS_WAYPOINT, readCreatedAt, readDurationMs } from './limits.js';
import type { DestinationRule, RuleTrafficPolicy, Scope, Sidecar } from './service-types.js';

export function decodeDestinationRule(fields: Fields, namespace: string, name: string): DestinationRule {
  const metadata = fields.object('metadata');
  const spec = fields.object('spec');
  const limits = new Limits();
  limits.check(spec, ['host', 'trafficPolicy', 'exportTo'], {
    subsets: NEEDS_WAYPOINT,
    workloadSelector: {
      reason: 'is for sidecars',
      effect: 'the rule is not in force: agents tell all clients of a service the same',
    },
  });
  const visibility = readVisibility(spec.texts('exportTo'), namespace, (what) =>
    limits.add(spec, 'exportTo', what),
  );
  return {
    kind: 'DestinationRule',
    namespace,
    name,
    createdAt: readCreatedAt(metadata),
    host: readHost(spec),
    isPrivate: visibility !== 'public',
    trafficPolicy:
      spec.has('trafficPolicy') && !spec.has('workloadSelector')
        ? readTrafficPolicy(spec.object('trafficPolicy'), limits)
        : null,
    limits: limits.list,
  };
}

function readHost(spec: Fields): string {
  if (!spec.has('host')) spec.wrong('host', 'is required');
  const host = spec.text('host').toLowerCase().replace(/\.$/, '');
  if (host !== '' && host !== '*' && !isHostname(host.replace(/^\*\./, '')))
    spec.wrong('host', `must be a DNS name, *.name or *, not '${spec.text('host')}'`);
  return host;
}

const L7_POLICY = {
  portLevelSettings: NEEDS_WAYPOINT,
  tunnel: NEEDS_WAYPOINT,
  proxyProtocol: NEEDS_WAYPOINT,
  retryBudget: NEEDS_WAYPOINT,
};
const UNLIMITED = { reason: 'is not limited by agents', effect: 'ignored' };

function readTrafficPolicy(policy: Fields, limits: Limits): RuleTrafficPolicy {
  limits.check(policy, ['loadBalancer', 'connectionPool', 'outlierDetection', 'tls'], L7_POLICY);
  readTls(policy, limits);
  const pool = policy.object('connectionPool');
  limits.check(pool, ['tcp'], { http: NEEDS_WAYPOINT });
  const tcp = pool.object('tcp');
  limits.check(tcp, ['connectTimeout', 'maxConnectionDuration'], {
    maxConnections: UNLIMITED,
    tcpKeepalive: { reason: 'agents have their own keepalive', effect: 'ignored' },
    idleTimeout: { reason: 'agents do not close connections for being idle', effect: 'ignored' },
  });
  return {
    ...readLoadBalancer(policy.object('loadBalancer'), limits),
    connectTimeoutMs: readDurationMs(tcp, 'connectTimeout') ?? 0,
    maxConnectionAgeMs: readDurationMs(tcp, 'maxConnectionDuration') ?? 0,
    outlierDetection: policy.has('outlierDetection')
      ? readOutlierDetection(policy.object('outlierDetection'), limits)
      : null,
  };
}

const TLS_MODES = ['DISABLE', 'SIMPLE', 'MUTUAL', 'ISTIO_MUTUAL'] as const;

/** ISTIO_MUTUAL is what agents do in any case. */
function readTls(policy: Fields, limits: Limits): void {
  if (!policy.has('tls')) return;
  const mode = policy.object('tls').choice('mode', TLS_MODES, 'DISABLE');
  if (mode === 'DISABLE')
    limits.add(policy, 'tls', { reason: 'peers of the mesh always use mutual TLS', effect: 'ignored' });
  else if (mode !== 'ISTIO_MUTUAL') limits.add(policy, 'tls', NEEDS_WAYPOINT);
}

const ALGORITHMS = [
  'UNSPECIFIED',
  'RANDOM',
  'LEAST_REQUEST',
  'LEAST_CONN',
  'ROUND_ROBIN',
  'PASSTHROUGH',
] as const;
const AS_RANDOM = { reason: 'is no choice at L4', effect: 'as RANDOM' };

function readLoadBalancer(
  fields: Fields,
  limits: Limits,
): Pick<RuleTrafficPolicy, 'loadBalancer' | 'failover'> {
  limits.check(fields, ['simple', 'consistentHash', 'localityLbSetting'], {
    warmup: NEEDS_WAYPOINT,
    warmupDurationSecs: NEEDS_WAYPOINT,
  });
  const simple = fields.choice('simple', ALGORITHMS, 'UNSPECIFIED');
  if (simple === 'ROUND_ROBIN' || simple === 'PASSTHROUGH') limits.add(fields, 'simple', AS_RANDOM);
  const failover = fields.has('localityLbSetting')
    ? readFailover(fields.object('localityLbSetting'), limits)
    : null;
  if (fields.has('consistentHash')) {
    if (fields.has('simple'))
      fields.wrong('consistentHash', 'is given beside simple: only one of them can be');
    return { loadBalancer: readHash(fields.object('consistentHash'), limits), failover };
  }
  const isLeast = simple === 'LEAST_REQUEST' || simple === 'LEAST_CONN';
  return { loadBalancer: isLeast ? 'least-connections' : 'random', failover };
}

function readHash(hash: Fields, limits: Limits): RuleTrafficPolicy['loadBalancer'] {
  const table = { reason: 'agents have one way of hashing', effect: 'ignored' };
  limits.check(hash, ['useSourceIp'], {
    httpHeaderName: AS_RANDOM_AT_L4,
    httpCookie: AS_RANDOM_AT_L4,
    httpQueryParameterName: AS_RANDOM_AT_L4,
    ringHash: table,
    maglev: table,
    minimumRingSize: table,
  });
  return hash.flag('useSourceIp') ? 'consistent-source' : 'random';
}

const AS_RANDOM_AT_L4 = { reason: 'is seen at L7 only', effect: 'as RANDOM: it needs a waypoint' };

const SCOPE_OF_LABEL: ReadonlyMap<string, Scope> = new Map([
  ['topology.istio.io/network', 'network'],
  ['topology.istio.io/cluster', 'cluster'],
  ['topology.kubernetes.io/region', 'region'],
  ['failure-domain.beta.kubernetes.io/region', 'region'],
  ['topology.kubernetes.io/zone', 'zone'],
  ['failure-domain.beta.kubernetes.io/zone', 'zone'],
  ['topology.istio.io/subzone', 'subzone'],
  ['kubernetes.io/hostname', 'node'],
]);
/** Of a localityLbSetting that names none. */
const DEFAULT_SCOPES: readonly Scope[] = ['network', 'region', 'zone', 'subzone'];

/** The scopes that endpoints are preferred by; empty where the setting switches it off. */
function readFailover(setting: Fields, limits: Limits): readonly Scope[] {
  const weights = { reason: 'agents keep to the nearest endpoints', effect: 'ignored: nearest first' };
  limits.check(setting, ['enabled', 'failoverPriority'], { distribute: weights, failover: weights });
  if (setting.has('enabled') && !setting.flag('enabled')) return [];
  if (!setting.has('failoverPriority')) return DEFAULT_SCOPES;
  const scopes: Scope[] = [];
  for (const label of setting.texts('failoverPriority')) {
    const scope = SCOPE_OF_LABEL.get(label);
    if (scope !== undefined) scopes.push(scope);
    else {
      const reason = `'${label}' is no topology label`;
      limits.add(setting, 'failoverPriority', { reason, effect: 'it and what follows it is ignored' });
      break;
    }
  }
  return scopes;
}

const L7_OUTLIERS = {
  interval: { reason: 'agents act on the failure itself', effect: 'ignored' },
  minHealthPercent: { reason: 'agents leave out endpoints one by one', effect: 'ignored' },
};
const MAX_COUNT = 0xffffffff;

/** Connects that fail count as 5xx, as gateway errors and as local origin failures (mesh-apis.md 3.3); the smallest number decides. */
function readOutlierDetection(fields: Fields, limits: Limits): RuleTrafficPolicy['outlierDetection'] {
  limits.check(
    fields,
    [
      'consecutive5xxErrors',
      'consecutiveGatewayErrors',
      'consecutiveLocalOriginFailures',
      'splitExternalLocalOriginErrors',
      'consecutiveErrors',
      'baseEjectionTime',
      'maxEjectionPercent',
    ],
    L7_OUTLIERS,
  );
  const count = (field: string) => fields.integer(field, 0, MAX_COUNT);
  const [errors, gateway, local] = [
    count('consecutive5xxErrors') ?? count('consecutiveErrors') ?? 5,
    count('consecutiveGatewayErrors') ?? 0,
    count('consecutiveLocalOriginFailures') ?? 5,
  ];
  const counts = fields.flag('splitExternalLocalOriginErrors') ? [local] : [errors, gateway];
  const inForce = counts.filter((number) => number > 0);
  return {
    consecutiveConnectFailures: inForce.length === 0 ? 0 : Math.min(...inForce),
    baseEjectionMs: readDurationMs(fields, 'baseEjectionTime') ?? 30_000,
    maxEjectionPercent: fields.integer('maxEjectionPercent', 0, 100) ?? 10,
  };
}

/** The API's default of a policy that is there is its first word. */
const MODES = ['REGISTRY_ONLY', 'ALLOW_ANY'] as const;

/** One that is invalid and was never good holds its place as registry-only: it may have meant that. */
export function decodeSidecar(fields: Fields, namespace: string, name: string): Sidecar {
  const metadata = fields.object('metadata');
  const spec = fields.object('spec');
  const limits = new Limits();
  const sidecarsOnly = { reason: 'is for sidecars', effect: 'ignored: every client sees every service' };
  limits.check(spec, ['outboundTrafficPolicy', 'workloadSelector'], {
    egress: sidecarsOnly,
    ingress: { reason: 'is for sidecars', effect: 'ignored' },
    inboundConnectionPool: { reason: 'is for sidecars', effect: 'ignored' },
  });
  const policy = spec.object('outboundTrafficPolicy');
  limits.check(policy, ['mode'], { egressProxy: NEEDS_WAYPOINT });
  const mode = spec.has('outboundTrafficPolicy') ? policy.choice('mode', MODES, 'REGISTRY_ONLY') : null;
  if (spec.has('workloadSelector'))
    limits.add(spec, 'workloadSelector', {
      reason: 'agents know one outbound policy a namespace',
      effect: 'the whole object is not in force',
    });
  return {
    kind: 'Sidecar',
    namespace,
    name,
    createdAt: readCreatedAt(metadata),
    outbound: fields.problems.length > 0 || mode === 'REGISTRY_ONLY' ? 'registry-only' : mode && 'allow-any',
    isForNamespace: !spec.has('workloadSelector'),
    limits: limits.list,
  };
}
