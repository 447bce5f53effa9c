import { describe, expect, test } from '@jest/globals';
import { serviceWith, workloadWith } from '../../mesh/store/fixtures.js';
import type { TrafficPolicy } from '../../mesh/store/index.js';
import { choose } from './balancer.js';
import { type Endpoint, EndpointSet } from './endpoint-set.js';
import { LiveCounts } from './live-counts.js';

const source = workloadWith({ uid: 'client' });

function setOf(loadBalancer: TrafficPolicy['loadBalancer'], capacities: readonly number[]): EndpointSet {
  const trafficPolicy = { loadBalancer, connectTimeoutMs: 0, maxConnectionAgeMs: 0, outlierDetection: null };
  const service = serviceWith({
    namespace: 'shop',
    hostname: 'cart',
    ports: [{ servicePort: 80, targetPort: 8080 }],
    trafficPolicy,
  });
  const workloads = capacities.map((capacity, index) =>
    workloadWith({ uid: `w${index}`, addresses: [`10.0.0.${index + 1}`], capacity }),
  );
  return new EndpointSet({ service, source, port: 80, isGateway: false, wantsIpv6: false }, workloads);
}

/** Evenly spread draws: no luck in the test. */
function spread(step = 0.618_033_988_75): () => number {
  let at = 0;
  return () => {
    at = (at + step) % 1;
    return at;
  };
}

const base = { client: '10.0.0.9', random: spread(), liveOf: () => 0, mayUse: null };
const uidOf = (endpoint: Endpoint | null) => endpoint?.workload.uid ?? null;

function countsOf(picks: number, one: () => Endpoint | null): Record<string, number> {
  const counts: Record<string, number> = {};
  for (let index = 0; index < picks; index++) {
    const uid = uidOf(one())!;
    counts[uid] = (counts[uid] ?? 0) + 1;
  }
  return counts;
}

describe('random', () => {
  test('is in proportion to capacity, also among those that are left', () => {
    const set = setOf('random', [1, 2, 5]);
    const counts = countsOf(8_000, () => choose({ ...base, set }));
    for (const [uid, share] of [
      ['w0', 1],
      ['w1', 2],
      ['w2', 5],
    ] as const)
      expect(counts[uid]! / 1_000).toBeCloseTo(share, 0);
    const left = countsOf(3_000, () => choose({ ...base, set, mayUse: ({ key }) => key !== 'w2' }));
    expect(left['w2']).toBeUndefined();
    expect(left['w1']! / left['w0']!).toBeCloseTo(2, 0);
  });

  test('finds the only one of many that may be used, and nothing where none may', () => {
    const set = setOf('random', new Array<number>(2_000).fill(1));
    expect(uidOf(choose({ ...base, set, mayUse: ({ key }) => key === 'w1234' }))).toBe('w1234');
    expect(choose({ ...base, set, mayUse: () => false })).toBeNull();
    expect(choose({ ...base, set: setOf('random', []) })).toBeNull();
  });
});

test('least connections: the load evens out by capacity, whatever it was', () => {
  const set = setOf('least-connections', [1, 1, 2]);
  const live = new LiveCounts();
  const add = (endpoint: Endpoint) => live.change(set.serviceKey, endpoint.key, 1);
  for (let index = 0; index < 30; index++) add(set.endpoints[0]!);
  const random = spread();
  for (let index = 0; index < 90; index++) {
    const liveOf = ({ key }: Endpoint) => live.of(set.serviceKey, key);
    add(choose({ ...base, random, set, liveOf })!);
  }
  const counts = set.endpoints.map(({ key }) => live.of(set.serviceKey, key));
  expect(counts[0]!).toBeLessThanOrEqual(33);
  expect(Math.abs(counts[2]! - 2 * counts[1]!)).toBeLessThanOrEqual(8);
  for (const [index, { key }] of set.endpoints.entries())
    for (let left = counts[index]!; left > 0; left--) live.change(set.serviceKey, key, -1);
  expect(set.endpoints.map(({ key }) => live.of(set.serviceKey, key))).toEqual([0, 0, 0]);
});

describe('consistent by source', () => {
  const clients = Array.from({ length: 2_000 }, (_, index) => `10.1.${index >> 8}.${index & 255}`);
  const of = (set: EndpointSet, client: string, mayUse: ((endpoint: Endpoint) => boolean) | null = null) =>
    uidOf(choose({ ...base, set, client, mayUse }))!;

  test('a client stays; clients spread by capacity', () => {
    const set = setOf('consistent-source', [1, 1, 2]);
    const counts: Record<string, number> = {};
    for (const client of clients) {
      const uid = of(set, client);
      expect(of(set, client)).toBe(uid);
      counts[uid] = (counts[uid] ?? 0) + 1;
    }
    expect(counts['w2']! / clients.length).toBeCloseTo(0.5, 1);
    expect(counts['w0']! / clients.length).toBeCloseTo(0.25, 1);
  });

  test('when one goes or cannot be used, only its clients move; when it is back, they are', () => {
    const four = setOf('consistent-source', [1, 1, 1, 1]);
    const three = setOf('consistent-source', [1, 1, 1]);
    for (const client of clients) {
      const before = of(four, client);
      const without = of(four, client, ({ key }) => key !== 'w3');
      if (before !== 'w3') expect(without).toBe(before);
      expect(without).toBe(of(three, client));
      expect(of(four, client)).toBe(before);
    }
  });
});
