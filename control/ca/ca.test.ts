import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Metadata } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { exportJWK, generateKeyPair as joseKeys, SignJWT } from 'jose';
import { derToPem, generateKeyPair, issueCertificate } from '../../mesh/identity/index.js';
import { type AuthenticationOutcome, TokenAuthority } from './index.js';
import { loadOrCreateRoot } from './root.js';
import { createSecret, writeFileAtomically } from './state-file.js';

const HOUR_MS = 3_600_000;
let state: string;

beforeEach(() => {
  state = mkdtempSync(join(tmpdir(), 'culvert-ca-'));
});

afterEach(() => {
  rmSync(state, { recursive: true, force: true });
});

/** The root of a state folder, with its PEM. */
function rootIn(folder: string) {
  const root = loadOrCreateRoot(join(folder, 'root-ca.pem'), 'cluster.local');
  return { ...root, pem: derToPem(root.certificate, 'CERTIFICATE') };
}

const mode = (file: string) => statSync(join(state, file)).mode & 0o777;
const openssl = (...args: string[]) =>
  execFileSync('openssl', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });

describe('the root', () => {
  test('is made once, mode 600, and found again', () => {
    const made = rootIn(state);
    expect(mode('root-ca.pem')).toBe(0o600);
    expect(rootIn(state).pem).toBe(made.pem);
    expect(readdirSync(state)).toEqual(['root-ca.pem']);
    writeFileSync(join(state, 'pem'), made.pem);
    const text = openssl('x509', '-in', join(state, 'pem'), '-noout', '-text');
    expect(text).toMatch(/CA:TRUE/);
    expect(openssl('verify', '-CAfile', join(state, 'pem'), join(state, 'pem'))).toMatch(/OK/);
  });

  test.each<[string, (file: string) => void, RegExp]>([
    ['readable by others', (file) => chmodSync(file, 0o640), /may be read by others/],
    ["another user's", (file) => chownSync(file, 4711, 4711), /belongs to user 4711/],
    ['broken', (file) => writeFileSync(file, 'x'), /root-ca.pem/],
    [
      'with another key',
      (file) => {
        const key = generateKeyPair().privateKey.export({ type: 'pkcs8', format: 'pem' });
        writeFileSync(
          file,
          readFileSync(file, 'utf8').replace(
            /-----BEGIN PRIVATE KEY[\s\S]*END PRIVATE KEY-----\n/,
            key.toString(),
          ),
        );
      },
      /do not belong together/,
    ],
  ])('%s: refused, never replaced', (_name, spoil, message) => {
    rootIn(state);
    const file = join(state, 'root-ca.pem');
    spoil(file);
    const before = readFileSync(file, 'utf8');
    expect(() => rootIn(state)).toThrow(message);
    expect(readFileSync(file, 'utf8')).toBe(before);
  });

  test.each([
    ['EC', ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1']],
    ['RSA', ['-newkey', 'rsa:2048']],
  ])('given (%s key, made by openssl): it signs, and openssl verifies what it signed', (_kind, newKey) => {
    const [key, certificate] = [join(state, 'key'), join(state, 'cert')];
    const subject = ['-subj', '/O=given', '-days', '30', '-keyout', key, '-out', certificate];
    openssl('req', '-x509', '-nodes', '-sha256', ...newKey, ...subject);
    const text = readFileSync(key, 'utf8') + readFileSync(certificate, 'utf8');
    writeFileSync(join(state, 'root-ca.pem'), text, { mode: 0o600 });
    const root = rootIn(state);
    expect(root.pem.trim()).toBe(readFileSync(certificate, 'utf8').trim());
    const now = Date.now();
    const leaf = issueCertificate(
      {
        publicKey: generateKeyPair().publicKey,
        uris: ['spiffe://cluster.local/ns/a/sa/b'],
        notBeforeMs: now - 60_000,
        notAfterMs: now + HOUR_MS,
      },
      root,
    );
    writeFileSync(join(state, 'leaf'), derToPem(leaf, 'CERTIFICATE'));
    expect(openssl('verify', '-CAfile', certificate, join(state, 'leaf'))).toMatch(/OK/);
  });

  test('two that make it at once agree', () => {
    expect(createSecret(join(state, 'x'), 'mine')).toBe('mine');
    expect(createSecret(join(state, 'x'), 'theirs')).toBe('mine');
    writeFileAtomically(join(state, 'y'), '1', 0o644);
    writeFileAtomically(join(state, 'y'), '2', 0o644);
    expect([readFileSync(join(state, 'y'), 'utf8'), mode('y')]).toEqual(['2', 0o644]);
    expect(readdirSync(state).sort()).toEqual(['x', 'y']);
  });
});

describe('tokens', () => {
  const subject = { namespace: 'culvert-system', serviceAccount: 'culvert-agent', nodeName: 'n1' };
  const authenticate = (authority: TokenAuthority, ...values: string[]): Promise<AuthenticationOutcome> => {
    const metadata = new Metadata();
    for (const value of values) metadata.add('authorization', value);
    return authority.authenticate(metadata);
  };

  test('say who calls, also after a restart; the key has mode 600', async () => {
    const token = await TokenAuthority.load(state).mint(
      { ...subject, pod: { name: 'agent-1', uid: 'u1' } },
      HOUR_MS,
    );
    expect(mode('token-key.pem')).toBe(0o600);
    expect(await authenticate(TokenAuthority.load(state), `Bearer ${token}`)).toEqual({
      caller: {
        ...subject,
        nodeUid: null,
        pod: { name: 'agent-1', uid: 'u1' },
        expiresAtMs: expect.any(Number),
      },
    });
    const claims = JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString());
    expect(claims).toMatchObject({
      aud: 'istio-ca',
      sub: 'system:serviceaccount:culvert-system:culvert-agent',
      'kubernetes.io': {
        namespace: 'culvert-system',
        node: { name: 'n1' },
        pod: { name: 'agent-1', uid: 'u1' },
        serviceaccount: { name: 'culvert-agent' },
      },
    });
  });

  test('missing, several, of another scheme', async () => {
    const authority = TokenAuthority.load(state);
    const token = await authority.mint(subject, HOUR_MS);
    for (const values of [
      [],
      [`Bearer ${token}`, `Bearer ${token}`],
      [`Basic ${token}`],
      [token],
      ['Bearer '],
    ])
      expect(await authenticate(authority, ...values)).toMatchObject({ refusal: 'token-missing' });
  });

  test('expired', async () => {
    const authority = TokenAuthority.load(state);
    const token = await authority.mint(subject, HOUR_MS, Date.now() - 2 * HOUR_MS);
    expect(await authenticate(authority, `Bearer ${token}`)).toMatchObject({ refusal: 'token-expired' });
  });

  test('of another key, another algorithm, another audience, another issuer, or that contradict themselves', async () => {
    const authority = TokenAuthority.load(state);
    const key = (await import('node:crypto')).createPrivateKey(readFileSync(join(state, 'token-key.pem')));
    const claims = (name: string) => ({
      'kubernetes.io': { namespace: 'a', serviceaccount: { name }, node: { name: 'n1' } },
    });
    const sign = (change: (jwt: SignJWT) => SignJWT, name = 'b') =>
      change(
        new SignJWT(claims(name))
          .setProtectedHeader({ alg: 'ES256' })
          .setIssuer('culvert')
          .setAudience('istio-ca')
          .setSubject('system:serviceaccount:a:b')
          .setExpirationTime('1h'),
      ).sign(key);
    const refusal = async (token: string) => {
      const outcome = await authenticate(authority, `Bearer ${token}`);
      return 'refusal' in outcome ? outcome.refusal : 'accepted';
    };
    const none = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const other = await joseKeys('ES256');
    const stranger = await new SignJWT(claims('b'))
      .setProtectedHeader({ alg: 'ES256' })
      .setExpirationTime('1h')
      .sign(other.privateKey);
    const hmac = await new SignJWT(claims('b'))
      .setProtectedHeader({ alg: 'HS256' })
      .setExpirationTime('1h')
      .sign(Buffer.from(JSON.stringify(await exportJWK(other.publicKey))));
    expect(await refusal(await sign((jwt) => jwt))).toBe('accepted');
    expect(await refusal(stranger)).toBe('token-invalid');
    expect(await refusal(hmac)).toBe('token-invalid');
    expect(await refusal(`${none({ alg: 'none' })}.${none(claims('b'))}.`)).toBe('token-invalid');
    expect(await refusal(await sign((jwt) => jwt.setAudience('kubernetes')))).toBe('token-audience');
    expect(await refusal(await sign((jwt) => jwt.setIssuer('x')))).toBe('token-invalid');
    expect(await refusal(await sign((jwt) => jwt, 'other'))).toBe('token-invalid');
    expect(await refusal('garbage')).toBe('token-invalid');
    expect(await refusal('x'.repeat(20_000))).toBe('token-invalid');
  });
});
