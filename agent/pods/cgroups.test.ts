import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { findCgroupRoot, findPodsParent, isQosDirectory, listPodCgroups, tryPodUid } from './cgroups.js';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'culvert-cgroups-'));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

const uid = '8d1d2b0e-0d3c-4c55-9a53-3f0d1f0e3c11';
const escaped = uid.replaceAll('-', '_');
const make = (...paths: string[]) => {
  for (const path of paths) mkdirSync(join(root, path), { recursive: true });
};

test.each([
  [`pod${uid}`, uid],
  [`kubepods-pod${escaped}.slice`, uid],
  [`kubepods-burstable-pod${escaped}.slice`, uid],
  [`kubelet-kubepods-besteffort-pod${escaped}.slice`, uid],
  ['kubepods-pod0123456789abcdef.slice', '0123456789abcdef'],
  ['kubepods.slice', null],
  ['kubepods-burstable.slice', null],
  ['burstable', null],
  ['cri-containerd-0123.scope', null],
  ['pod', null],
])('uid in %s: %s', (name, expected) => {
  expect(tryPodUid(name)).toBe(expected);
});

test('the directories of the QoS classes, by both drivers', () => {
  expect(
    ['burstable', 'besteffort', 'kubepods-burstable.slice', 'kubelet-kubepods-besteffort.slice'].every(
      isQosDirectory,
    ),
  ).toBe(true);
  expect([`pod${uid}`, `kubepods-burstable-pod${escaped}.slice`, 'x.slice'].some(isQosDirectory)).toBe(false);
});

test('pods of all three classes are found, by either driver', () => {
  make(
    'cgroupfs/podone/c1',
    'cgroupfs/burstable/podtwo',
    'cgroupfs/besteffort/podthree',
    'cgroupfs/other/podfour',
  );
  const cgroupfs = listPodCgroups(join(root, 'cgroupfs'));
  expect([...cgroupfs.pods.keys()].sort()).toEqual(['one', 'three', 'two']);
  expect(cgroupfs.directories).toHaveLength(3);
  make(
    `s/kubepods-pod${escaped}.slice`,
    's/kubepods-burstable.slice/kubepods-burstable-podaa_bb.slice',
    's/kubepods-besteffort.slice/kubepods-besteffort-podcc.slice/cri-containerd-1.scope',
  );
  expect([...listPodCgroups(join(root, 's')).pods.keys()].sort()).toEqual([uid, 'aa-bb', 'cc'].sort());
});

test('the parent is found at the top and nested, or is what was given', () => {
  make('kubelet.slice/kubelet-kubepods.slice/x');
  expect(findPodsParent(root, null)).toBe(join(root, 'kubelet.slice/kubelet-kubepods.slice'));
  make('test/node-a/kubepods');
  expect(findPodsParent(root, 'test/node-a/kubepods')).toBe(join(root, 'test/node-a/kubepods'));
  expect(findPodsParent(root, join(root, 'test/node-a/kubepods'))).toBe(join(root, 'test/node-a/kubepods'));
});

test('no parent, several, and one that is not there are errors that say so', () => {
  expect(() => findPodsParent(root, null)).toThrow(/no cgroup named kubepods/);
  expect(() => findPodsParent(root, 'nowhere')).toThrow(/nowhere.*does not exist/);
});

test('the root is a cgroup v2 mount or an error', () => {
  expect(() => findCgroupRoot('/proc')).toThrow(expect.objectContaining({ code: 'NO_CGROUP2' }));
  expect(() => findCgroupRoot('/nowhere')).toThrow(expect.objectContaining({ code: 'NO_CGROUP2' }));
  expect(findCgroupRoot(findCgroupRoot(null))).toBe(findCgroupRoot(null));
});
