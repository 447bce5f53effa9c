/** Series (promtool's notation, a value a minute) under which an alert fires at the end of 150 minutes, and some under which it does not. */
export interface AlertCase {
  readonly fires: Readonly<Record<string, string>>;
  readonly quiet: readonly Readonly<Record<string, string>>[];
  /** How many fire. @default 1 */
  readonly count?: number;
}

const agent = (name: string, labels = '', pod = 'culvert-agent-x1', node = 'a') =>
  `${name}{${[labels, `pod="${pod}",node="${node}"`].filter((text) => text !== '').join(',')}}`;
const controller = (name: string, labels = '', pod = 'culvert-controller-1') => agent(name, labels, pod, 'c');

/** The value of a gauge: all the time, and only for the last moments. */
const long = (value: number | string) => `${value}x150`;
const brief = (from: number | string, to: number | string) => `${from}x149 ${to}`;

/** A gauge that is wrong above nought. */
const gauge = (series: string, value = 1): AlertCase => ({
  fires: { [series]: long(value) },
  quiet: [{ [series]: long(0) }, { [series]: brief(0, value) }],
});

/** A histogram whose observations fall below `at` seconds. */
const histogram = (name: string, labels: string, at: string): Readonly<Record<string, string>> =>
  Object.fromEntries(
    ['0.1', '2', '10', '60', '+Inf'].map((le) => [
      controller(`${name}_bucket`, `${labels}${labels === '' ? '' : ','}le="${le}"`),
      Number.parseFloat(le.replace('+Inf', 'Infinity')) >= Number(at) ? '0+10x150' : '0x150',
    ]),
  );

const day = 86_400;

