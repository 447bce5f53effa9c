import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { waitFor } from '../lab/index.js';
import {
  appPort,
  type MeshBed,
  makeMeshBed,
  open,
  patternHash,
  startApp,
  talk,
  transfer,
} from './mesh-harness.js';

// One connection between two nodes: what client and server, each without knowing of the mesh, see of each other.

const megabytes = 1 << 20;

describe('bytes through the mesh', () => {
  let bed: MeshBed;
  const to = () => ({ host: bed.server.ip, port: appPort });

  beforeAll(async () => {
    bed = await makeMeshBed();
  }, 90_000);
  afterAll(() => bed?.[Symbol.dispose]());

  test('the server sees the client address, the client sees the server address, as without the mesh', async () => {
    for (const host of [bed.server.ip, bed.server.ip6]) {
      const outcome = await talk(bed.client, { host, port: appPort, line: 'peer' });
      const seen = JSON.parse(outcome.text) as { peer: { address: string }; local: { address: string } };
      const isV4 = host === bed.server.ip;
      expect(seen.peer.address.replace('::ffff:', '')).toBe(isV4 ? bed.client.ip : bed.client.ip6);
      expect(seen.local.address.replace('::ffff:', '')).toBe(host);
      expect(outcome.remote).toBe(`${host} ${appPort}`);
      expect(outcome.local.split(' ')[0]).toBe(isV4 ? bed.client.ip : bed.client.ip6);
    }
  });

  test('the server-side agent logs the identity of the client and the real target', async () => {
    await talk(bed.client, { ...to(), line: 'peer' });
    const line = await waitFor('access log line', () =>
      bed.mesh.agents[1]!.accessLog().find(
        (entry) => entry['dst.hbone_addr'] === `${bed.server.ip}:${appPort}`,
      ),
    );
    expect(line).toMatchObject({
      message: 'connection complete',
      direction: 'inbound',
      'src.identity': 'spiffe://cluster.local/ns/shop/sa/client',
      'dst.identity': 'spiffe://cluster.local/ns/shop/sa/server',
      'src.workload': 'client',
      'dst.workload': 'server',
      'dst.addr': `${bed.server.ip}:15008`,
    });
  });

  test('both agents count the bytes of both directions, with both principals', async () => {
    const received = 'istio_tcp_received_bytes_total';
    const before = await settled(() => bytesOf(bed, received));
    await talk(bed.client, { ...to(), line: 'count', bytes: 100_000, end: true });
    await waitFor('counters', async () =>
      (await bytesOf(bed, received)).every((value, i) => value === before[i]! + 100_006),
    );
  }, 30_000);

  test('large transfers arrive whole, each way and both ways at once', async () => {
    const bytes = 64 * megabytes;
    const up = await talk(bed.client, { ...to(), line: 'count', bytes, end: true });
    expect(JSON.parse(up.text)).toEqual({ bytes, sha256: patternHash(bytes) });
    const down = await talk(bed.client, { ...to(), line: `send ${bytes}`, end: true });
    expect(down).toMatchObject({ ended: 'fin', received: bytes, sha256: patternHash(bytes) });
    const echoed = await talk(bed.client, { ...to(), line: 'echo', bytes, end: true });
    expect(echoed).toMatchObject({ ended: 'fin', received: bytes + 4 });
  }, 60_000);

  test('half-close is kept: the answer comes after the FIN of the client', async () => {
    const outcome = await talk(bed.client, { ...to(), line: 'count', bytes: 10, end: true });
    expect(outcome.ended).toBe('fin');
    expect(JSON.parse(outcome.text)).toEqual({ bytes: 10, sha256: patternHash(10) });
  });

  test('a reset by the server is a reset at the client, never an end', async () => {
    expect(await talk(bed.client, { ...to(), line: 'reset' })).toMatchObject({
      ended: 'error',
      error: 'ECONNRESET',
    });
  });

  test('a reset by the client is a reset at the server, never an end', async () => {
    const app = await startApp(bed.server, 9001);
    const connection = open(bed.client, { host: bed.server.ip, port: 9001, line: 'hold' });
    await connection.process.waitForOutput(/answered/);
    connection.process.write('reset\n');
    const [, how] = await app.waitForOutput(/hold ended: (.*)\n/);
    expect(how).toContain('reset');
    await app.stop();
  });

  test('a server that closes while the client still sends: the client is told, over either family', async () => {
    for (const host of [bed.server.ip, bed.server.ip6]) {
      for (const how of ['up', 'late'] as const) {
        const uploading = transfer(bed.client, { host, port: appPort }, 'close', how);
        expect(['ECONNRESET', 'EPIPE']).toContain((await uploading.outcome).error);
      }
    }
  });

  test('a server process that is killed in the middle of a transfer is a reset at the client', async () => {
    const app = await startApp(bed.server, 9002);
    const connection = open(bed.client, { host: bed.server.ip, port: 9002, line: 'hold' });
    await connection.process.waitForOutput(/answered/);
    app.signal('SIGKILL');
    // A killed process's kernel sends FIN where nothing was left unread: that end is the truth, too.
    expect(['fin', 'error']).toContain((await connection.outcome).ended);
  });

  test('nobody listens: reset at once, over either family', async () => {
    for (const host of [bed.server.ip, bed.server.ip6]) {
      const outcome = await talk(bed.client, { host, port: 9999, line: 'peer' });
      expect(outcome).toMatchObject({ ended: 'error', error: 'ECONNRESET' });
      expect(outcome.totalMs).toBeLessThan(3000);
    }
  });

  test('a service VIP reaches an endpoint', async () => {
    const [vip] = bed.lab.service({
      name: 'server',
      namespace: 'shop',
      selector: { app: 'server' },
      ports: [{ port: 80, targetPort: appPort }],
    });
    const outcome = await waitFor('the VIP to answer', async () => {
      const tried = await talk(bed.client, { host: vip!, port: 80, line: 'peer', timeoutMs: 2000 });
      return tried.ended === 'fin' && tried.text !== '' ? tried : undefined;
    });
    expect(outcome.remote).toBe(`${vip} 80`);
  });

  test('plain connections from outside the mesh are let in and show their own address', async () => {
    const outsider = await bed.nodes[0].pod('outsider', { namespace: 'default' });
    const outcome = await waitFor('the outsider to be known', async () => {
      const tried = await talk(outsider, { ...to(), line: 'peer', timeoutMs: 3000 });
      return tried.ended === 'fin' ? tried : undefined;
    });
    expect(JSON.parse(outcome.text).peer.address.replace('::ffff:', '')).toBe(outsider.ip);
  });

  test('a connection to outside the mesh goes there unchanged', async () => {
    const outsider = await bed.nodes[1].pod('plain-server', { namespace: 'default' });
    const app = await startApp(outsider);
    const outcome = await waitFor('the plain server to answer', async () => {
      const tried = await talk(bed.client, {
        host: outsider.ip,
        port: appPort,
        line: 'peer',
        timeoutMs: 3000,
      });
      return tried.ended === 'fin' ? tried : undefined;
    });
    expect(JSON.parse(outcome.text).peer.address.replace('::ffff:', '')).toBe(bed.client.ip);
    await app.stop();
  });

  test('connections that nobody reads do not stop another one', async () => {
    const stalled = Array.from({ length: 20 }, () =>
      open(bed.client, { ...to(), line: 'stall', bytes: 8 * megabytes }),
    );
    for (const { process } of stalled) await process.waitForOutput(/answered/);
    const outcome = await talk(bed.client, { ...to(), line: 'count', bytes: megabytes, end: true });
    expect(JSON.parse(outcome.text)).toMatchObject({ bytes: megabytes });
    await Promise.all(stalled.map(({ process }) => process.stop()));
  }, 60_000);
});

/** The value once it has not changed for longer than workers take to report. */
async function settled<T>(read: () => Promise<T>): Promise<T> {
  let last = await read();
  for (;;) {
    await sleep(500);
    const next = await read();
    if (JSON.stringify(next) === JSON.stringify(last)) return next;
    last = next;
  }
}

/** Sum of one counter over all label sets with both principals, per agent. */
async function bytesOf(bed: MeshBed, name: string): Promise<number[]> {
  return await Promise.all(
    bed.mesh.agents.map(async (agent) => {
      const lines = (await agent.metrics()).split('\n').filter((line) => line.startsWith(`${name}{`));
      const own = lines.filter(
        (line) =>
          line.includes('source_principal="spiffe://cluster.local/ns/shop/sa/client"') &&
          line.includes('destination_principal="spiffe://cluster.local/ns/shop/sa/server"'),
      );
      return own.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
    }),
  );
}
