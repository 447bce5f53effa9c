import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import * as abi from '../../native/abi.js';
import { Bpf } from '../../native/bpf/index.js';
import { packageRoot } from '../../native/package-root.js';
import { objectPath } from './support/datapath.js';

const header = readFileSync(join(packageRoot(), 'bpf/include/abi.h'), 'utf8');
const bpf = new Bpf();
const layout = (name: string) => bpf.typeLayout(objectPath('sockops'), name);

/** Constants of `enum name` in abi.h. */
function constants(name: string): Record<string, number> {
  const body = new RegExp(`enum ${name} \\{([^}]*)\\}`).exec(header)![1]!;
  return Object.fromEntries(
    [...body.matchAll(/(\w+) = (\d+),/g)].map(([, key, value]) => [key, Number(value)]),
  );
}

/** Where each byte that `marked` differs in lies. */
function differing(plain: Buffer, marked: Buffer): { offset: number; size: number } {
  const at = [...plain.keys()].filter((i) => plain[i] !== marked[i]);
  return { offset: at[0]!, size: at.at(-1)! - at[0]! + 1 };
}

describe('native/abi.ts is the twin of abi.h', () => {
  test('sizes', () => {
    expect(abi.sizeOf).toEqual({
      endpoint: layout('endpoint').size,
      capturedPod: bpf.typeLayout(objectPath('connect'), 'captured_pod').size,
      originalKey: layout('original_key').size,
      originalValue: layout('original_value').size,
      caller: layout('caller').size,
      dialKey: layout('dial_key').size,
      portKey: bpf.typeLayout(objectPath('connect'), 'port_key').size,
      rangeKey: bpf.typeLayout(objectPath('connect'), 'range_key').size,
      ticket: bpf.typeLayout(objectPath('inbound'), 'ticket').size,
    });
  });

  test('endpoint', () => {
    const { members } = layout('endpoint');
    const zero = abi.encodeEndpoint({ address: '::', port: 0 });
    const all = 'ffff:'.repeat(7).concat('ffff');
    expect(differing(zero, abi.encodeEndpoint({ address: all, port: 0 }))).toEqual(members['address']);
    expect(differing(zero, abi.encodeEndpoint({ address: '::', port: 65535 }))).toEqual(members['port']);
  });

  test('captured_pod', () => {
    const { members } = bpf.typeLayout(objectPath('connect'), 'captured_pod');
    const zero = abi.encodeCapturedPod({ ipv4: '0.0.0.0', ipv6: '::' });
    const ipv6 = 'ffff:'.repeat(7).concat('ffff');
    expect(differing(zero, abi.encodeCapturedPod({ ipv4: '255.255.255.255', ipv6: '::' }))).toEqual(
      members['ipv4'],
    );
    expect(differing(zero, abi.encodeCapturedPod({ ipv4: '0.0.0.0', ipv6 }))).toEqual(members['ipv6']);
    const none = abi.encodeCapturedPod({ ipv4: null, ipv6: null });
    expect(differing(zero, none).offset).toBe(members['flags']!.offset);
    expect(zero.readUInt32LE(members['flags']!.offset)).toBe(3);
  });

  test('original_key and original_value', () => {
    const { members } = layout('original_key');
    const key = (cookie: bigint, address: string, port: number) =>
      abi.encodeOriginalKey(cookie, { address, port }, 0);
    expect(differing(key(0n, '1::', 0), key(0xffffffffffffffffn, '1::', 0))).toEqual(members['netns_cookie']);
    expect(differing(key(0n, '::', 0), key(0n, 'ffff:'.repeat(7).concat('ffff'), 0))).toEqual(
      members['address'],
    );
    expect(differing(key(0n, '1::', 0), key(0n, '1::', 65535))).toEqual(members['port']);
    expect(key(0n, '1::', 0).readUInt16LE(members['family']!.offset)).toBe(10);
    expect(key(0n, '1.2.3.4', 0).readUInt16LE(members['family']!.offset)).toBe(2);
    const source = { address: '1::', port: 0 };
    expect(differing(abi.encodeOriginalKey(0n, source, 0), abi.encodeOriginalKey(0n, source, 65535))).toEqual(
      members['listener'],
    );
    const value = Buffer.alloc(abi.sizeOf.originalValue);
    value.fill(255, layout('original_value').members['born']!.offset);
    expect(abi.originalBorn(value)).toBe(0xffffffff);
    expect(abi.decodeOriginal(value)).toEqual({ address: '::', port: 0 });
  });

  test('port_key and range_key', () => {
    const port = bpf.typeLayout(objectPath('connect'), 'port_key').members;
    const zero = abi.encodePortKey(0n, 0, 'outbound');
    expect(differing(zero, abi.encodePortKey(2n ** 64n - 1n, 0, 'outbound'))).toEqual(port['netns_cookie']);
    expect(differing(zero, abi.encodePortKey(0n, 65535, 'outbound'))).toEqual(port['port']);
    expect(differing(zero, abi.encodePortKey(0n, 0, 'inbound')).offset).toBe(port['direction']!.offset);
    const range = bpf.typeLayout(objectPath('connect'), 'range_key').members;
    const none = abi.encodeRangeKey(0n, '::', 0);
    const all = 'ffff:'.repeat(7).concat('ffff');
    expect(differing(none, abi.encodeRangeKey(2n ** 64n - 1n, '::', 0))).toEqual(range['netns_cookie']);
    expect(differing(none, abi.encodeRangeKey(0n, all, 0))).toEqual(range['address']);
    expect(abi.encodeRangeKey(0n, '10.0.0.0', 8).readUInt32LE(0)).toBe(64 + 96 + 8);
    expect(abi.encodeRangeKey(0n, 'fd00::', 8).readUInt32LE(0)).toBe(64 + 8);
  });

  test('caller and dial_key', () => {
    expect(layout('caller').members).toMatchObject({
      endpoint: { offset: 0, size: 20 },
      state: { offset: 20, size: 4 },
    });
    const zero = { address: '::', port: 0 };
    const one = { address: '1::', port: 1 };
    const { members } = layout('dial_key');
    expect(differing(abi.encodeDialKey(0n, zero, zero), abi.encodeDialKey(0n, one, zero)).offset).toBe(
      members['source']!.offset + 1,
    );
    expect(differing(abi.encodeDialKey(0n, zero, zero), abi.encodeDialKey(0n, zero, one)).offset).toBe(
      members['destination']!.offset + 1,
    );
  });

  test('constants', () => {
    const defined = (name: string) => Number(new RegExp(`#define ${name} (\\d+)`).exec(header)![1]);
    expect(abi.abiVersion).toBe(defined('CULVERT_ABI_VERSION'));
    expect(abi.outboundPort).toBe(defined('OUTBOUND_PORT'));
    expect(abi.hbonePort).toBe(defined('HBONE_PORT'));
    expect(abi.dnsPort).toBe(defined('DNS_PORT'));
    expect(abi.redirectPorts).toEqual({
      first: defined('REDIRECT_FIRST_PORT'),
      count: defined('REDIRECT_PORTS'),
    });
    const lower = (prefix: string, values: Record<string, number>) =>
      Object.fromEntries(
        Object.entries(values).map(([key, value]) => [key.slice(prefix.length).toLowerCase(), value]),
      );
    expect(lower('CGROUP_', constants('cgroup_kind'))).toEqual(abi.cgroupKind);
    expect(lower('CALLER_', constants('caller_state'))).toEqual(abi.callerState);
    const { count: slots, ...slot } = lower('SLOT_', constants('listener_slot'));
    expect(slot).toEqual(abi.listenerSlot);
    expect(slots).toBe(Object.keys(abi.listenerSlot).length);
    const { counter_count: counters, ...counter } = lower('', constants('counter'));
    expect(counter).toEqual(Object.fromEntries(abi.counterNames.map((name, index) => [name, index])));
    expect(counters).toBe(abi.counterNames.length);
  });

  test('map names fit, and each object has those it says', () => {
    using object = bpf.load(objectPath('connect'));
    expect([...object.maps.keys()].sort()).toEqual([...abi.sharedMaps].sort());
    for (const name of abi.sharedMaps) expect(name.length).toBeLessThanOrEqual(15);
  });
});
