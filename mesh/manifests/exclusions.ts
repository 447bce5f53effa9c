/**
 * What a pod's annotations exclude from capture. Decoded strictly: an exclusion that cannot be understood must neither be ignored (traffic
 * that its user needs in clear would break without a word) nor widened.
 */
import { formatAddress, tryParseAddress } from '../common/address.js';
import { closest } from '../common/closest.js';
import type { Fields } from './fields.js';
import type { Exclusions, Labels } from './types.js';

const NO_EXCLUSIONS: Exclusions = { outboundPorts: [], outboundRanges: [], inboundPorts: [] };

export const EXCLUSION_ANNOTATIONS = {
  outboundPorts: 'traffic.sidecar.istio.io/excludeOutboundPorts',
  outboundRanges: 'traffic.sidecar.istio.io/excludeOutboundIPRanges',
  inboundPorts: 'traffic.sidecar.istio.io/excludeInboundPorts',
  bypassInbound: 'ambient.istio.io/bypass-inbound-capture',
  dnsCapture: 'ambient.istio.io/dns-capture',
} as const;

/** Ours in every captured pod. */
const meshPorts: readonly number[] = [15001, 15006, 15008];
/** More would only be a mistake, and each takes a place in the node's maps. */
const maxEntries = 256;

export interface PodAnnotations {
  readonly exclusions: Exclusions;
  readonly dnsCapture: boolean;
  /** The first one that cannot be followed; null: none. */
  readonly fault: { readonly name: string; readonly reason: string } | null;
}

/** Prefixes under which an annotation of a pod is meant for a mesh's data path. */
const PREFIXES = ['traffic.sidecar.istio.io/', 'ambient.istio.io/', 'culvert.io/'];
/** Known and acted upon elsewhere. */
const OTHERS = ['ambient.istio.io/redirection', 'ambient.istio.io/waypoint-inbound-binding'];
/** Of Istio's sidecars, without a meaning here. */
const OF_SIDECARS = [
  'traffic.sidecar.istio.io/includeOutboundIPRanges',
  'traffic.sidecar.istio.io/includeOutboundPorts',
  'traffic.sidecar.istio.io/includeInboundPorts',
  'traffic.sidecar.istio.io/excludeInterfaces',
  'traffic.sidecar.istio.io/kubevirtInterfaces',
];

/** Never throws; where something is wrong there are no exclusions at all, and `fault` says why. */
export function readAnnotations(annotations: Labels): PodAnnotations {
  let fault: PodAnnotations['fault'] = null;
  const read = <Value>(name: string, absent: Value, parse: (text: string) => Value): Value => {
    const text = annotations[name];
    if (text === undefined || fault !== null) return absent;
    try {
      return parse(text.trim());
    } catch (error) {
      fault = { name, reason: (error as Error).message };
      return absent;
    }
  };
  const names = EXCLUSION_ANNOTATIONS;
  const outboundPorts = read(names.outboundPorts, [], (text) => ports(text, []));
  const outboundRanges = read(names.outboundRanges, [], (text) => distinct(items(text).map(range)));
  const inboundPorts = read(names.inboundPorts, [], (text) => ports(text, meshPorts));
  const bypass = read(names.bypassInbound, false, flag);
  const dnsCapture = read(names.dnsCapture, true, flag);
  if (fault !== null) return { exclusions: NO_EXCLUSIONS, dnsCapture: true, fault };
  const inbound = bypass ? [0] : inboundPorts;
  return { exclusions: { outboundPorts, outboundRanges, inboundPorts: inbound }, dnsCapture, fault };
}

/** Tells of annotations that cannot be followed, and of names that nobody here knows. */
export function remarkOnAnnotations(metadata: Fields, annotations: Labels): void {
  const { fault } = readAnnotations(annotations);
  const told = metadata.object('annotations');
  if (fault !== null)
    told.remark(fault.name, {
      reason: fault.reason,
      effect: 'in the mesh a new pod is refused, a captured one keeps its exclusions as they were',
      isProblem: true,
    });
  const known = [...Object.values(EXCLUSION_ANNOTATIONS), ...OTHERS];
  for (const name of Object.keys(annotations)) {
    if (known.includes(name) || !PREFIXES.some((prefix) => name.startsWith(prefix))) continue;
    const meant = OF_SIDECARS.includes(name) ? null : closest(name, known);
    const hint = meant === null ? '' : `: did you mean ${meant}?`;
    const reason = OF_SIDECARS.includes(name) ? 'is for sidecars' : `is not known${hint}`;
    told.remark(name, {
      reason,
      effect: 'ignored: what it may mean to leave alone is captured',
      isProblem: false,
    });
  }
}

function items(text: string): string[] {
  const parts = text === '' ? [] : text.split(',').map((part) => part.trim());
  if (parts.length > maxEntries) throw new RangeError(`has ${parts.length} entries: at most ${maxEntries}`);
  return parts;
}

function ports(text: string, reserved: readonly number[]): number[] {
  return distinct(items(text).map((part) => port(part, reserved))).sort((a, b) => a - b);
}

function port(text: string, reserved: readonly number[]): number {
  const value = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (value < 1 || value > 65_535)
    throw new RangeError(`has "${text}": must be ports from 1 to 65535, with commas between`);
  if (reserved.includes(value)) throw new RangeError(`has ${value}: it is the mesh's own port`);
  return value;
}

/** The canonical form; bits beyond the prefix are 0. A bare address is a range of one. */
function range(text: string): string {
  const [address = '', bits, ...rest] = text.split('/');
  const bytes = tryParseAddress(address);
  const width = bytes === null ? 0 : bytes.length * 8;
  const prefix = bits === undefined ? width : /^\d{1,3}$/.test(bits) ? Number(bits) : Number.NaN;
  if (bytes === null || rest.length > 0 || !(prefix <= width))
    throw new RangeError(`has "${text}": must be IP ranges such as 10.1.0.0/16, with commas between`);
  const masked = Buffer.from(bytes);
  for (let bit = prefix; bit < width; bit++) masked[bit >> 3]! &= ~(0x80 >> (bit & 7));
  return `${formatAddress(masked)}/${prefix}`;
}

function flag(text: string): boolean {
  if (text !== 'true' && text !== 'false') throw new RangeError(`is "${text}": must be "true" or "false"`);
  return text === 'true';
}

function distinct<Value>(values: readonly Value[]): Value[] {
  return [...new Set(values)];
}
