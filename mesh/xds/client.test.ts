import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { status } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { until } from '../../test/support/wait.js';
import { createLog } from '../log/index.js';
import {
  ADDRESS_TYPE_URL,
  AUTHORIZATION_TYPE_URL,
  encodeDeltaResponse,
  encodeResource,
  type google,
  istio,
} from '../proto/index.js';
import { createStore, type StoreUpdate } from '../store/index.js';
import { XdsClient, type XdsClientOptions } from './client.js';
import { FakeController, type FakeStream } from './fake-controller.js';

jest.setTimeout(30_000); // the machine may be busy

const TUNNEL_HBONE = 1;
const TUNNEL_LEGACY = 2;

let controller: FakeController;
let client: XdsClient | null;
let updates: StoreUpdate[];

beforeEach(async () => {
  controller = new FakeController();
  await controller.start();
  client = null;
  updates = [];
});

afterEach(() => {
  client?.stop();
  controller.dispose();
});

function startClient(
  changes: Partial<XdsClientOptions> = {},
  onUpdate: (update: StoreUpdate) => void = (update) => updates.push(update),
): XdsClient {
  client = new XdsClient(
    {
      controller: controller.controllerOptions,
      node: {
        instanceIp: '10.0.0.9',
        podName: 'agent-x',
        podNamespace: 'mesh-system',
        nodeName: 'node-1',
        metadata: { CLUSTER_ID: 'cluster-1', DNS: { on: true, ttl: [1, null] } },
      },
      maxBackoffMs: 50,
      ...changes,
    },
    { log: createLog({ level: 'silent', component: 'test' }), onUpdate },
  );
  client.start();
  return client;
}

async function openStream(): Promise<FakeStream> {
  const stream = await controller.nextStream();
  await stream.nextRequest();
  await stream.nextRequest();
  return stream;
}

function workload(uid: string, fields: istio.workload.Workload.$Properties = {}) {
  const value = istio.workload.Address.encode({
    workload: { uid, namespace: 'shop', name: uid, ...fields },
  }).finish();
  return encodeResource({ name: uid, version: `v-${uid}`, aliases: [], typeUrl: ADDRESS_TYPE_URL, value });
}

/** `scope` and `action` as numbers: some tests send what the enum does not have. */
function policy(key: string, fields: object) {
  const value = istio.security.Authorization.encode(fields).finish();
  return encodeResource({ name: key, version: '', aliases: [], typeUrl: AUTHORIZATION_TYPE_URL, value });
}

function push(
  typeUrl: string,
  nonce: string,
  resources: readonly Buffer[],
  removed: readonly string[] = [],
): Buffer {
  return encodeDeltaResponse({ typeUrl, nonce, systemVersion: '1', resources, removed });
}

function plain(struct: google.protobuf.Struct.$Properties | null | undefined): unknown {
  return Object.fromEntries(
    Object.entries(struct?.fields ?? {}).map(([name, value]) => [name, value.stringValue]),
  );
}

describe('the first requests', () => {
  test('carry node, token and cluster, and subscribe to everything of both types', async () => {
    startClient();
    const stream = await controller.nextStream();
    const requests = [await stream.nextRequest(), await stream.nextRequest()];
    expect(stream.metadata.get('authorization')).toEqual(['Bearer token-1']);
    expect(stream.metadata.get('clusterid')).toEqual(['cluster-1']);
    expect(stream.metadata.get('x-extra')).toEqual(['yes']);
    expect(requests.map((request) => request.typeUrl)).toEqual([AUTHORIZATION_TYPE_URL, ADDRESS_TYPE_URL]);
    for (const { node, resourceNamesSubscribe, initialResourceVersions, responseNonce } of requests) {
      expect(node?.id).toBe('ztunnel~10.0.0.9~agent-x.mesh-system~mesh-system.svc.cluster.local');
      expect(plain(node?.metadata)).toMatchObject({
        NAME: 'agent-x',
        NAMESPACE: 'mesh-system',
        INSTANCE_IPS: '10.0.0.9',
        NODE_NAME: 'node-1',
        CLUSTER_ID: 'cluster-1',
      });
      expect(node?.metadata?.fields?.DNS?.structValue?.fields).toMatchObject({
        on: { boolValue: true },
        ttl: { listValue: { values: [{ numberValue: 1 }, { nullValue: 0 }] } },
      });
      expect(resourceNamesSubscribe).toEqual([]);
      expect(initialResourceVersions).toEqual({});
      expect(responseNonce).toBe('');
    }
  });

  test('the token is read anew for each stream', async () => {
    startClient();
    const first = await openStream();
    writeFileSync(controller.tokenFile, 'token-2');
    first.end();
    const second = await controller.nextStream();
    expect(second.metadata.get('authorization')).toEqual(['Bearer token-2']);
  });

  test('verifyName replaces the name that the certificate must show', async () => {
    startClient({ controller: { ...controller.controllerOptions, verifyName: 'other.test' } });
    await until(() => client!.state.lastError !== null);
    expect(client!.state.lastError).toMatch(/UNAVAILABLE/);
    client!.stop();
    startClient({ controller: { ...controller.controllerOptions, verifyName: 'controller.test' } });
    await openStream();
  });
});

