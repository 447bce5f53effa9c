import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { packageRoot } from '../../native/package-root.js';
import { type MeshAgent, waitFor } from '../lab/index.js';
import type { LoadReport } from '../support/load-client.js';
import {
  appPort,
  EchoConnection,
  type MeshBed,
  makeMeshBed,
  startApp,
  talk,
  transfer,
} from './mesh-harness.js';

// Agents follow one another on a node while short, keep-alive and streaming clients are at work: not one of their connections or requests fails.

const failures = ({ short, keepAlive, stream }: LoadReport) =>
  Object.entries({ short, keepAlive, stream }).flatMap(([kind, counts]) =>
    counts.failedConnections + counts.failedRequests === 0 ? [] : [`${kind} ${JSON.stringify(counts)}`],
  );

describe('an agent takes over from another', () => {
  let bed: MeshBed;
  let clientSide: MeshAgent;
  let serverSide: MeshAgent;
  const to = () => ({ host: bed.server.ip, port: appPort });

  beforeAll(async () => {
    bed = await makeMeshBed({ agentFlags: ['--drain', '20s'] });
    [clientSide, serverSide] = [bed.mesh.agents[0]!, bed.mesh.agents[1]!];
  }, 90_000);
  afterAll(() => bed?.[Symbol.dispose]());

  async function startLoad() {
    const program = join(packageRoot(), 'dist/test/support/load-client.js');
    const load = bed.client.spawn(['node', program, bed.server.ip, String(appPort)]);
    await load.waitForOutput(/started/);
    return {
      /** What became of each kind. */
      stop: async (what: string): Promise<LoadReport> => {
        load.write('stop\n');
        const report = JSON.parse((await load.waitForOutput(/^\{.*\}$/m))[0]) as LoadReport;
        process.stderr.write(`${what}: ${JSON.stringify(report)}\n`);
        for (const counts of Object.values(report)) expect(counts.requests).toBeGreaterThan(1);
        return report;
      },
    };
  }

  /** One question after the other for a name of the mesh, until `stop`, which tells what went wrong. */
  async function askForNames() {
    const asker = await bed.nodes[0].pod('asker', {
      namespace: 'shop',
      serviceAccount: 'client',
      resolvConf: 'nameserver 192.0.2.250\n',
    });
    bed.lab.service({
      name: 'front',
      namespace: 'shop',
      selector: { app: 'server' },
      ports: [{ port: 80, targetPort: appPort }],
    });
    await bed.mesh.waitUntilCaptured([asker]);
    const ask = () => asker.exec(['getent', 'ahostsv4', 'front.shop.svc.cluster.local']);
    await waitFor('the name to be known', async () => (await ask()).code === 0);
    const wrong: string[] = [];
    let isStopping = false;
    const run = async (): Promise<void> => {
      while (!isStopping) {
        const begunMs = performance.now();
        const { code } = await ask();
        const tookMs = performance.now() - begunMs;
        // A question that is lost is asked again after 5 s.
        if (code !== 0 || tookMs > 4_500) wrong.push(`exit code ${code} after ${tookMs} ms`);
      }
    };
    const over = run();
    return {
      stop: async (): Promise<string[]> => {
        isStopping = true;
        await over;
        return wrong;
      },
    };
  }

  async function succeed(agent: MeshAgent, flags: readonly string[] = []): Promise<MeshAgent> {
    const next = await agent.startSuccessor(flags);
    await next.waitUntilServing();
    return next;
  }

  async function endedWell(agent: MeshAgent): Promise<void> {
    const { code } = await agent.process.ended;
    expect(code).toBe(0);
  }

  test("on the client's node", async () => {
    const load = await startLoad();
    const names = await askForNames();
    await sleep(500);
    const next = await succeed(clientSide);
    await endedWell(clientSide);
    await sleep(500);
    expect(await names.stop()).toEqual([]);
    expect(failures(await load.stop("client's node"))).toEqual([]);
    clientSide = next;
    expect(await clientSide.admin('/config_dump')).toContain('"captured"');
  }, 40_000);

  test("on the server's node", async () => {
    const load = await startLoad();
    await sleep(500);
    const next = await succeed(serverSide);
    await endedWell(serverSide);
    await sleep(500);
    expect(failures(await load.stop("server's node"))).toEqual([]);
    serverSide = next;
  }, 40_000);

  test('three times in a row, with more workers and with fewer, while those before still drain', async () => {
    const load = await startLoad();
    const held = await EchoConnection.open(bed.client, to());
    await sleep(500);
    const before = [serverSide];
    for (const workers of ['2', '1', '1']) {
      serverSide = await succeed(serverSide, ['--workers', workers]);
      await held.say('still-here');
      before.push(serverSide);
    }
    before.pop();
    await sleep(500);
    await held.close();
    expect(failures(await load.stop('three in a row'))).toEqual([]);
    for (const agent of before) await endedWell(agent);
  }, 60_000);

  test('one that is killed in the middle of it leaves the other as it was', async () => {
    const load = await startLoad();
    await sleep(300);
    const doomed = await serverSide.startSuccessor();
    await doomed.process.waitForOutput(/sockets of the agent that runs are here/);
    doomed.process.signal('SIGKILL');
    await serverSide.process.waitForOutput(/the next agent has not taken over/);
    await sleep(1_000);
    expect(failures(await load.stop('killed in the middle'))).toEqual([]);
    const born = await bed.nodes[1].pod('born-after', { namespace: 'shop', serviceAccount: 'server' });
    await startApp(born);
    await waitFor('the new pod to be captured', async () => (await serverSide.stateOf(born)) === 'captured');
    await waitFor(
      'the new pod to answer',
      async () => (await talk(bed.client, { host: born.ip, port: appPort, line: 'peer' })).ended === 'fin',
    );
    const next = await succeed(serverSide);
    await endedWell(serverSide);
    serverSide = next;
    expect(await talk(bed.client, { host: born.ip, port: appPort, line: 'peer' })).toMatchObject({
      ended: 'fin',
    });
  }, 60_000);

  test('while the next one waits for its certificates, long, the one before it serves as before', async () => {
    const { controller } = bed.mesh;
    const next = await clientSide.startSuccessor();
    await next.process.waitForOutput(/sockets of the agent that runs are here/);
    controller.signal('SIGSTOP');
    const ends: string[] = [];
    try {
      // Longer than a start waits for pods before it sweeps the maps.
      const untilMs = performance.now() + 13_000;
      while (performance.now() < untilMs) {
        ends.push((await talk(bed.client, { ...to(), line: 'peer' })).ended);
        await sleep(200);
      }
    } finally {
      controller.signal('SIGCONT');
    }
    expect([...new Set(ends)]).toEqual(['fin']);
    await next.waitUntilServing();
    await endedWell(clientSide);
    clientSide = next;
    expect(await talk(bed.client, { ...to(), line: 'peer' })).toMatchObject({ ended: 'fin' });
  }, 60_000);

  test('an agent that starts while another drains takes its sockets over at once', async () => {
    const draining = serverSide;
    const held = await EchoConnection.open(bed.client, to());
    draining.process.signal('SIGTERM');
    await sleep(300);
    const waiting = talk(bed.client, { ...to(), line: 'peer' });
    serverSide = await succeed(draining);
    expect(await waiting).toMatchObject({ ended: 'fin' });
    await held.say('still-here');
    await held.close();
    await endedWell(draining);
    expect(await talk(bed.client, { ...to(), line: 'peer' })).toMatchObject({ ended: 'fin' });
  }, 40_000);
});

