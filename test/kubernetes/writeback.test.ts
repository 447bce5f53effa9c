import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { MESH_NAMESPACE, waitFor } from '../lab/index.js';
import type { KubeObject } from './api.js';
import { type ControlPlane, startControlPlane } from './control-plane.js';
import { ControllerProcess, prepareControllers } from './controllers.js';
import { meshCrds } from './mesh-crds.js';

// What controllers write to the cluster, with the rights of the chart, and what happens to it when they die.

const PATIENCE = { timeoutMs: 60_000, intervalMs: 100 };
const SECURITY = '/apis/security.istio.io/v1';
const NETWORKING = '/apis/networking.istio.io/v1';

interface Condition {
  readonly type: string;
  readonly status: string;
  readonly reason: string;
  readonly message: string;
  readonly observedGeneration?: number;
  readonly lastTransitionTime: string;
}

interface WithStatus extends KubeObject {
  readonly status?: {
    readonly conditions?: readonly Condition[];
    readonly addresses?: readonly { readonly host: string; readonly value: string }[];
  };
}

interface EventObject extends KubeObject {
  readonly reason: string;
  readonly note: string;
  readonly regarding: { readonly kind: string; readonly name: string };
}

let plane: ControlPlane;
let a: ControllerProcess;
let b: ControllerProcess;

beforeAll(async () => {
  plane = await startControlPlane({ onProgress: (line) => void process.stderr.write(`${line}\n`) });
  await prepareControllers(plane);
  // As Istio's own definitions are.
  await plane.apply(...meshCrds(['WorkloadEntry']), {
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name: 'shop', labels: { 'istio.io/dataplane-mode': 'ambient' } },
  });
  [a, b] = await Promise.all([
    ControllerProcess.start(plane, 'controller-a', 0),
    ControllerProcess.start(plane, 'controller-b', 1),
  ]);
}, 3_600_000);

afterAll(() => plane.close());

beforeEach(async () => {
  if (!a.isRunning) a = await ControllerProcess.start(plane, 'controller-a', 0);
  if (!b.isRunning) b = await ControllerProcess.start(plane, 'controller-b', 1);
  await leader();
}, 120_000);

/** The one that leads, and the other. */
async function leader(): Promise<{ leading: ControllerProcess; following: ControllerProcess }> {
  const leads = async () => [a.isRunning && (await a.isLeader()), b.isRunning && (await b.isLeader())];
  await waitFor('one leader', async () => (await leads()).filter(Boolean).length === 1, PATIENCE);
  return (await leads())[0] === true ? { leading: a, following: b } : { leading: b, following: a };
}

const policy = (name: string, spec: object): object => ({
  apiVersion: 'security.istio.io/v1',
  kind: 'AuthorizationPolicy',
  metadata: { name, namespace: 'shop' },
  spec,
});
const entry = (name: string, spec: object = {}): object => ({
  apiVersion: 'networking.istio.io/v1',
  kind: 'ServiceEntry',
  metadata: { name, namespace: 'shop' },
  spec: { hosts: [`${name}.example.org`], resolution: 'DNS', ports: [{ number: 443, name: 'tls' }], ...spec },
});
const policyPath = (name: string) => `${SECURITY}/namespaces/shop/authorizationpolicies/${name}`;
const entryPath = (name: string) => `${NETWORKING}/namespaces/shop/serviceentries/${name}`;

async function conditionOf(path: string, type: string): Promise<Condition | undefined> {
  const { status } = await plane.api.get<WithStatus>(path);
  return status?.conditions?.find((one) => one.type === type);
}

/** Resolves when the condition is about the object as it is now. */
async function judged(path: string, type = 'ZtunnelAccepted', options = PATIENCE): Promise<Condition> {
  let found: Condition | undefined;
  await waitFor(
    `${path} to be judged`,
    async () => {
      const { metadata, status } = await plane.api.get<WithStatus>(path);
      found = status?.conditions?.find((one) => one.type === type);
      return found?.observedGeneration === metadata.generation;
    },
    options,
  );
  return found!;
}

