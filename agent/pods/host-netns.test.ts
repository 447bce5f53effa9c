import { execFileSync } from 'node:child_process';
import { expect, test } from '@jest/globals';
import { findHostNetns, type HostFacts, hostFacts } from './host-netns.js';

const facts = (more: Partial<Record<'init' | 'initOfPod' | 'ownInitial', boolean>>): HostFacts => ({
  faultOf: (path) => (path === '/given' || (path === '/proc/1/ns/net' && more.init) ? null : 'EACCES'),
  isInitOfPod: () => more.initOfPod === true,
  isOwnInitial: () => more.ownInitial === true,
});

test('what was given, if it can be opened', () => {
  expect(findHostNetns('/given', facts({}))).toBe('/given');
  expect(() => findHostNetns('/other', facts({ init: true, ownInitial: true }))).toThrow('/other: EACCES');
});

test("process 1's, unless that is a pod's; our own only if it is the machine's first", () => {
  expect(findHostNetns(null, facts({ init: true }))).toBe('/proc/1/ns/net');
  expect(findHostNetns(null, facts({ ownInitial: true }))).toBe('/proc/self/ns/net');
  for (const unclear of [{}, { init: true, initOfPod: true }, { initOfPod: true, ownInitial: true }])
    expect(() => findHostNetns(null, facts(unclear))).toThrow(
      expect.objectContaining({ code: 'NO_HOST_NETNS' }),
    );
});

test('a namespace made by hand is not the first', () => {
  const script = `import('${new URL('./host-netns.js', import.meta.url)}').then((m) => console.log(m.hostFacts('/').isOwnInitial()))`;
  const run = (...before: string[]) =>
    execFileSync('nsenter', [`--net=/proc/${process.pid}/ns/net`, ...before, process.execPath, '-e', script]);
  expect(String(run('unshare', '--net')).trim()).toBe('false');
  expect(hostFacts('/').faultOf('/nowhere')).toMatch('ENOENT');
});