describe('SIGTERM', () => {
  let bed: MeshBed;

  beforeAll(async () => {
    bed = await makeMeshBed({ agentFlags: ['--drain', '4s'] });
  }, 90_000);
  afterAll(() => bed?.[Symbol.dispose]());

  test('quiet connections end by FIN from half of the deadline on, busy ones by RST at the deadline; both are counted', async () => {
    const agent = bed.mesh.agents[0]!;
    const to = { host: bed.server.ip, port: appPort };
    const quiet = await EchoConnection.open(bed.client, to);
    const busy = transfer(bed.client, to, 'echo', 'up');
    await waitFor('the transfer', async () => (await agent.admin('/connections')).includes(String(appPort)));
    await sleep(500);
    const begunMs = performance.now();
    const ending = agent.process.stop('SIGTERM');
    expect((await quiet.outcome).ended).toBe('fin');
    const quietMs = performance.now() - begunMs;
    expect(quietMs).toBeGreaterThan(1_900);
    expect(quietMs).toBeLessThan(3_900);
    const counted =
      /^culvert_drain_connections_total\{end="fin"\} 1\nculvert_drain_connections_total\{end="rst"\} 0$/m;
    await waitFor('the end to be counted', async () => counted.test(await agent.metrics()));
    expect(await busy.outcome).toMatchObject({ ended: 'error', error: 'ECONNRESET' });
    expect(performance.now() - begunMs).toBeGreaterThan(3_900);
    expect((await ending).code).toBe(0);
    const lines = agent.accessLog();
    expect(lines.filter(({ reason }) => reason === 'agent stops, connection was quiet')).toHaveLength(1);
    expect(lines.filter(({ error }) => String(error).includes('busy at the drain deadline'))).toHaveLength(1);
    expect(`${agent.process.stdout}${agent.process.stderr}`).toMatch(/"ended":1,"reset":1.*drained/);
  }, 40_000);
});