async function addressesOf(name: string): Promise<readonly string[]> {
  let found: readonly string[] = [];
  await waitFor(
    `addresses of ${name}`,
    async () => {
      const { status } = await plane.api.get<WithStatus>(entryPath(name));
      found = (status?.addresses ?? []).map(({ value }) => value);
      return found.length > 0;
    },
    PATIENCE,
  );
  return found;
}

async function eventOf(name: string, reason: string, namespace = 'shop'): Promise<EventObject> {
  let found: EventObject | undefined;
  await waitFor(
    `event ${reason} of ${name}`,
    async () => {
      const { items } = await plane.api.get<{ items: EventObject[] }>(
        `/apis/events.k8s.io/v1/namespaces/${namespace}/events`,
      );
      found = items.find((one) => one.regarding.name === name && one.reason === reason);
      return found !== undefined;
    },
    PATIENCE,
  );
  return found!;
}

describe('statuses', () => {
  test('a policy is accepted, not as written, invalid, and accepted again; each is told, and written once', async () => {
    await plane.apply(policy('one', { rules: [{ from: [{ source: { namespaces: ['shop'] } }] }] }));
    const accepted = await judged(policyPath('one'));
    expect(accepted).toMatchObject({ status: 'True', reason: 'Accepted', observedGeneration: 1 });

    await plane.apply(policy('one', { rules: [{ to: [{ operation: { methods: ['GET'] } }] }] }));
    const unsupported = await judged(policyPath('one'));
    expect(unsupported).toMatchObject({ status: 'False', reason: 'UnsupportedValue', observedGeneration: 2 });
    expect(unsupported.message).toContain('spec.rules[0].to[0].operation.methods');
    expect((await eventOf('one', 'UnsupportedValue')).note).toBe(unsupported.message);

    // Sound for the CRD, and not for us.
    await plane.apply(policy('one', { rules: [{ from: [{ source: { ipBlocks: ['300.1.2.3'] } }] }] }));
    const invalid = await judged(policyPath('one'));
    expect(invalid).toMatchObject({ status: 'False', reason: 'Invalid', observedGeneration: 3 });
    expect(invalid.message).toContain('spec.rules[0].from[0].source.ipBlocks: must be an IP address');
    expect(invalid.lastTransitionTime).toBe(unsupported.lastTransitionTime);
    await eventOf('one', 'Invalid');

    await plane.apply(policy('one', { rules: [{}] }));
    expect(await judged(policyPath('one'))).toMatchObject({ status: 'True', observedGeneration: 4 });
    await eventOf('one', 'Accepted');

    const { resourceVersion } = (await plane.api.get<KubeObject>(policyPath('one'))).metadata;
    const { leading, following } = await leader();
    const written = await leading.metric('culvert_status_writes_total');
    await sleep(3000);
    expect((await plane.api.get<KubeObject>(policyPath('one'))).metadata.resourceVersion).toBe(
      resourceVersion,
    );
    expect(await leading.metric('culvert_status_writes_total')).toBe(written);
    expect(await following.metric('culvert_status_writes_total')).toBe(0);
  }, 120_000);

  test('our other kinds have a condition of our own; labels do not count as another generation', async () => {
    const rule = {
      apiVersion: 'networking.istio.io/v1',
      kind: 'DestinationRule',
      metadata: { name: 'nobody', namespace: 'shop' },
      spec: { host: 'nobody.shop.svc.cluster.local' },
    };
    await plane.apply(rule);
    const path = `${NETWORKING}/namespaces/shop/destinationrules/nobody`;
    const first = await judged(path, 'culvert.io/InForce');
    expect(first).toMatchObject({ status: 'False', reason: 'NotAsWritten' });
    expect(first.message).toContain('acts on nothing');
    await plane.apply({
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'nobody', namespace: 'shop' },
      spec: { ports: [{ port: 80 }] },
    });
    await waitFor(
      'another verdict',
      async () => (await conditionOf(path, 'culvert.io/InForce'))?.status === 'True',
      PATIENCE,
    );
  }, 120_000);

  test('conditions of others stay, also where the CRD takes all for one value', async () => {
    const path = `${NETWORKING}/namespaces/shop/workloadentries/vm`;
    await plane.api.post(`${NETWORKING}/namespaces/shop/workloadentries`, {
      apiVersion: 'networking.istio.io/v1',
      kind: 'WorkloadEntry',
      metadata: { name: 'vm', namespace: 'shop' },
      spec: { address: '198.51.100.7' },
    });
    await judged(path, 'culvert.io/InForce');
    const healthy = { type: 'Healthy', status: 'True', lastTransitionTime: '2026-01-01T00:00:00Z' };
    const { status } = await plane.api.get<WithStatus>(path);
    await plane.api.patch(`${path}/status`, { status: { conditions: [...status!.conditions!, healthy] } });
    await plane.api.patch(path, { spec: { weight: 7 } });
    await judged(path, 'culvert.io/InForce');
    expect(await conditionOf(path, 'Healthy')).toMatchObject(healthy);
  }, 120_000);
});

