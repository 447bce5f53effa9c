import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { OpensslCa, RSA_KEY } from '../../test/support/openssl-ca.js';
import { createLog } from '../log/index.js';
import {
  derToPem,
  type IdentityMaterial,
  isSignedBy,
  pemToDer,
  RevocationFile,
  readCertificate,
  readCrls,
  revocationKey,
} from './index.js';

const identity = 'spiffe://cluster.local/ns/shop/sa/a';
let folder: string;
let ca: OpensslCa;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'culvert-crl-'));
  ca = new OpensslCa(folder, 'root');
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const derOf = (pem: string): Buffer => pemToDer(pem, 'CERTIFICATE')[0]!;
const crlDer = (pem: string): Buffer => pemToDer(pem, 'X509 CRL')[0]!;
const keyOf = (file: string): string => {
  const { issuer, serial } = readCertificate(derOf(readFileSync(file, 'utf8')));
  return revocationKey(issuer, serial);
};

describe('a list', () => {
  test.each([
    ['EC', undefined],
    ['RSA', RSA_KEY],
  ])('by a CA with an %s key, PEM and DER: issuer, serials, signature', (kind, key) => {
    const signer = new OpensslCa(folder, `signer-${kind}`, null, key);
    const leaf = signer.leaf(identity, 'leaf');
    signer.revoke(leaf);
    const pem = signer.crl();
    for (const bytes of [Buffer.from(pem), crlDer(pem)]) {
      const [crl, ...more] = readCrls(bytes);
      expect(more).toEqual([]);
      expect(crl!.serials).toEqual([readCertificate(derOf(readFileSync(leaf, 'utf8'))).serial]);
      expect(crl!.nextUpdateMs! - crl!.thisUpdateMs).toBe(3_600_000);
      expect(isSignedBy(crl!, derOf(signer.certificate))).toBe(true);
      expect(isSignedBy(crl!, derOf(ca.certificate))).toBe(false);
    }
  });

  test('that was changed is not signed', () => {
    const der = crlDer(ca.crl());
    der[der.length - 3]! ^= 1;
    expect(isSignedBy(readCrls(der)[0]!, derOf(ca.certificate))).toBe(false);
  });

  test('bytes of any kind throw BAD_CRL and nothing else', () => {
    const der = crlDer(ca.crl());
    const bad = [Buffer.alloc(0), Buffer.from('x'), Buffer.from(ca.certificate), derOf(ca.certificate)];
    for (let cut = 1; cut < der.length; cut += 7) bad.push(der.subarray(0, cut));
    bad.push(Buffer.from(derToPem(der, 'X509 CRL').slice(0, -20)));
    for (const bytes of bad)
      expect(() => readCrls(bytes)).toThrow(expect.objectContaining({ code: 'BAD_CRL' }));
  });
});

