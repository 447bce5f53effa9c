import { expect, test } from '@jest/globals';
import { hasAddress, interfaceNames, ipv4Addresses, ipv6Addresses, podAddresses } from './namespace-facts.js';

const fibTrie = `Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     |-- 10.244.1.5
        /32 link UNICAST
Local:
  +-- 0.0.0.0/0 2 0 2
     +-- 10.244.1.0/24 2 0 2
        |-- 10.244.1.7
           /32 host LOCAL
        |-- 10.244.1.255
           /32 link BROADCAST
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.1
           /32 host LOCAL
`;

const ifInet6 = `00000000000000000000000000000001 01 80 10 80       lo
fd000000000000000000000000000007 02 40 00 80     eth0
fd000000000000000000000000000008 02 40 00 c0     eth0
fe80000000000000000000000000abcd 02 40 20 80     eth0
`;

test('IPv4: local addresses that are not loopback', () => {
  expect(ipv4Addresses(fibTrie)).toEqual(['10.244.1.7']);
  expect(ipv4Addresses('')).toEqual([]);
});

test('IPv6: global scope only, tentative ones left out', () => {
  expect(ipv6Addresses(ifInet6)).toEqual(['fd00::7']);
  expect(ipv6Addresses('')).toEqual([]);
});

test('what the pod source knows comes first', () => {
  expect(podAddresses(['10.0.0.9', 'fd00::9'], process.pid)).toEqual({ ipv4: '10.0.0.9', ipv6: 'fd00::9' });
  expect(podAddresses([], 0)).toEqual({ ipv4: null, ipv6: null });
});

test('whether a namespace has an address', () => {
  expect(hasAddress(process.pid, ['192.0.2.1', '2001:db8::1'])).toBe(false);
  expect(ipv6Addresses(ifInet6, 0)).toEqual(['fd00::7', 'fd00::8']);
});

test('interfaces of a process', () => {
  expect(interfaceNames(process.pid)).toContain('lo');
  expect(interfaceNames(0)).toEqual([]);
});
