import { Memo } from '../common/memo.js';
import type { HeaderList } from '../http2/types.js';
import type { Baggage } from './types.js';

/**
 * The `baggage` header as HBONE uses it (hbone-and-wds.md 1.3): `key=value,key=value`, no spaces, empty values left out, no percent-coding.
 *
 *     baggage = pair *("," pair)      pair = key "=" value
 */
type Field = Exclude<keyof Baggage, 'workloadType' | 'workloadName'>;

type HeaderField = HeaderList[number];

/** In wire order; the workload's own key `k8s.<type>.name` stands after the first two. */
const KEYS: readonly (readonly [Field, string])[] = [
  ['clusterName', 'k8s.cluster.name'],
  ['namespace', 'k8s.namespace.name'],
  ['serviceName', 'service.name'],
  ['serviceVersion', 'service.version'],
  ['region', 'cloud.region'],
  ['zone', 'cloud.availability_zone'],
];
const FIELD_OF: ReadonlyMap<string, Field> = new Map(KEYS.map(([field, key]) => [key, field]));
const WORKLOAD_TYPE_OF: ReadonlyMap<string, NonNullable<Baggage['workloadType']>> = new Map([
  ['k8s.deployment.name', 'deployment'],
  ['k8s.cronjob.name', 'cronjob'],
  ['k8s.pod.name', 'pod'],
  ['k8s.job.name', 'job'],
]);

/** Values become metric labels and log fields: longer ones than any Kubernetes name (253) are not taken. */
const MAX_VALUE_CHARACTERS = 256;
/** Eight such pairs fit; of a longer line nothing is taken, as a value read from it keeps the whole of it in memory. */
const MAX_LINE_CHARACTERS = 4096;
/** The W3C baggage octets less "=", which other parsers split on. */
const SENDABLE = /^[!#-+\--:<>-[\]-~]+$/;
const READABLE = /^[!-~]+$/;

/** The header's value, or '' if there is nothing to say. A value that the grammar cannot carry is left out. */
export function formatBaggage(baggage: Baggage): string {
  const pairs: string[] = [];
  const add = (key: string, value: string | undefined): void => {
    if (value !== undefined && isValue(value, SENDABLE)) pairs.push(`${key}=${value}`);
  };
  for (const [field, key] of KEYS) {
    add(key, baggage[field]);
    if (field === 'namespace' && baggage.workloadType !== undefined) {
      add(`k8s.${baggage.workloadType}.name`, baggage.workloadName);
    }
  }
  return pairs.join(',');
}

/** Remembers the header field of baggage objects, which stand for workloads and are used for every tunnel of theirs; and what peers' texts say. */
export class BaggageTexts {
  private readonly known = new WeakMap<Baggage, HeaderField | null>();
  private readonly read = new Memo(baggageIn);

  /** What one header line says. The object is shared, so read only. */
  in(line: string): Baggage {
    return this.read.of(line);
  }

  /** Null where there is nothing to say. */
  fieldOf(baggage: Baggage): HeaderField | null {
    let field = this.known.get(baggage);
    if (field === undefined) {
      const text = formatBaggage(baggage);
      field = text === '' ? null : ['baggage', text];
      this.known.set(baggage, field);
    }
    return field;
  }
}

function baggageIn(line: string): Baggage {
  const baggage: Baggage = {};
  readBaggage(line, baggage);
  return baggage;
}

/** Reads one header line into `into` (several lines merge, the last value of a key counts, an empty one unsets it). Takes any text; unknown keys, bad values and lines above 4096 characters are passed over. */
export function readBaggage(line: string, into: { -readonly [K in keyof Baggage]: Baggage[K] }): void {
  if (line.length > MAX_LINE_CHARACTERS) return;
  for (const pair of line.split(',')) {
    const [key, value] = pair.split('=', 2) as [string, string?];
    if (value === undefined || (value !== '' && !isValue(value, READABLE))) continue;
    const field = FIELD_OF.get(key);
    const type = WORKLOAD_TYPE_OF.get(key);
    if (field !== undefined) set(into, field, value);
    else if (type !== undefined) {
      set(into, 'workloadName', value);
      if (value === '') delete into.workloadType;
      else into.workloadType = type;
    }
  }
}

function set(
  into: { -readonly [K in keyof Baggage]: Baggage[K] },
  field: Field | 'workloadName',
  value: string,
): void {
  if (value === '') delete into[field];
  else into[field] = value;
}

function isValue(value: string, grammar: RegExp): boolean {
  return value.length <= MAX_VALUE_CHARACTERS && grammar.test(value);
}
