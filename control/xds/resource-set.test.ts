import { describe, expect, test } from '@jest/globals';
import { envoy } from '../../mesh/proto/index.js';
import { ResourceSet } from './resource-set.js';
import type { ResourceContent } from './types.js';

const content = (
  name: string,
  text: string,
  more: Partial<ResourceContent> = {},
): [string, ResourceContent] => [name, { name, aliases: [], follows: [], value: Buffer.from(text), ...more }];
const set = (maxLogEntries?: number) =>
  new ResourceSet({ typeUrl: 't', ...(maxLogEntries === undefined ? {} : { maxLogEntries }) });

describe('ResourceSet', () => {
  test('equal content has the same version, is encoded once and changes nothing', () => {
    const resources = set();
    expect(resources.update(new Map([content('a', '1')]))).toBe(1);
    const first = resources.get('a')!;
    expect(resources.update(new Map([content('a', '1')]))).toBe(0);
    expect(resources.get('a')).toBe(first);
    const other = set();
    other.update(new Map([content('a', '1')]));
    expect(other.get('a')!.version).toBe(first.version);
    expect(resources.update(new Map([content('a', '2')]))).toBe(1);
    expect(resources.get('a')!.version).not.toBe(first.version);
  });

  test('an alias more is a change, as it is on the wire', () => {
    const resources = set();
    resources.update(new Map([content('a', '1')]));
    expect(resources.update(new Map([content('a', '1', { aliases: ['x'] })]))).toBe(1);
    const { resources: decoded } = envoy.service.discovery.v3.DeltaDiscoveryResponse.decode(
      resources.get('a')!.encoded,
    );
    expect(decoded).toMatchObject([
      { name: 'a', aliases: ['x'], resource: { type_url: 't' }, version: resources.get('a')!.version },
    ]);
  });

  test('found by name, alias and followed name, until removed', () => {
    const resources = set();
    resources.update(
      new Map([
        content('a', '1', { aliases: ['n/1'], follows: ['s'] }),
        content('s', '2'),
        content('b', '3', { follows: ['s'] }),
      ]),
    );
    const names = (key: string) => [...resources.matching(key)].map(({ name }) => name).sort();
    expect([names('a'), names('n/1'), names('s')]).toEqual([['a'], ['a'], ['a', 'b', 's']]);
    resources.update(new Map([['a', null]]));
    expect([names('a'), names('n/1'), names('s')]).toEqual([[], [], ['b', 's']]);
    expect(resources.size).toBe(2);
  });

  test('a cursor gives each name once; one that is too far behind is lost; the log stays bounded', () => {
    const resources = set(10);
    const slow = resources.cursor();
    const fast = resources.cursor();
    for (let i = 0; i < 20; i++)
      resources.update(new Map([content('a', `${i}`), content(`b${i % 2}`, `${i}`)]));
    expect(slow.take()).toBeNull();
    expect(fast.take()).toBeNull();
    const late = resources.cursor();
    resources.update(new Map([content('a', 'x')]));
    resources.update(new Map([content('a', 'y'), content('c', 'z')]));
    expect(late.take()).toEqual(new Set(['a', 'c']));
    expect(late.take()).toEqual(new Set());
  });
});
