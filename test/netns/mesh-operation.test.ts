import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { appPort, EchoConnection, type MeshBed, makeMeshBed } from './mesh-harness.js';

// What the people who run a mesh do to it and expect of it.

describe('an agent in operation', () => {
  let bed: MeshBed;

  beforeAll(async () => {
    bed = await makeMeshBed({ agentFlags: ['--drain', '5s'] });
  }, 90_000);
  afterAll(() => bed?.[Symbol.dispose]());

  test('its kernel features are in the log and in /config_dump', async () => {
    const agent = bed.mesh.agents[0]!;
    expect(agent.process.stdout).toMatch(/"there":\[.*sk_lookup.*"msg":"kernel features"/);
    expect((await agent.config()).capture).toMatchObject({
      features: expect.arrayContaining([expect.objectContaining({ name: 'sk_lookup', present: true })]),
    });
  });

  test('its metrics tell of workers, pool, handshakes and what was refused', async () => {
    const echo = await EchoConnection.open(bed.client, { host: bed.server.ip, port: appPort });
    const text = await bed.mesh.agents[0]!.metrics();
    const other = await bed.mesh.agents[1]!.metrics();
    const sampleOf = (body: string, sample: string) =>
      Number(
        body
          .split('\n')
          .find((line) => line.startsWith(`${sample} `))
          ?.slice(sample.length),
      );
    expect(sampleOf(text, 'culvert_worker_up{worker="0"}')).toBe(1);
    expect(sampleOf(text, 'culvert_worker_lag_seconds{worker="0"}')).toBeLessThan(10);
    expect(sampleOf(text, 'culvert_connections_open{worker="0"}')).toBe(1);
    expect(sampleOf(text, 'culvert_hbone_pool_connections{worker="0"}')).toBe(1);
    expect(sampleOf(text, 'culvert_hbone_pool_tunnels{worker="0"}')).toBe(1);
    expect(sampleOf(text, 'culvert_connections_refused_total{reason="illegal_port"}')).toBe(0);
    expect(sampleOf(other, 'culvert_tls_handshakes_accepted_total{worker="0"}')).toBeGreaterThan(0);
    expect(sampleOf(other, 'culvert_tls_handshakes_failed_total{worker="0"}')).toBe(0);
    await echo.close();
  });

  test('the access log has the last connections, too, when it ends by SIGTERM', async () => {
    const agent = bed.mesh.agents[0]!;
    const target = { host: bed.server.ip, port: appPort };
    const open = await Promise.all(Array.from({ length: 10 }, () => EchoConnection.open(bed.client, target)));
    const before = agent.accessLog().length;
    const ended = agent.process.stop('SIGTERM');
    await Promise.all(open.map((echo) => echo.close()));
    expect((await ended).code).toBe(0);
    const lines = agent.accessLog().slice(before);
    expect(lines.map((line) => line['message'])).toEqual(Array(10).fill('connection complete'));
  }, 30_000);
});
