import { afterEach, beforeEach, expect, test } from '@jest/globals';
import type { ApiRequest } from '../../mesh/kube/index.js';
import type { ClusterEvent } from '../../mesh/kube-write/index.js';
import { createLog } from '../../mesh/log/index.js';
import type { Limitation } from '../model/index.js';
import { Facts } from './facts.js';
import { StatusWriter } from './status-writer.js';
import type { VipAllocator } from './vip-allocator.js';

// When something is written; what a real API server makes of it is in test/kubernetes/writeback.test.ts.

const KEY = 'AuthorizationPolicy/shop/one';
let isSettled: boolean;
let isLeader: boolean;
let limitations: Limitation[];
let isIdle: boolean;
let writes: ApiRequest[];
let told: ClusterEvent[];
let facts: Facts;
let writer: StatusWriter;

const policy = (generation: number, resourceVersion: number, status: object = {}) => ({
  apiVersion: 'security.istio.io/v1',
  kind: 'AuthorizationPolicy',
  metadata: {
    name: 'one',
    namespace: 'shop',
    uid: 'u',
    generation,
    resourceVersion: String(resourceVersion),
  },
  status,
});
const conditionsOf = ({ body }: ApiRequest) =>
  (body as { status: { conditions: Record<string, unknown>[] } }).status.conditions;

beforeEach(() => {
  [isSettled, isLeader, limitations, isIdle, writes, told] = [true, true, [], false, [], []];
  const client = {
    request: async (request: ApiRequest) => {
      writes.push(request);
      return policy(1, 100 + writes.length, (request.body as { status: object }).status);
    },
  };
  const noVips = { reset: () => {}, forget: () => {} } as unknown as VipAllocator;
  facts = new Facts({ onChange: (key) => writer.touch(key) });
  writer = new StatusWriter({
    client,
    facts,
    leadership: {
      get isLeader() {
        return isLeader;
      },
    },
    model: {
      get isSettled() {
        return isSettled;
      },
      serviceEntry: () => undefined,
    },
    vips: noVips,
    judge: () => ({ problems: [], limitations, isIdle }),
    events: { record: (event) => told.push(event) },
    log: createLog({ level: 'silent', component: 'test' }),
  });
  writer.start();
});

afterEach(() => writer.stop());

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
async function until(what: () => boolean): Promise<void> {
  for (const endMs = Date.now() + 10_000; !what(); await pause(5))
    if (Date.now() > endMs) throw new Error(`not within 10 s: ${what.toString()}`);
}

test('written once, and not again for what the watch then tells, late or not', async () => {
  facts.observe(KEY, policy(1, 1));
  await until(() => writes.length === 1);
  expect(conditionsOf(writes[0]!)).toEqual([
    expect.objectContaining({ type: 'ZtunnelAccepted', status: 'True', observedGeneration: 1 }),
  ]);
  facts.observe(KEY, policy(1, 2)); // of before our write
  facts.observe(KEY, policy(1, 101, { conditions: conditionsOf(writes[0]!) }));
  await pause(400);
  expect(writes).toHaveLength(1);
  expect(told).toEqual([]);
});

test('a generation is not said to be judged before it is, however long the model goes on changing', async () => {
  isSettled = false;
  facts.observe(KEY, policy(2, 1));
  await pause(250);
  expect(writes).toHaveLength(0);
  limitations = [{ field: 'spec.rules', reason: 'because', effect: 'ignored' }];
  writer.judged();
  await until(() => writes.length === 1);
  expect(conditionsOf(writes[0]!)).toEqual([
    expect.objectContaining({ status: 'False', reason: 'UnsupportedValue', observedGeneration: 2 }),
  ]);
  expect(told.map(({ reason, note }) => [reason, note])).toEqual([
    ['UnsupportedValue', 'spec.rules: because: ignored'],
  ]);
});

test('who does not lead does not write', async () => {
  isLeader = false;
  facts.observe(KEY, policy(1, 1));
  await pause(250);
  expect(writes).toHaveLength(0);
});

test('conditions of others that our first write took away are written back with it, by uid', async () => {
  const healthy = { type: 'Other', status: 'True', lastTransitionTime: '2026-01-01T00:00:00Z' };
  facts.observe(KEY, policy(1, 1, { conditions: [healthy] }));
  await until(() => writes.length === 2);
  expect(conditionsOf(writes[0]!).map(({ type }) => type)).toEqual(['ZtunnelAccepted']);
  expect(conditionsOf(writes[1]!).map(({ type }) => type)).toEqual(['Other', 'ZtunnelAccepted']);
  expect(writes[1]).toMatchObject({
    method: 'PATCH',
    path: '/apis/security.istio.io/v1/namespaces/shop/authorizationpolicies/one/status',
    query: { fieldManager: 'culvert' },
    body: { metadata: { uid: 'u' } },
  });
});

test('a policy that selects no pod is accepted all the same, and says so without an Event', async () => {
  isIdle = true;
  facts.observe(KEY, policy(1, 1));
  await until(() => writes.length === 1);
  isIdle = false;
  writer.touch(KEY);
  await until(() => writes.length === 2);
  expect(writes.map((write) => conditionsOf(write)[0]!['message'])).toEqual([
    'in force as written; selects no pod at present',
    'in force as written',
  ]);
  expect(writes.map((write) => conditionsOf(write)[0]!['status'])).toEqual(['True', 'True']);
  expect(told).toEqual([]);
});
