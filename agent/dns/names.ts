/**
 * What the mesh itself says of a name (hbone-and-wds.md 2.7): addresses of services, endpoints of headless ones, names of pods, aliases, SRV
 * and PTR. A name that it knows is never asked elsewhere, whatever the type; one that it does not know is null here.
 */
import { isIpv6, tryParseAddress } from '../../mesh/common/address.js';
import { type Service, type Store, serviceKeyOf, type Workload } from '../../mesh/store/index.js';
import { encodeName } from './name.js';
import { addressOfPtrName, labelsOf } from './reverse.js';
import { type DnsRecord, type Question, recordType } from './types.js';

/** As ztunnel's; short, as endpoints come and go. */
export const ttlSeconds = 30;
/** A message of 65,535 bytes holds fewer than 4,096 addresses; a client needs fewer. */
const maxEndpoints = 1024;
/** Of a wildcard's domain. A pod can ask for names of 127 labels as fast as it may: looking at each of their domains would cost 0.4 ms. */
const maxWildcardLabels = 16;

/** Whoever asks. */
export interface NameClient {
  readonly namespace: string;
  readonly network: string;
}

export interface NamesOptions {
  /** As in `svc.cluster.local`, without `svc`. */
  readonly clusterDomain: string;
}

export interface NamesDeps {
  readonly store: Store;
  /** [0, 1) */
  readonly random: () => number;
}

/** `alias`: the records end in a CNAME to this name, of which the mesh knows nothing: its addresses are to be asked for and added. */
export interface NameAnswer {
  readonly records: readonly DnsRecord[];
  readonly alias: string | null;
}

const none: NameAnswer = { records: [], alias: null };

export class Names {
  readonly #clusterDomain: string;
  readonly #serviceDomain: string;
  readonly #store: Store;
  readonly #random: () => number;

  constructor(options: NamesOptions, deps: NamesDeps) {
    this.#clusterDomain = options.clusterDomain;
    this.#serviceDomain = `svc.${options.clusterDomain}`;
    this.#store = deps.store;
    this.#random = deps.random;
  }

  /** Null: not a name of ours, ask the pod's resolvers. */
  answer(client: NameClient, question: Question): NameAnswer | null {
    if (question.type === recordType.ptr) return this.#pointer(client, question.name);
    for (const { name, isStripped } of this.#spellings(client, question.name)) {
      const found = this.#lookup(client, name, question.type);
      if (found === null) continue;
      return isStripped ? aliased(name, found) : found;
    }
    return null;
  }

  /**
   * What a name may stand for, best first: itself; what it is short for (`name`, `name.ns`, `name.ns.svc`); itself without a search suffix that
   * a resolver has added, which the answer then tells by a CNAME; and what that is short for.
   */
  *#spellings(client: NameClient, name: string): Generator<{ name: string; isStripped: boolean }> {
    yield { name, isStripped: false };
    for (const full of this.#expansions(client, name)) yield { name: full, isStripped: false };
    const own = `${client.namespace}.${this.#serviceDomain}`;
    for (const suffix of [own, this.#serviceDomain, this.#clusterDomain]) {
      if (!name.endsWith(`.${suffix}`)) continue;
      const stripped = name.slice(0, -suffix.length - 1);
      yield { name: stripped, isStripped: true };
      for (const full of this.#expansions(client, stripped))
        if (full !== name) yield { name: full, isStripped: true };
    }
  }

  #expansions(client: NameClient, name: string): string[] {
    const labels = labelsOf(name);
    if (labels.length === 1 && name !== '') return [`${name}.${client.namespace}.${this.#serviceDomain}`];
    if (labels.length === 2) return [`${name}.${this.#serviceDomain}`];
    return labels.at(-1) === 'svc' ? [`${name}.${this.#clusterDomain}`] : [];
  }

  #lookup(client: NameClient, name: string, type: number): NameAnswer | null {
    const service = this.#service(client, name);
    if (service !== undefined) return this.#ofService(client, service, type);
    return this.#ofPort(client, name, type) ?? this.#ofPod(client, name, type);
  }

