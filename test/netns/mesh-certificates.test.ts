import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { waitFor } from '../lab/index.js';
import { OpensslCa } from '../support/openssl-ca.js';
import { appPort, EchoConnection, type MeshBed, makeMeshBed, startProber, talk } from './mesh-harness.js';

// Certificates that change, end and are revoked, under the real mesh.

jest.setTimeout(120_000); // the machine may be busy

let bed: MeshBed;
const to = () => ({ host: bed.server.ip, port: appPort });
const canTalk = async () =>
  (await talk(bed.client, { ...to(), line: 'peer', timeoutMs: 8_000 })).ended === 'fin';
const metric = async (name: string) =>
  Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(await bed.mesh.controllerMetrics())?.[1]);
const serials = async () =>
  (await Promise.all(bed.mesh.agents.map((agent) => agent.config()))).flatMap(({ certificates }) =>
    certificates.map(({ identity, serial }) => `${identity} ${serial}`),
  );

/** Old connections that echo all the time, and new ones one after another, until told to stop; then none of them may have failed. */
function underLoad() {
  const prober = startProber(bed.client, { ...to(), connections: 20, intervalMs: 20 });
  let isOver = false;
  let made = 0;
  const failures: string[] = [];
  const loop = (async () => {
    while (!isOver) {
      const outcome = await talk(bed.client, { ...to(), line: 'peer', timeoutMs: 10_000 });
      made++;
      if (outcome.ended !== 'fin' || outcome.text === '') failures.push(`${outcome.ended} ${outcome.error}`);
    }
  })();
  return async () => {
    isOver = true;
    await loop;
    const { errors, ends, answers } = await prober.report();
    await prober.process.stop();
    expect({ errors, ends, failures }).toEqual({ errors: {}, ends: 0, failures: [] });
    expect([made > 3, answers > 100]).toEqual([true, true]);
  };
}

describe('a root of our own', () => {
  beforeAll(async () => {
    bed = await makeMeshBed({
      controllerFlags: ['--root-overlap', '5s', '--certificate-lifetime', '20s'],
    });
  }, 90_000);
  afterAll(() => bed?.[Symbol.dispose]());

  test('is rotated under load: no connection fails, old or new, and at the end the new one is trusted alone', async () => {
    const finish = underLoad();
    await sleep(1_000);
    const expiry = await metric('citadel_server_root_cert_expiry_timestamp');
    await bed.mesh.controllerProgram('rotate-root.js', '--state', bed.mesh.controllerState);
    await waitFor('both roots to be trusted', async () => (await metric('culvert_ca_roots')) === 2);
    await waitFor(
      'the new root to sign',
      async () => (await metric('citadel_server_root_cert_expiry_timestamp')) !== expiry,
      { timeoutMs: 30_000 },
    );
    const before = await serials();
    await waitFor(
      'the old root to be trusted no more',
      async () => (await metric('culvert_ca_roots')) === 1,
      {
        timeoutMs: 30_000,
      },
    );
    await sleep(3_000);
    await finish();
    expect(await bed.mesh.agents[0]!.metrics()).toMatch(
      /culvert_certificate_expiry_timestamp_seconds\{identity="spiffe:\/\/cluster.local\/ns\/shop\/sa\/client"\} \d{10}/,
    );
    const after = await serials();
    expect(after.filter((serial) => before.includes(serial))).toEqual([]);
  });

  test('the controller is away until certificates have expired: old connections go on, new ones are refused with the reason, and all comes back by itself', async () => {
    const echo = await EchoConnection.open(bed.client, to());
    await bed.mesh.controller.stop();
    await waitFor(
      'certificates to have expired',
      async () => (await bed.mesh.agents[0]!.metrics()).includes('culvert_certificates_missing 1'),
      {
        timeoutMs: 60_000,
      },
    );
    await echo.say('still there');
    const refused = await talk(bed.client, { ...to(), line: 'peer', timeoutMs: 15_000 });
    expect(refused).toMatchObject({ ended: 'error', error: 'ECONNRESET' });
    const line = await waitFor('its line in the access log', () =>
      bed.mesh.agents[0]!.accessLog().findLast(({ error }) => String(error).includes('no valid certificate')),
    );
    expect(line).toMatchObject({ 'src.workload': 'client' });
    await bed.mesh.restartController();
    await waitFor('a new connection', canTalk, { timeoutMs: 40_000 });
    await echo.say('and still');
    await echo.close();
  });
});

