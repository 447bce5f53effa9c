import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { type MeshAgent, waitFor } from '../lab/index.js';
import { appPort, type MeshBed, makeMeshBed, type ProberReport, startProber } from './mesh-harness.js';

// Agents with two data path threads each, and one of them dies while clients are at work.

const connections = 32;

describe('two workers', () => {
  let bed: MeshBed;
  let prober: ReturnType<typeof startProber>;

  beforeAll(async () => {
    bed = await makeMeshBed({ workers: 2 });
    const to = { host: bed.server.ip, port: appPort };
    prober = startProber(bed.client, { ...to, connections, intervalMs: 10 });
    await waitFor('all clients to be served', async () => (await prober.report()).answers >= connections * 2);
  }, 90_000);
  afterAll(() => bed?.[Symbol.dispose]());

  async function openPerWorker(agent: MeshAgent): Promise<number[]> {
    return (await agent.config()).workers.map((worker) => worker?.tunnel['open'] ?? -1);
  }

  /** Ends a worker under load. Returns what the clients noticed until all were served again. */
  async function kill(agent: MeshAgent, worker: number): Promise<{ noticed: ProberReport; held: number }> {
    const held = (await openPerWorker(agent))[worker]!;
    await prober.report();
    await agent.admin(`/workers/restart?worker=${worker}`, 'POST');
    await sleep(1500);
    return { noticed: await prober.report(), held };
  }

  function expectOnlyResets(
    before: ProberReport,
    { noticed, held }: { noticed: ProberReport; held: number },
  ): void {
    expect(noticed.ends).toBe(0);
    expect(noticed.unharmed).toBe(connections - held);
    const lost = Object.values(noticed.errors).reduce((sum, count) => sum + count, 0);
    const lostBefore = Object.values(before.errors).reduce((sum, count) => sum + count, 0);
    expect(lost - lostBefore).toBe(held);
    expect(Object.keys(noticed.errors)).toEqual(['ECONNRESET']);
    expect(noticed.longestWaitMs).toBeLessThan(1000);
    expect(noticed.answers).toBeGreaterThan(before.answers + connections);
  }

  test('connections are spread over both workers', async () => {
    const open = await openPerWorker(bed.mesh.agents[0]!);
    expect(Math.min(...open)).toBeGreaterThan(0);
    expect(open[0]! + open[1]!).toBe(connections);
  });

  test.each([
    ['client', 0],
    ['server', 1],
  ])(
    'a worker dies at the %s: nobody waits for 1 s, the other worker goes on',
    async (_who, side) => {
      const agent = bed.mesh.agents[side]!;
      const lostBefore = await counter(agent, 'culvert_worker_connections_lost_total');
      const before = await prober.report();
      const open = await openPerWorker(agent);
      // Tunnels may all have come to one worker of the server's.
      expectOnlyResets(before, await kill(agent, open[0]! > 0 ? 0 : 1));
      expect(await counter(agent, 'culvert_worker_restarts_total')).toBe(1);
      expect(await counter(agent, 'culvert_worker_connections_lost_total')).toBeGreaterThan(lostBefore);
      expect((await openPerWorker(agent)).reduce((sum, count) => sum + count, 0)).toBe(connections);
    },
    30_000,
  );

  test('a worker that dies again and again is started again, with what it has to know', async () => {
    const agent = bed.mesh.agents[0]!;
    for (let round = 0; round < 3; round++) {
      await agent.admin('/workers/restart?worker=1', 'POST');
      await waitFor('the worker to answer', async () => (await agent.config()).workers[1] !== null);
    }
    const before = (await prober.report()).answers;
    await waitFor('clients to be served', async () => (await prober.report()).answers > before + connections);
    expect((await prober.report()).ends).toBe(0);
    await waitFor('new connections to be spread', async () => {
      const open = await openPerWorker(agent);
      return open[0]! + open[1]! === connections;
    });
  }, 30_000);

  test('a worker that is not there is not ended', async () => {
    await expect(bed.mesh.agents[0]!.admin('/workers/restart?worker=2', 'POST')).rejects.toThrow(
      'worker must be 0 to 1',
    );
  });
});

async function counter(agent: MeshAgent, name: string): Promise<number> {
  const line = (await agent.metrics()).split('\n').find((text) => text.startsWith(`${name} `));
  return Number(line?.split(' ')[1]);
}
