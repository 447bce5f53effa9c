import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { type LabPod, waitFor } from '../lab/index.js';
import {
  accessLines,
  appPort,
  EchoConnection,
  inClear,
  type MeshBed,
  makeMeshBed,
  notInMesh,
  open,
  spiffe,
  startApp,
  talk,
} from './mesh-harness.js';

// Pods come, go, join and leave while others talk to them.

describe('lifecycle of pods in the mesh', () => {
  let bed: MeshBed;
  const to = () => ({ host: bed.server.ip, port: appPort });
  const serverAgent = () => bed.mesh.agents[1]!;

  beforeAll(async () => {
    bed = await makeMeshBed();
  }, 90_000);
  afterAll(() => bed?.[Symbol.dispose]());

  /** A captured client, or one that is not in the mesh, on the client's node. */
  async function newPod(name: string, labels: Readonly<Record<string, string>> = {}): Promise<LabPod> {
    const pod = await bed.nodes[0].pod(name, { namespace: 'shop', serviceAccount: name, labels });
    if (labels === notInMesh) await bed.mesh.waitUntilPlain([pod]);
    else await bed.mesh.waitUntilCaptured([pod]);
    return pod;
  }

  /** True if a new connection of the pod carries `word` in clear text over the wire. */
  async function isPlainOnTheWire(pod: LabPod, word: string, target = to()): Promise<boolean> {
    const wire = await bed.nodes[0].capture();
    const echo = await EchoConnection.open(pod, target);
    await echo.say(word);
    await echo.close();
    await wire.stop();
    return wire.contains(word);
  }

  test('a running client joins: its open connection goes on in clear text, new ones are tunnelled', async () => {
    const client = await newPod('joiner', notInMesh);
    expect(await isPlainOnTheWire(client, 'before-joining')).toBe(true);
    const before = await EchoConnection.open(client, to());
    client.relabel({});
    await bed.mesh.waitUntilCaptured([client]);
    expect(await isPlainOnTheWire(client, 'after-joining')).toBe(false);
    await before.say('still-here');
    await before.close();
    await accessLines(
      serverAgent(),
      'the tunnelled connection',
      (line) => line['src.identity'] === spiffe('joiner') && line['dst.workload'] === 'server',
    );
  }, 40_000);

  test('a running client leaves: its tunnelled connection goes on, new ones are plain', async () => {
    const client = await newPod('leaver');
    const tunnelled = await EchoConnection.open(client, to());
    client.relabel(notInMesh);
    await bed.mesh.waitUntilPlain([client]);
    expect(await isPlainOnTheWire(client, 'after-leaving')).toBe(true);
    await tunnelled.say('still-here');
    await tunnelled.close();
    await accessLines(
      serverAgent(),
      'the connection from before',
      (line) => line['src.identity'] === spiffe('leaver'),
    );
    client.relabel({});
    await bed.mesh.waitUntilCaptured([client]);
    expect(await isPlainOnTheWire(client, 'back-again')).toBe(false);
  }, 40_000);

  test('a running server joins and leaves under a client that connects all the time: no connection fails', async () => {
    const server = await bed.nodes[1].pod('wanderer', {
      namespace: 'shop',
      serviceAccount: 'wanderer',
      labels: notInMesh,
    });
    await startApp(server);
    await bed.mesh.waitUntilPlain([server]);
    const target = { host: server.ip, port: appPort };
    await waitFor(
      'the server to answer',
      async () => (await talk(bed.client, { ...target, line: 'peer' })).ended === 'fin',
    );
    expect(await isPlainOnTheWire(bed.client, 'server-outside', target)).toBe(true);
    const plain = await EchoConnection.open(bed.client, target);
    const visitor = keepConnecting(bed.client, target);

    server.relabel({});
    await bed.mesh.waitUntilCaptured([server]);
    await waitFor(
      'the client to tunnel',
      async () => !(await isPlainOnTheWire(bed.client, 'server-inside', target)),
    );
    await plain.say('still-here');
    const tunnelled = await EchoConnection.open(bed.client, target);

    server.relabel(notInMesh);
    await bed.mesh.waitUntilPlain([server]);
    await waitFor(
      'the client to stop tunnelling',
      async () => await isPlainOnTheWire(bed.client, 'outside-again', target),
    );
    await tunnelled.say('still-here');
    await tunnelled.close();
    await plain.close();
    expect(await visitor.stop()).toEqual([]);
  }, 60_000);

  test('a pod born later works at once: refused until it is known, never in clear text', async () => {
    const wire = await bed.nodes[0].capture();
    const newborn = await bed.nodes[0].pod('newborn', {
      namespace: 'shop',
      serviceAccount: 'newborn',
      published: false,
    });
    const unknown = await talk(newborn, { ...to(), line: 'peer' });
    expect(unknown).toMatchObject({ ended: 'error', error: 'EPERM' });
    newborn.publish();
    const bornMs = performance.now();
    const first = await waitFor('its first connection', async () => {
      const tried = await talk(newborn, { ...to(), line: 'peer' });
      if (tried.ended === 'fin') return tried;
      expect(tried.error).toBe('EPERM');
      return null;
    });
    expect(performance.now() - bornMs).toBeLessThan(5000);
    expect(JSON.parse(first.text).peer.address).toContain(newborn.ip);
    await wire.stop();
    expect(await inClear(wire, newborn)).toEqual([]);
  }, 30_000);

  test('a server born later is served at once', async () => {
    const server = await bed.nodes[1].pod('late-server', {
      namespace: 'shop',
      serviceAccount: 'late-server',
    });
    await startApp(server);
    await bed.mesh.waitUntilCaptured([server]);
    const outcome = await talk(bed.client, { host: server.ip, port: appPort, line: 'peer' });
    expect(outcome.ended).toBe('fin');
    await accessLines(serverAgent(), 'the late server', (line) => line['dst.workload'] === 'late-server');
  }, 30_000);

  test('a deleted server ends the connections of its clients within 2 s', async () => {
    const server = await bed.nodes[1].pod('mortal', { namespace: 'shop', serviceAccount: 'mortal' });
    await startApp(server);
    await bed.mesh.waitUntilCaptured([server]);
    const target = { host: server.ip, port: appPort };
    // Bytes that the application never reads: its end must be a reset.
    const unread = open(bed.client, { ...target, line: 'stall', bytes: 1 << 20, timeoutMs: 60_000 });
    const idle = open(bed.client, { ...target, line: 'hold', timeoutMs: 60_000 });
    for (const { process } of [unread, idle]) await process.waitForOutput(/answered/);
    const deletedMs = performance.now();
    await server.delete();
    const [cut, ended] = await Promise.all([unread.outcome, idle.outcome]);
    expect(performance.now() - deletedMs).toBeLessThan(2000);
    expect(cut).toMatchObject({ ended: 'error', error: 'ECONNRESET' });
    // A killed process's kernel sends FIN where nothing was left unread: that end is the truth, too.
    expect(ended.ended).not.toBe('timeout');
  }, 30_000);

  test('a server whose network goes before its processes is reset at its clients as soon as the agent knows', async () => {
    const server = await bed.nodes[1].pod('unplugged', { namespace: 'shop', serviceAccount: 'unplugged' });
    await startApp(server);
    await bed.mesh.waitUntilCaptured([server]);
    const idle = open(bed.client, { host: server.ip, port: appPort, line: 'hold', timeoutMs: 60_000 });
    await idle.process.waitForOutput(/answered/);
    server.unpublish();
    const deletedMs = performance.now();
    expect(await idle.outcome).toMatchObject({ ended: 'error', error: 'ECONNRESET' });
    expect(performance.now() - deletedMs).toBeLessThan(2000);
    await server.delete();
  }, 30_000);

  test('a server whose interface is gone before its agent could say GOAWAY: clients hear as soon as the controller knows, and PING is not waited for', async () => {
    const server = await bed.nodes[1].pod('vanished', { namespace: 'shop', serviceAccount: 'vanished' });
    await startApp(server);
    await bed.mesh.waitUntilCaptured([server]);
    const idle = open(bed.client, { host: server.ip, port: appPort, line: 'hold', timeoutMs: 60_000 });
    await idle.process.waitForOutput(/answered/);
    await server.exec(['ip', 'link', 'set', 'eth0', 'down']);
    const deletedMs = performance.now();
    server.unpublish();
    expect(await idle.outcome).toMatchObject({ ended: 'error', error: 'ECONNRESET' });
    // Two seconds of doubt; a PING alone takes 20 to 30.
    expect(performance.now() - deletedMs).toBeLessThan(8_000);
    const late = await talk(bed.client, { host: server.ip, port: appPort, line: 'peer', timeoutMs: 20_000 });
    expect(late.ended).toBe('error');
    await server.delete();
  }, 40_000);

  test('the address of a deleted pod, with another service account, has the identity of that', async () => {
    const first = await newPod('tenant-one');
    await talk(first, { ...to(), line: 'peer' });
    await accessLines(serverAgent(), 'the first', (line) => line['src.identity'] === spiffe('tenant-one'));
    await first.delete();
    const second = await bed.nodes[0].pod('tenant-two', {
      namespace: 'shop',
      serviceAccount: 'tenant-two',
      inPlaceOf: first,
    });
    expect(second.ip).toBe(first.ip);
    await bed.mesh.waitUntilCaptured([second]);
    expect(await talk(second, { ...to(), line: 'peer' })).toMatchObject({ ended: 'fin' });
    const [line] = await accessLines(
      serverAgent(),
      'the second',
      (entry) => entry['src.identity'] === spiffe('tenant-two'),
    );
    expect(line).toMatchObject({ 'src.workload': 'tenant-two' });
    expect(String(line!['src.addr'])).toContain(first.ip);
  }, 30_000);

  test('a server in the place of a deleted one is reached by its own identity, without a failed connection', async () => {
    const place = await bed.nodes[1].pod('house-one', { namespace: 'shop', serviceAccount: 'house-one' });
    await startApp(place);
    await bed.mesh.waitUntilCaptured([place]);
    const target = { host: place.ip, port: appPort };
    expect(await talk(bed.client, { ...target, line: 'peer' })).toMatchObject({ ended: 'fin' });
    await place.delete();
    const next = await bed.nodes[1].pod('house-two', {
      namespace: 'shop',
      serviceAccount: 'house-two',
      inPlaceOf: place,
    });
    await startApp(next);
    await bed.mesh.waitUntilCaptured([next]);
    expect(await talk(bed.client, { ...target, line: 'peer' })).toMatchObject({ ended: 'fin' });
    await accessLines(serverAgent(), 'the second', (line) => line['dst.identity'] === spiffe('house-two'));
  }, 30_000);
});

/** Connects and asks, one connection after the other, until `stop`, which tells what went wrong. */
function keepConnecting(pod: LabPod, target: { host: string; port: number }) {
  const failures: string[] = [];
  let stopped = false;
  const run = async (): Promise<void> => {
    while (!stopped) {
      const { ended, error, text } = await talk(pod, { ...target, line: 'peer', timeoutMs: 5000 });
      if (ended !== 'fin' || text === '') failures.push(`${ended} ${error}`);
    }
  };
  const over = run();
  return {
    stop: async (): Promise<string[]> => {
      stopped = true;
      await over;
      return failures;
    },
  };
}
