import { readFileSync } from 'node:fs';
import { status } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { CertificateClient } from './certificates.js';
import { FakeController } from './fake-controller.js';

jest.setTimeout(30_000); // the machine may be busy

const IDENTITY = 'spiffe://cluster.local/ns/shop/sa/web';

describe('CertificateClient', () => {
  let controller: FakeController;
  let client: CertificateClient;
  let pem: string;

  beforeEach(async () => {
    controller = new FakeController();
    await controller.start();
    pem = readFileSync(controller.certificateFile, 'utf8');
    client = new CertificateClient({ controller: controller.controllerOptions, timeoutMs: 5_000 });
  });

  afterEach(() => controller.dispose());

  test('sends CSR, lifetime and wanted identity; splits the answer into chain and roots', async () => {
    const seen: unknown[] = [];
    controller.onCertificate = (request, metadata) => {
      seen.push(
        request.csr,
        Number(request.validityDuration),
        request.metadata?.fields?.ImpersonatedIdentity?.stringValue,
      );
      seen.push(metadata.get('authorization'), metadata.get('clusterid'));
      return { certChain: [pem, pem, `${pem}${pem}`] };
    };
    const issued = await client.fetchCertificate(IDENTITY, 'THE CSR');
    expect(seen).toEqual(['THE CSR', 86_400, IDENTITY, ['Bearer token-1'], ['cluster-1']]);
    expect(issued.chain).toEqual([pem, pem]);
    expect(issued.roots).toBe(`${pem}${pem}`);
  });

  test.each([
    ['nothing', [], 'leaf and roots are missing'],
    ['a leaf without roots', ['pem'], 'leaf and roots are missing'],
    ['something else than PEM', ['pem', 'hello'], 'no PEM certificate'],
  ])('an answer with %s is refused', async (_what, chain, reason) => {
    controller.onCertificate = () => ({
      certChain: chain.map((element) => (element === 'pem' ? pem : element)),
    });
    const fetched = client.fetchCertificate(IDENTITY, 'CSR');
    await expect(fetched).rejects.toMatchObject({
      code: 'CA_BAD_RESPONSE',
      message: expect.stringContaining(reason),
      data: { identity: IDENTITY },
    });
  });

  test('a refusal says why', async () => {
    controller.onCertificate = () => ({ code: status.UNAUTHENTICATED, details: 'no such pod on your node' });
    await expect(client.fetchCertificate(IDENTITY, 'CSR')).rejects.toMatchObject({
      code: 'CA_REFUSED',
      message: `no certificate for ${IDENTITY}: UNAUTHENTICATED: no such pod on your node`,
    });
  });

  test('no controller: unreachable; no token file: credentials', async () => {
    controller.stop();
    await expect(client.fetchCertificate(IDENTITY, 'CSR')).rejects.toMatchObject({ code: 'CA_UNREACHABLE' });
    const options = { ...controller.controllerOptions, tokenFile: '/nonexistent/token' };
    const blind = new CertificateClient({ controller: options });
    await expect(blind.fetchCertificate(IDENTITY, 'CSR')).rejects.toMatchObject({
      code: 'CONTROLLER_CREDENTIALS',
    });
  });
});
