import { formatAddress, tryParseAddress } from '../common/address.js';
import { compareText, firstBy, GroupedIndex, trueFirst } from './grouped-index.js';
import { type Service, serviceKeyOf, type Vip } from './types.js';

interface CidrEntry {
  readonly service: Service;
  readonly prefixLength: number;
}

/** Which service a VIP means (sheet 6.2): exact addresses first, then CIDR VIPs, each by its own order of preference. */
export class VipIndex {
  readonly #preferredNamespace: string;
  readonly #exact = new GroupedIndex<Service>();
  readonly #cidr = new GroupedIndex<CidrEntry>();
  /** Prefix lengths in use, with the number of VIPs that use each: bounds a CIDR look-up to the few that exist. */
  readonly #lengthsInUse = new Map<number, number>();

  constructor(preferredNamespace: string) {
    this.#preferredNamespace = preferredNamespace;
  }

  add(service: Service): void {
    for (const vip of service.vips) {
      if (vip.prefixLength === null) {
        this.#exact.add(exactKey(vip.network, vip.address), service);
      } else {
        this.#cidr.add(cidrKeyOf(vip, vip.prefixLength), { service, prefixLength: vip.prefixLength });
        this.#lengthsInUse.set(vip.prefixLength, (this.#lengthsInUse.get(vip.prefixLength) ?? 0) + 1);
      }
    }
  }

  remove(service: Service): void {
    for (const vip of service.vips) {
      if (vip.prefixLength === null) this.#exact.remove(exactKey(vip.network, vip.address), service);
      else this.#removeCidr(service, vip, vip.prefixLength);
    }
  }

  clear(): void {
    this.#exact.clear();
    this.#cidr.clear();
    this.#lengthsInUse.clear();
  }

  find(network: string, address: string, namespace: string): Service | undefined {
    const exact = this.#exact
      .get(exactKey(network, address))
      .filter((service) => isVisible(service, namespace));
    if (exact.length > 0) return firstBy(exact, (a, b) => this.#compareExact(a, b, namespace));
    if (this.#lengthsInUse.size === 0) return undefined;
    return firstBy(this.#cidrMatches(network, address, namespace), (a, b) => compareCidr(a, b, namespace))
      ?.service;
  }

  #removeCidr(service: Service, vip: Vip, prefixLength: number): void {
    const key = cidrKeyOf(vip, prefixLength);
    const entry = this.#cidr.get(key).find((candidate) => candidate.service === service);
    if (entry === undefined) return;
    this.#cidr.remove(key, entry);
    const users = this.#lengthsInUse.get(prefixLength)! - 1;
    if (users === 0) this.#lengthsInUse.delete(prefixLength);
    else this.#lengthsInUse.set(prefixLength, users);
  }

  #cidrMatches(network: string, address: string, namespace: string): CidrEntry[] {
    const bytes = tryParseAddress(address);
    if (bytes === null) return [];
    const matches: CidrEntry[] = [];
    for (const prefixLength of this.#lengthsInUse.keys()) {
      if (prefixLength > bytes.length * 8) continue;
      for (const entry of this.#cidr.get(cidrKey(network, bytes, prefixLength))) {
        if (isVisible(entry.service, namespace)) matches.push(entry);
      }
    }
    return matches;
  }

  #compareExact(a: Service, b: Service, namespace: string): number {
    return (
      trueFirst(a.defect === undefined, b.defect === undefined) ||
      trueFirst(a.namespace === namespace, b.namespace === namespace) ||
      trueFirst(a.canonical, b.canonical) ||
      trueFirst(isOfCluster(a), isOfCluster(b)) ||
      trueFirst(a.namespace === this.#preferredNamespace, b.namespace === this.#preferredNamespace) ||
      compareText(serviceKeyOf(a), serviceKeyOf(b))
    );
  }
}

function compareCidr(a: CidrEntry, b: CidrEntry, namespace: string): number {
  return (
    trueFirst(a.service.namespace === namespace, b.service.namespace === namespace) ||
    b.prefixLength - a.prefixLength ||
    trueFirst(a.service.canonical, b.service.canonical) ||
    compareText(serviceKeyOf(a.service), serviceKeyOf(b.service))
  );
}

/** A Service: what is declared beside it (a ServiceEntry) must not draw its address to itself. */
function isOfCluster({ name, namespace, hostname }: Service): boolean {
  return hostname.startsWith(`${name}.${namespace}.svc.`);
}

function isVisible(service: Service, namespace: string): boolean {
  return service.visibility === 'public' || service.namespace === namespace;
}

function exactKey(network: string, address: string): string {
  return `${network}/${address}`;
}

function cidrKeyOf(vip: Vip, prefixLength: number): string {
  return cidrKey(vip.network, tryParseAddress(vip.address) ?? new Uint8Array(4), prefixLength);
}

/** `network/family/length/masked address`. The family is part of it: a masked IPv6 address may read as v4-mapped. */
function cidrKey(network: string, address: Uint8Array, prefixLength: number): string {
  const masked = address.slice();
  for (let bit = 0; bit < masked.length * 8; bit += 8) {
    const kept = Math.min(8, Math.max(0, prefixLength - bit));
    masked[bit / 8]! &= 0xff << (8 - kept);
  }
  return `${network}/${address.length}/${prefixLength}/${formatAddress(masked)}`;
}
