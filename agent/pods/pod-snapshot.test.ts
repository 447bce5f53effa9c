import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { createLog } from '../../mesh/log/index.js';
import { localPodWith } from '../../test/support/local-pod.js';
import { PodSnapshot } from './pod-snapshot.js';
import { type LocalPod, noExclusions } from './types.js';

let folder: string;
let live: string[];
let lines: string[];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'culvert-snapshot-'));
  live = ['u1', 'u2'];
  lines = [];
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const log = createLog(
  { level: 'info', component: 'test' },
  { destination: { write: (line) => lines.push(line) } },
);
const snapshot = (nodeName = 'n1') => new PodSnapshot({ folder, nodeName }, { log, liveUids: () => live });
const file = () => join(folder, 'pods.json');

function pod(uid: string): LocalPod {
  return localPodWith({ uid, name: `pod-${uid}`, exclusions: { ...noExclusions, outboundPorts: [3306] } });
}

function save(...pods: LocalPod[]): void {
  const one = snapshot();
  one.save(pods);
  one.flush();
}

test('pods come back as they were saved, those whose cgroup is gone do not', () => {
  expect(snapshot().load()).toBeNull();
  save(pod('u1'), pod('u2'), pod('u3'));
  expect(snapshot().load()).toEqual([pod('u1'), pod('u2')]);
  live = [];
  expect(snapshot().load()).toEqual([]);
  expect(readdirSync(folder)).toEqual(['pods.json']);
  snapshot().remove();
  expect(snapshot().load()).toBeNull();
  expect(lines).toEqual([]);
});

test('of an earlier agent, which does not say why a pod is plain, they are gone by', () => {
  const { outside, ...before } = pod('u1');
  save(before as LocalPod);
  expect(snapshot().load()).toEqual([{ ...before, outside: '' }]);
});

test.each<[string, (content: Record<string, unknown>) => unknown]>([
  ['another version', (content) => ({ ...content, version: 2 })],
  ['another node', (content) => ({ ...content, node: 'n2' })],
  ['no list', (content) => ({ ...content, pods: {} })],
  [
    'a pod without a namespace',
    (content) => ({ ...content, pods: [{ ...pod('u1'), namespace: undefined }] }),
  ],
  ['an enrolment that is a text', (content) => ({ ...content, pods: [{ ...pod('u1'), enrolled: 'no' }] })],
  ['null', () => null],
])('%s is not gone by', (_what, change) => {
  save(pod('u1'));
  writeFileSync(file(), JSON.stringify(change(JSON.parse(readFileSync(file(), 'utf8')))));
  expect(snapshot().load()).toBeNull();
  expect(lines.join()).toContain('saved pods are not gone by');
});

test('what is cut off, or others may write, is not gone by', () => {
  save(pod('u1'));
  const text = readFileSync(file(), 'utf8');
  writeFileSync(file(), text.slice(0, -5));
  expect(snapshot().load()).toBeNull();
  writeFileSync(file(), text);
  chmodSync(file(), 0o666);
  expect(snapshot().load()).toBeNull();
  expect(lines.join()).toContain('others may have written it');
});
