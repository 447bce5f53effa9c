import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { formatAddress, formatSocketAddress } from '../common/address.js';
import { Memo } from '../common/memo.js';
import { tryParseAuthority } from './authority.js';
import { BaggageTexts, formatBaggage, readBaggage } from './baggage.js';
import { connectHeaders, readMetadata, tryReadConnect } from './connect-headers.js';
import { formatForwarded, tryParseForwarded } from './forwarded.js';
import { isTraceparent, TraceparentSource } from './traceparent.js';
import type { Baggage, ConnectMetadata } from './types.js';

const SEED = { seed: 20260802 };
const name = fc.stringMatching(/^[a-z0-9][a-z0-9.-]{0,20}$/);
const optional = fc.option(name, { nil: undefined });
const baggages = fc
  .record({
    clusterName: optional,
    namespace: optional,
    workload: fc.option(fc.tuple(fc.constantFrom('deployment', 'cronjob', 'pod', 'job'), name), {
      nil: undefined,
    }),
    serviceName: optional,
    serviceVersion: optional,
    region: optional,
    zone: optional,
  })
  .map(({ workload, ...rest }) => {
    const all =
      workload === undefined ? rest : { ...rest, workloadType: workload[0], workloadName: workload[1] };
    return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined)) as Baggage;
  });
const addresses = fc
  .tuple(
    fc.oneof(fc.uint8Array({ minLength: 4, maxLength: 4 }), fc.uint8Array({ minLength: 16, maxLength: 16 })),
    fc.integer({ min: 1, max: 65535 }),
  )
  .map(([bytes, port]) => ({ address: formatAddress(bytes), port }));