describe('a push', () => {
  test('is put in force, then acknowledged with type and nonce only', async () => {
    startClient();
    const stream = await openStream();
    stream.send(push(ADDRESS_TYPE_URL, 'n1', [workload('c//Pod/shop/a', { tunnelProtocol: TUNNEL_HBONE })]));
    const { node, responseNonce, typeUrl, errorDetail, resourceNamesSubscribe } = await stream.nextRequest();
    expect({ node, responseNonce, typeUrl, errorDetail, resourceNamesSubscribe }).toEqual({
      node: null,
      responseNonce: 'n1',
      typeUrl: ADDRESS_TYPE_URL,
      errorDetail: null,
      resourceNamesSubscribe: [],
    });
    expect(updates).toHaveLength(1);
    expect(updates[0]!.workloads[0]).toMatchObject({
      uid: 'c//Pod/shop/a',
      trustDomain: 'cluster.local',
      capacity: 1,
    });
  });

  test('with bad resources: the good ones count, the NACK names each bad one with every reason', async () => {
    const store = createStore();
    startClient({}, (update) => store.apply(update));
    const stream = await openStream();
    const bad = workload('bad', { addresses: [Buffer.from([1, 2, 3])], tunnelProtocol: TUNNEL_LEGACY });
    const misnamed = encodeResource({
      name: 'x',
      version: '',
      aliases: [],
      typeUrl: 'type/other',
      value: Buffer.from([1]),
    });
    stream.send(push(ADDRESS_TYPE_URL, 'n1', [bad, workload('good'), misnamed]));
    const nack = await stream.nextRequest();
    expect(nack.responseNonce).toBe('n1');
    expect(nack.errorDetail?.code).toBe(status.INVALID_ARGUMENT);
    expect(nack.errorDetail?.message).toBe(
      'bad: addresses[0]: an address has 4 or 16 bytes, not 3; tunnel_protocol: value 2 is not supported\nx: is of type "type/other"',
    );
    expect(store.workloadByUid('good')).toBeDefined();
    expect(store.workloadByUid('bad')?.defect).toMatch(/^addresses\[0\]/);
    expect(client!.state.types[1]!.rejected.size).toBe(2);
    expect(client!.state.pending.at(-1)).toMatch(/2 resources .* were rejected, first bad: addresses\[0\]/);
  });

  test('that is bad from the start holds its place, under its name, until it is sound or gone', async () => {
    const store = createStore();
    startClient({}, (update) => store.apply(update));
    const stream = await openStream();
    const address = [Buffer.from([10, 0, 0, 7])];
    const legacy = workload('a', { addresses: address, tunnelProtocol: TUNNEL_LEGACY });
    stream.send(push(ADDRESS_TYPE_URL, 'n1', [legacy]));
    await stream.nextRequest();
    expect(store.workloadByAddress('', '10.0.0.7')).toMatchObject({ uid: 'a', defect: expect.any(String) });
    stream.send(push(ADDRESS_TYPE_URL, 'n2', [workload('a', { addresses: address })]));
    await stream.nextRequest();
    expect(store.workloadByAddress('', '10.0.0.7')?.defect).toBeUndefined();
    stream.send(push(ADDRESS_TYPE_URL, 'n3', [legacy]));
    await stream.nextRequest();
    expect(store.workloadByAddress('', '10.0.0.7')?.defect).toBeUndefined();
    stream.send(push(ADDRESS_TYPE_URL, 'n4', [], ['a']));
    await stream.nextRequest();
    expect(store.workloadByAddress('', '10.0.0.7')).toBeUndefined();
  });

  test('that spoils a resource leaves its last good state, and a good one after it heals', async () => {
    const store = createStore();
    startClient({}, (update) => store.apply(update));
    const stream = await openStream();
    stream.send(push(ADDRESS_TYPE_URL, 'n1', [workload('a', { canonicalName: 'one' })]));
    await stream.nextRequest();
    stream.send(push(ADDRESS_TYPE_URL, 'n2', [workload('a', { tunnelProtocol: TUNNEL_LEGACY })]));
    expect((await stream.nextRequest()).errorDetail).not.toBeNull();
    expect(store.workloadByUid('a')?.canonicalName).toBe('one');
    stream.send(push(ADDRESS_TYPE_URL, 'n3', [workload('a', { canonicalName: 'three' })]));
    expect((await stream.nextRequest()).errorDetail).toBeNull();
    expect(store.workloadByUid('a')?.canonicalName).toBe('three');
    expect(client!.state.types[1]!.rejected.size).toBe(0);
    stream.send(push(ADDRESS_TYPE_URL, 'n4', [], ['a']));
    await stream.nextRequest();
    expect(store.workloadByUid('a')).toBeUndefined();
  });

  test('an unreadable policy denies where it may apply; a sound version of it then replaces it, and stays when spoilt', async () => {
    const store = createStore();
    startClient({}, (update) => store.apply(update));
    const stream = await openStream();
    stream.send(push(ADDRESS_TYPE_URL, 'n0', [workload('a'), workload('b', { namespace: 'other' })]));
    await stream.nextRequest();
    const [a, b] = [store.workloadByUid('a')!, store.workloadByUid('b')!];
    const denied = () =>
      [a, b].map((one) => store.policiesOf(one).policies.some((policy) => policy.defect !== null));
    expect(denied()).toEqual([false, false]);
    expect(store.policiesOf(a).isComplete).toBe(false);

    const scopeNamespace = { namespace: 'shop', scope: 1 };
    stream.send(push(AUTHORIZATION_TYPE_URL, 'n1', [policy('shop/p', { ...scopeNamespace, action: 7 })]));
    const nack = await stream.nextRequest();
    expect(nack.errorDetail?.message).toBe('shop/p: action: value 7 is not supported');
    expect(denied()).toEqual([true, false]);
    expect(store.policiesOf(b).isComplete).toBe(true);

    stream.send(push(AUTHORIZATION_TYPE_URL, 'n2', [policy('shop/p', { ...scopeNamespace, scope: 9 })]));
    await stream.nextRequest();
    expect(denied()).toEqual([true, true]);

    stream.send(push(AUTHORIZATION_TYPE_URL, 'n3', [policy('shop/p', { ...scopeNamespace, dryRun: true })]));
    await stream.nextRequest();
    expect(denied()).toEqual([false, false]);

    stream.send(push(AUTHORIZATION_TYPE_URL, 'n4', [policy('shop/p', { ...scopeNamespace, action: 7 })]));
    await stream.nextRequest();
    expect(store.snapshot().policies).toMatchObject([{ dryRun: true, defect: null }]);
    stream.send(push(AUTHORIZATION_TYPE_URL, 'n5', [], ['shop/p']));
    await stream.nextRequest();
    expect(store.snapshot().policies).toEqual([]);
  });

  test('readiness: both types accepted once', async () => {
    const { state } = startClient();
    expect(state.isReady).toBe(false);
    const stream = await openStream();
    stream.send(push(ADDRESS_TYPE_URL, 'n1', []));
    await stream.nextRequest();
    expect(client!.state).toMatchObject({ isReady: false, isConnected: true });
    expect(client!.state.pending).toEqual([`xds: waiting for ${AUTHORIZATION_TYPE_URL} (no error so far)`]);
    stream.send(push(AUTHORIZATION_TYPE_URL, 'n2', []));
    await stream.nextRequest();
    expect(client!.state).toMatchObject({ isReady: true, pending: [] });
    expect(client!.state.types.map((type) => type.messages)).toEqual([1, 1]);
  });

  test.each([
    ['bytes that are no response', Buffer.from([0xff, 0xff, 0xff])],
    ['a type that nobody asked for', push('type.googleapis.com/other', 'n', [])],
  ])('%s end the stream; the next one starts from what is held', async (_what, bytes) => {
    startClient();
    const stream = await openStream();
    stream.send(push(ADDRESS_TYPE_URL, 'n1', [workload('a')]));
    await stream.nextRequest();
    stream.send(bytes);
    const next = await controller.nextStream();
    await next.nextRequest(); // policies
    expect((await next.nextRequest()).initialResourceVersions).toEqual({ a: 'v-a' });
    expect(client!.state.terminations.Error).toBe(1);
  });

  test('that cannot be put in force is not acknowledged and comes again', async () => {
    let failures = 1;
    startClient({}, (update) => {
      if (failures-- > 0) throw new Error('store says no');
      updates.push(update);
    });
    const stream = await openStream();
    stream.send(push(ADDRESS_TYPE_URL, 'n1', [workload('a')]));
    const next = await controller.nextStream();
    await next.nextRequest(); // policies
    expect((await next.nextRequest()).initialResourceVersions).toEqual({});
    expect(client!.state.lastError).toBe('store says no');
    next.send(push(ADDRESS_TYPE_URL, 'n1', [workload('a')]));
    await until(() => updates.length === 1);
  });
});

