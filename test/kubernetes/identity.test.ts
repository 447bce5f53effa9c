import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { decodeJwt, decodeProtectedHeader, importPKCS8, SignJWT } from 'jose';
import { waitFor } from '../lab/index.js';
import { fakeTime } from './cluster.js';
import { type ControlPlane, startControlPlane } from './control-plane.js';
import {
  AgentSide,
  ControllerProcess,
  makeNode,
  makePod,
  PATIENCE,
  prepareCluster,
  SYSTEM,
  tokenOf,
} from './identity-lab.js';

// Who is let in by the controller on Kubernetes, and for what: tokens of a real API server, the agent's own clients.

const CART = 'spiffe://cluster.local/ns/shop/sa/cart';
const DB = 'spiffe://cluster.local/ns/shop/sa/db';

let plane: ControlPlane;
let controller: ControllerProcess;
const agents: AgentSide[] = [];

beforeAll(async () => {
  plane = await startControlPlane({ onProgress: (line) => void process.stderr.write(`${line}\n`) });
  await prepareCluster(plane);
  await makePod(plane, 'agent-n1');
  await makePod(plane, 'agent-n2', { node: 'n2' });
  await makePod(plane, 'cart-1', { namespace: 'shop', account: 'cart' });
  await makePod(plane, 'db-1', { namespace: 'shop', account: 'db', node: 'n2' });
  controller = await ControllerProcess.start(plane, 'first');
  await controller.ready();
}, 3_600_000);

afterAll(async () => {
  for (const agent of agents) agent.close();
  await controller?.stop();
  plane?.close();
});

function agentWith(token: string, node = 'n1'): AgentSide {
  const agent = new AgentSide(plane, { controller, token, node });
  agents.push(agent);
  return agent;
}

const refusals = (service: 'ca' | 'xds', reason: string) =>
  controller.metric(`culvert_refusals_total{service="${service}",reason="${reason}"}`);

/** Refused with that reason for certificates and xDS: told, logged, counted. */
async function expectRefused(token: string, reason: string, identity = CART, node = 'n1'): Promise<void> {
  const before = [await refusals('ca', reason), await refusals('xds', reason)];
  const agent = agentWith(token, node);
  expect(await agent.ask(identity)).toMatch(new RegExp(`: ${reason}: `));
  const xds = agent.connect();
  await waitFor(
    'xDS to be refused',
    () => new RegExp(`^${reason}: |: ${reason}: `).test(xds.state.lastError ?? ''),
    PATIENCE,
  );
  xds.stop();
  expect(await refusals('ca', reason)).toBe(before[0]! + 1);
  expect(await refusals('xds', reason)).toBeGreaterThan(before[1]!);
  expect(controller.output).toContain(`"reason":"${reason}"`);
  expect(controller.output).not.toContain(token);
}

test('an agent gets what runs on its node, and nothing of another', async () => {
  const [first, second] = [
    agentWith(await tokenOf(plane, 'agent-n1')),
    agentWith(await tokenOf(plane, 'agent-n2'), 'n2'),
  ];
  expect(await first.ask(CART)).toBe('issued');
  expect(await second.ask(DB)).toBe('issued');
  expect(await first.ask(DB)).toMatch(/UNAUTHENTICATED: no-such-pod-on-node: /);
  expect(await second.ask(CART)).toMatch(/UNAUTHENTICATED: no-such-pod-on-node: /);
  const xds = first.connect();
  await waitFor('xDS', () => xds.state.isReady, PATIENCE);
  // Both asked for once, the rest was known.
  expect(await controller.metric('culvert_token_review_seconds_count{outcome="authenticated"}')).toBe(2);
});

test('a token of another audience, a forged, an expired one, one of no pod, of an application', async () => {
  await expectRefused(
    await tokenOf(plane, 'agent-n1', { audience: 'https://kubernetes.default.svc.cluster.local' }),
    'token-audience',
  );
  const good = await tokenOf(plane, 'agent-n1');
  await expectRefused(`${good.slice(0, -8)}AAAAAAAA`, 'token-invalid');
  await expectRefused('no-token-at-all', 'token-invalid');
  await expectRefused(await expired(good), 'token-expired');
  await expectRefused(await tokenOf(plane, '', { bound: [] }), 'token-unbound');
  await expectRefused(
    await tokenOf(plane, '', { bound: ['--bound-object-kind=Node', '--bound-object-name=n1'] }),
    'token-unbound',
  );
});

/** The same claims, signed by the cluster's own key, that ended a minute ago. */
async function expired(token: string): Promise<string> {
  const pem = readFileSync(join(plane.ca.folder, 'service-accounts.key'), 'utf8');
  const { alg, kid } = decodeProtectedHeader(token) as { alg: string; kid: string };
  const now = Math.floor(Date.now() / 1000);
  return await new SignJWT({ ...decodeJwt(token), iat: now - 3600, nbf: now - 3600, exp: now - 60 })
    .setProtectedHeader({ alg, kid })
    .sign(await importPKCS8(pem, alg));
}

