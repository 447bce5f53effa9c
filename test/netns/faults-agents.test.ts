import { closeSync, mkdtempSync, openSync, renameSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { packageRoot } from '../../native/package-root.js';
import { type LabNode, type LabPod, type MeshAgent, waitFor } from '../lab/index.js';
import {
  cpuSecondsOf,
  expectNothingLeft,
  type Footprint,
  leaveDescriptors,
  restingFootprintOf,
  starveOfMemory,
} from './faults-harness.js';
import {
  accessLines,
  appPort,
  EchoConnection,
  inClear,
  type MeshBed,
  makeMeshBed,
  type OpenConnection,
  open,
  startProber,
  talk,
} from './mesh-harness.js';

// What becomes of connections while an agent stands still, is short of descriptors or memory, has a wrong clock or a twin; and that nothing is left of it.

jest.setTimeout(90_000); // the machine may be busy

const standsMs = 4_000;

describe('faults of an agent', () => {
  let bed: MeshBed;
  let clocks: string;
  /** Each has its own identity, and no connection of the pool yet. */
  let pods: LabPod[];
  let before: Footprint[];
  const to = () => ({ host: bed.server.ip, port: appPort });
  const agentOf = (side: number) => bed.mesh.agents[side]!;
  const clockOf = (node: LabNode) => join(clocks, node.name);

  beforeAll(async () => {
    clocks = mkdtempSync(join(tmpdir(), 'culvert-clocks-'));
    bed = await makeMeshBed({
      agentFlags: ['--drain', '1s'],
      controllerFlags: ['--certificate-lifetime', '1h'],
      agentEnv: (node) => {
        writeFileSync(clockOf(node), Buffer.alloc(8));
        const library = join(packageRoot(), 'test/support/build/wall-clock.so');
        return { LD_PRELOAD: library, TEST_WALL_CLOCK: clockOf(node) };
      },
    });
    const names = ['clock-ahead', 'clock-behind'];
    pods = await Promise.all(
      names.map((name) => bed.nodes[0].pod(name, { namespace: 'shop', serviceAccount: name })),
    );
    await bed.mesh.waitUntilCaptured(pods);
    await expectWorking();
    before = [await restingFootprintOf(agentOf(0)), await restingFootprintOf(agentOf(1))];
  }, 120_000);
  afterAll(() => {
    bed?.[Symbol.dispose]();
    rmSync(clocks, { recursive: true, force: true });
  });

  afterEach(async () => {
    await expectWorking();
    for (const side of [0, 1]) await expectNothingLeft(agentOf(side), before[side]!);
  }, 60_000);

  async function expectWorking(pod = bed.client): Promise<void> {
    const outcome = await talk(pod, { ...to(), line: 'count', bytes: 100_000, end: true });
    expect(outcome).toMatchObject({ ended: 'fin' });
    expect(JSON.parse(outcome.text)).toMatchObject({ bytes: 100_000 });
  }

  test.each([
    ['client', 0],
    ['server', 1],
  ])('SIGSTOP at the %s: what is open goes on, what is new waits, nothing is in clear', async (_, side) => {
    const { process } = agentOf(side);
    const echo = await EchoConnection.open(bed.client, to());
    const wire = await bed.nodes[0].capture({ filter: 'not port 15008' });
    process.signal('SIGSTOP');
    const patience = { timeoutMs: 40_000 };
    const attempts = [4, 6].map((family) =>
      talk(bed.client, {
        ...to(),
        host: family === 4 ? bed.server.ip : bed.server.ip6,
        line: 'peer',
        ...patience,
      }),
    );
    let answered = 0;
    for (const attempt of attempts) void attempt.then(() => answered++);
    const said = echo.say('asked-while-it-stood');
    await sleep(standsMs);
    expect(answered).toBe(0);
    process.signal('SIGCONT');
    await said;
    for (const outcome of await Promise.all(attempts)) expect(outcome).toMatchObject({ ended: 'fin' });
    await wire.stop();
    expect(await inClear(wire, bed.client)).toEqual([]);
    await echo.close();
  });

  test('a new agent beside one that stands still gives up and says so; it leaves no trace', async () => {
    const agent = agentOf(0);
    agent.process.signal('SIGSTOP');
    const next = await agent.startSuccessor();
    const { code, stderr } = await next.process.ended;
    agent.process.signal('SIGCONT');
    expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining('does not hand over') });
    await expectWorking();
  });

  test.each([
    ['client', 0],
    ['server', 1],
  ])(
    'EMFILE at the %s: what is open goes on, what is new waits or is reset, the agent sleeps meanwhile',
    async (who, side) => {
      const agent = agentOf(side);
      const echo = await EchoConnection.open(bed.client, to());
      const mend = leaveDescriptors(agent, 5);
      const cpuBefore = cpuSecondsOf(agent);
      const connections: OpenConnection[] = [];
      for (let i = 0; i < 12; i++)
        connections.push(open(bed.client, { ...to(), line: 'hold', timeoutMs: 60_000 }));
      const results = connections.map(({ process, outcome }) => {
        const served = process.waitForOutput(/answered/, 60_000).then(() => 'served');
        return served.catch(async () => (await outcome).error);
      });
      await sleep(2_000);
      expect(cpuSecondsOf(agent) - cpuBefore).toBeLessThan(1);
      await echo.say('without-descriptors');
      mend();
      const ends = await Promise.all(results);
      // A listener waits; a dial cannot.
      const allowed = who === 'client' ? ['served'] : ['served', 'ECONNRESET'];
      expect(ends.filter((end) => !allowed.includes(end))).toEqual([]);
      if (who === 'server') {
        expect(ends).toContain('ECONNRESET');
        const lines = await accessLines(agent, 'a refused dial', ({ error }) =>
          /EMFILE|descriptor/.test(String(error)),
        );
        expect(lines.length).toBeGreaterThan(0);
      }
      for (const { process } of connections) process.write('reset\n');
      await Promise.all(connections.map(({ outcome }) => outcome));
      await echo.close();
    },
  );

  test.each([
    ['ahead', 0, 2 * 3600, /expired/],
    ['behind', 1, -2 * 3600, /not yet valid/],
  ])(
    'the clock of a node is 2 h %s: what is open goes on, handshakes are refused with the reason; then all is well by itself',
    async (name, index, seconds, reason) => {
      const pod = pods[index]!;
      const echo = await EchoConnection.open(bed.client, to());
      setClock(clockOf(bed.nodes[0]), seconds);
      const attempt = await talk(pod, { ...to(), line: 'peer', timeoutMs: 20_000 });
      expect(attempt).toMatchObject({ ended: 'error', error: 'ECONNRESET' });
      await accessLines(
        agentOf(0),
        'the refusal',
        (line) => line['src.workload'] === pod.name && reason.test(String(line['error'])),
      );
      await echo.say(name);
      setClock(clockOf(bed.nodes[0]), 0);
      await waitFor(
        'a new connection',
        async () => (await talk(pod, { ...to(), line: 'peer' })).ended === 'fin',
        {
          timeoutMs: 40_000,
        },
      );
      await echo.close();
      await expectWorking();
    },
  );

  test('the network between the nodes is cut for some seconds: what is open goes on, what is new waits', async () => {
    const echo = await EchoConnection.open(bed.client, to());
    const rule = (action: string, match: string) =>
      bed.nodes[0].output(['ip', 'rule', action, 'pref', '10', match, bed.client.ip, 'blackhole']);
    for (const match of ['from', 'to']) await rule('add', match);
    const attempt = talk(bed.client, { ...to(), line: 'peer', timeoutMs: 40_000 });
    const said = echo.say('into-the-cut');
    await sleep(standsMs);
    for (const match of ['from', 'to']) await rule('del', match);
    await said;
    expect(await attempt).toMatchObject({ ended: 'fin' });
    await echo.close();
  });

  test('two agents that start at the same time: one serves, the other ends and says why, and takes over when it is started again', async () => {
    const agent = agentOf(0);
    await agent.process.stop('SIGKILL');
    const [twin] = await Promise.all([
      agent.startSuccessor(),
      agent.restart().catch((error: unknown) => error),
    ]);
    await waitFor('one of them to end', () => !twin.process.running || !agent.process.running, {
      timeoutMs: 40_000,
    });
    const loser = twin.process.running ? agent : twin;
    const winner = loser === twin ? agent : twin;
    expect((await loser.process.ended).code).toBe(1);
    expect(loser.process.stderr).toMatch(/EADDRINUSE/);
    await winner.waitUntilServing();
    await bed.mesh.waitUntilCaptured([bed.client]);
    await expectWorking();
    await loser.restart();
    await loser.waitUntilServing();
    await winner.process.ended;
    if (loser === twin) await replaceBy(agent, twin);
    await expectWorking();
  });

  /** The agent of the bed serves again, in place of its successor. */
  async function replaceBy(agent: MeshAgent, successor: MeshAgent): Promise<void> {
    await agent.restart();
    await agent.waitUntilServing();
    await successor.process.ended;
  }

  test('an agent whose manifests are gone or broken when it starts lets nothing through, and serves when they are there', async () => {
    const agent = agentOf(0);
    const folder = bed.lab.manifests.path;
    await agent.process.stop('SIGKILL');
    renameSync(folder, `${folder}.away`);
    const wire = await bed.nodes[0].capture({ filter: 'not port 15008' });
    try {
      await agent.restart().catch(() => {});
      const attempt = await talk(bed.client, { ...to(), line: 'peer', timeoutMs: 3_000 });
      expect(attempt.ended).not.toBe('fin');
    } finally {
      renameSync(`${folder}.away`, folder);
    }
    if (!agent.process.running) await agent.restart();
    await bed.mesh.waitUntilCaptured([bed.client]);
    await wire.stop();
    expect(await inClear(wire, bed.client)).toEqual([]);
    await expectWorking();
  });

  test('killed for want of memory: reset like by any kill, and its successor adopts', async () => {
    const agent = agentOf(0);
    const echo = await EchoConnection.open(bed.client, to());
    {
      using starved = starveOfMemory(agent);
      // It wants memory only while it works.
      const prober = startProber(bed.client, { ...to(), connections: 500, intervalMs: 5 });
      while (agent.process.running) await agent.metrics().catch(() => {});
      await prober.process.stop();
      expect((await agent.process.ended).signal).toBe('SIGKILL');
      expect(starved.kills()).toBe(1);
    }
    expect(await echo.outcome).toMatchObject({ ended: 'error', error: 'ECONNRESET' });
    const refused = await talk(bed.client, { ...to(), line: 'peer', timeoutMs: 3_000 });
    expect(refused).toMatchObject({ received: 0 });
    await agent.restart();
    await bed.mesh.waitUntilCaptured([bed.client]);
    await expectWorking();
  });
});

/** In place, because the file is mapped. */
function setClock(file: string, seconds: number): void {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64LE(BigInt(seconds));
  const fd = openSync(file, 'r+');
  writeSync(fd, bytes, 0, 8, 0);
  closeSync(fd);
}