describe('when the stream is lost', () => {
  test('it connects again with the versions it holds, and none of those it refused', async () => {
    startClient();
    const stream = await openStream();
    stream.send(
      push(ADDRESS_TYPE_URL, 'n1', [workload('a'), workload('b'), workload('bad', { tunnelProtocol: 2 })]),
    );
    await stream.nextRequest();
    stream.send(push(ADDRESS_TYPE_URL, 'n2', [], ['b']));
    await stream.nextRequest();
    stream.send(push(AUTHORIZATION_TYPE_URL, 'n3', [policy('root/p', { name: 'p', namespace: 'root' })]));
    await stream.nextRequest();
    stream.end();
    const next = await controller.nextStream();
    const [policies, addresses] = [await next.nextRequest(), await next.nextRequest()];
    expect(policies.node?.id).toMatch(/^ztunnel~/);
    expect(addresses.initialResourceVersions).toEqual({ a: 'v-a', bad: '' });
    expect(policies.initialResourceVersions).toEqual({ 'root/p': '' });
    expect(client!.state.terminations.Complete).toBe(1);
    expect(client!.state.isReady).toBe(true);
  });

  test('a controller that was away is found again; what is held stays', async () => {
    startClient();
    const stream = await openStream();
    stream.send(push(ADDRESS_TYPE_URL, 'n1', [workload('a')]));
    await stream.nextRequest();
    controller.stop();
    await until(() => client!.state.terminations.ConnectionError > 2);
    expect(client!.state).toMatchObject({ isConnected: false, types: [{ resources: 0 }, { resources: 1 }] });
    await controller.start();
    const next = await controller.nextStream();
    await next.nextRequest(); // policies
    expect((await next.nextRequest()).initialResourceVersions).toEqual({ a: 'v-a' });
  });

  test('no attempt of the time without a controller comes to something later: there is one connection in the end', async () => {
    startClient();
    await openStream();
    controller.stop();
    await sleep(1_000);
    await controller.start();
    await openStream();
    await sleep(3_000); // grpc-js waits 1 s before it tries what had failed once more
    expect(connectionsTo(controller.controllerOptions.address)).toBe(1);
  });

  test('a refusal is told apart from a broken connection', async () => {
    startClient();
    const stream = await openStream();
    stream.send(push(ADDRESS_TYPE_URL, 'n1', []));
    await stream.nextRequest();
    stream.fail(status.PERMISSION_DENIED, 'not your namespace');
    await until(() => client!.state.lastError !== null);
    expect(client!.state.lastError).toBe('PERMISSION_DENIED: not your namespace');
    expect(client!.state.terminations.Error).toBe(1);
  });

  test('a missing token or root file is reported and tried again', async () => {
    const { tokenFile, ...rest } = controller.controllerOptions;
    startClient({ controller: { ...rest, tokenFile: `${tokenFile}-missing` } });
    await until(() => client!.state.terminations.ConnectionError > 1);
    expect(client!.state.lastError).toMatch(/token file cannot be read: ENOENT/);
    writeFileSync(`${tokenFile}-missing`, 'late', { mode: 0o644 });
    await until(() => /may be read or written by everybody \(mode 644\)/.test(client!.state.lastError!));
    chmodSync(`${tokenFile}-missing`, 0o600);
    await openStream();
  });
});

/** That stand, as the kernel lists them. */
function connectionsTo(address: string): number {
  const port = Number(address.split(':')[1]).toString(16).toUpperCase().padStart(4, '0');
  const lines = readFileSync('/proc/self/net/tcp', 'utf8').split('\n');
  return lines.filter((line) => line.includes(` 0100007F:${port} 01 `)).length;
}
