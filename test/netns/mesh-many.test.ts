import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { abiVersion, Bpf } from '../../native/bpf/index.js';
import { packageRoot } from '../../native/package-root.js';
import { type LabNode, waitFor } from '../lab/index.js';
import { expectNothingLeft, restingFootprintOf } from './faults-harness.js';
import { type MeshBed, makeMeshBed, talk } from './mesh-harness.js';

// Many short connections from one pod to one pod, the client closing first: the worst case for ports, maps and descriptors.

const many = join(packageRoot(), 'test/support/build/many');
const port = 9100;
const count = 50_000;
const atOnce = 64;

interface ClientResult {
  readonly answered: number;
  readonly failed: number;
  readonly firstError: string;
  readonly secs: number;
  readonly longestMs: number;
}

interface ServerResult {
  readonly accepted: number;
  readonly live: number;
  readonly maxLive: number;
  readonly duplicates: number;
  readonly resets: number;
}

describe('many connections', () => {
  let bed: MeshBed;

  beforeAll(async () => {
    bed = await makeMeshBed({ accessLog: 'off' });
    // A client that closes first keeps its port for a minute; without a mesh, too, this many connections in so short a time need this.
    const sysctls = ['net.ipv4.tcp_tw_reuse=1', 'net.ipv4.ip_local_port_range=16384 65535'];
    await bed.client.output(['sysctl', '-qw', ...sysctls]);
    await bed.server.spawn([many, 'serve', String(port)]).waitForOutput(/listening/);
  }, 90_000);
  afterAll(() => bed?.[Symbol.dispose]());

  async function connect(connections: number, host = bed.server.ip): Promise<ClientResult> {
    const command = [many, 'connect', host, String(port), String(connections), String(atOnce)];
    const { stdout, stderr } = await bed.client.exec(command, { timeoutMs: 100_000 });
    if (stdout === '') throw new Error(stderr);
    return JSON.parse(stdout) as ClientResult;
  }

  test('50,000 connections in short time all succeed, no caller is shown twice at once, and nothing is left over', async () => {
    await connect(2000);
    await waitFor('maps to empty', () => entries(bed).every((value) => value === 0));
    const before = [];
    for (const agent of bed.mesh.agents) before.push(await restingFootprintOf(agent));

    const result = await connect(count);
    expect(result).toMatchObject({ answered: count, failed: 0, firstError: '' });
    const seen = JSON.parse(
      (await talk(bed.client, { host: bed.server.ip, port, line: 's', end: true })).text,
    ) as ServerResult;
    expect(seen).toMatchObject({ accepted: count + 2000 + 1, duplicates: 0, resets: 0 });
    expect(seen.maxLive).toBeGreaterThan(1);

    for (const [i, agent] of bed.mesh.agents.entries()) {
      await expectNothingLeft(agent, before[i]!);
      const { capture, workers } = await agent.config();
      expect(Object.entries(capture.refusals).filter(([, value]) => value > 0)).toEqual([]);
      expect(workers[0]!.tunnel).toMatchObject({ open: 0, waiting: 0, resetNoOriginalDestination: 0 });
      expect(workers[0]!.engine).toMatchObject({ exceptions: 0, acceptBackOffs: 0 });
    }
  }, 240_000);

  test('the same over IPv6', async () => {
    expect(await connect(30_000, bed.server.ip6)).toMatchObject({
      answered: 30_000,
      failed: 0,
      firstError: '',
    });
    await waitFor('maps to empty', () => entries(bed).every((value) => value === 0));
  }, 60_000);
});

/** Entries of the maps that follow single connections, on all nodes. */
function entries(bed: MeshBed): number[] {
  return bed.nodes.flatMap((node) => ['original_dst', 'callers'].map((name) => entriesOf(node, name)));
}

function entriesOf(node: LabNode, name: string): number {
  using map = new Bpf().openPinnedMap(join(node.bpffsDir, `abi-${abiVersion}`, 'maps', name))!;
  return [...map.entries()].length;
}
