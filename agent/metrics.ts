import type { CertificateState } from '../mesh/identity/index.js';
import type { MetricFamily, MetricSource } from '../mesh/telemetry/index.js';
import { labelsText } from '../mesh/telemetry/index.js';
import type { CaptureStatus } from './capture/index.js';

import type { DrainCounts, WorkerReport } from './tunnel/index.js';

export interface AgentMetricsDeps {
  readonly isReady: () => boolean;
  readonly capture: () => CaptureStatus | null;
  readonly certificates: () => readonly CertificateState[];
  /** Certificates revoked, and what is wrong with the list; null: none is given. */
  readonly revocations: () => {
    readonly revokedCertificates: number;
    readonly problems: readonly string[];
  } | null;
  /** By source of pods: since it was last seen whole, milliseconds. */
  readonly sourceAges: () => ReadonlyMap<string, number>;
  readonly pool: { readonly restarts: number; readonly connectionsLost: number };
  /** As of this scrape; null: a worker that did not answer. */
  readonly workers: () => readonly (WorkerReport | null)[];
  /** By agents of this node, this one included. */
  readonly drained: () => DrainCounts;
}

/** The agent's own metrics, beside Istio's TCP metrics and those of the xDS client (hbone-and-wds.md 7.1). */
export function agentMetrics(deps: AgentMetricsDeps): MetricSource {
  return () => [
    single('culvert_agent_ready', 'gauge', 'Whether readiness says ready', deps.isReady() ? 1 : 0),
    ...workerMetrics(deps),
    drainMetrics(deps.drained()),
    ...reportMetrics(deps.workers()),
    ...captureMetrics(deps.capture()),
    ...certificateMetrics(deps),
    {
      name: 'culvert_source_age_seconds',
      type: 'gauge',
      help: 'Since the source of pods was last seen whole',
      samples: [...deps.sourceAges()].map(([source, ageMs]) => ({
        labels: labelsText(['source'], [source]),
        value: ageMs / 1000,
      })),
    },
  ];
}

function certificateMetrics({ certificates, revocations }: AgentMetricsDeps): MetricFamily[] {
  const states = certificates();
  const list = revocations();
  return [
    {
      name: 'culvert_certificate_expiry_timestamp_seconds',
      type: 'gauge',
      help: 'Unix time at which the certificate of an identity ends; absent while it has none',
      samples: states.flatMap(({ identity, notAfter }) =>
        notAfter === null
          ? []
          : [{ labels: labelsText(['identity'], [identity]), value: Date.parse(notAfter) / 1000 }],
      ),
    },
    single(
      'culvert_certificates_missing',
      'gauge',
      'Identities of this node without a valid certificate: their new connections are refused',
      states.filter(({ state }) => state === 'missing').length,
    ),
    single(
      'culvert_certificates_overdue',
      'gauge',
      'Identities whose certificate has less than a quarter of its life left: renewal begins at half of it',
      states.filter(isOverdue).length,
    ),
    ...(list === null
      ? []
      : [
          single(
            'culvert_revoked_certificates',
            'gauge',
            'Certificates that are revoked',
            list.revokedCertificates,
          ),
          single(
            'culvert_revocation_problems',
            'gauge',
            'What is wrong with the revocation lists',
            list.problems.length,
          ),
        ]),
  ];
}

function isOverdue({ notBefore, notAfter }: CertificateState): boolean {
  if (notBefore === null || notAfter === null) return false;
  const endsMs = Date.parse(notAfter);
  return endsMs - Date.now() < (endsMs - Date.parse(notBefore)) / 4;
}

function workerMetrics({ pool }: AgentMetricsDeps): MetricFamily[] {
  return [
    single(
      'culvert_worker_restarts_total',
      'counter',
      'Data path threads started again after they died',
      pool.restarts,
    ),
    single(
      'culvert_worker_connections_lost_total',
      'counter',
      'Connections reset because their thread died',
      pool.connectionsLost,
    ),
  ];
}

