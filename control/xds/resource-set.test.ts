import { describe, expect, test } from '@jest/globals';
import { envoy } from '../../mesh/proto/index.js';
import { ResourceSet } from './resource-set.js';
import type { Push, ResourceContent } from './types.js';

const content = (
  name: string,
  text: string,
  more: Partial<ResourceContent> = {},
): [string, ResourceContent] => [name, { name, aliases: [], follows: [], value: Buffer.from(text), ...more }];
const set = (maxLogEntries?: number) =>
  new ResourceSet({ typeUrl: 't', ...(maxLogEntries === undefined ? {} : { maxLogEntries }) });

/** Removed ones with a minus. */
const namesOf = (push: Push | null) => [
  ...push!.resources.map(({ name }) => name),
  ...push!.removed.map((name) => `-${name}`),
];

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
    expect(namesOf(late.take())).toEqual(['a', 'c']);
    expect(namesOf(late.take())).toEqual([]);
  });

  test('up to a position: what changed again after it comes with the rest', () => {
    const resources = set();
    const cursor = resources.cursor();
    resources.update(new Map([content('a', '1'), content('b', '1')]));
    const { position } = resources;
    resources.update(new Map([content('b', '2'), content('c', '2')]));
    expect(namesOf(cursor.take(position))).toEqual(['a']);
    expect([cursor.isBehind(position), cursor.isBehind()]).toEqual([false, true]);
    expect(namesOf(cursor.take(position))).toEqual([]);
    resources.update(new Map([['c', null]]));
    expect(namesOf(cursor.take())).toEqual(['b', '-c']);
  });

  test('readers that go the same way are given the same push, which is encoded once; an update ends that', () => {
    const resources = set();
    const [one, other, third] = [resources.cursor(), resources.cursor(), resources.cursor()];
    resources.update(new Map([content('a', '1')]));
    const push = one.take()!;
    expect(other.take()).toBe(push);
    expect(resources.encode(push)).toBe(resources.encode(push));
    expect(resources.everything()).toBe(resources.everything());
    resources.update(new Map([content('b', '1')]));
    expect(one.take()).toBe(other.take());
    const longer = third.take()!;
    expect(namesOf(longer)).toEqual(['a', 'b']);
    expect(namesOf(resources.everything())).toEqual(['a', 'b']);
    expect(resources.encode(longer).nonce).not.toBe(resources.encode(push).nonce);
  });
});
