import type { MetricFamily, MetricSample, MetricSource } from './types.js';

export interface Exposition {
  readonly contentType: string;
  readonly body: string;
}

const PROMETHEUS = 'text/plain; version=0.0.4; charset=utf-8';
const OPEN_METRICS = 'application/openmetrics-text; version=1.0.0; charset=utf-8';

/** `a="b",c="d"` with values escaped; do it once per label set, not per scrape. */
export function labelsText(names: readonly string[], values: readonly string[]): string {
  return names.map((name, index) => `${name}="${escapeLabel(values[index]!)}"`).join(',');
}

/** All metrics of this process, written as Prometheus text 0.0.4 or OpenMetrics 1.0.0. */
export class MetricsRegistry {
  readonly #sources: MetricSource[] = [];

  add(source: MetricSource): void {
    this.#sources.push(source);
  }

  /** In the format that an `Accept` header asks for; Prometheus text when in doubt. */
  render(accept: string | undefined): Exposition {
    const families = mergeByName(this.#sources.flatMap((source) => source()));
    if (!prefersOpenMetrics(accept ?? '')) {
      return {
        contentType: PROMETHEUS,
        body: families.map((family) => familyText(family, family.name)).join(''),
      };
    }
    const body = families.map((family) => familyText(family, family.name.replace(/_total$/, ''))).join('');
    return { contentType: OPEN_METRICS, body: `${body}# EOF\n` };
  }
}

/** Two rooms may count under one name; a family may be written only once. */
function mergeByName(families: readonly MetricFamily[]): readonly MetricFamily[] {
  const byName = new Map<string, MetricFamily>();
  for (const family of families) {
    const other = byName.get(family.name);
    byName.set(
      family.name,
      other === undefined ? family : { ...other, samples: [...other.samples, ...family.samples] },
    );
  }
  return [...byName.values()];
}

function familyText(family: MetricFamily, shownName: string): string {
  const head = `# HELP ${shownName} ${escapeHelp(family.help)}\n# TYPE ${shownName} ${family.type}\n`;
  return (
    head + family.samples.map((sample) => sampleText(`${family.name}${sample.suffix ?? ''}`, sample)).join('')
  );
}

function sampleText(name: string, sample: MetricSample): string {
  const value = sample.value === Number.POSITIVE_INFINITY ? '+Inf' : String(sample.value);
  return sample.labels === '' ? `${name} ${value}\n` : `${name}{${sample.labels}} ${value}\n`;
}

/** RFC 9110, 12.5.1, as far as it matters here: OpenMetrics if it is asked for at least as much as plain text. */
function prefersOpenMetrics(accept: string): boolean {
  const weights = new Map<string, number>();
  for (const range of accept.split(',')) {
    const [type, ...parameters] = range.split(';').map((part) => part.trim().toLowerCase());
    const q = parameters.find((parameter) => parameter.startsWith('q='));
    weights.set(type!, q === undefined ? 1 : Number(q.slice(2)) || 0);
  }
  const openMetrics = weights.get('application/openmetrics-text') ?? 0;
  return openMetrics > 0 && openMetrics >= (weights.get('text/plain') ?? 0);
}

function escapeLabel(value: string): string {
  return value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
}

function escapeHelp(value: string): string {
  return value.replaceAll('\\', '\\\\').replaceAll('\n', '\\n');
}
