import { chmodSync, closeSync, fstatSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { createLog } from '../../mesh/log/index.js';
import { closeSockets, type HandedPod, HandoverServer, hasPredecessor, takeOver } from './index.js';

const log = createLog({ level: 'silent', component: 'test' });
const identity = { node: 'n1', bpffs: '/sys/fs/bpf/culvert' };
let runDir: string;
let server: HandoverServer;
let steps: string[];
let fds: number[];
let pods: HandedPod[];

const inode = (fd: number) => fstatSync(fd).ino;

beforeEach(async () => {
  runDir = mkdtempSync(join(tmpdir(), 'culvert-run-'));
  // Of this test alone: a server may end after its own.
  const heard: string[] = [];
  steps = heard;
  fds = ['/etc/passwd', '/etc/group', '/etc/hostname'].map((path) => openSync(path, 'r'));
  pods = [
    {
      uid: 'one',
      netnsCookie: 7n,
      hasCertificate: true,
      sockets: { outbound: fds.slice(0, 2), inbound: fds.slice(2), hbone: [] },
    },
    { uid: 'two', netnsCookie: 8n, hasCertificate: false, sockets: {} },
  ];
  const host = {
    hold: async () => {
      heard.push('hold');
      return pods;
    },
    resume: () => void heard.push('resume'),
    yield: async () => void heard.push('yield'),
  };
  server = new HandoverServer({ ...identity, runDir }, { host, log });
  await server.start();
});
afterEach(() => {
  server.stop();
  for (const fd of fds) closeSync(fd);
  rmSync(runDir, { recursive: true });
});

async function until(done: () => boolean): Promise<void> {
  for (let i = 0; i < 500 && !done(); i++) await sleep(10);
  expect(done()).toBe(true);
}

test('sockets come as they are, pod by pod; the old agent gives way when the new one is ready', async () => {
  const taken = (await takeOver({ ...identity, runDir }))!;
  expect(
    taken.pods.map(({ uid, netnsCookie, hasCertificate }) => [uid, netnsCookie, hasCertificate]),
  ).toEqual([
    ['one', 7n, true],
    ['two', 8n, false],
  ]);
  const { outbound, inbound, hbone } = taken.pods[0]!.sockets;
  expect([outbound, inbound, hbone].map((list) => list!.map(inode))).toEqual([
    fds.slice(0, 2).map(inode),
    fds.slice(2).map(inode),
    [],
  ]);
  expect(outbound).not.toEqual(fds.slice(0, 2));
  expect(steps).toEqual(['hold']);
  await taken.commit();
  expect(steps).toEqual(['hold', 'yield']);
  expect(await hasPredecessor(runDir)).toBe(false);
  closeSockets(taken.pods);
});

test('a new agent that goes away leaves the old one as it was, for the next', async () => {
  const lost = (await takeOver({ ...identity, runDir }))!;
  lost.abandon();
  await until(() => steps.includes('resume'));
  closeSockets(lost.pods);
  const next = (await takeOver({ ...identity, runDir }))!;
  await next.commit();
  expect(steps).toEqual(['hold', 'resume', 'hold', 'yield']);
  closeSockets(next.pods);
});

test('a second one waits for the first', async () => {
  const first = (await takeOver({ ...identity, runDir }))!;
  const waiting = takeOver({ ...identity, runDir });
  await sleep(300);
  first.abandon();
  const second = (await waiting)!;
  await second.commit();
  expect(steps).toEqual(['hold', 'resume', 'hold', 'yield']);
  closeSockets([...first.pods, ...second.pods]);
});

test('an old agent that ends meanwhile leaves the node to the new one; one that goes on does not', async () => {
  const first = (await takeOver({ ...identity, runDir }))!;
  first.abandon();
  await expect(first.commit()).rejects.toMatchObject({ code: 'TAKEOVER_LOST' });
  await until(() => steps.includes('resume'));
  const second = (await takeOver({ ...identity, runDir }))!;
  server.stop();
  await second.commit();
  closeSockets([...first.pods, ...second.pods]);
});

test('an agent of another node, or with other pins, is refused', async () => {
  await expect(takeOver({ ...identity, node: 'n2', runDir })).rejects.toMatchObject({ code: 'PEER_REFUSED' });
  await expect(takeOver({ ...identity, bpffs: '/x', runDir })).rejects.toMatchObject({
    code: 'PEER_REFUSED',
  });
  expect(steps).toEqual([]);
});

test('a folder where others may write is refused', async () => {
  chmodSync(runDir, 0o777);
  await expect(hasPredecessor(runDir)).rejects.toMatchObject({ code: 'RUN_DIR_UNSAFE' });
  chmodSync(runDir, 0o700);
});

test('nobody there: nothing to take', async () => {
  server.stop();
  expect(await takeOver({ ...identity, runDir })).toBeNull();
});
