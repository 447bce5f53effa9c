import { expect, test } from '@jest/globals';
import { decodeObject, type MeshObject, MODEL_DEFAULTS, Model } from '../model/index.js';
import { STATUS_VIPS } from '../translate/index.js';
import { VipAllocator } from './vip-allocator.js';

const model = new Model(MODEL_DEFAULTS, { onChange: () => {} });
const allocator = new VipAllocator({ model });

interface Options {
  readonly hosts?: readonly string[];
  readonly spec?: object;
  readonly addresses?: readonly object[];
  readonly createdAt?: string;
}

function put(name: string, options: Options = {}): string {
  const {
    hosts = [`${name}.example.org`],
    spec = {},
    addresses = [],
    createdAt = '2026-01-01T00:00:00Z',
  } = options;
  const decoded = decodeObject({
    apiVersion: 'networking.istio.io/v1',
    kind: 'ServiceEntry',
    metadata: { name, namespace: 'shop', creationTimestamp: createdAt },
    spec: { hosts, resolution: 'DNS', ports: [{ number: 80, name: 'http' }], ...spec },
    status: { addresses },
  });
  if (decoded.outcome !== 'object') throw new Error(JSON.stringify(decoded));
  model.apply({ upserted: new Map<string, MeshObject>([[decoded.key, decoded.value]]), removed: [] });
  return decoded.key;
}

const addressesOf = (key: string) => allocator.addressesOf(key, model.serviceEntry(key)!);

test('a pair for each host, the same again and again; none for wildcards and entries with their own', () => {
  const key = put('two', { hosts: ['a.example.org', 'b.example.org'] });
  const first = addressesOf(key);
  expect(first).toHaveLength(4);
  expect(first?.map(({ host }) => host)).toEqual([
    ...['a.example.org', 'a.example.org'],
    ...['b.example.org', 'b.example.org'],
  ]);
  expect(new Set(first?.map(({ value }) => value)).size).toBe(4);
  expect(addressesOf(key)).toEqual(first);
  expect(addressesOf(put('own', { spec: { addresses: ['203.0.113.1'] } }))).toEqual([]);
  const wildcard = put('wild', { hosts: ['*.example.org'], spec: { resolution: 'DYNAMIC_DNS' } });
  expect(addressesOf(wildcard)).toEqual([]);
});

test('what the status says stays, in another term too; of two claims the older is good', () => {
  const claim = (host: string) => [
    { host, value: '240.240.7.7' },
    { host, value: '2001:2::707' },
  ];
  const younger = put('younger', {
    addresses: claim('younger.example.org'),
    createdAt: '2026-06-01T00:00:00Z',
  });
  const older = put('older', { addresses: claim('older.example.org'), createdAt: '2025-01-01T00:00:00Z' });
  allocator.reset();
  expect(addressesOf(younger)?.map(({ value }) => value)).not.toContain('240.240.7.7');
  expect(addressesOf(older)?.map(({ value }) => value)).toEqual(['240.240.7.7', '2001:2::707']);
});

test('what a replica serves is the status: a whole pair of our ranges, or nothing yet', () => {
  const take = (key: string, host: string) => STATUS_VIPS.take(`shop/${host}`, model.serviceEntry(key)!);
  const host = 'served.example.org';
  expect(take(put('served'), host)).toBeNull();
  expect(take(put('served', { addresses: [{ host, value: '240.240.1.1' }] }), host)).toBeNull();
  const whole = [
    { host, value: '240.240.1.1' },
    { host, value: '2001:2::101' },
  ];
  expect(take(put('served', { addresses: whole }), host)).toEqual({
    ipv4: '240.240.1.1',
    ipv6: '2001:2::101',
  });
  // Nobody gets traffic of others by writing their addresses into a status.
  const foreign = [
    { host, value: '10.96.0.1' },
    { host, value: '2001:db8::1' },
  ];
  expect(take(put('served', { addresses: foreign }), host)).toBeNull();
});
