import { once } from 'node:events';
import type net from 'node:net';
import tls from 'node:tls';
import { expect, test } from '@jest/globals';
import { ListeningSocket } from '../../test/support/listening-socket.js';
import { Echo, Recorder, TestReactor } from '../../test/support/reactor.js';
import { nodeTlsOptions, TestCa } from '../../test/support/test-ca.js';
import { createTlsContext, releaseTlsContext } from './tls-context.js';
import type { TlsMaterial } from './types.js';

const SERVER = 'spiffe://cluster.local/ns/shop/sa/server';
const CLIENT = 'spiffe://cluster.local/ns/shop/sa/client';
const ca = new TestCa();

function clientOptions(port: number, material: TlsMaterial): tls.ConnectionOptions {
  return {
    port,
    host: '127.0.0.1',
    ...nodeTlsOptions(material),
    ALPNProtocols: ['h2'],
    checkServerIdentity: () => undefined,
  };
}

test('serves node:tls with mutual TLS 1.3 and ALPN h2', async () => {
  using t = new TestReactor();
  using listening = new ListeningSocket();
  const context = createTlsContext(ca.issue(SERVER));
  const echo = new Echo(t.reactor);
  const tlsOptions = { context, handshakeTimeoutMs: 5000 };
  t.reactor.listen({ fd: listening.fd, tls: () => tlsOptions }, { onAccepted: () => echo });
  const material = ca.issue(CLIENT);
  const socket = tls.connect(clientOptions(listening.port, material));
  let sessions = 0;
  socket.on('session', () => sessions++);
  const chunks: Buffer[] = [];
  socket.on('data', (chunk) => chunks.push(chunk));
  await t.during(once(socket, 'secureConnect'));
  expect(socket.authorized).toBe(true);
  expect(socket.alpnProtocol).toBe('h2');
  expect(socket.getProtocol()).toBe('TLSv1.3');
  expect(socket.getCipher().name).toBe('TLS_AES_128_GCM_SHA256');
  socket.write('hello');
  await t.until(() => echo.received.length === 5);
  expect(echo.connection!.peerCertificate()).toEqual(material.certificateChain[0]);
  socket.end(' world');
  await t.during(once(socket, 'close'));
  expect(Buffer.concat(chunks).toString()).toBe('hello world');
  expect(echo.events).toEqual(['connected', 'end']);
  expect(sessions).toBe(0);
  releaseTlsContext(context);
});

test('dials node:tls and half-closes', async () => {
  using t = new TestReactor();
  const server = tls.createServer({
    ...nodeTlsOptions(ca.issue(SERVER)),
    requestCert: true,
    ALPNProtocols: ['h2'],
    allowHalfOpen: true,
  });
  server.on('secureConnection', (socket) => {
    socket.on('data', (chunk) => socket.write(chunk));
    socket.on('end', () => socket.end('bye'));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  const context = createTlsContext(ca.issue(CLIENT));
  const recorder = new Recorder(t.reactor);
  const connection = t.reactor.connect(
    {
      to: { address: '127.0.0.1', port },
      connectTimeoutMs: 5000,
      tls: { context, handshakeTimeoutMs: 5000 },
    },
    recorder,
  );
  const slab = connection.reserve(6);
  slab.end += slab.bytes.write('early ', slab.end);
  await t.until(() => recorder.received.length === 6);
  connection.shutdownWrite();
  await t.until(() => recorder.hasEnded);
  expect(recorder.received.toString()).toBe('early bye');
  expect(recorder.events.slice(0, 1)).toEqual(['connected']);
  connection.close();
  server.close();
  releaseTlsContext(context);
});
