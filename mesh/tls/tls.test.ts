import { describe, expect, test } from '@jest/globals';
import { TestCa } from '../../test/support/test-ca.js';
import {
  generateKeyPair,
  type IdentityMaterial,
  issueCertificate,
  readCertificate,
  revocationKey,
} from '../identity/index.js';
import type { TlsMaterial } from '../io/types.js';
import { PeerVerifier, TlsContexts } from './index.js';

const A = 'spiffe://cluster.local/ns/shop/sa/a';
const B = 'spiffe://cluster.local/ns/shop/sa/b';

function leafOf(uris: readonly string[], dnsNames: readonly string[] = []): Buffer {
  const { publicKey, privateKey } = generateKeyPair();
  return issueCertificate({ publicKey, uris, dnsNames, notBeforeMs: 0, notAfterMs: 1e12 }, { privateKey });
}

describe('the server', () => {
  const verifier = new PeerVerifier({ trustDomain: 'cluster.local' });

  test('is one of the expected, as one of its URI names', () => {
    expect(verifier.serverIdentity(leafOf([A]), [A])).toBe(A);
    expect(verifier.serverIdentity(leafOf(['https://x', A]), [B, A])).toBe(A);
    expect(
      verifier.serverIdentity(leafOf(['spiffe://other/ns/x/sa/y']), ['spiffe://other/ns/x/sa/y']),
    ).toContain('other');
  });

  test.each([
    ['nobody', [], [A]],
    ['somebody else', [B], [A]],
    ['nearly right', [`${A}x`], [A]],
    ['right but for case', [A.toUpperCase()], [A]],
    ['whoever, when nobody is expected', [A], []],
  ])('refused: %s', (_, uris, expected) => {
    const verify = () => verifier.serverIdentity(leafOf(uris), expected);
    expect(verify).toThrow(expect.objectContaining({ code: 'UNEXPECTED_PEER' }));
  });

  test('a DNS name is no identity', () => {
    expect(() => verifier.serverIdentity(leafOf([], [A]), [A])).toThrow(
      expect.objectContaining({ code: 'UNEXPECTED_PEER' }),
    );
  });
});

describe('the client', () => {
  const verifier = new PeerVerifier({ trustDomain: 'cluster.local', trustDomainAliases: ['old.example'] });

  test('has one identity of our trust domain, or of an alias', () => {
    expect(verifier.clientIdentity(leafOf([A]))).toBe(A);
    expect(verifier.clientIdentity(leafOf(['https://x', A]))).toBe(A);
    expect(verifier.clientIdentity(leafOf(['spiffe://old.example/ns/x/sa/y']))).toBe(
      'spiffe://old.example/ns/x/sa/y',
    );
  });

  test('a server of the same account in an alias is the one expected; a foreign one is not', () => {
    const old = A.replace('cluster.local', 'old.example');
    expect(verifier.serverIdentity(leafOf([old]), [A])).toBe(old);
    expect(verifier.serverIdentity(leafOf([A]), [old])).toBe(A);
    expect(verifier.aliasesOf(A)).toEqual([old]);
    for (const uri of [A.replace('cluster.local', 'evil'), old.replace('/sa/a', '/sa/b')])
      expect(() => verifier.serverIdentity(leafOf([uri]), [A])).toThrow(
        expect.objectContaining({ code: 'UNEXPECTED_PEER' }),
      );
  });

  test('a revoked certificate anywhere in the chain is told; a chain that cannot be read counts as revoked', () => {
    const root = new TestCa('r');
    const middle = root.issueIntermediate('m');
    const { certificateChain } = middle.issue(A);
    const chain = Buffer.concat([...certificateChain, root.certificate]);
    const peer = { peerChain: () => chain };
    const revoking = (der: Buffer | null) => {
      const one = new PeerVerifier({ trustDomain: 'cluster.local' });
      const info = der && readCertificate(der);
      one.setRevoked(new Set(info === null ? ['somebody else'] : [revocationKey(info.issuer, info.serial)]));
      return one;
    };
    expect(new PeerVerifier({ trustDomain: 'x' }).revocationOf({ peerChain: () => null })).toBeNull();
    expect(revoking(null).revocationOf(peer)).toBeNull();
    expect(revoking(certificateChain[0]!).revocationOf(peer)).toMatch(/certificate 0 .* is revoked/);
    expect(revoking(certificateChain[1]!).revocationOf(peer)).toMatch(/certificate 1 .* is revoked/);
    expect(revoking(null).revocationOf({ peerChain: () => null })).toMatch(/cannot be told/);
  });

  test.each([
    ['none', [], 'BAD_PEER_CERTIFICATE'],
    ['two', [A, B], 'BAD_PEER_CERTIFICATE'],
    ['one of another shape', ['spiffe://cluster.local/workload'], 'BAD_PEER_CERTIFICATE'],
    ['one of elsewhere', ['spiffe://evil/ns/shop/sa/a'], 'FOREIGN_TRUST_DOMAIN'],
    ['one here, one elsewhere', [A, 'spiffe://evil/ns/shop/sa/a'], 'BAD_PEER_CERTIFICATE'],
  ])('refused with %s', (_, uris, code) => {
    expect(() => verifier.clientIdentity(leafOf(uris))).toThrow(expect.objectContaining({ code }));
  });

  test('refused without a certificate, and with one that is none', () => {
    expect(() => verifier.clientIdentity(null)).toThrow(
      expect.objectContaining({ code: 'NO_PEER_CERTIFICATE' }),
    );
    expect(() => verifier.clientIdentity(Buffer.from('junk'))).toThrow(
      expect.objectContaining({ code: 'BAD_PEER_CERTIFICATE' }),
    );
  });
});