describe('a file of lists', () => {
  const material = (...roots: OpensslCa[]) =>
    ({
      certificateChain: [Buffer.alloc(0)],
      trustBundle: roots.map(({ certificate }) => derOf(certificate)),
    }) as unknown as IdentityMaterial;

  function follow(first: string) {
    const file = join(folder, 'crl.pem');
    writeFileSync(file, first);
    const told: ReadonlySet<string>[] = [];
    const source = new RevocationFile(
      { file, intervalMs: 3_600_000 },
      {
        log: createLog({ level: 'silent', component: 'test' }),
        nowMs: Date.now,
        onChange: (revoked) => told.push(revoked),
      },
    );
    const write = (text: string) => {
      writeFileSync(file, text);
      source.check();
    };
    return { source, told, write, file };
  }

  test('counts once its issuer is known, and follows the file', () => {
    const [a, b] = [ca.leaf(identity, 'a'), ca.leaf(identity, 'b')];
    ca.revoke(a);
    const { source, told, write } = follow(ca.crl());
    expect(told).toEqual([]);
    source.onCertificate(identity, material(ca));
    expect(told).toEqual([new Set([keyOf(a)])]);
    source.onCertificate(identity, material(ca));
    expect(told).toHaveLength(1);
    ca.revoke(b);
    write(ca.crl());
    expect(told[1]).toEqual(new Set([keyOf(a), keyOf(b)]));
    expect(source.problems).toEqual([]);
    source.close();
  });

  test('what is bad is reported and the last good list stays; it is mended by a good one', () => {
    const leaf = ca.leaf(identity, 'a');
    ca.revoke(leaf);
    const good = ca.crl();
    const { source, told, write, file } = follow(good);
    source.onCertificate(identity, material(ca));
    const stranger = new OpensslCa(folder, 'stranger');
    const forged = crlDer(good);
    forged[forged.length - 3]! ^= 1;
    const old = ca.crl('-crl_lastupdate', '20200101000000Z', '-crl_nextupdate', '20200102000000Z');
    const future = ca.crl('-crl_lastupdate', '20980101000000Z', '-crl_nextupdate', '20990102000000Z');
    const cases: [string, RegExp][] = [
      ['nonsense', /no complete PEM block/],
      [good.slice(0, 100), /no complete PEM block/],
      [stranger.crl(), /no CA that is trusted here/],
      [derToPem(forged, 'X509 CRL'), /no CA that is trusted here/],
      [old, /is older than the one in force/],
      [future, /is of the future/],
    ];
    for (const [text, reason] of cases) {
      write(text);
      expect(source.problems).toEqual([expect.stringMatching(reason)]);
      expect(source.revokedCertificates).toBe(1);
    }
    rmSync(file);
    source.check();
    expect(source.problems).toEqual([expect.stringMatching(/ENOENT/)]);
    expect(told).toEqual([new Set([keyOf(leaf)])]);
    write(good);
    expect(source.problems).toEqual([]);
    source.close();
  });

  test('an expired one counts where there was none, and is reported', () => {
    const leaf = ca.leaf(identity, 'a');
    ca.revoke(leaf);
    const { source, told } = follow(
      ca.crl('-crl_lastupdate', '20200101000000Z', '-crl_nextupdate', '20200102000000Z'),
    );
    source.onCertificate(identity, material(ca));
    expect(told).toEqual([new Set([keyOf(leaf)])]);
    expect(source.problems).toEqual([expect.stringMatching(/has expired at 2020.*used all the same/)]);
    source.close();
  });

  test('of several issuers, one of them known by its certificate in the file only', () => {
    const below = new OpensslCa(folder, 'below', ca);
    const [a, b] = [ca.leaf(identity, 'a'), below.leaf(identity, 'b')];
    ca.revoke(a);
    below.revoke(b);
    const { source, told, write } = follow(ca.crl() + below.crl());
    source.onCertificate(identity, material(ca));
    expect(source.problems).toEqual([expect.stringMatching(/no CA that is trusted here/)]);
    write(ca.crl() + below.certificate + below.crl());
    expect(source.problems).toEqual([]);
    expect(told.at(-1)).toEqual(new Set([keyOf(a), keyOf(b)]));
    source.close();
  });

  test('of a CA and the one that follows it under the same name: both count', () => {
    const next = new OpensslCa(join(folder, 'next'), 'root');
    const [a, b] = [ca.leaf(identity, 'a'), next.leaf(identity, 'b')];
    ca.revoke(a);
    next.revoke(b);
    const { source, told } = follow(ca.crl() + next.crl());
    source.onCertificate(identity, material(ca, next));
    expect(source.problems).toEqual([]);
    expect(told.at(-1)).toEqual(new Set([keyOf(a), keyOf(b)]));
    source.close();
  });

  test('an older one of the same CA in the same file does not take the place of the newer', () => {
    const older = ca.crl('-crl_lastupdate', '20200101000000Z', '-crl_nextupdate', '20990102000000Z');
    const leaf = ca.leaf(identity, 'a');
    ca.revoke(leaf);
    const { source, told } = follow(ca.crl() + older);
    source.onCertificate(identity, material(ca));
    expect(source.problems).toEqual([expect.stringMatching(/is older than the one in force/)]);
    expect(told.at(-1)).toEqual(new Set([keyOf(leaf)]));
    source.close();
  });

  test('that is not there or not readable at the start is an error: nothing would be revoked', () => {
    const deps = {
      log: createLog({ level: 'silent', component: 'test' }),
      nowMs: Date.now,
      onChange: () => {},
    };
    const open = () => new RevocationFile({ file: join(folder, 'none'), intervalMs: 1000 }, deps);
    expect(open).toThrow(expect.objectContaining({ code: 'BAD_CRL' }));
  });
});
