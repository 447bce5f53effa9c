/** Istio's DNS metrics (hbone-and-wds.md 7.1). No label holds a name that was asked for; of label sets the least used go when there are too many. */
import { labelsText, type MetricFamily, type MetricSample } from '../../mesh/telemetry/index.js';

/** Seconds. */
const buckets = [0.0005, 0.001, 0.01, 0.1, 1, 5] as const;
const maxCells = 2_000;
const labelNames = [
  'request_query_type',
  'request_protocol',
  'source_canonical_service',
  'source_canonical_revision',
];
const typeNames = new Map([
  [1, 'A'],
  [2, 'NS'],
  [5, 'CNAME'],
  [6, 'SOA'],
  [12, 'PTR'],
  [15, 'MX'],
  [16, 'TXT'],
  [28, 'AAAA'],
  [33, 'SRV'],
  [64, 'SVCB'],
  [65, 'HTTPS'],
  [255, 'ANY'],
]);

/** Counts of one label set since the thread began; plain data. */
export interface DnsCell {
  readonly labels: readonly string[];
  requests: number;
  upstreamRequests: number;
  upstreamFailures: number;
  upstreamSeconds: number;
  /** Not cumulative; the last is above all bounds. */
  readonly durations: number[];
}

/** Whose questions are counted. */
export interface DnsSource {
  readonly canonicalService: string;
  readonly canonicalRevision: string;
}

/** All cells of one thread. */
export class DnsCells {
  readonly #cells = new Map<string, DnsCell>();

  cell(labels: readonly string[]): DnsCell {
    const key = labels.join('\n');
    const known = this.#cells.get(key);
    const cell = known ?? newCell(labels);
    if (known !== undefined) this.#cells.delete(key);
    this.#cells.set(key, cell);
    if (this.#cells.size > maxCells) this.#cells.delete(this.#cells.keys().next().value!);
    return cell;
  }

  all(): DnsCell[] {
    return [...this.#cells.values()];
  }
}

/** One pod's way to count. */
export class DnsMetrics {
  readonly #cells: DnsCells;
  readonly #source: () => DnsSource;

  constructor(deps: { readonly cells: DnsCells; readonly source: () => DnsSource }) {
    this.#cells = deps.cells;
    this.#source = deps.source;
  }

  request(type: number, protocol: string): void {
    this.#cell(type, protocol).requests++;
  }

  upstream(type: number, protocol: string, durationMs: number, failed: boolean): void {
    const cell = this.#cell(type, protocol);
    cell.upstreamRequests++;
    if (failed) cell.upstreamFailures++;
    const seconds = durationMs / 1000;
    cell.upstreamSeconds += seconds;
    const at = buckets.findIndex((bound) => seconds <= bound);
    cell.durations[at < 0 ? buckets.length : at]!++;
  }

  #cell(type: number, protocol: string): DnsCell {
    const { canonicalService, canonicalRevision } = this.#source();
    const known = (text: string) => (text === '' ? 'unknown' : text);
    return this.#cells.cell([
      typeNames.get(type) ?? 'OTHER',
      protocol,
      known(canonicalService),
      known(canonicalRevision),
    ]);
  }
}

export function dnsMetricFamilies(cells: readonly DnsCell[]): MetricFamily[] {
  const counter = (name: string, help: string, value: (cell: DnsCell) => number): MetricFamily => ({
    name,
    type: 'counter',
    help,
    samples: cells.map((cell) => ({ labels: labelsText(labelNames, cell.labels), value: value(cell) })),
  });
  return [
    counter('istio_dns_requests_total', 'Questions for names from captured pods', (cell) => cell.requests),
    counter(
      'istio_dns_upstream_requests_total',
      "Questions passed on to the pods' own resolvers",
      (cell) => cell.upstreamRequests,
    ),
    counter(
      'istio_dns_upstream_failures_total',
      'Questions passed on that no resolver answered',
      (cell) => cell.upstreamFailures,
    ),
    {
      name: 'istio_dns_upstream_request_duration_seconds',
      type: 'histogram',
      help: 'Until a resolver answered, or none did',
      samples: cells.flatMap(histogramSamples),
    },
  ];
}

function histogramSamples(cell: DnsCell): MetricSample[] {
  const labels = labelsText(labelNames, cell.labels);
  let count = 0;
  const bounds = [...buckets.map(String), '+Inf'];
  const samples: MetricSample[] = bounds.map((bound, index) => {
    count += cell.durations[index]!;
    return { suffix: '_bucket', labels: `${labels},le="${bound}"`, value: count };
  });
  samples.push({ suffix: '_sum', labels, value: cell.upstreamSeconds });
  samples.push({ suffix: '_count', labels, value: count });
  return samples;
}

function newCell(labels: readonly string[]): DnsCell {
  return {
    labels,
    requests: 0,
    upstreamRequests: 0,
    upstreamFailures: 0,
    upstreamSeconds: 0,
    durations: new Array<number>(buckets.length + 1).fill(0),
  };
}