test('a pod that is no agent gets its own identity, and no configuration', async () => {
  const token = await tokenOf(plane, 'cart-1', { namespace: 'shop', account: 'cart' });
  const cart = agentWith(token);
  expect(await cart.ask(CART)).toBe('issued');
  expect(await cart.ask('')).toBe('issued');
  expect(await cart.ask(`spiffe://cluster.local/ns/${SYSTEM}/sa/culvert-agent`)).toMatch(
    /: not-a-node-agent: /,
  );
  await expectRefused(token, 'not-a-node-agent', DB);
});

test("another node's agent is nobody here: what it may have is of its own node", async () => {
  const stolen = agentWith(await tokenOf(plane, 'agent-n2'), 'n1');
  expect(await stolen.ask(CART)).toMatch(/: no-such-pod-on-node: /);
  const before = await refusals('xds', 'node-mismatch');
  const xds = stolen.connect();
  await waitFor('a refusal', async () => (await refusals('xds', 'node-mismatch')) > before, PATIENCE);
  expect(xds.state.isReady).toBe(false);
});

test('when a pod is deleted its token ends at once, and its stream within 5 s', async () => {
  await makePod(plane, 'agent-old');
  const token = await tokenOf(plane, 'agent-old');
  const agent = agentWith(token);
  const xds = agent.connect();
  await waitFor('xDS', () => xds.state.isReady, PATIENCE);
  expect(await agent.ask(CART)).toBe('issued');
  await plane.kubectl('delete', 'pod', 'agent-old', '-n', SYSTEM, '--force', '--grace-period=0');
  const deletedMs = performance.now();
  await waitFor('its end', () => /pod-gone/.test(xds.state.lastError ?? ''), { ...PATIENCE, intervalMs: 20 });
  expect(performance.now() - deletedMs).toBeLessThan(5000);
  await expectRefused(token, 'pod-gone');
  await makePod(plane, 'agent-old'); // another one of its name
  await new Promise((resolve) => setTimeout(resolve, 1000));
  expect(await agent.ask(CART)).toMatch(/: pod-gone: |: token-invalid: /);
});

test('a removed node, and another one of its name', async () => {
  await makeNode(plane, 'n3');
  await makePod(plane, 'agent-n3', { node: 'n3' });
  const token = await tokenOf(plane, 'agent-n3');
  const agent = agentWith(token, 'n3');
  const xds = agent.connect();
  await waitFor('xDS', () => xds.state.isReady, PATIENCE);
  await plane.kubectl('delete', 'node', 'n3');
  await waitFor('its end', () => /node-gone|pod-gone/.test(xds.state.lastError ?? ''), PATIENCE);
  await makeNode(plane, 'n3');
  await new Promise((resolve) => setTimeout(resolve, 1000));
  await expectRefused(token, 'node-gone', CART, 'n3');
});

test("tokens end by the API server's clock, not by the controller's", async () => {
  const late = await ControllerProcess.start(plane, 'late', { env: fakeTime(-3600) });
  try {
    await late.ready();
    const good = await tokenOf(plane, 'agent-n1');
    const ask = (token: string) => {
      const agent = new AgentSide(plane, { controller: late, token });
      return agent.ask(CART);
    };
    expect(await ask(good)).toBe('issued');
    expect(await ask(await expired(good))).toMatch(/: token-expired: /);
  } finally {
    await late.stop();
  }
}, 120_000);

test('a token file that is rotated counts from the next call on, and a stream that has ended comes back with it', async () => {
  await makePod(plane, 'agent-rotated');
  const agent = agentWith(await tokenOf(plane, 'agent-rotated'));
  const xds = agent.connect();
  await waitFor('xDS', () => xds.state.isReady, PATIENCE);
  await plane.kubectl('delete', 'pod', 'agent-rotated', '-n', SYSTEM, '--force', '--grace-period=0');
  await waitFor('its end', () => /pod-gone/.test(xds.state.lastError ?? ''), PATIENCE);
  agent.setToken(await tokenOf(plane, 'agent-n1'));
  await waitFor('it to be back', () => xds.state.isConnected, PATIENCE);
  expect(await agent.ask(CART)).toBe('issued');
});

test('while the API server is away, what was just found good goes on, the rest is told to come back, and does', async () => {
  const agent = agentWith(await tokenOf(plane, 'agent-n1'));
  const later = agentWith(await tokenOf(plane, 'agent-n1'));
  const xds = agent.connect();
  await waitFor('xDS', () => xds.state.isReady, PATIENCE);
  expect(await agent.ask(CART)).toBe('issued');
  await plane.stopComponent('apiServer', 'SIGKILL');
  expect(await agent.ask(CART)).toBe('issued');
  expect(await later.ask(CART)).toMatch(/UNAVAILABLE: review-failed: the API server could not be asked/);
  expect(await controller.metric('culvert_token_review_seconds_count{outcome="failed"}')).toBeGreaterThan(0);
  await waitFor(
    'what was known to be forgotten',
    async () => /review-failed/.test(await agent.ask(CART)),
    PATIENCE,
  );
  expect(xds.state.isConnected).toBe(true);
  expect(xds.state.terminations).toEqual({ ConnectionError: 0, Error: 0, Reconnect: 0, Complete: 0 });
  await plane.startComponent('apiServer');
  await waitFor('it to be back', async () => (await later.ask(CART)) === 'issued', PATIENCE);
}, 120_000);
