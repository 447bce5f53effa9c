import { describe, expect, test } from '@jest/globals';
import { Counter, Registry } from 'prom-client';
import { labelsText, MetricsRegistry } from './exposition.js';
import { TCP_LABEL_NAMES } from './labels.js';
import { processMetrics } from './process-metrics.js';
import type { MetricSource } from './types.js';
import { xdsMetrics } from './xds-metrics.js';

function registryOf(...sources: MetricSource[]): MetricsRegistry {
  const registry = new MetricsRegistry();
  for (const source of sources) registry.add(source);
  return registry;
}

function counter(name: string, labels: string, value: number): MetricSource {
  return () => [{ name, help: 'X', type: 'counter', samples: [{ labels, value }] }];
}

describe('exposition', () => {
  test.each([Registry.PROMETHEUS_CONTENT_TYPE, Registry.OPENMETRICS_CONTENT_TYPE])(
    'as %s it is what prom-client writes for the same counter',
    async (type) => {
      const values = TCP_LABEL_NAMES.map((_name, i) => ['plain', 'a"b\\c\nd', ''][i % 3]!);
      const ours = registryOf(counter('x_total', labelsText(TCP_LABEL_NAMES, values), 12.5)).render(type);
      expect(ours.contentType).toBe(type);
      const oracle: Registry = new Registry();
      oracle.setContentType(type as typeof Registry.PROMETHEUS_CONTENT_TYPE);
      const registers = [oracle];
      const theirs = new Counter({ name: 'x_total', help: 'X', labelNames: TCP_LABEL_NAMES, registers });
      theirs.inc(Object.fromEntries(TCP_LABEL_NAMES.map((label, i) => [label, values[i]!])), 12.5);
      expect(ours.body).toBe(await oracle.metrics());
    },
  );

  test.each([
    ['application/openmetrics-text; version=1.0.0', true],
    ['application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1', true],
    ['text/plain;q=1, application/openmetrics-text;q=0.5', false],
    ['application/openmetrics-text;q=0', false],
    ['*/*', false],
    [undefined, false],
  ])('accept %p: OpenMetrics %p', (accept, isOpenMetrics) => {
    expect(registryOf().render(accept).contentType.startsWith('application/openmetrics-text')).toBe(
      isOpenMetrics,
    );
  });

  test('OpenMetrics names counter families without _total and ends in # EOF', () => {
    const gauge: MetricSource = () => [
      { name: 'y', help: 'Y', type: 'gauge', samples: [{ labels: '', value: Number.POSITIVE_INFINITY }] },
    ];
    const { body } = registryOf(counter('x_total', 'a="b"', 1), gauge).render('application/openmetrics-text');
    expect(body).toBe(
      '# HELP x X\n# TYPE x counter\nx_total{a="b"} 1\n# HELP y Y\n# TYPE y gauge\ny +Inf\n# EOF\n',
    );
  });

  test('families of one name from two rooms are written once', () => {
    const { body } = registryOf(counter('x_total', 'room="a"', 1), counter('x_total', 'room="b"', 2)).render(
      undefined,
    );
    expect(body).toBe('# HELP x_total X\n# TYPE x_total counter\nx_total{room="a"} 1\nx_total{room="b"} 2\n');
  });

  test('process and xDS metrics', () => {
    const both = registryOf();
    both.add(processMetrics({ component: 'agent', tag: '0.1.0' }));
    both.add(
      xdsMetrics(() => ({
        controller: 'c:15012',
        isConnected: true,
        isReady: true,
        pending: [],
        lastError: null,
        terminations: { ConnectionError: 3, Error: 0, Reconnect: 0, Complete: 1 },
        types: [
          {
            typeUrl: 'T',
            messages: 2,
            messageBytes: 300,
            ageMs: 1500,
            resources: 5,
            rejected: new Map([['bad', 'why']]),
          },
        ],
      })),
    );
    const { body } = both.render(undefined);
    for (const line of [
      'istio_build{component="agent",tag="0.1.0"} 1',
      'culvert_xds_connected 1',
      'istio_xds_message_total{url="T"} 2',
      'istio_xds_message_bytes_total{url="T"} 300',
      'istio_xds_connection_terminations_total{reason="ConnectionError"} 3',
      'culvert_xds_rejected_resources{url="T"} 1',
      'culvert_xds_message_age_seconds{url="T"} 1.5',
    ]) {
      expect(body.split('\n')).toContain(line);
    }
    expect(body).toMatch(/^process_open_fds \d+$/m);
    expect(body).toMatch(/^process_cpu_seconds_total [\d.]+$/m);
  });
});