/** What a worker's report has under a name of its own; of the rest each number is a sample of one family. */
function reportMetrics(reports: readonly (WorkerReport | null)[]): MetricFamily[] {
  const family = (
    name: string,
    type: 'counter' | 'gauge',
    help: string,
    read: (report: WorkerReport) => number | undefined,
  ): MetricFamily => ({
    name,
    type,
    help,
    samples: reports.flatMap((report, worker) => {
      const value = report === null ? undefined : read(report);
      return value === undefined ? [] : [{ labels: labelsText(['worker'], [String(worker)]), value }];
    }),
  });
  const lag = 'Longest that the worker was late for a timer since the last scrape';
  return [
    {
      name: 'culvert_worker_up',
      type: 'gauge',
      help: 'Whether the worker answers',
      samples: reports.map((report, worker) => ({
        labels: labelsText(['worker'], [String(worker)]),
        value: report === null ? 0 : 1,
      })),
    },
    family('culvert_worker_lag_seconds', 'gauge', lag, ({ lagMs }) => lagMs / 1000),
    family('culvert_connections_open', 'gauge', 'Connections open now', ({ tunnel }) => tunnel['open']),
    family(
      'culvert_connections_waiting',
      'gauge',
      'Connections that wait for their workload or certificate',
      ({ tunnel }) => tunnel['waiting'],
    ),
    family(
      'culvert_hbone_pool_connections',
      'gauge',
      'HBONE connections to peers',
      ({ hbone }) => hbone['connections'],
    ),
    family('culvert_hbone_pool_tunnels', 'gauge', 'Tunnels open to peers', ({ hbone }) => hbone['tunnels']),
    family(
      'culvert_tls_handshakes_accepted_total',
      'counter',
      'TLS handshakes that peers began',
      ({ engine }) => engine['handshakesAccepted'],
    ),
    family(
      'culvert_tls_handshakes_failed_total',
      'counter',
      'TLS handshakes that failed, of either side',
      ({ engine }) => engine['handshakesFailed'],
    ),
    family(
      'culvert_connects_retried_total',
      'counter',
      'Connects that failed and went on to another endpoint',
      ({ tunnel }) => tunnel['retriedConnects'],
    ),
    family(
      'culvert_endpoint_ejections_total',
      'counter',
      'Endpoints left out for a while, because connecting to them kept failing',
      ({ tunnel }) => tunnel['ejections'],
    ),
    revocations(reports),
    resets(reports),
  ];
}

/** Summed over workers. */
function revocations(reports: readonly (WorkerReport | null)[]): MetricFamily {
  const sum = (name: string) => reports.reduce((total, report) => total + (report?.tunnel[name] ?? 0), 0);
  return {
    name: 'istio_crl_policy_rejections_total',
    type: 'counter',
    help: 'HBONE connections refused or cut off because a certificate of the peer is revoked',
    samples: [
      { labels: labelsText(['reporter'], ['source']), value: sum('revokedServers') },
      { labels: labelsText(['reporter'], ['destination']), value: sum('revokedClients') },
    ],
  };
}

/** The tunnel's `reset…` counters, summed over workers, by reason. */
function resets(reports: readonly (WorkerReport | null)[]): MetricFamily {
  const sums = new Map<string, number>();
  for (const report of reports)
    for (const [name, value] of Object.entries(report?.tunnel ?? {}))
      if (name.startsWith('reset')) sums.set(name, (sums.get(name) ?? 0) + value);
  return {
    name: 'culvert_connections_refused_total',
    type: 'counter',
    help: 'Connections that the agent reset before they were relayed, by reason',
    samples: [...sums].map(([name, value]) => ({
      labels: labelsText(['reason'], [snakeCase(name.slice('reset'.length))]),
      value,
    })),
  };
}

function snakeCase(name: string): string {
  return name.replace(/(?!^)[A-Z]/g, (letter) => `_${letter}`).toLowerCase();
}

function drainMetrics({ ended, reset }: DrainCounts): MetricFamily {
  return {
    name: 'culvert_drain_connections_total',
    type: 'counter',
    help: 'Connections that agents of this node ended because they stopped: quiet ones by FIN, busy ones at the deadline by RST',
    samples: [
      { labels: labelsText(['end'], ['fin']), value: ended },
      { labels: labelsText(['end'], ['rst']), value: reset },
    ],
  };
}

function captureMetrics(status: CaptureStatus | null): MetricFamily[] {
  if (status === null) return [];
  const states = new Map<string, number>();
  for (const pod of status.pods) states.set(pod.state, (states.get(pod.state) ?? 0) + 1);
  return [
    {
      name: 'culvert_pods',
      type: 'gauge',
      help: 'Local pods by what happens to their connections',
      samples: [...states].map(([state, value]) => ({ labels: labelsText(['state'], [state]), value })),
    },
    single(
      'culvert_unknown_pods',
      'gauge',
      'Pod cgroups that nobody has named: their connections are refused',
      status.unknownPods,
    ),
    {
      name: 'culvert_bpf_refusals_total',
      type: 'counter',
      help: 'Connections that eBPF refused, dropped or could not record, by reason (bpf/include/abi.h)',
      samples: Object.entries(status.refusals).map(([reason, value]) => ({
        labels: labelsText(['reason'], [reason]),
        value,
      })),
    },
  ];
}

function single(name: string, type: 'counter' | 'gauge', help: string, value: number): MetricFamily {
  return { name, type, help, samples: [{ labels: '', value }] };
}
