import { X509Certificate } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from '@jest/globals';
import { pemToDer, verifyChain } from '../../mesh/identity/index.js';
import { waitFor } from '../lab/index.js';
import { OpensslCa } from '../support/openssl-ca.js';
import { type ControlPlane, startControlPlane } from './control-plane.js';
import {
  AgentSide,
  ControllerProcess,
  makePod,
  PATIENCE,
  prepareCluster,
  SYSTEM,
  tokenOf,
} from './identity-lab.js';

// Where the CA comes from on Kubernetes, how it is rotated, and how its roots come to every namespace.

const CART = 'spiffe://cluster.local/ns/shop/sa/cart';
const OWN = `/api/v1/namespaces/${SYSTEM}/secrets/culvert-ca-secret`;

let plane: ControlPlane;
let token: string;
let controllers: ControllerProcess[];
let agents: AgentSide[];

beforeAll(async () => {
  plane = await startControlPlane({ onProgress: (line) => void process.stderr.write(`${line}\n`) });
  await prepareCluster(plane);
  await makePod(plane, 'agent-n1');
  await makePod(plane, 'cart-1', { namespace: 'shop', account: 'cart' });
  token = await tokenOf(plane, 'agent-n1');
}, 3_600_000);

afterAll(() => plane.close());

beforeEach(() => {
  controllers = [];
  agents = [];
});

afterEach(async () => {
  for (const agent of agents) agent.close();
  await Promise.all(controllers.map((controller) => controller.stop()));
  for (const what of ['secret/culvert-ca-secret', 'secret/cacerts', 'configmap/culvert-ca-root-cert'])
    await plane.kubectl('delete', what, '-n', SYSTEM, '--ignore-not-found');
});

async function start(name: string, ...options: string[]): Promise<ControllerProcess> {
  const controller = await ControllerProcess.start(plane, name, { options });
  controllers.push(controller);
  return controller;
}

/** Secrets are looked at every second. */
const QUICK = ['--root-overlap', '4s'];

function agentOf(controller: ControllerProcess, rootFile?: string): AgentSide {
  const agent = new AgentSide(plane, { controller, token, ...(rootFile === undefined ? {} : { rootFile }) });
  agents.push(agent);
  return agent;
}

interface SecretObject {
  readonly type: string;
  readonly data: Readonly<Record<string, string>>;
}
const secretText = async (name: string) =>
  Buffer.from((await plane.api.get<SecretObject>(OWN)).data[name] ?? '', 'base64').toString();
const derOf = (pem: string) => pemToDer(pem, 'CERTIFICATE');
const configMapIn = async (namespace: string) => {
  const path = `/api/v1/namespaces/${namespace}/configmaps/culvert-ca-root-cert`;
  return (await plane.api.get<{ data: Record<string, string> }>(path)).data['root-cert.pem'] ?? '';
};
const isMissing = (error: { status?: number }) => error.status === 404;

test('two first replicas make one root; either serves what the other signed', async () => {
  const both = await Promise.all([start('one'), start('two')]);
  await Promise.all(both.map((controller) => controller.ready()));
  const root = await secretText('root-cert.pem');
  expect((await plane.api.get<SecretObject>(OWN)).type).toBe('culvert.io/ca-root');
  for (const controller of both) {
    expect(await agentOf(controller).roots).toBe(root);
    const { chain, roots } = await agentOf(controller).fetch(CART);
    verifyChain(chain.flatMap(derOf), derOf(root), Date.now());
    expect(roots).toBe(root);
  }
  // And after both have ended: the same again, whatever folder they have.
  await Promise.all(both.map((controller) => controller.stop()));
  const third = await start('three');
  await third.ready();
  expect(agentOf(third).roots).toBe(root);
}, 120_000);

test('a root Secret that is gone is put back by who runs; one that is damaged stops a start and nobody who runs', async () => {
  const first = await start('first', ...QUICK);
  await first.ready();
  const root = await secretText('root-cert.pem');
  await plane.kubectl('delete', 'secret', 'culvert-ca-secret', '-n', SYSTEM);
  await waitFor(
    'it to be back',
    () =>
      secretText('root-cert.pem').then(
        (text) => text === root,
        (error) => !isMissing(error as { status?: number }) && Promise.reject(error),
      ),
    PATIENCE,
  );
  await plane.api.patch(OWN, { data: { 'ca-key.pem': Buffer.from('nonsense').toString('base64') } });
  await waitFor('it to be told', () => first.output.includes("the CA's Secret cannot be used"), PATIENCE);
  expect(await agentOf(first).ask(CART)).toBe('issued');
  const second = await start('second');
  await waitFor('its end', () => second.output.includes('culvert-ca-secret: ca-key.pem: '), PATIENCE);
  await waitFor('the bundle', async () => (await configMapIn(SYSTEM).catch(() => '')) === root, PATIENCE);
  await first.stop();
  await plane.kubectl('delete', 'secret', 'culvert-ca-secret', '-n', SYSTEM);
  const third = await start('third');
  await waitFor(
    'its end',
    () => third.output.includes('culvert-ca-secret is missing, and this mesh had a root'),
    PATIENCE,
  );
}, 120_000);

