/** The maps of what captured pods leave alone: kept in line with what the pods say, entry by entry. */
import {
  type BpfMap,
  cookieOfExclusion,
  encodePortKey,
  encodeRangeKey,
  encodeRangeValue,
  encodeU32,
} from '../../native/bpf/index.js';
import type { Exclusions } from './types.js';

const present = encodeU32(1);

interface Entry {
  readonly map: BpfMap;
  readonly key: Buffer;
  readonly value: Buffer;
}

export class ExclusionTables {
  readonly #ports: BpfMap;
  readonly #ranges: BpfMap;
  /** What is in the maps, by namespace, then by map and key; an earlier agent's, too. */
  readonly #entries = new Map<bigint, Map<string, Entry>>();

  constructor(deps: { readonly ports: BpfMap; readonly ranges: BpfMap }) {
    this.#ports = deps.ports;
    this.#ranges = deps.ranges;
    this.read();
  }

  /** Anew what is in the maps: another agent may have written there. */
  read(): void {
    this.#entries.clear();
    for (const map of [this.#ports, this.#ranges]) {
      for (const [key] of map.entries())
        this.#of(cookieOfExclusion(key)).set(nameOf(map, key), { map, key, value: present });
    }
  }

  /** New entries first. Throws CALL_FAILED when a map is full; what is there then stays. */
  set(netnsCookie: bigint, exclusions: Exclusions): void {
    const wanted = new Map(
      this.#entriesOf(netnsCookie, exclusions).map((entry) => [nameOf(entry.map, entry.key), entry]),
    );
    const had = this.#of(netnsCookie);
    for (const [name, entry] of wanted) {
      if (had.has(name)) continue;
      entry.map.update(entry.key, entry.value);
      had.set(name, entry);
    }
    for (const [name, entry] of had) {
      if (wanted.has(name)) continue;
      entry.map.delete(entry.key);
      had.delete(name);
    }
    if (had.size === 0) this.#entries.delete(netnsCookie);
  }

  keepOnly(netnsCookies: ReadonlySet<bigint>): void {
    for (const cookie of [...this.#entries.keys()]) {
      if (!netnsCookies.has(cookie))
        this.set(cookie, { outboundPorts: [], outboundRanges: [], inboundPorts: [] });
    }
  }

  #of(netnsCookie: bigint): Map<string, Entry> {
    let entries = this.#entries.get(netnsCookie);
    if (entries === undefined) {
      entries = new Map();
      this.#entries.set(netnsCookie, entries);
    }
    return entries;
  }

  #entriesOf(cookie: bigint, { outboundPorts, outboundRanges, inboundPorts }: Exclusions): Entry[] {
    return [
      ...outboundPorts.map((port) => this.#port(encodePortKey(cookie, port, 'outbound'))),
      ...inboundPorts.map((port) => this.#port(encodePortKey(cookie, port, 'inbound'))),
      ...outboundRanges.map((range) => {
        const [address, bits] = range.split('/') as [string, string];
        const key = encodeRangeKey(cookie, address, Number(bits));
        return { map: this.#ranges, key, value: encodeRangeValue(address) };
      }),
    ];
  }

  #port(key: Buffer): Entry {
    return { map: this.#ports, key, value: present };
  }
}

function nameOf(map: BpfMap, key: Buffer): string {
  return `${map.info.id} ${key.toString('hex')}`;
}
