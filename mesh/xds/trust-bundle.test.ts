import { readFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { createServer } from 'node:tls';
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { TestCa } from '../../test/support/test-ca.js';
import { until } from '../../test/support/wait.js';
import { derToPem } from '../identity/index.js';
import { createLog } from '../log/index.js';
import { encodeDeltaResponse, encodeResource, istio, PROXY_CONFIG_TYPE_URL } from '../proto/index.js';
import { XdsClient } from './client.js';
import { FakeController, type FakeStream } from './fake-controller.js';

jest.setTimeout(30_000); // the machine may be busy

let controller: FakeController;
let client: XdsClient;
let bundles: (readonly Buffer[])[];

beforeEach(async () => {
  controller = new FakeController();
  await controller.start();
  bundles = [];
  client = makeClient(controller.controllerOptions.address);
});

afterEach(() => {
  client.stop();
  controller.dispose();
});

function makeClient(address: string): XdsClient {
  return new XdsClient(
    {
      controller: { ...controller.controllerOptions, address },
      node: { podName: 'a', podNamespace: 'b', nodeName: 'n' },
      maxBackoffMs: 50,
    },
    {
      log: createLog({ level: 'silent', component: 'test' }),
      onUpdate: () => {},
      onTrustBundle: (roots) => bundles.push(roots),
    },
  );
}

const one = new TestCa('one').certificate;
const two = new TestCa('two').certificate;

function bundle(nonce: string, pems: readonly string[], name = 'default'): Buffer {
  const value = istio.mesh.v1alpha1.ProxyConfig.encode({ caCertificatesPem: [...pems] }).finish();
  const resource = encodeResource({
    name,
    version: nonce,
    aliases: [],
    typeUrl: PROXY_CONFIG_TYPE_URL,
    value,
  });
  return encodeDeltaResponse({
    typeUrl: PROXY_CONFIG_TYPE_URL,
    nonce,
    systemVersion: '1',
    resources: [resource],
    removed: [],
  });
}

/** After the three first requests, of which the last is the bundle's. */
async function openStream(): Promise<FakeStream> {
  const stream = await controller.nextStream();
  for (let i = 0; i < 2; i++) await stream.nextRequest();
  return stream;
}

const pem = (der: Buffer) => derToPem(der, 'CERTIFICATE');

describe('the trust bundle', () => {
  test('is asked for, put in force, acknowledged, and not sent again after a reconnect', async () => {
    client.start();
    const stream = await openStream();
    expect(await stream.nextRequest()).toMatchObject({
      typeUrl: PROXY_CONFIG_TYPE_URL,
      initialResourceVersions: {},
    });
    stream.send(bundle('1', [pem(one), pem(two)]));
    const ack = await stream.nextRequest();
    expect(ack).toMatchObject({ responseNonce: '1', errorDetail: null });
    expect(bundles).toEqual([[one, two]]);
    stream.end();
    const next = await openStream();
    expect((await next.nextRequest()).initialResourceVersions).toEqual({ default: '1' });
  });

  test("may be nameless, as istiod's is, and several certificates may stand in one text", async () => {
    client.start();
    const stream = await openStream();
    await stream.nextRequest();
    stream.send(bundle('1', [pem(one) + pem(two)], ''));
    expect((await stream.nextRequest()).errorDetail).toBeNull();
    expect(bundles).toEqual([[one, two]]);
  });

  test.each([
    ['empty', []],
    ['not PEM', ['x']],
    ['no certificate', [derToPem(Buffer.from('x'), 'CERTIFICATE')]],
    ['a leaf', [pem(new TestCa('x').issue('spiffe://a/ns/b/sa/c').certificateChain[0]!)]],
  ])('that is %s is rejected; the last good one stays', async (_name, pems) => {
    client.start();
    const stream = await openStream();
    await stream.nextRequest();
    stream.send(bundle('1', pems));
    expect((await stream.nextRequest()).errorDetail?.message).toMatch(/^trust bundle: /);
    expect(bundles).toEqual([]);
    expect(client.state.types.at(-1)!.rejected.size).toBe(1);
    expect(client.state.pending.join()).not.toContain('ProxyConfig');
  });
});

describe('a controller named by its address', () => {
  test('must show that address, and is sent no address as SNI', async () => {
    const names: string[] = [];
    const server = createServer({
      SNICallback: (name, done) => {
        names.push(name);
        done(null);
      },
      cert: readFileSync(controller.certificateFile),
      key: readFileSync(join(controller.directory, 'key.pem')),
      ALPNProtocols: ['h2'],
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.2', resolve));
    client = makeClient(`127.0.0.2:${(server.address() as AddressInfo).port}`);
    client.start();
    await until(() => client.state.lastError !== null);
    expect(client.state.lastError).toMatch(/altnames/);
    expect(client.state.isConnected).toBe(false);
    expect(names[0]).toBe('controller.invalid');
    client.stop();
    server.close();
  });
});