test('our own root is rotated in three steps, by two controllers, while agents go on', async () => {
  const both = await Promise.all([
    start('left', '--root-overlap', '8s'),
    start('right', '--root-overlap', '8s'),
  ]);
  await Promise.all(both.map((controller) => controller.ready()));
  const rootFile = join(plane.ca.folder, 'rotated-root.pem');
  writeFileSync(rootFile, agentOf(both[0]!).roots);
  const before = await secretText('ca-cert.pem');
  await waitFor(
    'it in its namespace',
    async () => (await configMapIn(SYSTEM)) === agentOf(both[0]!).roots,
    PATIENCE,
  );
  const pushed: number[] = [];
  const xds = agentOf(both[1]!, rootFile).connect((roots) => pushed.push(roots.length));
  await waitFor('xDS', () => xds.state.isReady, PATIENCE);
  await plane.kubectl('annotate', 'secret', 'culvert-ca-secret', '-n', SYSTEM, 'culvert.io/rotate-root=now');

  // kubelet rewrites the mounted ConfigMap, some time; every leaf ever given verifies with what is trusted meanwhile.
  let last: readonly string[] = [];
  const asks = both.map((controller) => agentOf(controller, rootFile));
  await waitFor(
    'the third step',
    async () => {
      for (const agent of asks) {
        const { chain, roots } = await agent.fetch(CART);
        if (last.length > 0) verifyChain(last.flatMap(derOf), derOf(roots), Date.now());
        verifyChain(chain.flatMap(derOf), derOf(roots), Date.now());
        last = chain;
      }
      writeFileSync(rootFile, await configMapIn(SYSTEM));
      return (
        (await secretText('ca-cert.pem')) !== before &&
        (await secretText('root-cert.pem')) === (await secretText('ca-cert.pem'))
      );
    },
    { ...PATIENCE, intervalMs: 500 },
  );
  await waitFor(
    'both to have it',
    async () => (await Promise.all(both.map((one) => one.metric('culvert_ca_roots')))).join() === '1,1',
    PATIENCE,
  );
  expect(pushed.slice(0, 2)).toEqual([1, 2]);
  expect(pushed.at(-1)).toBe(1);
  expect(xds.state.terminations).toEqual({ ConnectionError: 0, Error: 0, Reconnect: 0, Complete: 0 });
  for (const agent of asks) expect(await agent.ask(CART)).toBe('issued');
  expect((await plane.api.get<SecretObject>(OWN)).data['next-ca-key.pem']).toBeUndefined();
}, 180_000);

test("a CA that is plugged in counts before our own, under Istio's names and cert-manager's, and is followed live", async () => {
  const folder = join(plane.ca.folder, 'plugged');
  mkdirSync(folder);
  const root = new OpensslCa(folder, 'root');
  const signer = new OpensslCa(folder, 'signer', root);
  const [newRoot] = [new OpensslCa(folder, 'new-root')];
  const newSigner = new OpensslCa(folder, 'new-signer', newRoot);
  const give = (stringData: Readonly<Record<string, string>>) =>
    plane.apply({
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name: 'cacerts', namespace: SYSTEM },
      stringData,
    });
  const istio = (ca: OpensslCa, roots: readonly OpensslCa[]) => ({
    'ca-cert.pem': ca.certificate,
    'ca-key.pem': ca.key,
    'cert-chain.pem': ca.certificate,
    'root-cert.pem': roots.map(({ certificate }) => certificate).join(''),
  });
  await give(istio(signer, [root]));
  const controller = await start('plugged', ...QUICK);
  await controller.ready();
  await expect(secretText('ca-cert.pem')).rejects.toThrow(/not found/);
  const agent = agentOf(controller);
  const first = await agent.fetch(CART);
  verifyChain(first.chain.flatMap(derOf), derOf(root.certificate), Date.now());
  expect(first.chain).toHaveLength(2);

  await give(istio(newSigner, [newRoot])); // not in one step
  await waitFor(
    'a complaint',
    () => controller.output.includes('leads to a root that is not in force yet'),
    PATIENCE,
  );
  expect(derOf((await agent.fetch(CART)).roots)).toHaveLength(1);
  await give(istio(signer, [root, newRoot]));
  await waitFor('both roots', async () => (await controller.metric('culvert_ca_roots')) === 2, PATIENCE);
  await give(istio(newSigner, [root, newRoot]));
  const issuerOf = async () => new X509Certificate((await agent.fetch(CART)).chain[1]!).subject;
  await waitFor('the new signer', async () => (await issuerOf()).includes('new-signer'), PATIENCE);
  verifyChain(first.chain.flatMap(derOf), derOf((await agent.fetch(CART)).roots), Date.now());
  await give(istio(newSigner, [newRoot]));
  await waitFor(
    'the new root alone',
    async () => (await controller.metric('culvert_ca_roots')) === 1,
    PATIENCE,
  );
  await waitFor(
    'it in every namespace',
    async () => (await configMapIn('shop')).trim() === newRoot.certificate.trim(),
    PATIENCE,
  );

  await plane.kubectl('delete', 'secret', 'cacerts', '-n', SYSTEM);
  await waitFor('a complaint', () => controller.output.includes('cacerts is gone: put it back'), PATIENCE);
  expect(await agent.ask(CART)).toBe('issued');
  await plane.apply({
    apiVersion: 'v1',
    kind: 'Secret',
    type: 'kubernetes.io/tls',
    metadata: { name: 'cacerts', namespace: SYSTEM },
    stringData: { 'tls.crt': newSigner.certificate, 'tls.key': newSigner.key, 'ca.crt': newRoot.certificate },
  });
  const other = await start('manager');
  await other.ready();
  verifyChain(
    (await agentOf(other).fetch(CART)).chain.flatMap(derOf),
    derOf(newRoot.certificate),
    Date.now(),
  );
}, 180_000);