describe('automatic addresses', () => {
  test('are in the status, one pair for each host, and outlive every controller', async () => {
    const names = Array.from({ length: 30 }, (_, i) => `auto-${i}`);
    await plane.apply(...names.map((name) => entry(name)));
    const before = new Map<string, readonly string[]>();
    for (const name of names) before.set(name, await addressesOf(name));
    expect(new Set([...before.values()].flat()).size).toBe(60);
    expect(before.get('auto-0')).toEqual([
      expect.stringMatching(/^240\.240\./),
      expect.stringMatching(/^2001:2::/),
    ]);
    await Promise.all([a.stop('SIGKILL'), b.stop('SIGTERM')]);
    await plane.kubectl('delete', '-n', 'shop', 'serviceentry', 'auto-3');
    await plane.apply(entry('auto-30'), entry('auto-5', { resolution: 'DNS_ROUND_ROBIN' }));
    [a, b] = await Promise.all([
      ControllerProcess.start(plane, 'controller-a', 0),
      ControllerProcess.start(plane, 'controller-b', 1),
    ]);
    const added = await addressesOf('auto-30');
    await judged(entryPath('auto-5'), 'culvert.io/InForce');
    for (const name of names.filter((one) => one !== 'auto-3'))
      expect([name, await addressesOf(name)]).toEqual([name, before.get(name)]);
    expect([...before.entries()].some(([name, list]) => name !== 'auto-3' && list.includes(added[0]!))).toBe(
      false,
    );

    // Given up where the entry has its own.
    await plane.apply(entry('auto-0', { addresses: ['203.0.113.9'] }));
    await waitFor(
      'no automatic address',
      async () => (await plane.api.get<WithStatus>(entryPath('auto-0'))).status?.addresses === undefined,
      PATIENCE,
    );
  }, 240_000);

  test('that two entries claim are the older one’s', async () => {
    await plane.apply(entry('older'));
    const taken = await addressesOf('older');
    await plane.apply(entry('younger'));
    await addressesOf('younger');
    const stolen = taken.map((value) => ({ host: 'younger.example.org', value }));
    await plane.api.patch(`${entryPath('younger')}/status`, { status: { addresses: stolen } });
    await waitFor(
      'an address of its own',
      async () => !(await addressesOf('younger')).some((address) => taken.includes(address)),
      PATIENCE,
    );
    expect(await addressesOf('older')).toEqual(taken);
  }, 120_000);
});