const hostnames = fc.stringMatching(/^[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?(\.[a-z][a-z0-9]{0,8}){1,4}$/);

/** The sheet's parser, word for word: split on "," then "=", the second piece is the value, empty is unset, the rest is ignored. */
function naiveBaggage(lines: readonly string[]): Record<string, string> {
  const found: Record<string, string> = {};
  for (const pair of lines.join(',').split(',')) {
    const pieces = pair.split('=');
    if (pieces.length < 2) continue;
    if (pieces[1] === '') delete found[pieces[0]!];
    else found[pieces[0]!] = pieces[1]!;
  }
  return found;
}

function read(lines: readonly string[]): Baggage {
  const into = {};
  for (const line of lines) readBaggage(line, into);
  return into;
}

describe('baggage', () => {
  test("the sheet's order and form", () => {
    const all: Baggage = {
      zone: 'z',
      region: 'r',
      serviceVersion: 'v1',
      serviceName: 's',
      workloadName: 'w',
      workloadType: 'deployment',
      namespace: 'n',
      clusterName: 'c',
    };
    expect(formatBaggage(all)).toBe(
      'k8s.cluster.name=c,k8s.namespace.name=n,k8s.deployment.name=w,service.name=s,service.version=v1,cloud.region=r,cloud.availability_zone=z',
    );
  });

  test('read(format(x)) = x', () => {
    fc.assert(
      fc.property(baggages, (baggage) => expect(read([formatBaggage(baggage)])).toEqual(baggage)),
      SEED,
    );
  });

  test('as the naive parser, for any lines', () => {
    const key = fc.constantFrom(
      'k8s.cluster.name',
      'k8s.namespace.name',
      'service.name',
      'cloud.region',
      'x',
      '',
    );
    const pair = fc.tuple(key, fc.stringMatching(/^[a-z;="]{0,5}$/)).map(([k, v]) => `${k}=${v}`);
    const lines = fc.array(
      fc.array(fc.oneof(pair, key), { maxLength: 6 }).map((pairs) => pairs.join(',')),
      { minLength: 1, maxLength: 3 },
    );
    const property = fc.property(lines, (texts) => {
      const naive = naiveBaggage(texts);
      const got = read(texts);
      expect(got.clusterName).toBe(naive['k8s.cluster.name']);
      expect(got.namespace).toBe(naive['k8s.namespace.name']);
      expect(got.serviceName).toBe(naive['service.name']);
      expect(got.region).toBe(naive['cloud.region']);
    });
    fc.assert(property, SEED);
  });

  test('a value that would break the header is not sent; any text is read without an error', () => {
    const property = fc.property(fc.string({ unit: 'binary' }), (text) => {
      const back = read([formatBaggage({ namespace: text, zone: 'z' })]);
      expect(back).toEqual('namespace' in back ? { namespace: text, zone: 'z' } : { zone: 'z' });
      read([text]);
    });
    fc.assert(property, { ...SEED, numRuns: 500 });
  });

  test('nothing is taken of a line that is longer than all pairs together can be', () => {
    const line = (padding: number) => `k8s.namespace.name=shop,x=${'y'.repeat(padding)}`;
    expect(read([line(1000)])).toEqual({ namespace: 'shop' });
    expect(read([line(5000)])).toEqual({});
  });

  test('a name of the workload is one field, whatever its type', () => {
    expect(read(['k8s.pod.name=a,k8s.job.name=b'])).toEqual({ workloadType: 'job', workloadName: 'b' });
    expect(read(['k8s.pod.name=a', 'k8s.pod.name='])).toEqual({});
    expect(read([`service.name=${'x'.repeat(257)}`])).toEqual({});
  });
});

describe('forwarded', () => {
  test("the sheet's form", () => {
    expect(formatForwarded({ address: '10.0.0.1', port: 1234 }, 'a.b.svc')).toBe(
      'for="10.0.0.1:1234";host=a.b.svc',
    );
    expect(formatForwarded({ address: '2001:db8::1', port: 1 }, undefined)).toBe('for="[2001:db8::1]:1"');
  });

  test('parse(format(x)) = x', () => {
    const property = fc.property(addresses, fc.option(hostnames), (client, host) => {
      expect(tryParseForwarded(formatForwarded(client, host ?? undefined))).toEqual({ for: client, host });
    });
    fc.assert(property, SEED);
  });

  test('RFC 7239: order, case, other parameters, quoted pairs, further elements', () => {
    const both = { for: { address: '10.0.0.1', port: 5 }, host: 'a.b' };
    for (const text of [
      'host=a.b;for="10.0.0.1:5"',
      'For="10.0.0.1:5";HOST="a.b";proto=https;by=_x',
      'for="10\\.0.0.1:5";host=a.b, for=unknown',
      'for="10.0.0.1:5";host=a.b ,for="1.1.1.1:1"',
    ])
      expect(tryParseForwarded(text)).toEqual(both);
    expect(tryParseForwarded('for=unknown;host=_gateway..x')).toEqual({ for: null, host: null });
    expect(tryParseForwarded('for="[::ffff:10.0.0.1]:5"')).toEqual({
      for: { address: '10.0.0.1', port: 5 },
      host: null,
    });
  });

  test.each([
    '',
    ';',
    'for',
    'for=',
    'for="1',
    'for=1.1.1.1:1',
    'for=a;for=b',
    'host=a host=b',
    'for=a; host=b',
    'for="a"x',
  ])('not %j', (text) => expect(tryParseForwarded(text)).toBeNull());

  test('any text is read or null', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => void tryParseForwarded(text)),
      SEED,
    );
  });
});

describe('authority', () => {
  test('both forms, read back', () => {
    const property = fc.property(addresses, hostnames, (address, hostname) => {
      expect(tryParseAuthority(formatSocketAddress(address))).toEqual({ address, host: null });
      const host = { hostname, port: address.port };
      expect(tryParseAuthority(`${hostname}:${address.port}`)).toEqual({ address: null, host });
    });
    fc.assert(property, SEED);
  });

  test.each([
    '',
    ':80',
    '10.0.0.1',
    '10.0.0.1:',
    '10.0.0.1:0',
    '10.0.0.1:65536',
    '10.0.0.1:080',
    '10.0.0.256:80',
    '10.0.0:80',
    '2130706433:80',
    '0x7f000001.1:80',
    '2001:db8::1:80',
    '[2001:db8::1]',
    '[10.0.0.1]:80',
    '[::1%eth0]:80',
    '[fe80::1]:80 ',
    'a b:80',
    'a..b:80',
    '-a:80',
    'a-:80',
    '.a:80',
    'a.:80',
    'u@a:80',
    'a:80/',
    'a:b:80',
    'http://a:80',
    'a:+80',
    'a:0',
    'a:70000',
    `${'a'.repeat(64)}:80`,
    `${'a.'.repeat(127)}b:80`,
    'ä:80',
    'a\0b:80',
    'a.*.b:80',
  ])('not %j', (text) => {
    expect(tryParseAuthority(text)).toBeNull();
  });

  test('canonical on reading', () => {
    expect(tryParseAuthority('[2001:DB8:0:0:0:0:0:1]:80')?.address).toEqual({
      address: '2001:db8::1',
      port: 80,
    });
    expect(tryParseAuthority('[::ffff:10.0.0.1]:80')?.address).toEqual({ address: '10.0.0.1', port: 80 });
    expect(tryParseAuthority('Web.Shop.SVC:80')?.host).toEqual({ hostname: 'web.shop.svc', port: 80 });
    expect(tryParseAuthority('*.example.com:443')?.host).toEqual({ hostname: '*.example.com', port: 443 });
  });
});

describe('traceparent', () => {
  test('random ones are valid and differ', () => {
    const source = new TraceparentSource();
    const seen = new Set(Array.from({ length: 200 }, () => source.next()));
    expect(seen.size).toBe(200);
    for (const text of seen) expect(isTraceparent(text)).toBe(true);
  });

  test.each([
    '',
    `00-${'0'.repeat(32)}-${'1'.repeat(16)}-00`,
    `00-${'1'.repeat(32)}-${'0'.repeat(16)}-00`,
    `01-${'1'.repeat(32)}-${'1'.repeat(16)}-00`,
    `00-${'A'.repeat(32)}-${'1'.repeat(16)}-00`,
    `00-${'1'.repeat(32)}-${'1'.repeat(16)}-00-x`,
    `00-${'1'.repeat(32)}-${'1'.repeat(16)}-0\n`,
  ])('not %j', (text) => expect(isTraceparent(text)).toBe(false));
});

describe('CONNECT', () => {
  const metadatas = fc
    .record({
      baggage: fc.option(baggages),
      forwardedFor: fc.option(addresses),
      forwardedHost: fc.option(hostnames),
    })
    .map(
      (all) =>
        Object.fromEntries(Object.entries(all).filter(([, value]) => value !== null)) as ConnectMetadata,
    );

  test('what is sent is read', () => {
    const traceparent = new TraceparentSource().next();
    const property = fc.property(addresses, metadatas, (address, metadata) => {
      const authority = [':authority', formatSocketAddress(address)] as const;
      const headers = connectHeaders(authority, metadata, traceparent, new BaggageTexts());
      expect(tryReadConnect(headers, new Memo(tryParseAuthority))).toEqual({
        address,
        host: null,
        authority: formatSocketAddress(address),
      });
      const { baggage, ...rest } = metadata;
      const sent = baggage !== undefined && Object.keys(baggage).length > 0 ? metadata : rest;
      expect(readMetadata(headers, new BaggageTexts())).toEqual({ ...sent, traceparent });
    });
    fc.assert(property, SEED);
  });

  test.each([
    [
      [
        [':method', 'GET'],
        [':authority', 'a:80'],
      ],
    ],
    [
      [
        [':method', 'connect'],
        [':authority', 'a:80'],
      ],
    ],
    [[[':method', 'CONNECT']]],
    [[[':authority', 'a:80']]],
    [
      [
        [':method', 'CONNECT'],
        [':authority', 'a:80'],
        [':path', '/'],
      ],
    ],
    [
      [
        [':method', 'CONNECT'],
        [':authority', 'a:80'],
        [':scheme', 'https'],
      ],
    ],
    [
      [
        [':method', 'CONNECT'],
        [':authority', 'a:80'],
        [':protocol', 'websocket'],
      ],
    ],
    [
      [
        [':method', 'CONNECT'],
        [':authority', 'a'],
      ],
    ],
  ] as [[string, string][]][])('refused: %j', (headers) => {
    expect(tryReadConnect(headers, new Memo(tryParseAuthority))).toBeNull();
  });
});
