import { closeSync, openSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { PodServers } from './pod-servers.js';

let nowMs: number;
let text: string | Error;
let reads: number;
let told: string[];
let netnsFd: number;

beforeEach(() => {
  [nowMs, reads, told] = [0, 0, []];
  text = 'nameserver 10.0.0.1\n';
  netnsFd = openSync('/proc/self/ns/net', 'r');
});
afterEach(() => closeSync(netnsFd));

const serversOf = (pid = process.pid) =>
  new PodServers(
    { netnsFd, pid, ownAddresses: ['10.0.0.9'] },
    {
      sockets: {
        readFileOf: () => {
          reads++;
          if (typeof text === 'string') return text;
          throw text;
        },
      },
      nowMs: () => nowMs,
      onChange: (servers) => told.push(servers.join(' ')),
      onFailure: (reason) => told.push(`! ${reason}`),
    },
  );

test('read before use: often while the pod is new, then once a second; changes are told', () => {
  const servers = serversOf();
  expect(servers.current()).toEqual(['10.0.0.1']);
  servers.current();
  expect(reads).toBe(1);
  text = 'nameserver 10.0.0.2\n';
  nowMs = 60;
  expect(servers.current()).toEqual(['10.0.0.2']);
  nowMs = 20_000;
  servers.current();
  nowMs = 20_900;
  servers.current();
  expect(reads).toBe(3);
  expect(told).toEqual(['10.0.0.1', '10.0.0.2']);
});

test('while it cannot be read the last servers stay; each reason is told once', () => {
  const servers = serversOf();
  servers.refresh();
  text = new Error('ENOENT');
  servers.refresh();
  servers.refresh();
  expect(servers.servers).toEqual(['10.0.0.1']);
  text = 'nameserver 127.0.0.1\nnameserver 10.0.0.9\n';
  servers.refresh();
  expect(servers.servers).toEqual([]);
  expect(told).toEqual(['10.0.0.1', '! ENOENT', '! it names no server that can be asked', '']);
});

test('a process of another namespace, or none, is not read', () => {
  const servers = serversOf(2 ** 22 + 1);
  servers.refresh();
  expect([reads, servers.servers]).toEqual([0, []]);
  expect(told[0]).toMatch(/^! /);
});
