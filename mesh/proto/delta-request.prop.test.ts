import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { decodeDeltaRequest } from './delta-request.js';
import { envoy } from './gen/messages.js';

const Request = envoy.service.discovery.v3.DeltaDiscoveryRequest;
const RUNS = { seed: 11, numRuns: 500 } as const;

/** What it comes to, or that it is refused. */
function outcome(
  decode: (bytes: Buffer) => envoy.service.discovery.v3.DeltaDiscoveryRequest.$Properties,
  bytes: Buffer,
) {
  try {
    return JSON.parse(JSON.stringify(decode(bytes))) as unknown;
  } catch {
    return 'refused';
  }
}

const request = fc.record({
  typeUrl: fc.string(),
  responseNonce: fc.string(),
  resourceNamesSubscribe: fc.array(fc.string(), { maxLength: 3 }),
  initialResourceVersions: fc.dictionary(
    fc
      .oneof(fc.string({ unit: 'grapheme' }), fc.string({ maxLength: 300 }))
      .filter((key) => key !== '__proto__'),
    fc.string(),
  ),
});

test('reads what the generated decoder reads', () => {
  fc.assert(
    fc.property(request, (fields) => {
      const bytes = Buffer.from(Request.encode(fields).finish());
      expect(outcome(decodeDeltaRequest, bytes)).toEqual(outcome(Request.decode, bytes));
      expect({ ...decodeDeltaRequest(bytes).initialResourceVersions }).toEqual(
        fields.initialResourceVersions,
      );
    }),
    RUNS,
  );
});

test('of damaged bytes, too', () => {
  fc.assert(
    fc.property(request, fc.nat(), fc.nat(255), fc.boolean(), (fields, place, byte, isCut) => {
      const bytes = Buffer.from(Request.encode(fields).finish());
      if (bytes.length === 0) return;
      const at = place % bytes.length;
      bytes[at] = byte;
      const damaged = isCut ? bytes.subarray(0, at) : bytes;
      expect(outcome(decodeDeltaRequest, damaged)).toEqual(outcome(Request.decode, damaged));
    }),
    RUNS,
  );
});

test('a name may be __proto__', () => {
  const versions = JSON.parse('{"__proto__":"1"}') as Record<string, string>;
  const bytes = Buffer.from(Request.encode({ initialResourceVersions: versions }).finish());
  expect(Object.entries(decodeDeltaRequest(bytes).initialResourceVersions!)).toEqual([['__proto__', '1']]);
});