describe('contexts', () => {
  const ca = new TestCa();

  function bench() {
    const timers: { delayMs: number; callback: () => void }[] = [];
    const released: number[] = [];
    const told: string[] = [];
    const made: TlsMaterial[] = [];
    const contexts = new TlsContexts(
      { releaseGraceMs: 1000 },
      {
        engine: {
          create: (material) => made.push(material),
          release: (context) => void released.push(context),
        },
        clock: {
          nowMs: () => 0,
          setTimer: (delayMs, callback) => {
            timers.push({ delayMs, callback });
            return () => {};
          },
        },
      },
    );
    contexts.subscribe({ onContext: (identity, context) => void told.push(`${identity.at(-1)}=${context}`) });
    return { contexts, timers, released, told, made };
  }

  const material = (identity: string): IdentityMaterial => ({
    ...ca.issue(identity),
    identity,
    notBeforeMs: 0,
    notAfterMs: 1,
    serial: '1',
  });

  test('one per identity, replaced live, the old one released after a grace', () => {
    const { contexts, timers, released, told, made } = bench();
    contexts.onCertificate(A, material(A));
    contexts.onCertificate(B, material(B));
    contexts.onCertificate(A, material(A));
    expect(told).toEqual(['a=1', 'b=2', 'a=3']);
    expect(contexts.current(A)).toBe(3);
    expect([...contexts.entries()]).toEqual([
      [A, 3],
      [B, 2],
    ]);
    expect(Object.keys(made[0]!).sort()).toEqual(['certificateChain', 'privateKey', 'trustBundle']);
    expect(timers.map((one) => one.delayMs)).toEqual([1000]);
    expect(released).toEqual([]);
    timers[0]!.callback();
    expect(released).toEqual([1]);
  });

  test('an identity that is gone has none', () => {
    const { contexts, timers, released, told } = bench();
    contexts.onCertificate(A, material(A));
    contexts.onGone(A);
    expect(contexts.current(A)).toBeNull();
    expect(told).toEqual(['a=1', 'a=null']);
    for (const one of timers) one.callback();
    expect(released).toEqual([1]);
    contexts.onGone(A);
    expect(timers).toHaveLength(1);
  });
});
