import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { packageRoot } from '../../native/package-root.js';
import { MESH_NAMESPACE, waitFor } from '../lab/index.js';
import { type ControlPlane, startControlPlane } from './control-plane.js';
import { ControllerProcess, prepareControllers } from './controllers.js';
import { meshCrds } from './mesh-crds.js';

// The chart's webhook and admission policies, asked by a real API server.

const PATIENCE = { timeoutMs: 60_000, intervalMs: 100 };
const CONFIGURATION = `culvert-validation-${MESH_NAMESPACE}`;

let plane: ControlPlane;
let a: ControllerProcess;
let b: ControllerProcess;

const policy = (name: string, spec: object): object => ({
  apiVersion: 'security.istio.io/v1',
  kind: 'AuthorizationPolicy',
  metadata: { name, namespace: 'shop' },
  spec,
});
/** Of a form that only the webhook knows to be wrong. */
const wrong = (name: string) =>
  policy(name, { rules: [{ from: [{ source: { ipBlocks: ['300.1.2.3'] } }] }] });

async function render(file: string, ...set: string[]): Promise<void> {
  const chart = join(packageRoot(), 'charts/culvert');
  const text = await plane.helm(
    ...['template', 'culvert', chart, '-n', MESH_NAMESPACE, '-s', `templates/${file}`],
    ...set.flatMap((one) => ['--set', one]),
  );
  await plane.run(plane.binaries.kubectl, ['apply', '-n', MESH_NAMESPACE, '-f', '-'], text);
}

/** What kubectl says: refusal, or warnings. */
async function apply(object: object): Promise<{ readonly refused: boolean; readonly text: string }> {
  const { kubectl } = plane.binaries;
  try {
    const script = `exec "${kubectl}" apply -f - 2>&1`;
    return { refused: false, text: await plane.run('sh', ['-c', script], JSON.stringify(object)) };
  } catch (error) {
    return { refused: true, text: String((error as { stdout?: string }).stdout) };
  }
}

/** Endpoints of the controllers, each with ports of its own. */
function endpointsOf(controller: ControllerProcess): object {
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      name: controller.name,
      namespace: MESH_NAMESPACE,
      labels: { 'kubernetes.io/service-name': 'culvert-controller' },
    },
    addressType: 'IPv4',
    endpoints: [{ addresses: [plane.machine.ip], conditions: { ready: true } }],
    ports: [{ name: 'https-webhook', port: controller.webhookPort, protocol: 'TCP' }],
  };
}

const withWebhook = (index: number) => [
  '--webhook',
  `--webhook-listen=${plane.machine.ip}:${15_117 + index * 10}`,
];
const start = (name: string, index: number) =>
  ControllerProcess.start(plane, name, index, withWebhook(index));

beforeAll(async () => {
  plane = await startControlPlane({ onProgress: (line) => void process.stderr.write(`${line}\n`) });
  await prepareControllers(plane);
  await plane.apply(...meshCrds(), { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'shop' } });
  await render('webhook.yaml', 'webhook.failurePolicy=Fail');
  await render('admission-validation.yaml');
  await plane.apply({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'culvert-controller', namespace: MESH_NAMESPACE },
    spec: { ports: [{ name: 'https-webhook', port: 443 }] },
  });
  [a, b] = await Promise.all([start('controller-a', 0), start('controller-b', 1)]);
  await plane.apply(endpointsOf(a), endpointsOf(b));
  await waitFor(
    'the webhook',
    async () => !(await apply(policy('first', { rules: [{}] }))).refused,
    PATIENCE,
  );
}, 3_600_000);

afterAll(() => plane.close());