test('the roots are in every namespace: in new ones, after changes and removals; one of two replicas writes', async () => {
  const both = await Promise.all([start('one'), start('two')]);
  await Promise.all(both.map((controller) => controller.ready()));
  const root = await secretText('root-cert.pem');
  const everywhere = (...namespaces: string[]) =>
    waitFor(
      `the root in ${namespaces.join(', ')}`,
      async () => {
        const found = await Promise.all(
          namespaces.map((namespace) =>
            configMapIn(namespace).catch((error) => (isMissing(error) ? '' : Promise.reject(error))),
          ),
        );
        return found.every((text) => text === root);
      },
      PATIENCE,
    );
  await everywhere('default', 'kube-system', SYSTEM, 'shop');
  await plane.kubectl('create', 'namespace', 'late');
  await everywhere('late');
  await plane.api.patch('/api/v1/namespaces/late/configmaps/culvert-ca-root-cert', {
    data: { 'root-cert.pem': 'mine' },
  });
  await everywhere('late');
  await plane.kubectl('delete', 'configmap', 'culvert-ca-root-cert', '-n', 'shop');
  await everywhere('shop');
  // One that will not be changed holds up nobody.
  await plane.apply({
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name: 'obstinate' },
  });
  await everywhere('obstinate');
  const obstinate = '/api/v1/namespaces/obstinate/configmaps/culvert-ca-root-cert';
  await plane.api.delete(obstinate);
  await plane.api
    .post('/api/v1/namespaces/obstinate/configmaps', {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: 'culvert-ca-root-cert' },
      immutable: true,
    })
    .catch((error) =>
      error.status === 409
        ? plane.api.patch(obstinate, { immutable: true, data: { 'root-cert.pem': 'x' } })
        : Promise.reject(error),
    );
  await waitFor(
    'it to be told several times',
    () => both.some(({ output }) => output.split('"key":"obstinate"').length > 4),
    PATIENCE,
  );
  await plane.kubectl('create', 'namespace', 'later');
  const createdMs = performance.now();
  await everywhere('later');
  expect(performance.now() - createdMs).toBeLessThan(10_000);
  await plane.kubectl('delete', 'namespace', 'obstinate');
  await plane.kubectl('delete', 'namespace', 'late'); // waits for its end: nothing is made in it any more
  const leader = both.findIndex(({ output }) => /"msg":"[^"]*lead/.test(output));
  await both[Math.max(0, leader)]!.stop('SIGKILL');
  await plane.kubectl('delete', 'configmap', 'culvert-ca-root-cert', '-n', 'shop');
  await everywhere('shop');
}, 180_000);

test('nobody else of ours may read the key', async () => {
  const controller = await start('rights');
  await controller.ready();
  const agent = ['--as', `system:serviceaccount:${SYSTEM}:culvert-agent`];
  const can = (...args: string[]) =>
    plane.kubectl('auth', 'can-i', ...args).catch((error) => String(error.stdout));
  expect(await can('get', 'secret/culvert-ca-secret', '-n', SYSTEM, ...agent)).toMatch(/^no/);
  expect(await can('get', 'secret/x', '-n', 'shop', '--as', 'controller')).toMatch(/^no/);
});