describe('faults', () => {
  test('the leader is killed: the other writes within 20 s, and only the other', async () => {
    const { leading, following } = await leader();
    await leading.stop('SIGKILL');
    const killedMs = performance.now();
    await plane.apply(policy('after-kill', {}));
    await judged(policyPath('after-kill'), 'ZtunnelAccepted', { timeoutMs: 30_000, intervalMs: 50 });
    expect(performance.now() - killedMs).toBeLessThan(20_000);
    expect(await following.isLeader()).toBe(true);
    const lease = await plane.api.get<{ spec: { holderIdentity: string } }>(
      `/apis/coordination.k8s.io/v1/namespaces/${MESH_NAMESPACE}/leases/culvert-controller-leader`,
    );
    expect(lease.spec.holderIdentity).not.toBe('');
  }, 120_000);

  test('the leader is stopped by SIGTERM: the other leads within seconds', async () => {
    const { leading, following } = await leader();
    await leading.stop('SIGTERM');
    const stoppedMs = performance.now();
    await waitFor('the other to lead', () => following.isLeader(), PATIENCE);
    expect(performance.now() - stoppedMs).toBeLessThan(14_000);
  }, 120_000);

  test('killed in the middle of many writes: all are written in the end, no address twice', async () => {
    const names = Array.from({ length: 150 }, (_, i) => `many-${i}`);
    await plane.apply(...names.map((name) => entry(name)));
    const { leading } = await leader();
    await waitFor(
      'some writes',
      async () =>
        ((await plane.api.get<WithStatus>(entryPath('many-20'))).status?.addresses ?? []).length > 0,
      PATIENCE,
    );
    await leading.stop('SIGKILL');
    const all: string[] = [];
    for (const name of names) all.push(...(await addressesOf(name)));
    expect(new Set(all).size).toBe(300);
    await plane.kubectl('delete', '-n', 'shop', 'serviceentry', ...names);
  }, 240_000);

  test('a process that was stopped and goes on does not write as a leader that it is no more', async () => {
    const { leading, following } = await leader();
    leading.signal('SIGSTOP');
    await waitFor('the other to lead', () => following.isLeader(), PATIENCE);
    await plane.apply(policy('while-stopped', {}));
    await judged(policyPath('while-stopped'));
    const { resourceVersion } = (await plane.api.get<KubeObject>(policyPath('while-stopped'))).metadata;
    const before = await following.metric('culvert_status_writes_total');
    leading.signal('SIGCONT');
    await waitFor('it to follow', async () => !(await leading.isLeader()), PATIENCE);
    await sleep(2000);
    expect(await following.isLeader()).toBe(true);
    expect(await following.metric('culvert_status_writes_total')).toBe(before);
    expect((await plane.api.get<KubeObject>(policyPath('while-stopped'))).metadata.resourceVersion).toBe(
      resourceVersion,
    );
  }, 180_000);

  test('an object of 1 MB', async () => {
    const principals = Array.from(
      { length: 16_000 },
      (_, i) => `cluster.local/ns/shop/sa/${String(i).padStart(36, 'x')}`,
    );
    const body = policy('large', { rules: [{ from: [{ source: { principals } }] }] });
    expect(JSON.stringify(body).length).toBeGreaterThan(1_000_000);
    // Not by apply, which repeats it in an annotation.
    await plane.api.post(`${SECURITY}/namespaces/shop/authorizationpolicies`, body);
    expect(await judged(policyPath('large'))).toMatchObject({ status: 'True', observedGeneration: 1 });
    await plane.api.delete(policyPath('large'));
  }, 120_000);

  test('the API server is restarted: writing goes on', async () => {
    await plane.stopComponent('apiServer', 'SIGKILL');
    await sleep(3000);
    await plane.startComponent('apiServer');
    await waitFor(
      'the API server',
      () => plane.apply(policy('after-restart', {})).then(() => true),
      PATIENCE,
    );
    expect(await judged(policyPath('after-restart'))).toMatchObject({ status: 'True' });
    await leader();
  }, 180_000);
});
