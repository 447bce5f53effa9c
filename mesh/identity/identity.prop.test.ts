import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  buildCsr,
  derToPem,
  formatSpiffeId,
  generateKeyPair,
  IdentityError,
  issueCertificate,
  pemToDer,
  readCertificate,
  readCsr,
  tryParseSpiffeId,
} from './index.js';

const SEED = { seed: 20260801 };
const part = (alphabet: string) =>
  fc
    .string({ unit: fc.constantFrom(...alphabet), minLength: 1, maxLength: 40 })
    .filter((text) => text !== '.' && text !== '..');
const LOWER = 'abcxyz019-._';

test('every id that can be formatted is read back', () => {
  const ids = fc.record({
    trustDomain: part(LOWER),
    namespace: part(`${LOWER}AZ`),
    serviceAccount: part(`${LOWER}AZ`),
  });
  fc.assert(
    fc.property(ids, (id) => expect(tryParseSpiffeId(formatSpiffeId(id))).toEqual(id)),
    SEED,
  );
});

test('what is read formats to the same text; nothing else is read', () => {
  const near = fc.stringMatching(/^spiffe:\/\/[a-z./:@%A-Z]{0,8}\/ns\/[a-z./%]{0,4}\/sa\/[a-z./?#]{0,4}$/);
  const property = fc.property(fc.oneof(near, fc.string()), (text) => {
    const id = tryParseSpiffeId(text);
    if (id !== null) expect(formatSpiffeId(id)).toBe(text);
  });
  fc.assert(property, { ...SEED, numRuns: 1000 });
});

/** Any change of a few bytes, and any bytes at all: an answer or our error, nothing else. */
function survives(der: Buffer, read: (der: Buffer) => unknown): void {
  const changes = fc.array(fc.tuple(fc.nat(der.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 });
  const mutated = fc.tuple(changes, fc.nat(der.length)).map(([list, cut]) => {
    const copy = Buffer.from(der);
    for (const [at, value] of list) copy[at] = value;
    return cut % 3 === 0 ? copy.subarray(0, cut) : copy;
  });
  const random = fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes));
  const property = fc.property(fc.oneof(mutated, random), (bytes) => {
    try {
      read(bytes);
    } catch (error) {
      expect(error).toBeInstanceOf(IdentityError);
    }
  });
  fc.assert(property, { ...SEED, numRuns: 2000 });
}

test('a damaged certificate is read or refused, never anything else', () => {
  const keys = generateKeyPair();
  const request = {
    publicKey: keys.publicKey,
    uris: ['spiffe://a/ns/b/sa/c'],
    notBeforeMs: 0,
    notAfterMs: 1e12,
  };
  survives(issueCertificate(request, { privateKey: keys.privateKey }), readCertificate);
});

test('a damaged CSR is refused', () => {
  const der = pemToDer(buildCsr(generateKeyPair(), 'spiffe://a/ns/b/sa/c'), 'CERTIFICATE REQUEST')[0]!;
  survives(der, (bytes) => readCsr(derToPem(bytes, 'CERTIFICATE REQUEST')));
});
