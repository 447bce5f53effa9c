import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { isIpv6, tryCanonicalAddress } from '../../mesh/common/address.js';
import { InFlight } from './limits.js';
import { parseResolvConf } from './resolv-conf.js';
import { addressOfPtrName } from './reverse.js';

describe('resolv.conf', () => {
  test('servers in order, three at most, each once', () => {
    const text = `# comment
; nameserver 9.9.9.9
search a.example b.example
nameserver 10.96.0.10
  nameserver\t2001:DB8:0::53   # trailing
nameserver 10.96.0.10
nameserver 10.0.0.2
nameserver 10.0.0.3
options ndots:5`;
    expect(parseResolvConf(text)).toEqual(['10.96.0.10', '2001:db8::53', '10.0.0.2']);
  });

  test('only plain addresses of others', () => {
    const refused = [
      '127.0.0.53',
      '::1',
      '::ffff:127.0.0.1',
      '0.0.0.0',
      '::',
      'fe80::1%eth0',
      'fe80::1',
      'ff02::fb',
    ];
    const more = [
      '224.0.0.251',
      '255.255.255.255',
      'dns.example',
      '10.0.0',
      '10.0.0.256',
      '/etc/passwd',
      '',
      '10.1.1.1',
    ];
    const text = [...refused, ...more].map((server) => `nameserver ${server}`).join('\n');
    expect(parseResolvConf(text, ['10.1.1.1'])).toEqual([]);
    expect(parseResolvConf('nameserver ::ffff:10.0.0.2')).toEqual(['10.0.0.2']);
  });

  test('any text: canonical addresses, three at most', () => {
    const line = fc.oneof(
      fc.string(),
      fc.ipV4().map((ip) => `nameserver ${ip}`),
      fc.ipV6().map((ip) => `nameserver ${ip}`),
    );
    fc.assert(
      fc.property(fc.array(line, { maxLength: 12 }), (lines) => {
        const servers = parseResolvConf(lines.join('\n'));
        expect(servers.length).toBeLessThanOrEqual(3);
        for (const server of servers) expect(tryCanonicalAddress(server)).toBe(server);
      }),
      { seed: 20261122 },
    );
  });
});

test('names of addresses', () => {
  expect(addressOfPtrName('4.3.2.1.in-addr.arpa')).toBe('1.2.3.4');
  const nibbles = `3.5.${'0.'.repeat(22)}8.b.d.0.1.0.0.2.ip6.arpa`;
  expect(addressOfPtrName(nibbles)).toBe('2001:db8::53');
  expect(isIpv6(addressOfPtrName(nibbles)!)).toBe(true);
  for (const name of [
    'in-addr.arpa',
    '256.1.1.1.in-addr.arpa',
    '01.1.1.1.in-addr.arpa',
    '1.1.1.in-addr.arpa',
    'x.ip6.arpa',
    'a.b',
  ])
    expect(addressOfPtrName(name)).toBeNull();
});

test('questions under way: one pod cannot use up the room of all', () => {
  const inFlight = new InFlight({ maxPerPod: 2, max: 3 });
  expect(['a', 'a', 'a', 'b', 'b'].map((pod) => inFlight.take(pod))).toEqual([
    true,
    true,
    false,
    true,
    false,
  ]);
  inFlight.giveBack('a');
  expect([inFlight.take('b'), inFlight.take('c'), inFlight.total]).toEqual([true, false, 3]);
  for (const pod of ['a', 'b', 'b']) inFlight.giveBack(pod);
  expect(inFlight.total).toBe(0);
});
