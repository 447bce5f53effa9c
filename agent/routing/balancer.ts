import type { Endpoint, EndpointSet } from './endpoint-set.js';
import { hashOf, mix } from './hash.js';

/** How often a draw that hit an endpoint which is not to be used is repeated before all are looked at. */
const maxRedraws = 8;
/** Client addresses remembered per set: a node has a few hundred pods. */
const maxClients = 1024;

export interface Choice {
  readonly set: EndpointSet;
  /** The client's address, for `consistent-source`. */
  readonly client: string;
  /** 0 ≤ x < 1. */
  readonly random: () => number;
  readonly liveOf: (endpoint: Endpoint) => number;
  /** Null: all may be used. */
  readonly mayUse: ((endpoint: Endpoint) => boolean) | null;
}

/** One of the endpoints that may be used, as the service's load balancer says; null: there is none. */
export function choose(choice: Choice): Endpoint | null {
  switch (choice.set.service.trafficPolicy?.loadBalancer) {
    case 'least-connections':
      return lessLoaded(choice);
    case 'consistent-source':
      return ofClient(choice);
    default:
      return byCapacity(choice);
  }
}

/** Random, weighted by capacity. */
function byCapacity(choice: Choice): Endpoint | null {
  const { set, mayUse, random } = choice;
  if (set.endpoints.length === 0) return null;
  if (mayUse === null) return drawn(set, random());
  for (let redraws = 0; redraws < maxRedraws; redraws++) {
    const endpoint = drawn(set, random());
    if (mayUse(endpoint)) return endpoint;
  }
  const left = set.endpoints.filter(mayUse);
  let at = random() * left.reduce((sum, { workload }) => sum + workload.capacity, 0);
  for (const endpoint of left) {
    at -= endpoint.workload.capacity;
    if (at < 0) return endpoint;
  }
  return left.at(-1) ?? null;
}

/** The first whose sum of capacities is above the draw. Bisected: a service may have thousands. */
function drawn(set: EndpointSet, random: number): Endpoint {
  const { capacitySums, endpoints } = set;
  const at = random * capacitySums[endpoints.length - 1]!;
  let low = 0;
  let high = endpoints.length - 1;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (capacitySums[middle]! > at) high = middle;
    else low = middle + 1;
  }
  return endpoints[low]!;
}

/** The less loaded of two (power of two choices), load being live connections of this worker by capacity. */
function lessLoaded(choice: Choice): Endpoint | null {
  const first = byCapacity(choice);
  if (first === null) return null;
  const other = byCapacity({
    ...choice,
    mayUse: (endpoint) => endpoint !== first && (choice.mayUse?.(endpoint) ?? true),
  });
  return other !== null && loadOf(other, choice) < loadOf(first, choice) ? other : first;
}

function loadOf(endpoint: Endpoint, { liveOf }: Choice): number {
  return (liveOf(endpoint) + 1) / endpoint.workload.capacity;
}

/** Rendezvous hashing: a client stays with its endpoint while that may be used, and the others' clients stay when it goes. */
function ofClient(choice: Choice): Endpoint | null {
  const { set, client, mayUse } = choice;
  const known = set.byClient.get(client);
  if (known !== undefined && (mayUse === null || mayUse(known))) return known;
  const best = bestOf(choice);
  if (mayUse === null && best !== null) {
    if (set.byClient.size >= maxClients) set.byClient.clear();
    set.byClient.set(client, best);
  }
  return best;
}

function bestOf({ set, client, mayUse }: Choice): Endpoint | null {
  const clientHash = hashOf(client);
  let best: Endpoint | null = null;
  let bestScore = Number.NEGATIVE_INFINITY;
  for (const endpoint of set.endpoints) {
    if (mayUse !== null && !mayUse(endpoint)) continue;
    const score = scoreOf(endpoint, clientHash);
    if (score < bestScore || (score === bestScore && endpoint.key > best!.key)) continue;
    best = endpoint;
    bestScore = score;
  }
  return best;
}

/** Weighted rendezvous: with -w / ln(u), u uniform, each is the highest in proportion to its w. */
function scoreOf(endpoint: Endpoint, clientHash: number): number {
  const uniform = (mix(clientHash, endpoint.hash) + 0.5) / 2 ** 32;
  return -endpoint.workload.capacity / Math.log(uniform);
}
