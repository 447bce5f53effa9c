import { chmodSync, copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { buildCsr, generateKeyPair, pemToDer, verifyChain } from '../../mesh/identity/index.js';
import { createLog } from '../../mesh/log/index.js';
import { OpensslCa } from '../../test/support/openssl-ca.js';
import type { Authority } from './index.js';
import { beginRootRotation, FilesAuthority, ISSUER_DEFAULTS, Issuer, StateAuthority } from './index.js';
import { loadOrCreateRoot } from './root.js';

const log = createLog({ level: 'silent', component: 'test' });
const HOUR = 3_600_000;
let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'culvert-authority-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const derOf = (pem: string) => pemToDer(pem, 'CERTIFICATE');

/** Chain of a fresh leaf and the bundle, as an agent gets them. */
async function issue(authority: Authority, nowMs = Date.now()) {
  const pods = {
    node: () => undefined,
    podsOnNode: () => [{ namespace: 'a', name: 'p', uid: 'u', serviceAccount: 'b', phase: 'Running' }],
  };
  const issuer = new Issuer(
    { ...ISSUER_DEFAULTS, trustDomain: 'td', trustDomainAliases: ['old'] },
    { authority, pods, nowMs: () => nowMs },
  );
  const csr = buildCsr(generateKeyPair(), 'spiffe://td/ns/a/sa/b');
  const caller = {
    namespace: 'culvert-system',
    serviceAccount: 'culvert-agent',
    nodeName: 'n1',
    nodeUid: null,
    pod: null,
    expiresAtMs: Number.POSITIVE_INFINITY,
  };
  const outcome = await issuer.issue(caller, { csr, identity: 'spiffe://old/ns/a/sa/b', lifetimeMs: 0 });
  if ('refusal' in outcome) throw new Error(outcome.message);
  return { chain: outcome.chain.slice(0, -1).flatMap(derOf), bundle: derOf(outcome.chain.at(-1)!) };
}

describe('a root of our own', () => {
  let nowMs: number;
  const open = () =>
    new StateAuthority(
      { stateDir: folder, trustDomain: 'td', overlapMs: HOUR, intervalMs: HOUR },
      { log, nowMs: () => nowMs },
    );

  beforeEach(() => {
    nowMs = Date.now();
  });

  test('is followed by another in three steps, each of which keeps what was issued before good', async () => {
    let authority = open();
    let changes = 0;
    authority.subscribe(() => changes++);
    const first = authority.current.certificate;
    const leaves = [await issue(authority, nowMs)];
    expect(beginRootRotation(folder, 'td')).toBe(true);
    expect(beginRootRotation(folder, 'td')).toBe(false);
    authority.check();
    expect([changes, authority.current.roots.length]).toEqual([1, 2]);
    expect(authority.current.certificate).toEqual(first);
    leaves.push(await issue(authority, nowMs));
    nowMs += HOUR - 1;
    authority.check();
    expect(changes).toBe(1);
    // a restart in the middle goes on where it was
    authority.close();
    authority = open();
    nowMs += 1;
    authority.check();
    expect(authority.current.certificate).not.toEqual(first);
    expect(authority.current.roots).toHaveLength(2);
    leaves.push(await issue(authority, nowMs));
    const { bundle } = leaves.at(-1)!;
    for (const { chain } of leaves) verifyChain(chain, bundle, nowMs);
    nowMs += HOUR;
    authority.check();
    expect(authority.current.roots).toHaveLength(1);
    verifyChain(leaves.at(-1)!.chain, derOf(authority.current.roots[0]!), nowMs);
    expect(() => verifyChain(leaves[0]!.chain, derOf(authority.current.roots[0]!), nowMs)).toThrow();
    expect(existsSync(join(folder, 'previous-roots.pem'))).toBe(false);
    authority.close();
  });

  test('near its end is followed by itself', () => {
    const authority = open();
    nowMs += 8.5 * 365 * 24 * HOUR;
    authority.check();
    expect(authority.current.roots).toHaveLength(2);
    authority.close();
  });

  test('a root that is gone or swapped while the controller runs does not cut agents off: the good one stays', () => {
    const authority = open();
    const before = authority.current;
    const file = join(folder, 'root-ca.pem');
    rmSync(file);
    authority.check();
    expect(authority.current).toBe(before);
    expect(existsSync(file)).toBe(false);
    loadOrCreateRoot(file, 'td');
    authority.check();
    expect(authority.current).toBe(before);
    authority.close();
  });

  test('a root that is gone at the start is not replaced in silence, where there was one', () => {
    open().close();
    writeFileSync(join(folder, 'root-cert.pem'), 'the bundle');
    rmSync(join(folder, 'root-ca.pem'));
    expect(() => open()).toThrow(/root-ca\.pem is missing.*root-cert\.pem.*put it back, or remove/);
    expect(existsSync(join(folder, 'root-ca.pem'))).toBe(false);
    rmSync(join(folder, 'root-cert.pem'));
    open().close();
  });

  test('a listener that fails keeps nobody else from hearing of a change', () => {
    const authority = open();
    let heard = 0;
    authority.subscribe(() => {
      throw new Error('deaf');
    });
    authority.subscribe(() => heard++);
    beginRootRotation(folder, 'td');
    authority.check();
    expect([heard, authority.current.roots.length]).toEqual([1, 2]);
    authority.close();
  });

  test('a step that cannot be read stands still, what was good stays', () => {
    const authority = open();
    const before = authority.current;
    writeFileSync(join(folder, 'next-root-ca.pem'), 'x', { mode: 0o600 });
    authority.check();
    expect(authority.current).toBe(before);
    rmSync(join(folder, 'next-root-ca.pem'));
    writeFileSync(join(folder, 'root-rotation.json'), '{');
    authority.check();
    expect(authority.current).toBe(before);
    authority.close();
  });
});

describe('a CA given as files', () => {
  let dir: string;
  let root: OpensslCa;
  let signer: OpensslCa;

  beforeEach(() => {
    dir = join(folder, 'cacerts');
    mkdirSync(dir);
    root = new OpensslCa(folder, 'root');
    signer = new OpensslCa(folder, 'signer', root);
    give(signer, [root]);
  });

  const give = (ca: OpensslCa, roots: readonly OpensslCa[], chain: readonly OpensslCa[] = [ca, root]) => {
    copyFileSync(ca.certificateFile, join(dir, 'ca-cert.pem'));
    writeFileSync(join(dir, 'ca-key.pem'), ca.key, { mode: 0o600 });
    writeFileSync(join(dir, 'cert-chain.pem'), chain.map(({ certificate }) => certificate).join(''));
    writeFileSync(join(dir, 'root-cert.pem'), roots.map(({ certificate }) => certificate).join(''));
  };
  const open = () => new FilesAuthority({ folder: dir, intervalMs: HOUR }, { log, nowMs: Date.now });

  test("an intermediate, with Istio's file names: its leaves verify, the root stands last alone", async () => {
    const authority = open();
    const { chain, bundle } = await issue(authority);
    expect(chain).toHaveLength(2);
    expect(bundle).toEqual(derOf(root.certificate));
    verifyChain(chain, bundle, Date.now());
    authority.close();
  });

  test("cert-manager's names, and two intermediates in any order", async () => {
    const below = new OpensslCa(folder, 'below', signer);
    for (const name of ['ca-cert.pem', 'ca-key.pem', 'cert-chain.pem', 'root-cert.pem'])
      rmSync(join(dir, name));
    writeFileSync(join(dir, 'tls.crt'), below.certificate + root.certificate + signer.certificate);
    writeFileSync(join(dir, 'tls.key'), below.key, { mode: 0o640 });
    writeFileSync(join(dir, 'ca.crt'), root.certificate);
    const authority = open();
    const { chain, bundle } = await issue(authority);
    expect(chain).toHaveLength(3);
    verifyChain(chain, bundle, Date.now());
    authority.close();
  });

  test('a root that signs itself sends no intermediate', async () => {
    give(root, [root]);
    const authority = open();
    expect((await issue(authority)).chain).toHaveLength(1);
    authority.close();
  });

  test('is followed live: another root in three steps, without a moment in which a leaf is not good', async () => {
    const authority = open();
    const newRoot = new OpensslCa(folder, 'new-root');
    const newSigner = new OpensslCa(folder, 'new-signer', newRoot);
    const told: number[] = [];
    authority.subscribe(() => told.push(authority.current.roots.length));
    const old = await issue(authority);
    give(signer, [root, newRoot]);
    authority.check();
    give(newSigner, [root, newRoot], [newSigner, newRoot]);
    authority.check();
    const fresh = await issue(authority);
    verifyChain(old.chain, fresh.bundle, Date.now());
    verifyChain(fresh.chain, fresh.bundle, Date.now());
    give(newSigner, [newRoot], [newSigner]);
    authority.check();
    expect(told).toEqual([2, 2, 1]);
    verifyChain(fresh.chain, (await issue(authority)).bundle, Date.now());
    authority.close();
  });

  test('what is not whole, cannot sign, or would cut agents off is refused; the last good stays', () => {
    const authority = open();
    const before = authority.current;
    const stranger = new OpensslCa(folder, 'stranger');
    const refused = (change: () => void) => {
      change();
      authority.check();
      expect(authority.current).toBe(before);
      give(signer, [root]);
      authority.check();
      expect(authority.current).toBe(before);
    };
    refused(() => rmSync(join(dir, 'ca-key.pem')));
    refused(() => writeFileSync(join(dir, 'ca-key.pem'), stranger.key));
    refused(() => writeFileSync(join(dir, 'ca-cert.pem'), signer.certificate.slice(0, 200)));
    refused(() => writeFileSync(join(dir, 'root-cert.pem'), stranger.certificate));
    refused(() => chmodSync(join(dir, 'ca-key.pem'), 0o644));
    refused(() => give(stranger, [stranger], []));
    refused(() => give(stranger, [root, stranger], []));
    authority.close();
  });

  test.each([
    ['a missing key', () => rmSync(join(dir, 'ca-key.pem')), /ca-key.pem \(or tls.key\) is missing/],
    [
      'a key that everybody reads',
      () => chmodSync(join(dir, 'ca-key.pem'), 0o644),
      /read or written by everybody/,
    ],
    [
      'no way to a root',
      () => writeFileSync(join(dir, 'root-cert.pem'), new OpensslCa(folder, 'x').certificate),
      /leads to no root/,
    ],
    ['no certificate', () => writeFileSync(join(dir, 'ca-cert.pem'), 'x'), /ca-cert.pem: no complete PEM/],
  ])('%s at the start is an error', (_name, spoil, message) => {
    spoil();
    expect(open).toThrow(message);
  });
});