  /** By its hostname, else by the closest wildcard over it. */
  #service(client: NameClient, name: string): Service | undefined {
    const exact = this.#visible(client, name);
    if (exact !== undefined) return exact;
    const labels = labelsOf(name);
    for (let i = Math.max(1, labels.length - maxWildcardLabels); i < labels.length; i++) {
      const wildcard = this.#visible(client, `*.${labels.slice(i).join('.')}`);
      if (wildcard !== undefined) return wildcard;
    }
    return undefined;
  }

  /** Of several: the client's own namespace first, then the canonical one. */
  #visible(client: NameClient, hostname: string): Service | undefined {
    let best: Service | undefined;
    for (const service of this.#store.servicesByHostname(hostname)) {
      if (service.visibility === 'namespace' && service.namespace !== client.namespace) continue;
      if (best === undefined || rank(service, client) < rank(best, client)) best = service;
    }
    return best;
  }

  #ofService(client: NameClient, service: Service, type: number): NameAnswer | null {
    const externalName = service.dns?.externalName ?? '';
    if (externalName !== '') return this.#ofAlias(client, externalName, type);
    const vips = service.vips.filter((vip) => vip.prefixLength === null && vip.network === client.network);
    if (vips.length === 0 && !this.#isKubernetes(service.hostname)) return null;
    if (type === recordType.srv) return { records: this.#srvOfAllPorts(client, service), alias: null };
    const addresses =
      vips.length > 0
        ? vips.map(({ address }) => address)
        : this.#endpoints(client, service).flatMap((workload) => workload.addresses);
    return { records: addressRecords(null, addresses, type), alias: null };
  }

  /** CNAME, and what we know of the other name; one step only, so that no circle can be. */
  #ofAlias(client: NameClient, externalName: string, type: number): NameAnswer {
    const cname = cnameTo(null, externalName);
    if (type === recordType.cname) return { records: [cname], alias: null };
    const target = this.#service(client, externalName);
    const known =
      target === undefined || (target.dns?.externalName ?? '') !== ''
        ? null
        : this.#ofService(client, target, type);
    if (known === null) return { records: [cname], alias: externalName };
    return { records: [cname, ...known.records.map((one) => owned(one, externalName))], alias: null };
  }

  /** Healthy ones that have an address in the client's network, in random order. */
  #endpoints(client: NameClient, service: Service): Workload[] {
    const takesAll = service.loadBalancing?.healthPolicy === 'allow-all';
    const endpoints = this.#store
      .endpointsOf(service)
      .filter((workload) => (workload.healthy || takesAll) && workload.network === client.network)
      .filter((workload) => workload.addresses.length > 0);
    return this.#shuffle(endpoints).slice(0, maxEndpoints);
  }

  #shuffle<T>(values: T[]): T[] {
    for (let i = values.length - 1; i > 0; i--) {
      const j = Math.floor(this.#random() * (i + 1));
      [values[i], values[j]] = [values[j]!, values[i]!];
    }
    return values;
  }

  /** `_name._protocol.<service>`: a named port of the service. */
  #ofPort(client: NameClient, name: string, type: number): NameAnswer | null {
    const [port, protocol, ...rest] = labelsOf(name);
    if (!port?.startsWith('_') || !protocol?.startsWith('_') || rest.length === 0) return null;
    const service = this.#visible(client, rest.join('.'));
    const found = service?.dns?.ports.find(
      (one) => `_${one.name.toLowerCase()}` === port && `_${one.protocol}` === protocol,
    );
    // A port without a name here may have one elsewhere: only what is known is answered.
    if (service === undefined || found === undefined) return null;
    return type === recordType.srv
      ? { records: this.#srv(client, service, [found.port]), alias: null }
      : none;
  }

  #srvOfAllPorts(client: NameClient, service: Service): DnsRecord[] {
    return this.#srv(
      client,
      service,
      service.ports.map(({ servicePort }) => servicePort),
    );
  }

  /** To the service's own name, or to each endpoint's where it is headless (then with the port that the endpoint has). */
  #srv(client: NameClient, service: Service, ports: readonly number[]): DnsRecord[] {
    const isHeadless = !service.vips.some((vip) => vip.network === client.network);
    if (!isHeadless) return ports.map((port) => srvTo(service.hostname, port));
    return this.#endpoints(client, service).flatMap((workload) => {
      const target = `${endpointLabel(workload)}.${service.hostname}`;
      return ports.map((port) => srvTo(target, targetPort(workload, service, port)));
    });
  }

  /** `<pod's hostname, or its address with dashes>.<headless service>`. */
  #ofPod(client: NameClient, name: string, type: number): NameAnswer | null {
    const dot = name.indexOf('.');
    if (dot < 1) return null;
    const service = this.#visible(client, name.slice(dot + 1));
    if (service === undefined || !this.#isKubernetes(service.hostname) || service.vips.length > 0)
      return null;
    const label = name.slice(0, dot);
    const named = this.#store
      .endpointsOf(service)
      .filter(
        (workload) => workload.network === client.network && labelsOfEndpoint(workload).includes(label),
      );
    if (named.length === 0) return null;
    return {
      records: addressRecords(
        null,
        named.flatMap(({ addresses }) => addresses),
        type,
      ),
      alias: null,
    };
  }

  #pointer(client: NameClient, name: string): NameAnswer | null {
    const address = addressOfPtrName(name);
    if (address === null) return null;
    const service = this.#store.serviceByVip(client.network, address, client.namespace);
    const isExact = service?.vips.some((vip) => vip.address === address && vip.prefixLength === null);
    if (service !== undefined && isExact && !service.hostname.startsWith('*'))
      return { records: [pointerTo(service.hostname)], alias: null };
    const workload = this.#store.workloadByAddress(client.network, address);
    const target = workload === undefined ? null : this.#nameOfPod(client, workload);
    return target === null ? null : { records: [pointerTo(target)], alias: null };
  }

  #nameOfPod(client: NameClient, workload: Workload): string | null {
    if (workload.dns === undefined) return null;
    const { hostname, subdomain } = workload.dns;
    const service = this.#visible(client, `${subdomain}.${workload.namespace}.${this.#serviceDomain}`);
    if (service === undefined || !workload.services.has(serviceKeyOf(service))) return null;
    return `${hostname}.${service.hostname}`;
  }

  #isKubernetes(hostname: string): boolean {
    return hostname.endsWith(`.${this.#serviceDomain}`);
  }
}