describe('a CA given as files', () => {
  let folder: string;
  let root: OpensslCa;
  let signer: OpensslCa;
  const crl = () => join(folder, 'crl.pem');

  const put = (file: string, text: string) => {
    writeFileSync(`${file}.new`, text, { mode: 0o600 });
    renameSync(`${file}.new`, file);
  };
  const give = (ca: OpensslCa, ...roots: OpensslCa[]) => {
    put(join(folder, 'ca-cert.pem'), ca.certificate);
    put(join(folder, 'ca-key.pem'), ca.key);
    put(join(folder, 'cert-chain.pem'), ca.certificate);
    put(join(folder, 'root-cert.pem'), roots.map(({ certificate }) => certificate).join(''));
  };
  const putCrls = (...issuers: OpensslCa[]) => put(crl(), issuers.map((ca) => ca.crl()).join(''));

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'culvert-ca-'));
    mkdirSync(join(folder, 'openssl'));
    root = new OpensslCa(join(folder, 'openssl'), 'root');
    signer = new OpensslCa(join(folder, 'openssl'), 'signer', root);
    give(signer, root);
    putCrls(root, signer);
    bed = await makeMeshBed({
      controllerFlags: ['--ca-files', folder],
      agentFlags: ['--crl', crl(), '--trust-domain-aliases', 'new.example'],
    });
  }, 90_000);
  afterAll(() => {
    bed?.[Symbol.dispose]();
    rmSync(folder, { recursive: true, force: true });
  });

  test('goes over to another root and intermediate under load: no connection fails', async () => {
    const newRoot = new OpensslCa(join(folder, 'openssl'), 'new-root');
    const newSigner = new OpensslCa(join(folder, 'openssl'), 'new-signer', newRoot);
    const finish = underLoad();
    await sleep(1_000);
    give(signer, root, newRoot);
    await waitFor('both roots to be trusted', async () => (await metric('culvert_ca_roots')) === 2);
    await sleep(3_000);
    const old = await serials();
    give(newSigner, root, newRoot);
    await waitFor('all to be renewed', async () =>
      (await serials()).every((serial) => !old.includes(serial)),
    );
    give(newSigner, newRoot);
    await waitFor('the new root to be trusted alone', async () => (await metric('culvert_ca_roots')) === 1);
    await sleep(3_000);
    await finish();
    [root, signer] = [newRoot, newSigner];
    putCrls(root, signer);
  });

  test('another trust domain under load: no connection fails, and identities are of the new one', async () => {
    const finish = underLoad();
    await sleep(1_000);
    await bed.mesh.controller.stop();
    await bed.mesh.restartController([
      ...['--ca-files', folder, '--trust-domain', 'new.example'],
      ...['--trust-domain-aliases', 'cluster.local'],
    ]);
    await waitFor('identities of the new trust domain', async () =>
      (await serials()).every((serial) => serial.startsWith('spiffe://new.example/')),
    );
    await sleep(2_000);
    await finish();
  });

  test('a revoked certificate: what is open with it ends within seconds, and nothing new begins', async () => {
    // A tunnel whose handshake was before the server's last renewal has shown another serial than the dump's: none of them is kept.
    const agent = bed.mesh.agents[0]!;
    await agent.admin('/workers/restart?worker=0', 'POST');
    await waitFor('the worker to answer', async () => (await agent.config()).workers[0] !== null);
    const echo = await EchoConnection.open(bed.client, to());
    const certificates = (await bed.mesh.agents[1]!.config()).certificates;
    const { serial } = certificates.find(({ identity }) => identity.endsWith('/sa/server'))!;
    signer.revokeSerial(serial!);
    putCrls(root, signer);
    expect(await echo.outcome).toMatchObject({ ended: 'error', error: 'ECONNRESET' });
    expect(await talk(bed.client, { ...to(), line: 'peer', timeoutMs: 15_000 })).toMatchObject({
      ended: 'error',
    });
    const line = await waitFor('its line in the access log', () =>
      agent.accessLog().findLast(({ error }) => String(error).includes('is revoked')),
    );
    expect(line['error']).toContain(serial);
    const text = await waitFor("the client's agent to have counted it", async () => {
      const metrics = await agent.metrics();
      return metrics.includes('response_flags="CERT_REVOKED"') && metrics;
    });
    expect(text).toMatch(/^istio_crl_policy_rejections_total\{reporter="source"\} [1-9]/m);
  });
});
