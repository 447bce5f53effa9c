import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { TokenAuthority } from '../control/ca/index.js';
import { ENV_PREFIX, OPTIONS } from '../control/options.js';
import { type Controller, startController } from '../control/wire.js';
import { parseOptions } from '../mesh/config/index.js';
import { buildCsr, generateKeyPair, pemToDer } from '../mesh/identity/index.js';
import { createLog } from '../mesh/log/index.js';
import { createStore, identityOf, type Store } from '../mesh/store/index.js';
import { CertificateClient, type ControllerOptions, XdsClient } from '../mesh/xds/index.js';
import { until } from './support/wait.js';

jest.setTimeout(30_000); // the machine may be busy

const HOUR_MS = 3_600_000;
const log = createLog({ level: 'silent', component: 'test' });

/** The agent's clients against the controller itself, over TLS on loopback. */
describe('controller and its clients', () => {
  let directory: string;
  let manifests: string;
  let state: string;
  let controller: Controller;
  let port: number;
  let client: XdsClient | null;
  let store: Store;
  let onUpdate: () => void;

  beforeEach(async () => {
    directory = mkdtempSync(join(tmpdir(), 'culvert-control-'));
    manifests = join(directory, 'manifests');
    state = join(directory, 'state');
    mkdirSync(manifests);
    write('base.yaml', [
      {
        apiVersion: 'v1',
        kind: 'Namespace',
        metadata: { name: 'shop', labels: { 'istio.io/dataplane-mode': 'ambient' } },
      },
      { apiVersion: 'v1', kind: 'Node', metadata: { name: 'node-1' } },
      pod('web-1', '10.1.0.1'),
      {
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { name: 'web', namespace: 'shop' },
        spec: { clusterIP: '10.96.0.1', selector: { app: 'web' }, ports: [{ port: 80, targetPort: 8080 }] },
      },
    ]);
    port = 0;
    client = null;
    store = createStore();
    onUpdate = () => {};
    await startServer();
  });

  afterEach(async () => {
    client?.stop();
    await controller.stop();
    rmSync(directory, { recursive: true, force: true });
  });

  function write(name: string, objects: readonly object[]): void {
    writeFileSync(join(manifests, name), objects.map((object) => JSON.stringify(object)).join('\n---\n'));
  }

  function pod(name: string, ip: string): object {
    return {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name, namespace: 'shop', uid: `uid-${name}`, labels: { app: 'web' } },
      spec: { nodeName: 'node-1', serviceAccountName: 'web', containers: [{ name: 'c' }] },
      status: {
        phase: 'Running',
        podIP: ip,
        podIPs: [{ ip }],
        conditions: [{ type: 'Ready', status: 'True' }],
      },
    };
  }

  async function startServer(): Promise<void> {
    const flags = {
      manifests,
      state,
      listen: `127.0.0.1:${port}`,
      'monitoring-listen': '127.0.0.1:0',
      'admin-listen': '127.0.0.1:0',
    };
    const argv = Object.entries(flags).flatMap(([name, value]) => [`--${name}`, value]);
    controller = await startController(parseOptions(OPTIONS, { argv, env: {}, envPrefix: ENV_PREFIX }), {
      log,
    });
    port = controller.port;
  }

  async function connection(nodeName = 'node-1'): Promise<ControllerOptions> {
    const tokenFile = join(directory, `token-${nodeName}`);
    const subject = { namespace: 'culvert-system', serviceAccount: 'culvert-agent', nodeName };
    writeFileSync(tokenFile, await TokenAuthority.load(state).mint(subject, HOUR_MS), { mode: 0o600 });
    const rootCertificateFile = join(state, 'root-cert.pem');
    return { address: `127.0.0.1:${port}`, rootCertificateFile, tokenFile, clusterId: 'Kubernetes' };
  }

  async function startClient(): Promise<XdsClient> {
    const node = { podName: 'agent-1', podNamespace: 'culvert-system', nodeName: 'node-1' };
    client = new XdsClient(
      { controller: await connection(), node, maxBackoffMs: 100 },
      {
        log,
        onUpdate: (update) => {
          store.apply(update);
          onUpdate();
        },
      },
    );
    client.start();
    await until(() => client!.state.isReady);
    return client;
  }

  test('the store fills, follows the manifests, and survives a restart of the controller', async () => {
    const { state: before } = await startClient();
    expect(before.types.map(({ rejected }) => [...rejected])).toEqual([[], []]);
    const web = store.workloadByAddress('', '10.1.0.1')!;
    expect(identityOf(web)).toBe('spiffe://cluster.local/ns/shop/sa/web');
    expect(store.workloadOfPod('shop', 'web-1', 'web')).toBe(web);
    const service = store.serviceByVip('', '10.96.0.1', 'shop')!;
    expect(service.hostname).toBe('web.shop.svc.cluster.local');
    expect(store.endpointsOf(service)).toEqual([web]);

    write('more.yaml', [pod('web-2', '10.1.0.2')]);
    await until(() => store.endpointsOf(service).length === 2);
    await controller.stop();
    await until(() => !client!.state.isConnected);
    expect(store.endpointsOf(service)).toHaveLength(2);

    rmSync(join(manifests, 'more.yaml'));
    await startServer();
    await until(() => store.endpointsOf(service).length === 1);
    expect(store.workloadByAddress('', '10.1.0.1')).toBe(web);
  });

  test('policies reach the store before the workloads that name them, and leave it after', async () => {
    await startClient();
    const web = () => store.workloadByAddress('', '10.1.0.1')!;
    const policy = (name: string, spec: object) => ({
      apiVersion: 'security.istio.io/v1',
      kind: 'AuthorizationPolicy',
      metadata: { name, namespace: 'shop' },
      spec,
    });
    const selector = { matchLabels: { app: 'web' } };
    const missing: string[] = [];
    onUpdate = () => missing.push(...store.policiesOf(web()).missing);
    for (let i = 0; i < 8; i++)
      write(`deny-${i}.yaml`, [policy(`deny-${i}`, { selector, action: 'DENY', rules: [{}] })]);
    write('allow.yaml', [policy('allow', { rules: [{ from: [{ source: { namespaces: ['shop'] } }] }] })]);
    await until(
      () => web().authorizationPolicies.length === 8 && store.policiesOf(web()).policies.length === 9,
    );
    for (let i = 0; i < 8; i++) rmSync(join(manifests, `deny-${i}.yaml`));
    await until(() => web().authorizationPolicies.length === 0);
    expect(store.policiesOf(web()).policies.map(({ key }) => key)).toEqual(['shop/allow']);
    expect(missing).toEqual([]);
  });

  test('certificates for the identities of the node, and for no others', async () => {
    const identity = 'spiffe://cluster.local/ns/shop/sa/web';
    const csr = buildCsr(generateKeyPair(), identity);
    const certificates = new CertificateClient({ controller: await connection() });
    const issued = await certificates.fetchCertificate(identity, csr);
    expect(issued.chain.join('')).toMatch(/^-----BEGIN CERTIFICATE-----/);
    expect(pemToDer(issued.roots, 'CERTIFICATE')).toHaveLength(1);
    const other = 'spiffe://cluster.local/ns/shop/sa/other';
    await expect(certificates.fetchCertificate(other, csr)).rejects.toMatchObject({ code: 'CA_REFUSED' });
    const elsewhere = new CertificateClient({ controller: await connection('node-2') });
    await expect(elsewhere.fetchCertificate(identity, csr)).rejects.toMatchObject({ code: 'CA_REFUSED' });
  });
});
