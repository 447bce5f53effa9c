import type { MetricFamily, MetricSource } from '../mesh/telemetry/index.js';
import { labelsText } from '../mesh/telemetry/index.js';
import type { CaptureStatus } from './capture/index.js';

export interface AgentMetricsDeps {
  readonly capture: () => CaptureStatus | null;
  readonly pool: { readonly restarts: number; readonly connectionsLost: number };
}

/** The agent's own metrics, beside Istio's TCP metrics and those of the xDS client (hbone-and-wds.md 7.1). */
export function agentMetrics(deps: AgentMetricsDeps): MetricSource {
  return () => [...workerMetrics(deps), ...captureMetrics(deps.capture())];
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