describe('the webhook', () => {
  test('refuses what the controller could not put in force, and says which field and why', async () => {
    const { refused, text } = await apply(wrong('wrong'));
    expect(refused).toBe(true);
    expect(text).toMatch(/validation\.culvert\.io/);
    expect(text).toMatch(/AuthorizationPolicy shop\/wrong: spec\.rules\[0\]\.from\[0\]\.source\.ipBlocks/);
    const entry = {
      apiVersion: 'networking.istio.io/v1',
      kind: 'ServiceEntry',
      metadata: { name: 'wrong', namespace: 'shop' },
      spec: { hosts: ['*.example.org'], resolution: 'DNS', ports: [{ number: 443, name: 'tls' }] },
    };
    expect((await apply(entry)).text).toMatch(/spec\.hosts: a wildcard cannot be resolved/);
  }, 60_000);

  test('warns of what will not be in force as written', async () => {
    const { refused, text } = await apply(
      policy('l7', { rules: [{ to: [{ operation: { methods: ['GET'] } }] }] }),
    );
    expect(refused).toBe(false);
    expect(text).toMatch(/Warning: spec\.rules\[0\]\.to\[0\]\.operation\.methods/);
  }, 60_000);

  test('replicas answer by one authority; one goes and the other answers on', async () => {
    const asked = async (one: ControllerProcess) =>
      (await one.metric('culvert_admission_reviews_total{verdict="denied"}')) > 0;
    await a.stop('SIGKILL');
    await plane.kubectl('delete', 'endpointslice', '-n', MESH_NAMESPACE, a.name);
    await waitFor('the other', async () => /ipBlocks/.test((await apply(wrong('rest'))).text), PATIENCE);
    expect(await asked(b)).toBe(true);
    a = await start('controller-a', 0);
    await plane.apply(endpointsOf(a));
    await b.stop('SIGKILL');
    await plane.kubectl('delete', 'endpointslice', '-n', MESH_NAMESPACE, b.name);
    await waitFor('the first', async () => /ipBlocks/.test((await apply(wrong('rest'))).text), PATIENCE);
    expect(await asked(a)).toBe(true);
    b = await start('controller-b', 1);
    await plane.apply(endpointsOf(b));
  }, 180_000);

  test('whoever takes the authority away, or the caBundle, gets them anew', async () => {
    await plane.kubectl('delete', 'secret', '-n', MESH_NAMESPACE, 'culvert-webhook-ca');
    const path = `/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/${CONFIGURATION}`;
    interface Configuration {
      readonly webhooks: readonly { readonly clientConfig: { readonly caBundle?: string } }[];
    }
    const bundle = async () => (await plane.api.get<Configuration>(path)).webhooks[0]!.clientConfig.caBundle;
    const before = await bundle();
    await waitFor('another authority', async () => (await bundle()) !== before, {
      timeoutMs: 120_000,
      intervalMs: 500,
    });
    await sleep(31_000);
    for (let i = 0; i < 10; i++) expect((await apply(wrong(`anew-${i}`))).text).toMatch(/ipBlocks/);
  }, 240_000);

  test('takes no more than it can', async () => {
    const { ip } = plane.machine;
    const script = [
      `head -c 9000000 /dev/zero | curl -sk -m 20 -o /dev/null -w '%{http_code} ' --data-binary @- https://${ip}:${b.webhookPort}/validate`,
      `curl -sk -m 20 -o /dev/null -w '%{http_code} ' --data 'no json' https://${ip}:${b.webhookPort}/validate`,
      `curl -sk -m 20 -o /dev/null -w '%{http_code} ' --data '{}' https://${ip}:${b.webhookPort}/validate`,
      `curl -sk -m 20 -o /dev/null -w '%{http_code}' https://${ip}:${b.webhookPort}/metrics`,
    ].join('; ');
    const { stdout } = await plane.machine.exec(['sh', '-c', script]);
    expect(stdout).toBe('413 400 400 404');
    expect((await apply(policy('after', { rules: [{}] }))).refused).toBe(false);
  }, 60_000);

  test('an object of 1 MB, as it was and as it is', async () => {
    const principals = Array.from(
      { length: 14_000 },
      (_, i) => `cluster.local/ns/shop/sa/${String(i).padStart(36, 'x')}`,
    );
    const body = policy('large', { rules: [{ from: [{ source: { principals } }] }] });
    const path = '/apis/security.istio.io/v1/namespaces/shop/authorizationpolicies';
    await plane.api.post(path, body);
    await plane.api.patch(`${path}/large`, { metadata: { labels: { a: 'b' } } });
    await plane.api.delete(`${path}/large`);
  }, 60_000);
});

describe('without code', () => {
  test.each([
    ['provider', { action: 'CUSTOM' }, /spec\.provider: is required/],
    [
      'scope',
      { selector: { matchLabels: { a: 'b' } }, targetRefs: [{ kind: 'Service', group: '', name: 'x' }] },
      /spec\.selector: excludes/,
    ],
  ])(
    'a policy whose %s is wrong is refused by the API server itself',
    async (name, spec, expected) => {
      const { refused, text } = await apply(policy(name, spec));
      expect(refused).toBe(true);
      expect(text).toMatch(/culvert-policies/);
      expect(text).toMatch(expected);
    },
    60_000,
  );

  test('a PeerAuthentication with ports needs a selector', async () => {
    const peer = (spec: object) => ({ ...policy('peer', spec), kind: 'PeerAuthentication' });
    expect((await apply(peer({ portLevelMtls: { '80': { mode: 'STRICT' } } }))).text).toMatch(
      /needs a selector/,
    );
    expect((await apply(peer({ mtls: { mode: 'STRICT' } }))).refused).toBe(false);
  }, 60_000);

  test('a label that means nothing is refused, on namespaces and pods; one that was there may stay', async () => {
    const namespace = (name: string, labels: object) => ({
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name, labels },
    });
    expect((await apply(namespace('odd', { 'istio.io/dataplane-mode': 'Ambient' }))).text).toMatch(
      /only "ambient" and "none" are known/,
    );
    expect((await apply(namespace('fine', { 'istio.io/dataplane-mode': 'ambient' }))).refused).toBe(false);
    await plane.kubectl('delete', 'validatingadmissionpolicybinding', 'culvert-enrolment');
    await waitFor(
      'the policy to end',
      async () => !(await apply(namespace('old', { 'istio.io/dataplane-mode': 'on' }))).refused,
      PATIENCE,
    );
    await render('admission-validation.yaml');
    let tries = 0;
    await waitFor(
      'the policy to be back',
      async () => (await apply(namespace(`other-${tries++}`, { 'istio.io/dataplane-mode': 'on' }))).refused,
      PATIENCE,
    );
    await plane.kubectl('label', 'namespace', 'old', 'a=b');
  }, 120_000);
});

test('while no controller answers, failurePolicy decides', async () => {
  await Promise.all([a.stop('SIGKILL'), b.stop('SIGKILL')]);
  expect((await apply(policy('nobody', { rules: [{}] }))).refused).toBe(true);
  await render('webhook.yaml', 'webhook.failurePolicy=Ignore');
  await waitFor('Ignore', async () => !(await apply(wrong('nobody'))).refused, PATIENCE);
}, 120_000);
