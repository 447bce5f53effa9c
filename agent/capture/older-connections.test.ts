import { expect, test } from '@jest/globals';
import type { TcpSocket } from '../../native/net/index.js';
import { olderConnections } from './older-connections.js';

const socket = (local: string, remote: string, more: Partial<TcpSocket> = {}): TcpSocket => {
  const [at, to] = [local, remote].map((text) => {
    const colon = text.lastIndexOf(':');
    return { address: text.slice(0, colon), port: Number(text.slice(colon + 1)) };
  });
  return { local: at!, remote: to!, isListening: false, cgroupId: 1n, record: Buffer.alloc(0), ...more };
};
const none = { outboundPorts: [], outboundRanges: [], inboundPorts: [] };
const listening = (port: number, cgroupId = 1n) =>
  socket(`:::${port}`, ':::0', { isListening: true, cgroupId });

test('listeners, loopback, the pod to itself, and what is an agent’s stay; everything else ends', () => {
  const outbound = socket('10.0.0.1:40000', '10.0.0.2:80');
  const handshake = socket('fd00::1:8080', 'fd00::2:50000', { cgroupId: 0n });
  const stays = [
    listening(8080),
    listening(15001, 9n),
    socket('127.0.0.1:1', '127.0.0.1:2'),
    socket('::1:1', '::1:2'),
    socket('10.0.0.1:40001', '10.0.0.1:14400'),
    socket('10.0.0.1:40002', '10.0.0.2:15008', { cgroupId: 9n }),
  ];
  expect(olderConnections([outbound, ...stays, handshake], none)).toEqual([outbound, handshake]);
});

test('what is excluded stays', () => {
  const sockets = [
    listening(8080),
    socket('10.0.0.1:40000', '10.0.0.2:3306'),
    socket('10.0.0.1:40001', '10.9.0.2:80'),
    socket('10.0.0.1:8080', '10.0.0.2:40000'),
  ];
  const ended = (exclusions: Partial<typeof none & Record<string, unknown>>) =>
    olderConnections(sockets, { ...none, ...exclusions }).map((one) => sockets.indexOf(one));
  expect(ended({})).toEqual([1, 2, 3]);
  expect(ended({ outboundPorts: [3306, 40000] } as never)).toEqual([2, 3]);
  expect(ended({ outboundRanges: ['10.9.0.0/16'] } as never)).toEqual([1, 3]);
  expect(ended({ inboundPorts: [8080] } as never)).toEqual([1, 2]);
  expect(ended({ inboundPorts: [0] } as never)).toEqual([1, 2]);
});
