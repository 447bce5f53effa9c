import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { type LabNode, type LabPod, waitFor } from '../lab/index.js';
import { cutOff, expectNothingLeft, restingFootprintOf } from './faults-harness.js';
import {
  appPort,
  EchoConnection,
  inClear,
  type MeshBed,
  makeMeshBed,
  type OpenConnection,
  open,
  startApp,
  talk,
  transfer,
} from './mesh-harness.js';

// What applications notice when a part of the mesh dies, is cut off or is stopped: resets, never ends that are none, never clear text.

const drainMs = 1000;
const reset = { ended: 'error', error: 'ECONNRESET' };
// More than any machine moves while a test runs.
const huge = 2 ** 38;
const minuteMs = 60_000;

describe('faults of the mesh itself', () => {
  let bed: MeshBed;
  let outside: LabPod;
  let minute: Awaited<ReturnType<typeof aMinuteElsewhere>>;
  const to = () => ({ host: bed.server.ip, port: appPort });
  const [clientSide, serverSide] = [0, 1];
  const agentOf = (side: number) => bed.mesh.agents[side]!;

  beforeAll(async () => {
    bed = await makeMeshBed({ agentFlags: ['--drain', `${drainMs}ms`], furtherNodes: ['c', 'd'] });
    outside = await bed.nodes[1].pod('outside', { namespace: 'default' });
    await startApp(outside);
    await bed.mesh.waitUntilPlain([outside]);
    minute = await aMinuteElsewhere(bed);
  }, 90_000);
  afterAll(() => bed?.[Symbol.dispose]());
  afterEach(async () => {
    // What one test could not mend must not fail the next.
    for (const side of [clientSide, serverSide]) if (!agentOf(side).process.running) await restart(side);
  }, 30_000);

  /** One connection of each kind: nothing under way, download, upload, and one that is relayed without a tunnel. */
  async function openAll(): Promise<OpenConnection[]> {
    const patience = { timeoutMs: 60_000 };
    const connections = [
      open(bed.client, { ...to(), line: 'hold', ...patience }),
      transfer(bed.client, to(), `send ${huge}`),
      transfer(bed.client, to(), 'echo', 'up'),
      open(bed.client, { host: outside.ip, port: appPort, line: 'hold', ...patience }),
    ];
    for (const { process } of connections) await process.waitForOutput(/answered/);
    return connections;
  }

  async function expectReset(connections: readonly OpenConnection[]): Promise<void> {
    for (const { outcome, process } of connections) {
      const { ended, error } = await outcome;
      expect({ command: process.command, ended, error }).toEqual({ command: process.command, ...reset });
    }
  }

  /** How the server's application saw the end of `hold` connections, since `from`. */
  const endsAtServer = (from: number) => bed.app.stdout.slice(from).match(/hold ended: \w+/g) ?? [];

  async function expectWorking(): Promise<void> {
    const outcome = await talk(bed.client, { ...to(), line: 'count', bytes: 100_000, end: true });
    expect(outcome).toMatchObject({ ended: 'fin' });
    expect(JSON.parse(outcome.text)).toMatchObject({ bytes: 100_000 });
  }

  async function restart(side: number): Promise<void> {
    await agentOf(side).restart();
    await bed.mesh.waitUntilCaptured([side === clientSide ? bed.client : bed.server]);
  }

  test.each([
    ['client', clientSide],
    ['server', serverSide],
  ] as const)(
    'kill -9 of the agent at the %s: resets on both sides; nothing in clear text until it is back',
    async (who, side) => {
      const seenBefore = bed.app.stdout.length;
      const connections = await openAll();
      const relayed = connections.splice(3)[0]!;
      const wire = await bed.nodes[0].capture({ filter: 'not port 15008' });
      await agentOf(side).process.stop('SIGKILL');

      await expectReset(connections);
      if (side === clientSide) expect(await relayed.outcome).toMatchObject(reset);
      else relayed.process.write('reset\n');
      await waitFor('the server to see the end', () => endsAtServer(seenBefore).length > 0);
      expect(endsAtServer(seenBefore)).toEqual(['hold ended: reset']);

      const attempts = [
        talk(bed.client, { ...to(), line: 'peer', timeoutMs: 3000 }),
        talk(bed.client, { host: bed.server.ip6, port: appPort, line: 'peer', timeoutMs: 3000 }),
        // From a pod without a mesh, which the server would take in clear text.
        talk(outside, { ...to(), line: 'peer', timeoutMs: 3000 }),
      ];
      const [first, second, plain] = await Promise.all(attempts);
      for (const { ended, received } of [first!, second!]) {
        expect(ended).not.toBe('fin');
        expect(received).toBe(0);
      }
      if (side === serverSide) expect(plain!.ended).not.toBe('fin');
      const node = bed.nodes[side]!;
      const bornMeanwhile = await node.pod(`meanwhile-${who}`, { namespace: 'shop', serviceAccount: 'late' });
      const unknown = await talk(bornMeanwhile, { ...to(), line: 'peer', timeoutMs: 3000 });
      expect(unknown).toMatchObject({ ended: 'error', error: 'EPERM' });
      await wire.stop();
      // The plain relay of before is the only one that may be seen, and what it carried.
      const seen = (await inClear(wire, bed.client)).filter((packet) => !packet.includes(outside.ip));
      expect(seen).toEqual([]);

      await restart(side);
      await expectWorking();
      await bed.mesh.waitUntilCaptured([bornMeanwhile]);
      expect(await talk(bornMeanwhile, { ...to(), line: 'peer' })).toMatchObject({ ended: 'fin' });
    },
    60_000,
  );

  test('the controller is killed: open and new connections go on; after its return a new pod works', async () => {
    const echo = await EchoConnection.open(bed.client, to());
    await bed.mesh.controller.stop('SIGKILL');
    await echo.say('without-controller');
    await expectWorking();
    await bed.mesh.restartController();
    await echo.say('with-controller');
    const late = await bed.nodes[0].pod('late', { namespace: 'shop', serviceAccount: 'late' });
    await bed.mesh.waitUntilCaptured([late]);
    expect(await talk(late, { ...to(), line: 'peer' })).toMatchObject({ ended: 'fin' });
    await echo.close();
  }, 60_000);

  test('SIGTERM with open connections: they are reset, and the agent ends within its drain time', async () => {
    const connections = await openAll();
    const loggedBefore = agentOf(clientSide).accessLog().length;
    const stoppedMs = performance.now();
    const result = await agentOf(clientSide).process.stop('SIGTERM');
    const tookMs = performance.now() - stoppedMs;
    expect(result.code).toBe(0);
    expect(tookMs).toBeGreaterThan(drainMs - 50);
    expect(tookMs).toBeLessThan(drainMs + 1000);
    await expectReset(connections);
    // Connections of earlier tests may be logged late, as ended well: a line is written up to 250 ms after its end.
    const logged = agentOf(clientSide)
      .accessLog()
      .slice(loggedBefore)
      .filter((line) => line['error'] !== undefined);
    expect(logged.map((line) => line['error'])).toEqual(
      connections.map(() => expect.stringMatching(/agent/)),
    );
    await restart(clientSide);
    await expectWorking();
  }, 60_000);

  test('SIGTERM while connections finish: none is cut, and the agent ends with the last', async () => {
    const echo = await EchoConnection.open(bed.client, to());
    const relayed = await EchoConnection.open(bed.client, { host: outside.ip, port: appPort });
    const stopping = agentOf(clientSide).process.stop('SIGTERM');
    await Promise.all([echo.say('while-draining'), relayed.say('while-draining')]);
    await Promise.all([echo.close(), relayed.close()]);
    expect((await stopping).code).toBe(0);
    await restart(clientSide);
  }, 60_000);

  test('an uncaught exception in the main thread ends the agent within 1 s, by resets', async () => {
    const connections = await openAll();
    const { process } = agentOf(clientSide);
    await throwInMainThread(bed.nodes[0], process.pid);
    await process.waitForOutput(/Error: thrown by a test/);
    const thrownMs = performance.now();
    const { code } = await process.ended;
    expect(performance.now() - thrownMs).toBeLessThan(1000);
    expect(code).toBe(1);
    await expectReset(connections);
    await restart(clientSide);
    await expectWorking();
  }, 60_000);

  test('the network between the nodes is cut, both ways or one: open tunnels are reset within PING limits; then all is well again', async () => {
    const pods = await Promise.all(
      ['cut-both', 'cut-out', 'cut-in'].map((name) =>
        bed.nodes[0].pod(name, { namespace: 'shop', serviceAccount: name }),
      ),
    );
    await bed.mesh.waitUntilCaptured(pods);
    const before = [
      await restingFootprintOf(agentOf(clientSide)),
      await restingFootprintOf(agentOf(serverSide)),
    ];
    const seenBefore = bed.app.stdout.length;
    const patience = { timeoutMs: 90_000 };
    const holds = pods.map((pod) => open(pod, { ...to(), line: 'hold', ...patience }));
    const downloads = pods.map((pod) => transfer(pod, to(), `send ${huge}`));
    for (const { process } of [...holds, ...downloads]) await process.waitForOutput(/answered/);
    const spared = await EchoConnection.open(bed.client, to());

    const cutMs = performance.now();
    const cuts = [`from ${pods[0]!.ip}`, `to ${pods[0]!.ip}`, `from ${pods[1]!.ip}`, `to ${pods[2]!.ip}`];
    for (const cut of cuts) await bed.nodes[0].output(ipRule('add', cut));
    // A new connection meanwhile fails when its TCP connect has timed out.
    const refused = talk(pods[0]!, { ...to(), line: 'peer', ...patience });
    await expectReset([...holds, ...downloads]);
    const tookMs = performance.now() - cutMs;
    expect(tookMs).toBeLessThan(35_000);
    expect(await refused).toMatchObject(reset);
    await waitFor('the server to see the ends', () => endsAtServer(seenBefore).length === 3, {
      timeoutMs: 35_000,
    });
    expect(endsAtServer(seenBefore)).toEqual(Array(3).fill('hold ended: reset'));
    await spared.say('not-cut');
    await spared.close();

    for (const cut of cuts) await bed.nodes[0].output(ipRule('del', cut));
    for (const pod of pods)
      expect(await talk(pod, { ...to(), line: 'peer' })).toMatchObject({ ended: 'fin' });
    for (const side of [clientSide, serverSide]) await expectNothingLeft(agentOf(side), before[side]!);
  }, 120_000);

  test("a minute without a server's agent (SIGSTOP), and without the controller (cut off): bounded, noticed, and over by itself", async () => {
    const { agents, client, footprints, resets, to: target } = minute;
    for (const outcome of await resets) {
      expect(outcome).toMatchObject(reset);
      expect(outcome.totalMs).toBeLessThan(50_000);
    }
    const { xds } = await minute.end();
    expect(xds).toMatchObject({ isConnected: false, lastError: expect.any(String) });
    const isServed = async (pod: LabPod) => (await talk(pod, { ...target, line: 'peer' })).ended === 'fin';
    await waitFor('the server to be reached', () => isServed(client), { timeoutMs: 30_000 });
    await expectNothingLeft(agents.still, footprints[0]!);
    await expectNothingLeft(agents.cut, footprints[1]!);
    const late = await agents.cut.node.pod('after-the-cut', { namespace: 'shop', serviceAccount: 'late' });
    await waitFor('a new pod to be served', () => isServed(late), { timeoutMs: 60_000 });
  }, 180_000);
});

