import { execFileSync } from 'node:child_process';
import { generateKeyPairSync, X509Certificate } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from '@jest/globals';
import {
  buildCsr,
  type CertificateRequest,
  derToPem,
  formatSpiffeId,
  generateKeyPair,
  issueCertificate,
  keyPairOf,
  pemToDer,
  readCertificate,
  readCsr,
  type Signer,
  tryParseSpiffeId,
  verifyChain,
} from './index.js';

const ID = 'spiffe://cluster.local/ns/shop/sa/cart';
const NOW = Date.UTC(2026, 4, 5, 6, 7, 8);
const DAY = 86_400_000;
const scratch = mkdtempSync(join(tmpdir(), 'culvert-identity-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

function openssl(args: string[], files: Record<string, string | Buffer> = {}): string {
  for (const [name, content] of Object.entries(files)) writeFileSync(join(scratch, name), content);
  return execFileSync('openssl', args, { cwd: scratch, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

function makeRoot(over: Partial<CertificateRequest> = {}, keys = generateKeyPair()): Required<Signer> {
  const certificate = issueCertificate(
    {
      publicKey: keys.publicKey,
      organization: 'cluster.local',
      notBeforeMs: NOW,
      notAfterMs: NOW + 3650 * DAY,
      ca: {},
      ...over,
    },
    { privateKey: keys.privateKey },
  );
  return { privateKey: keys.privateKey, certificate };
}

function makeCa(root: Signer, over: Partial<CertificateRequest> = {}): Required<Signer> {
  const keys = generateKeyPair();
  const certificate = issueCertificate(
    {
      publicKey: keys.publicKey,
      organization: 'cluster.local',
      commonName: 'intermediate',
      notBeforeMs: NOW,
      notAfterMs: NOW + 365 * DAY,
      ca: { pathLength: 0 },
      ...over,
    },
    root,
  );
  return { privateKey: keys.privateKey, certificate };
}

function makeLeaf(signer: Signer, over: Partial<CertificateRequest> = {}): Buffer {
  const request = {
    publicKey: generateKeyPair().publicKey,
    uris: [ID],
    notBeforeMs: NOW,
    notAfterMs: NOW + DAY,
  };
  return issueCertificate({ ...request, ...over }, signer);
}

describe('SPIFFE ids', () => {
  test('exactly the shape of the mesh', () => {
    expect(tryParseSpiffeId(ID)).toEqual({
      trustDomain: 'cluster.local',
      namespace: 'shop',
      serviceAccount: 'cart',
    });
    expect(formatSpiffeId({ trustDomain: 'td', namespace: 'n', serviceAccount: 's' })).toBe(
      'spiffe://td/ns/n/sa/s',
    );
  });

  test.each([
    '',
    'spiffe://cluster.local',
    'spiffe://cluster.local/ns/a/sa/b/',
    'spiffe://cluster.local/ns/a/sa/b/c',
    'spiffe://cluster.local/ns//sa/b',
    'spiffe:///ns/a/sa/b',
    'SPIFFE://cluster.local/ns/a/sa/b',
    'spiffe://Cluster.local/ns/a/sa/b',
    'spiffe://cluster.local:80/ns/a/sa/b',
    'spiffe://u@cluster.local/ns/a/sa/b',
    'spiffe://cluster.local/ns/a/sa/b?x',
    'spiffe://cluster.local/ns/a/sa/b#x',
    'spiffe://cluster.local/ns/../sa/b',
    'spiffe://cluster.local/ns/a/sa/.',
    'spiffe://cluster.local/ns/a%2e/sa/b',
    'spiffe://cluster.local/sa/a/ns/b',
    ' spiffe://cluster.local/ns/a/sa/b',
    'spiffe://cluster.local/ns/a/sa/b\n',
    'spiffe://cluster.local/ns/a/sa/b\0',
    `spiffe://${'a'.repeat(256)}/ns/a/sa/b`,
    `spiffe://a/ns/a/sa/${'b'.repeat(2048)}`,
  ])('not %j', (text) => {
    expect(tryParseSpiffeId(text)).toBeNull();
  });

  test('format refuses what would not be read back', () => {
    const format = () => formatSpiffeId({ trustDomain: 'td', namespace: 'a/sa/b', serviceAccount: 's' });
    expect(format).toThrow(expect.objectContaining({ code: 'BAD_SPIFFE_ID' }));
  });
});

describe('CSR', () => {
  test('openssl reads ours: P-256, SHA-256, empty subject, one critical URI', () => {
    const text = openssl(['req', '-in', 'a.csr', '-noout', '-text', '-verify'], {
      'a.csr': buildCsr(generateKeyPair(), ID),
    });
    expect(text).toContain('NIST CURVE: P-256');
    expect(text).toContain('ecdsa-with-SHA256');
    expect(text).toMatch(/Subject:\s*\n/);
    expect(text).toMatch(
      /X509v3 Subject Alternative Name: critical\s+URI:spiffe:\/\/cluster.local\/ns\/shop\/sa\/cart\n/,
    );
  });

  test('we read ours, and prove possession', () => {
    const keys = generateKeyPair();
    const csr = buildCsr(keys, ID);
    const read = readCsr(csr);
    expect(read.isPlain).toBe(true);
    expect(read.uris).toEqual([ID]);
    expect(read.publicKey.equals(keys.publicKey)).toBe(true);
    const der = pemToDer(csr, 'CERTIFICATE REQUEST')[0]!;
    for (const at of [30, 80, der.length - 3]) {
      const broken = Buffer.from(der);
      broken[at]! ^= 1;
      expect(() => readCsr(derToPem(broken, 'CERTIFICATE REQUEST'))).toThrow();
    }
  });

  test.each([
    ['rsa:2048', true],
    ['rsa:1024', false],
    ['ec:P-384', true],
    ['ec:P-521', false],
    ['ed25519', false],
  ])('a CSR by openssl with a %s key: accepted %s', (kind, isAccepted) => {
    const [type, size] = kind.split(':') as [string, string?];
    const options = {
      rsa: ['-pkeyopt', `rsa_keygen_bits:${size}`],
      ec: ['-pkeyopt', `ec_paramgen_curve:${size}`],
    };
    const keyArgs = ['genpkey', '-algorithm', type, ...(options[type as 'rsa'] ?? []), '-out', 'k.pem'];
    openssl(keyArgs);
    const csr = openssl([
      'req',
      '-new',
      '-key',
      'k.pem',
      '-subj',
      '/O=x',
      '-addext',
      `subjectAltName=DNS:a,URI:${ID}`,
    ]);
    if (isAccepted) expect(readCsr(csr).uris).toEqual([ID]);
    else expect(() => readCsr(csr)).toThrow(expect.objectContaining({ code: 'BAD_CSR' }));
  });

  test.each([
    ['/', [`subjectAltName=critical,URI:${ID}`], true],
    ['/', [`subjectAltName=URI:${ID}`], true],
    ['/O=system:masters', [`subjectAltName=URI:${ID}`], false],
    ['/', [`subjectAltName=URI:${ID},DNS:a`], false],
    ['/', [`subjectAltName=URI:${ID},URI:${ID}2`], false],
    ['/', [`subjectAltName=URI:${ID}`, 'basicConstraints=CA:TRUE'], false],
    ['/', ['subjectAltName=DNS:a'], false],
    ['/', [], false],
  ])('a CSR by openssl for %s with %j: plain %s', (subject, extensions, isPlain) => {
    openssl(['genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256', '-out', 'k.pem']);
    const wanted = extensions.flatMap((extension) => ['-addext', extension]);
    const config = ['-config', 'plain.cnf'];
    const files = { 'plain.cnf': '[req]\ndistinguished_name=name\n[name]\n' };
    const csr = openssl(['req', '-new', '-key', 'k.pem', '-subj', subject, ...config, ...wanted], files);
    expect(readCsr(csr).isPlain).toBe(isPlain);
  });

  test.each(['', 'x', '-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n', 'A'.repeat(20_000)])(
    'not a CSR: %#',
    (text) => {
      expect(() => readCsr(text)).toThrow(
        expect.objectContaining({ code: expect.stringMatching(/^BAD_(PEM|CSR)$/) }),
      );
    },
  );
});

describe('certificates', () => {
  test('openssl verifies root, intermediate and leaf, and node:crypto agrees', () => {
    const root = makeRoot();
    const ca = makeCa(root);
    const leaf = makeLeaf(ca);
    const files = {
      'root.pem': derToPem(root.certificate, 'CERTIFICATE'),
      'ca.pem': derToPem(ca.certificate, 'CERTIFICATE'),
      'leaf.pem': derToPem(leaf, 'CERTIFICATE'),
    };
    const at = [
      '-attime',
      String(NOW / 1000 + 60),
      '-x509_strict',
      '-CAfile',
      'root.pem',
      '-untrusted',
      'ca.pem',
    ];
    expect(openssl(['verify', ...at, '-purpose', 'sslserver', 'leaf.pem'], files)).toContain('OK');
    expect(openssl(['verify', ...at, '-purpose', 'sslclient', 'leaf.pem'])).toContain('OK');
    const text = openssl(['x509', '-in', 'leaf.pem', '-noout', '-text']);
    expect(text).toMatch(/Subject Alternative Name: critical\s+URI:spiffe/);
    expect(text).toContain('TLS Web Server Authentication, TLS Web Client Authentication');
    const oracle = new X509Certificate(leaf);
    expect(oracle.subjectAltName).toBe(`URI:${ID}`);
    verifyChain([leaf, ca.certificate], [root.certificate], NOW + 1);
    verifyChain([leaf, ca.certificate, root.certificate], [root.certificate], NOW + 1);
  });

  test('read gives what node:crypto says', () => {
    const root = makeRoot();
    const leaf = makeLeaf(root, {
      uris: [ID, 'https://x'],
      dnsNames: ['a.b'],
      ipAddresses: ['10.0.0.1', '::1'],
    });
    const info = readCertificate(leaf);
    const oracle = new X509Certificate(leaf);
    expect(info.uris).toEqual([ID, 'https://x']);
    expect(oracle.subjectAltName).toContain('DNS:a.b, IP Address:10.0.0.1, IP Address:0:0:0:0:0:0:0:1');
    expect(info.serial).toBe(oracle.serialNumber);
    expect(info.notBeforeMs).toBe(Date.parse(oracle.validFrom));
    expect(info.notAfterMs).toBe(Date.parse(oracle.validTo));
    expect(info.isCa).toBe(false);
    expect(info.publicKey).toEqual(oracle.publicKey.export({ type: 'spki', format: 'der' }));
    expect(readCertificate(root.certificate).isCa).toBe(true);
  });

  test('GeneralizedTime from 2050, an end cut to the issuer, an expired issuer refused', () => {
    const far = makeRoot({ notAfterMs: Date.UTC(2060, 0, 1) });
    expect(new X509Certificate(far.certificate).validTo).toContain('2060');
    expect(readCertificate(far.certificate).notAfterMs).toBe(Date.UTC(2060, 0, 1));
    const brief = makeRoot({ notAfterMs: NOW + 1000 });
    expect(readCertificate(makeLeaf(brief)).notAfterMs).toBe(NOW + 1000);
    expect(() => makeLeaf(brief, { notBeforeMs: NOW + 1000 })).toThrow(/expired/);
    expect(() => makeLeaf({ ...brief, certificate: makeLeaf(brief) })).toThrow(/not a CA/);
  });

  test('an RSA root and a P-384 root sign', () => {
    for (const pair of [
      generateKeyPairSync('rsa', { modulusLength: 2048 }),
      generateKeyPairSync('ec', { namedCurve: 'P-384' }),
    ]) {
      const root = makeRoot({}, keyPairOf(pair.privateKey));
      verifyChain([makeLeaf(root)], [root.certificate], NOW + 1);
    }
  });

  test('a leaf by openssl is read', () => {
    openssl(['ecparam', '-name', 'prime256v1', '-genkey', '-noout', '-out', 'k.pem']);
    const pem = openssl([
      'req',
      '-x509',
      '-key',
      'k.pem',
      '-subj',
      '/CN=x',
      '-days',
      '3',
      '-addext',
      `subjectAltName=URI:${ID}`,
    ]);
    expect(readCertificate(pemToDer(pem, 'CERTIFICATE')[0]!).uris).toEqual([ID]);
  });

  test('reading a leaf takes well under 100 us', () => {
    const leaf = makeLeaf(makeRoot());
    let best = Number.POSITIVE_INFINITY;
    for (let round = 0; round < 20; round++) {
      const start = process.hrtime.bigint();
      for (let i = 0; i < 100; i++) readCertificate(leaf);
      best = Math.min(best, Number(process.hrtime.bigint() - start) / 100);
    }
    expect(best).toBeLessThan(100_000);
  });
});

describe('verifyChain refuses', () => {
  const root = makeRoot();
  const other = makeRoot();
  const ca = makeCa(root);
  const leaf = makeLeaf(ca);
  const cases: [string, Buffer[], Buffer[], number][] = [
    ['another root', [leaf, ca.certificate], [other.certificate], NOW],
    ['no roots', [leaf, ca.certificate], [], NOW],
    ['a missing intermediate', [leaf], [root.certificate], NOW],
    ['an empty chain', [], [root.certificate], NOW],
    ['too early', [leaf, ca.certificate], [root.certificate], NOW - 1000],
    ['an expired leaf', [leaf, ca.certificate], [root.certificate], NOW + 2 * DAY],
    [
      'an expired intermediate',
      [makeLeaf(root, { notAfterMs: NOW + 3650 * DAY })],
      [makeRoot().certificate],
      NOW,
    ],
    ['a leaf as issuer', [makeLeaf(root), leaf], [root.certificate], NOW],
    ['bytes that are no certificate', [Buffer.from('30', 'hex')], [root.certificate], NOW],
    ['a CA as leaf', [ca.certificate], [root.certificate], NOW],
    ['a chain in the wrong order', [ca.certificate, leaf], [root.certificate], NOW],
  ];
  test.each(cases)('%s', (_, chain, roots, now) => {
    expect(() => verifyChain(chain, roots, now)).toThrow(
      expect.objectContaining({ code: expect.stringMatching(/^(UNTRUSTED_CHAIN|BAD_CERTIFICATE)$/) }),
    );
  });

  test('a root with the same name and another key', () => {
    expect(() => verifyChain([makeLeaf(other)], [root.certificate], NOW)).toThrow(/no root/);
  });
});
