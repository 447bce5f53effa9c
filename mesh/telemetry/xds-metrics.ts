import type { XdsState } from '../xds/types.js';
import { labelsText } from './exposition.js';
import type { MetricFamily, MetricSource } from './types.js';

/** The metrics of the xDS client, under ztunnel's names (sheet 7.1), whether it is connected, and how many resources are refused. */
export function xdsMetrics(read: () => XdsState): MetricSource {
  return () => {
    const { types, terminations, isConnected } = read();
    const byUrl = (value: (type: XdsState['types'][number]) => number) =>
      types.map((type) => ({ labels: labelsText(['url'], [type.typeUrl]), value: value(type) }));
    const ends = Object.entries(terminations);
    return [
      {
        name: 'culvert_xds_connected',
        help: 'Whether the controller is connected',
        type: 'gauge',
        samples: [{ labels: '', value: isConnected ? 1 : 0 }],
      },
      counter(
        'istio_xds_message_total',
        'Discovery responses received',
        byUrl((type) => type.messages),
      ),
      counter(
        'istio_xds_message_bytes_total',
        'Bytes of discovery responses',
        byUrl((type) => type.messageBytes),
      ),
      counter(
        'istio_xds_connection_terminations_total',
        'Ends of streams to the controller',
        ends.map(([reason, value]) => ({ labels: labelsText(['reason'], [reason]), value })),
      ),
      {
        name: 'culvert_xds_message_age_seconds',
        help: 'Since the last discovery response; an idle mesh has old ones',
        type: 'gauge',
        samples: types.flatMap(({ typeUrl, ageMs }) =>
          ageMs === null ? [] : [{ labels: labelsText(['url'], [typeUrl]), value: ageMs / 1000 }],
        ),
      },
      {
        ...counter(
          'culvert_xds_rejected_resources',
          'Resources refused',
          byUrl((type) => type.rejected.size),
        ),
        type: 'gauge',
      },
    ];
  };
}

function counter(name: string, help: string, samples: MetricFamily['samples']): MetricFamily {
  return { name, help, type: 'counter', samples };
}