/**
 * On two nodes of their own, because it is long, and beside all else: one's agent stands still for a minute, the other's is cut off from the controller,
 * and has connections to the first.
 */
async function aMinuteElsewhere(bed: MeshBed) {
  const [still, cut] = [bed.mesh.agents[2]!, bed.mesh.agents[3]!];
  const shop = (name: string) => ({ namespace: 'shop', serviceAccount: name });
  const server = await still.node.pod('still', shop('still'));
  const client = await cut.node.pod('cut-off', shop('cut-off'));
  await startApp(server);
  await bed.mesh.waitUntilCaptured([server, client]);
  const to = { host: server.ip, port: appPort, timeoutMs: 90_000 };
  expect(await talk(client, { ...to, line: 'peer' })).toMatchObject({ ended: 'fin' });
  const footprints = [await restingFootprintOf(still), await restingFootprintOf(cut)];
  const held = open(client, { ...to, line: 'hold' });
  await held.process.waitForOutput(/answered/);

  const beganMs = performance.now();
  still.process.signal('SIGSTOP');
  const controlNode = bed.lab.nodes.find(({ name }) => name.startsWith('control'))!;
  const mend = await cutOff(cut.node, controlNode.ip, 'both');
  const refused = talk(client, { ...to, line: 'peer' });
  return {
    client,
    to,
    agents: { still, cut },
    footprints,
    resets: Promise.all([held.outcome, refused]),
    end: async () => {
      await sleep(Math.max(0, minuteMs - (performance.now() - beganMs)));
      still.process.signal('SIGCONT');
      const xds = ((await cut.config()) as unknown as { readonly xds: object }).xds;
      await mend();
      return { xds };
    },
  };
}

/** Packets that the rule matches are dropped by the node that forwards them, without a word to anybody. */
function ipRule(action: 'add' | 'del', match: string): string[] {
  return ['ip', 'rule', action, 'pref', '10', ...match.split(' '), 'blackhole'];
}

/** By Node's own debugger. It has left when the exception comes: a process waits for its debugger before it ends. */
async function throwInMainThread(node: LabNode, pid: number): Promise<void> {
  const debuggerProcess = node.spawn(['node', 'inspect', '-p', String(pid)]);
  await debuggerProcess.waitForOutput(/debug>/);
  debuggerProcess.write('exec setTimeout(() => { throw new Error("thrown by a test") }, 1500)\n');
  await debuggerProcess.waitForOutput(/_idleTimeout|_destroyed/);
  debuggerProcess.write('.exit\n');
  await debuggerProcess.ended;
}
