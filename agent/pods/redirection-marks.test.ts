import { afterEach, expect, test } from '@jest/globals';
import { KubeError } from '../../mesh/kube/index.js';
import { createLog } from '../../mesh/log/index.js';
import { until } from '../../test/support/wait.js';
import { type MarkedPod, RedirectionMarks } from './redirection-marks.js';

const log = createLog({ level: 'silent', component: 'test' });
const written: [string, 'enabled' | null][] = [];
let answer: () => Promise<void> = async () => {};
let marks: RedirectionMarks;

function start(): void {
  written.length = 0;
  answer = async () => {};
  const write = (pod: MarkedPod, mark: 'enabled' | null) => {
    written.push([pod.name, mark]);
    return answer();
  };
  marks = new RedirectionMarks({ write, log, random: () => 0 });
}

afterEach(() => marks.stop());

const pod = (name: string, mark?: string): MarkedPod => ({
  uid: `uid-${name}`,
  objectUid: `uid-${name}`,
  namespace: 'shop',
  name,
  mark,
});
const settled = () => new Promise((resolve) => setImmediate(resolve));

test('written when a pod is captured, removed when it is no more, and not twice', async () => {
  start();
  marks.setPods([pod('a'), pod('b')]);
  marks.setCaptured('uid-a', true);
  await settled();
  marks.setCaptured('uid-a', true);
  marks.setPods([pod('a', 'enabled'), pod('b')]);
  marks.setCaptured('uid-a', false);
  await settled();
  expect(written).toEqual([
    ['a', 'enabled'],
    ['a', null],
  ]);
});

test('before the API server shows the pod, and of pods that nobody has spoken of, nothing is written', async () => {
  start();
  marks.setPods([pod('old', 'enabled')]);
  marks.setCaptured('uid-new', true);
  expect(written).toEqual([]);
  marks.setPods([pod('old', 'enabled'), pod('new')]);
  await settled();
  expect(written).toEqual([['new', 'enabled']]);
});

test("somebody else's mark is set right", async () => {
  start();
  marks.setPods([pod('a', 'enabled'), pod('plain', 'enabled')]);
  marks.setCaptured('uid-a', true);
  marks.setCaptured('uid-plain', false);
  await settled();
  marks.setPods([pod('a')]);
  await settled();
  expect(written).toEqual([
    ['plain', null],
    ['a', 'enabled'],
  ]);
});

test('what fails is tried again; a pod that is gone is forgotten', async () => {
  start();
  answer = () => Promise.reject(new KubeError('KUBE_REFUSED', 'no', { status: 403 }));
  marks.setPods([pod('a')]);
  marks.setCaptured('uid-a', true);
  await until(() => written.length === 2);
  answer = async () => {};
  await until(() => written.length === 3);
  answer = () => Promise.reject(new KubeError('KUBE_REFUSED', 'gone', { status: 404 }));
  marks.setPods([pod('a')]);
  await settled();
  expect(written.length).toBe(4);
  marks.setPods([]);
  await new Promise((resolve) => setTimeout(resolve, 600));
  expect(written.length).toBe(4);
});

test('a pod that went while it was written, in vain, is not tried again', async () => {
  start();
  let fail = () => {};
  answer = () =>
    new Promise((_resolve, reject) => {
      fail = () => reject(new KubeError('KUBE_REFUSED', 'gone', { status: 404 }));
    });
  marks.setPods([pod('a')]);
  marks.setCaptured('uid-a', true);
  marks.setPods([]);
  fail();
  await settled();
  // One of that uid would be written at once: nothing of the old one is kept.
  marks.setPods([pod('a')]);
  marks.setCaptured('uid-a', true);
  expect(written.length).toBe(2);
});

test('at most eight at a time', async () => {
  start();
  const done: (() => void)[] = [];
  answer = () => new Promise((resolve) => done.push(resolve));
  const pods = Array.from({ length: 30 }, (_, index) => pod(`p${index}`));
  marks.setPods(pods);
  for (const { uid } of pods) marks.setCaptured(uid, true);
  expect(written.length).toBe(8);
  while (done.length > 0) {
    done.shift()!();
    await settled();
  }
  expect(new Set(written.map(([name]) => name)).size).toBe(30);
  expect(written.length).toBe(30);
});