function rank(service: Service, client: NameClient): string {
  return `${service.namespace === client.namespace ? 0 : 1}${service.canonical ? 0 : 1}${service.namespace}`;
}

function aliased(target: string, answer: NameAnswer): NameAnswer {
  const records = answer.records.map((record) => (record.owner === null ? owned(record, target) : record));
  return { records: [cnameTo(null, target), ...records], alias: answer.alias };
}

function owned(record: DnsRecord, owner: string): DnsRecord {
  return record.owner === null ? { ...record, owner } : record;
}

/** Those of the family asked for; ANY gets both (RFC 8482 lets us choose). */
export function addressRecords(
  owner: string | null,
  addresses: readonly string[],
  type: number,
): DnsRecord[] {
  const records: DnsRecord[] = [];
  for (const address of addresses) {
    const addressType = isIpv6(address) ? recordType.aaaa : recordType.a;
    if (type !== addressType && type !== recordType.any) continue;
    records.push({ owner, type: addressType, ttlSeconds, data: tryParseAddress(address)! });
  }
  return records;
}

function cnameTo(owner: string | null, target: string): DnsRecord {
  return { owner, type: recordType.cname, ttlSeconds, data: encodeName(target) };
}

function pointerTo(target: string): DnsRecord {
  return { owner: null, type: recordType.ptr, ttlSeconds, data: encodeName(target) };
}

/** RFC 2782; all alike, as kube-dns has it. */
function srvTo(target: string, port: number): DnsRecord {
  const fixed = Buffer.alloc(6);
  fixed.writeUInt16BE(0, 0);
  fixed.writeUInt16BE(100, 2);
  fixed.writeUInt16BE(port, 4);
  return { owner: null, type: recordType.srv, ttlSeconds, data: Buffer.concat([fixed, encodeName(target)]) };
}

function endpointLabel(workload: Workload): string {
  return labelsOfEndpoint(workload)[0]!;
}

/** What names an endpoint under its service: the pod's own hostname first, then each address with dashes, as kube-dns writes it. */
function labelsOfEndpoint(workload: Workload): string[] {
  const own = workload.dns === undefined ? [] : [workload.dns.hostname.toLowerCase()];
  return [...own, ...workload.addresses.map((address) => address.replaceAll(/[.:]/g, '-'))];
}

function targetPort(workload: Workload, service: Service, port: number): number {
  const own = workload.services.get(serviceKeyOf(service))?.find((one) => one.servicePort === port);
  return own !== undefined && own.targetPort !== 0 ? own.targetPort : port;
}