export const alertCases: Readonly<Record<string, AlertCase>> = {
  CulvertAgentDown: {
    fires: { [agent('up')]: long(0), [agent('up', '', 'culvert-agent-y1', 'b')]: long(1) },
    quiet: [
      // Two agents while one follows the other.
      { [agent('up')]: long(0), [agent('up', '', 'culvert-agent-x2')]: long(1) },
      { [agent('up')]: brief(1, 0) },
      { 'up{pod="web-1",node="a"}': long(0) },
    ],
  },
  CulvertAgentNotReady: {
    fires: { [agent('culvert_agent_ready')]: long(0) },
    quiet: [
      {
        [agent('culvert_agent_ready')]: long(0),
        [agent('culvert_agent_ready', '', 'culvert-agent-x2')]: long(1),
      },
      { [agent('culvert_agent_ready')]: brief(1, 0) },
    ],
  },
  CulvertXdsDisconnected: {
    fires: { [agent('culvert_xds_connected')]: long(0) },
    quiet: [{ [agent('culvert_xds_connected')]: long(1) }, { [agent('culvert_xds_connected')]: brief(1, 0) }],
  },
  CulvertConfigurationRefused: gauge(agent('culvert_xds_rejected_resources', 'url="T"'), 3),
  CulvertCertificatesOverdue: gauge(agent('culvert_certificates_overdue')),
  CulvertCertificatesMissing: gauge(agent('culvert_certificates_missing')),
  CulvertPodsRefused: {
    fires: { [agent('culvert_pods', 'state="refused"')]: long(1) },
    quiet: [
      { [agent('culvert_pods', 'state="captured"')]: long(7) },
      { [agent('culvert_pods', 'state="refused"')]: long(0) },
    ],
  },
  CulvertUnknownPods: gauge(agent('culvert_unknown_pods')),
  CulvertKernelRefusals: {
    fires: {
      [agent('culvert_bpf_refusals_total', 'reason="refused_original_full"')]: '0+60x150',
      [agent('culvert_bpf_refusals_total', 'reason="dropped_no_listener"')]: '0+60x150',
      [agent('culvert_bpf_refusals_total', 'reason="lost_peer"')]: '0+60x150',
    },
    count: 3,
    quiet: [
      { [agent('culvert_bpf_refusals_total', 'reason="refused_original_full"')]: '0x75 9x75' },
      // Pods that start, and what users asked for.
      {
        [agent('culvert_bpf_refusals_total', 'reason="held_unknown"')]: '0+60x150',
        [agent('culvert_bpf_refusals_total', 'reason="refused_unknown"')]: '0+60x150',
        [agent('culvert_bpf_refusals_total', 'reason="passed_probe"')]: '0+60x150',
      },
    ],
  },
  CulvertWorkersDying: {
    fires: { [agent('culvert_worker_restarts_total')]: '0x145 1x5' },
    quiet: [{ [agent('culvert_worker_restarts_total')]: '0x100 1x50' }],
  },
  CulvertWorkerSilent: {
    fires: { [agent('culvert_worker_up', 'worker="0"')]: long(0) },
    quiet: [
      { [agent('culvert_worker_up', 'worker="0"')]: long(1) },
      { [agent('culvert_worker_up', 'worker="0"')]: brief(1, 0) },
    ],
  },
  CulvertDrainResets: {
    fires: { [agent('culvert_drain_connections_total', 'end="rst"')]: '4x145 9x5' },
    quiet: [
      { [agent('culvert_drain_connections_total', 'end="fin"')]: '0+1x150' },
      // An agent that begins with what those before it have counted.
      { [agent('culvert_drain_connections_total', 'end="rst"')]: '_x140 9x10' },
    ],
  },
  CulvertRevocationListBroken: gauge(agent('culvert_revocation_problems')),
  CulvertAgentMemory: {
    fires: { [agent('process_resident_memory_bytes')]: long(600_000_000) },
    quiet: [
      { [agent('process_resident_memory_bytes')]: long(200_000_000) },
      { 'process_resident_memory_bytes{pod="web-1"}': long(6_000_000_000) },
    ],
  },
  CulvertControllerDown: {
    fires: { [controller('up')]: long(0), [controller('up', '', 'culvert-controller-2')]: long(0) },
    quiet: [
      { [controller('up')]: long(0), [controller('up', '', 'culvert-controller-2')]: long(1) },
      { [controller('up')]: brief(1, 0) },
    ],
  },
  CulvertControllerReplicaDown: {
    fires: {
      [controller('up')]: long(0),
      [controller('culvert_controller_ready', '', 'culvert-controller-2')]: long(0),
    },
    count: 2,
    quiet: [
      { [controller('up')]: long(1), [controller('culvert_controller_ready')]: long(1) },
      { [controller('up')]: brief(1, 0) },
    ],
  },
  CulvertNodeWithoutAgent: gauge(controller('culvert_findings', 'reason="PodsHeld"'), 2),
  CulvertPodsNotCaptured: gauge(controller('culvert_findings', 'reason="NotCaptured"')),
  CulvertNetworkPolicyBlocksMesh: gauge(controller('culvert_findings', 'reason="BlocksMesh"')),
  CulvertNoLeader: {
    fires: {
      [controller('culvert_leader')]: long(0),
      [controller('culvert_leader', '', 'culvert-controller-2')]: long(0),
      [controller('culvert_source_age_seconds', 'source="kubernetes/Pod"')]: long(1),
    },
    quiet: [
      {
        [controller('culvert_leader')]: long(1),
        [controller('culvert_leader', '', 'culvert-controller-2')]: long(0),
        [controller('culvert_source_age_seconds', 'source="kubernetes/Pod"')]: long(1),
      },
      // Source files: nobody writes anything back.
      {
        [controller('culvert_leader')]: long(0),
        [controller('culvert_source_age_seconds', 'source="files"')]: long(1),
      },
    ],
  },
  CulvertWriteBackFailing: {
    fires: { [controller('culvert_status_write_failures_total')]: '0+2x150' },
    quiet: [{ [controller('culvert_status_write_failures_total')]: '0x140 4x10' }],
  },
  CulvertConfigurationSlow: {
    fires: histogram('pilot_proxy_convergence_time', 'type="istio.workload.Address"', '60'),
    quiet: [histogram('pilot_proxy_convergence_time', 'type="istio.workload.Address"', '2')],
  },
  CulvertStreamsRefused: {
    fires: { [controller('culvert_refusals_total', 'service="xds",reason="token"')]: '0+5x150' },
    quiet: [
      { [controller('culvert_refusals_total', 'service="ca",reason="token"')]: '0+5x150' },
      { [controller('culvert_refusals_total', 'service="xds",reason="token"')]: '0x140 8x10' },
    ],
  },
  CulvertCertificatesRefused: {
    fires: { [controller('culvert_refusals_total', 'service="ca",reason="no-such-pod-on-node"')]: '0+5x150' },
    quiet: [
      { [controller('culvert_refusals_total', 'service="ca",reason="no-such-pod-on-node"')]: '0x140 8x10' },
    ],
  },
  CulvertCaFailing: {
    fires: { [controller('culvert_ca_failures_total')]: '0+1x150' },
    quiet: [{ [controller('culvert_ca_failures_total')]: '0x140 2x10' }],
  },
  CulvertRootExpiring: {
    fires: { [controller('citadel_server_root_cert_expiry_timestamp')]: long(29 * day) },
    quiet: [{ [controller('citadel_server_root_cert_expiry_timestamp')]: long(31 * day) }],
  },
  CulvertSigningCertificateExpiring: {
    fires: { [controller('citadel_server_cert_chain_expiry_timestamp')]: long(6 * day) },
    quiet: [{ [controller('citadel_server_cert_chain_expiry_timestamp')]: long(8 * day) }],
  },
  CulvertTokenReviewFailing: {
    fires: { [controller('culvert_token_review_seconds_count', 'outcome="failed"')]: '0+2x150' },
    quiet: [
      { [controller('culvert_token_review_seconds_count', 'outcome="refused"')]: '0+2x150' },
      { [controller('culvert_token_review_seconds_count', 'outcome="failed"')]: '0x147 2x3' },
    ],
  },
  CulvertTokenReviewSlow: {
    fires: histogram('culvert_token_review_seconds', 'outcome="authenticated"', '10'),
    quiet: [histogram('culvert_token_review_seconds', 'outcome="authenticated"', '0.1')],
  },
  CulvertSourceStale: {
    fires: {
      [agent('culvert_source_age_seconds', 'source="kubernetes/Pod"')]: '0+60x150',
      [controller('culvert_source_age_seconds', 'source="kubernetes/Service"')]: '0+60x150',
    },
    count: 2,
    quiet: [
      { [controller('culvert_source_age_seconds', 'source="kubernetes/Pod"')]: long(100) },
      { [controller('culvert_source_age_seconds', 'source="kubernetes/Pod"')]: brief(10, 200) },
    ],
  },
  CulvertManifestProblems: gauge(controller('culvert_manifest_problems'), 2),
  CulvertControllerMemory: {
    fires: { [controller('process_resident_memory_bytes')]: long(2_000_000_000) },
    quiet: [
      { [controller('process_resident_memory_bytes')]: long(700_000_000) },
      { [agent('process_resident_memory_bytes')]: long(2_000_000_000) },
    ],
  },
  CulvertDescriptors: {
    fires: { [agent('process_open_fds')]: long(900), [agent('process_max_fds')]: long(1000) },
    quiet: [{ [agent('process_open_fds')]: long(900), [agent('process_max_fds')]: long(100_000) }],
  },
};
