import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { buildCsr, derToPem, generateKeyPair, pemToDer, readCertificate } from '../../mesh/identity/index.js';
import { createLog } from '../../mesh/log/index.js';
import {
  bundleOf,
  CaError,
  type Caller,
  type CaMaterial,
  ISSUER_DEFAULTS,
  Issuer,
  KeyAuthority,
  type PodDirectory,
} from './index.js';
import { loadOrCreateRoot } from './root.js';

const HOUR_MS = 3_600_000;
let state: string;

beforeEach(() => {
  state = mkdtempSync(join(tmpdir(), 'culvert-ca-'));
});

afterEach(() => {
  rmSync(state, { recursive: true, force: true });
});

/** An authority that never changes. */
class Fixed extends KeyAuthority {
  constructor(material: CaMaterial) {
    super(createLog({ level: 'silent', component: 'test' }));
    this.replace(material);
  }

  close(): void {}
}

/** The root of a state folder, with its PEM. */
function rootIn(folder: string) {
  const root = loadOrCreateRoot(join(folder, 'root-ca.pem'), 'cluster.local');
  return { ...root, pem: derToPem(root.certificate, 'CERTIFICATE') };
}

const materialOf = (root: ReturnType<typeof rootIn>): CaMaterial => ({
  ...root,
  intermediates: [],
  roots: [root.pem],
});

const openssl = (...args: string[]) =>
  execFileSync('openssl', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });

describe('the issuer', () => {
  const agent: Caller = {
    namespace: 'culvert-system',
    serviceAccount: 'culvert-agent',
    nodeName: 'n1',
    nodeUid: null,
    pod: null,
    expiresAtMs: Number.POSITIVE_INFINITY,
  };
  const identity = 'spiffe://cluster.local/ns/shop/sa/cart';
  const pod = (nodeName: string, more: object = {}) => ({
    nodeName,
    namespace: 'shop',
    name: 'cart-1',
    uid: 'u1',
    serviceAccount: 'cart',
    phase: 'Running',
    ...more,
  });
  let root: ReturnType<typeof rootIn>;
  let pods: ReturnType<typeof pod>[];
  let nodes: Map<string, { uid: string }>;
  let issuer: Issuer;
  let csr: string;

  beforeEach(() => {
    root = rootIn(state);
    pods = [pod('n1')];
    nodes = new Map([['n1', { uid: 'node-1' }]]);
    csr = buildCsr(generateKeyPair(), 'spiffe://cluster.local/ns/kube-system/sa/anything-it-likes');
    const directory: PodDirectory = {
      node: (name) => nodes.get(name),
      podsOnNode: (node) => pods.filter(({ nodeName }) => nodeName === node),
    };
    issuer = new Issuer(
      { ...ISSUER_DEFAULTS, trustDomain: 'cluster.local' },
      { authority: new Fixed(materialOf(root)), pods: directory, nowMs: Date.now },
    );
  });

  const issue = (
    caller: Partial<Caller> = {},
    request: { identity?: string; lifetimeMs?: number; csr?: string } = {},
  ) => issuer.issue({ ...agent, ...caller }, { csr, identity, lifetimeMs: 0, ...request });
  const refusal = async (...args: Parameters<typeof issue>) => {
    const outcome = await issue(...args);
    return 'refusal' in outcome ? outcome.refusal : 'issued';
  };

  test('signs the identity of a pod on the node, whatever else the CSR asks for; openssl agrees', async () => {
    const outcome = await issue();
    if ('refusal' in outcome) throw new Error(outcome.message);
    const [leaf, bundle] = outcome.chain as [string, string];
    expect(bundle).toBe(bundleOf(materialOf(root)));
    const info = readCertificate(pemToDer(leaf, 'CERTIFICATE')[0]!);
    expect(info.uris).toEqual([identity]);
    expect(info.notAfterMs - Date.now()).toBeGreaterThan(23.9 * HOUR_MS);
    writeFileSync(join(state, 'leaf.pem'), leaf);
    writeFileSync(join(state, 'bundle.pem'), bundle);
    for (const purpose of ['sslserver', 'sslclient'])
      expect(
        openssl('verify', '-purpose', purpose, '-CAfile', join(state, 'bundle.pem'), join(state, 'leaf.pem')),
      ).toMatch(/OK/);
    expect(openssl('x509', '-in', join(state, 'leaf.pem'), '-noout', '-ext', 'subjectAltName')).toContain(
      `URI:${identity}`,
    );
  });

  test('a shorter lifetime is given, a longer one is cut', async () => {
    const lifetime = async (lifetimeMs: number) => {
      const outcome = await issue({}, { lifetimeMs });
      return 'refusal' in outcome ? 0 : Math.round((outcome.notAfterMs - Date.now()) / HOUR_MS);
    };
    const wishes = [HOUR_MS, 0, -5, 1000 * HOUR_MS];
    expect(await Promise.all(wishes.map(lifetime))).toEqual([1, 24, 24, 24]);
  });

  test.each<[string, Parameters<typeof issue>, string]>([
    ["an account that is not a node agent's", [{ serviceAccount: 'cart' }], 'not-a-node-agent'],
    ["a node agent's name in another namespace", [{ namespace: 'shop' }], 'not-a-node-agent'],
    ['a token bound to no node', [{ nodeName: null }], 'no-node'],
    ['a token of a pod that is not there', [{ pod: { name: 'agent-1', uid: 'gone' } }], 'pod-gone'],
    ['no identity', [{}, { identity: '' }], 'not-impersonating'],
    [
      'an identity of another form',
      [{}, { identity: 'spiffe://cluster.local/ns/shop/sa/cart/x' }],
      'identity-invalid',
    ],
    ['another trust domain', [{}, { identity: 'spiffe://other/ns/shop/sa/cart' }], 'trust-domain'],
    [
      'an account with no pod',
      [{}, { identity: 'spiffe://cluster.local/ns/shop/sa/db' }],
      'no-such-pod-on-node',
    ],
    [
      'the same account in another namespace',
      [{}, { identity: 'spiffe://cluster.local/ns/bank/sa/cart' }],
      'no-such-pod-on-node',
    ],
    ['a pod on another node', [{ nodeName: 'n2' }], 'no-such-pod-on-node'],
    ['no CSR', [{}, { csr: 'x' }], 'csr-invalid'],
  ])('%s: refused', async (_name, args, expected) => {
    expect(await refusal(...args)).toBe(expected);
  });

  test.each(['Failed', 'Succeeded'])('a %s pod gives no identity', async (phase) => {
    pods = [pod('n1', { phase })];
    expect(await refusal()).toBe('no-such-pod-on-node');
    pods.push(pod('n1'));
    expect(await refusal()).toBe('issued');
  });

  test("a token bound to the agent's pod is good while that very pod is on that node", async () => {
    const caller = { pod: { name: 'agent-1', uid: 'u9' } };
    const own = pod('n1', {
      namespace: 'culvert-system',
      name: 'agent-1',
      uid: 'u9',
      serviceAccount: 'culvert-agent',
    });
    pods.push(own);
    expect(await refusal(caller)).toBe('issued');
    for (const change of [
      { uid: 'u8' },
      { serviceAccount: 'x' },
      { nodeName: 'n2' },
      { phase: 'Failed' },
      { name: 'agent-2' },
    ]) {
      pods = [pod('n1'), { ...own, ...change }];
      expect(await refusal(caller)).toBe('pod-gone');
    }
  });

  test('a CSR that somebody else signed is refused', async () => {
    const bytes = pemToDer(csr, 'CERTIFICATE REQUEST')[0]!;
    bytes[bytes.length - 1]! ^= 1;
    const forged = `-----BEGIN CERTIFICATE REQUEST-----\n${bytes.toString('base64')}\n-----END CERTIFICATE REQUEST-----\n`;
    expect(await refusal({}, { csr: forged })).toBe('csr-invalid');
  });

  test('the node of the token must be there, and be the very one', async () => {
    expect(await refusal({ nodeUid: 'node-1' })).toBe('issued');
    expect(await refusal({ nodeUid: 'node-0' })).toBe('node-gone');
    nodes.delete('n1');
    expect(await refusal({ nodeUid: 'node-1' })).toBe('node-gone');
    expect(await refusal()).toBe('issued');
  });

  test('a pod that is no agent gets its own identity, as long as it lives, and no other', async () => {
    const cart = { namespace: 'shop', serviceAccount: 'cart', pod: { name: 'cart-1', uid: 'u1' } };
    expect(await issue(cart, { identity: '' })).toMatchObject({ identity });
    expect(await refusal(cart)).toBe('issued');
    pods.push(pod('n1', { serviceAccount: 'db', uid: 'u2' }));
    for (const other of [
      'spiffe://cluster.local/ns/shop/sa/db',
      'spiffe://cluster.local/ns/bank/sa/cart',
      'spiffe://other/ns/shop/sa/cart',
      'nonsense',
    ])
      expect(await refusal(cart, { identity: other })).toBe('not-a-node-agent');
    expect(await refusal({ ...cart, pod: null })).toBe('not-a-node-agent');
    expect(await refusal({ ...cart, nodeUid: 'node-0' })).toBe('node-gone');
    pods.shift();
    expect(await refusal(cart)).toBe('pod-gone');
  });

  test('a signer that fails is no fault of the caller: told, and to be tried again', async () => {
    const failing = new Fixed(materialOf(root));
    failing.sign = () => Promise.reject(new CaError('CA_SIGNER', 'not in time'));
    const deps = {
      authority: failing,
      pods: { podsOnNode: () => [pod('n1')], node: () => undefined },
      nowMs: Date.now,
    };
    const other = new Issuer({ ...ISSUER_DEFAULTS, trustDomain: 'cluster.local' }, deps);
    expect(await other.issue(agent, { csr, identity, lifetimeMs: 0 })).toEqual({
      refusal: 'signer-failed',
      message: 'not in time',
    });
  });
});
