import { spawnSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type tls from 'node:tls';
import { expect, test } from '@jest/globals';
import { sha256 } from '../../test/support/pair.js';
import { TestReactor } from '../../test/support/reactor.js';
import { nodeTlsOptions, TestCa } from '../../test/support/test-ca.js';
import {
  CLIENT,
  ca,
  clientMaterial,
  dialNode,
  dialOurs,
  failureOf,
  HOUR_MS,
  nodeTlsServer,
  SERVER,
  serverMaterial,
  TlsServer,
} from '../../test/support/tls-peers.js';
import { EngineTlsContexts } from './tls-context.js';
import type { TlsMaterial } from './types.js';

const tlsContexts = new EngineTlsContexts();

test('serves node:tls with mutual TLS 1.3, ALPN h2, our suite, no tickets', async () => {
  using server = new TlsServer();
  const { t } = server;
  const socket = dialNode(server.port);
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
  await t.until(() => server.accepted[0]?.received.length === 5);
  expect(server.connections[0]!.peerCertificate()).toEqual(clientMaterial.certificateChain[0]);
  socket.end(' world');
  await t.during(once(socket, 'close'));
  expect(Buffer.concat(chunks).toString()).toBe('hello world');
  expect(server.accepted[0]!.events).toEqual(['connected', 'end']);
  expect(sessions).toBe(0);
});

test('also takes AES-256-GCM, and nothing else', async () => {
  using server = new TlsServer();
  const socket = dialNode(server.port, { ciphers: 'TLS_AES_256_GCM_SHA384' });
  await server.t.during(once(socket, 'secureConnect'));
  expect(socket.getCipher().name).toBe('TLS_AES_256_GCM_SHA384');
  socket.destroy();
  using other = new TlsServer();
  dialNode(other.port, { ciphers: 'TLS_CHACHA20_POLY1305_SHA256' });
  expect(await other.firstClosed()).toMatchObject({
    code: 'HANDSHAKE_FAILED',
    message: expect.stringContaining('no shared cipher'),
  });
});

test('dials node:tls, writes early, half-closes; sends no SNI', async () => {
  using t = new TestReactor();
  let serverName: unknown = 'unset';
  const { server, port } = await nodeTlsServer((socket) => {
    serverName = socket.servername;
    socket.on('data', (chunk) => socket.write(chunk));
    socket.on('end', () => socket.end('bye'));
  });
  const context = tlsContexts.create(clientMaterial);
  const { connection, recorder } = dialOurs(t, port, context);
  const slab = connection.reserve(6);
  slab.end += slab.bytes.write('early ', slab.end);
  await t.until(() => recorder.received.length === 6);
  expect(connection.peerCertificate()).toEqual(serverMaterial.certificateChain[0]);
  connection.shutdownWrite();
  await t.until(() => recorder.hasEnded);
  expect(recorder.received.toString()).toBe('early bye');
  expect(recorder.events).toEqual(['connected', 'end']);
  expect(serverName).toBe(false);
  connection.close();
  server.close();
  tlsContexts.release(context);
});

test.each([1, 100, 5000, 40_000, 700_000])(
  'megabytes in writes of %i bytes arrive unchanged',
  async (size) => {
    using server = new TlsServer();
    const { t } = server;
    const payload = randomBytes(size < 100 ? 20_000 : 6 << 20);
    const socket = dialNode(server.port);
    const hash = createHash('sha256');
    socket.on('data', (chunk) => hash.update(chunk));
    for (let at = 0; at < payload.length; at += size) socket.write(payload.subarray(at, at + size));
    socket.end();
    await t.during(once(socket, 'close'));
    expect(hash.digest('hex')).toBe(sha256(payload));
    expect(server.accepted[0]!.events.filter((event) => event !== 'drained')).toEqual(['connected', 'end']);
  },
);

test('a slow reader blocks us, gets everything, and reads by small pieces go on by level', async () => {
  using server = new TlsServer();
  const { t } = server;
  const socket = dialNode(server.port);
  await t.during(once(socket, 'secureConnect'));
  await t.until(() => server.accepted[0]!.isConnected);
  socket.pause();
  const payload = randomBytes(12 << 20);
  const connection = server.connections[0]!;
  connection.write(payload, 0, payload.length);
  expect(connection.blocked).toBe(true);
  const hash = createHash('sha256');
  let count = 0;
  socket.on('data', (chunk: Buffer) => {
    hash.update(chunk);
    count += chunk.length;
  });
  socket.resume();
  await t.until(() => count === payload.length && server.accepted[0]!.events.includes('drained'));
  expect(hash.digest('hex')).toBe(sha256(payload));

  const small = Buffer.alloc(11);
  const got: Buffer[] = [];
  let ended = false;
  server.accepted[0]!.onReadable = (readable) => {
    const n = readable.read(small, 0, small.length);
    if (n > 0) got.push(Buffer.from(small.subarray(0, n)));
    else if (n === 0) ended = true;
  };
  const text = randomBytes(40_000);
  socket.end(text);
  await t.until(() => ended);
  expect(Buffer.concat(got).equals(text)).toBe(true);
});

test('pausing holds bytes back that TLS has already buffered, and resuming brings them', async () => {
  using server = new TlsServer();
  const { t } = server;
  const socket = dialNode(server.port);
  await t.during(once(socket, 'secureConnect'));
  await t.until(() => server.accepted[0]!.isConnected);
  const recorder = server.accepted[0]!;
  const small = Buffer.alloc(10);
  recorder.onReadable = (connection) => {
    const n = connection.read(small, 0, small.length);
    recorder.received = Buffer.concat([recorder.received, small.subarray(0, n)]);
    connection.pauseReading();
  };
  socket.write('0123456789abcdefghij');
  await t.until(() => recorder.received.length > 0);
  await t.for(30);
  expect(recorder.received.toString()).toBe('0123456789');
  const begin = performance.now();
  t.reactor.turn(40);
  expect(performance.now() - begin).toBeGreaterThan(30);
  server.connections[0]!.resumeReading();
  await t.until(() => recorder.received.length === 20);
  expect(recorder.received.toString()).toBe('0123456789abcdefghij');
  socket.destroy();
});

test.each([
  ['no certificate', { cert: undefined, key: undefined }, 'peer did not return a certificate'],
  ['another root', nodeTlsOptions(new TestCa('another').issue(CLIENT)), 'certificate verify failed: '],
  [
    'an expired certificate',
    nodeTlsOptions(
      ca.issue(CLIENT, { notBeforeMs: Date.now() - 2 * HOUR_MS, notAfterMs: Date.now() - HOUR_MS }),
    ),
    'certificate verify failed: certificate has expired',
  ],
  [
    'a certificate not yet valid',
    nodeTlsOptions(
      ca.issue(CLIENT, { notBeforeMs: Date.now() + HOUR_MS, notAfterMs: Date.now() + 2 * HOUR_MS }),
    ),
    'certificate verify failed: certificate is not yet valid',
  ],
  ['no ALPN', { ALPNProtocols: undefined }, 'no application protocol'],
  ['another ALPN', { ALPNProtocols: ['http/1.1', 'h3'] }, 'no application protocol'],
  ['TLS 1.2', { maxVersion: 'TLSv1.2' }, 'unsupported protocol'],
] as const)('refuses a client with %s', async (_what, extra, message) => {
  using server = new TlsServer();
  // The bundle stays ours, so that it is the server that refuses.
  const socket = dialNode(server.port, {
    ...extra,
    ca: nodeTlsOptions(clientMaterial).ca,
  } as tls.ConnectionOptions);
  const heard = failureOf(socket);
  expect(await server.firstClosed()).toMatchObject({
    code: 'HANDSHAKE_FAILED',
    message: expect.stringContaining(message),
  });
  expect(await server.t.during(heard)).toContain('alert');
  expect(server.accepted[0]!.isConnected).toBe(false);
  expect(server.t.reactor.native.stats().connections).toBe(1);
});

test.each([
  ['another root', { ...nodeTlsOptions(new TestCa('another').issue(SERVER)) }, 'certificate verify failed: '],
  [
    'an expired certificate',
    nodeTlsOptions(
      ca.issue(SERVER, { notBeforeMs: Date.now() - 2 * HOUR_MS, notAfterMs: Date.now() - HOUR_MS }),
    ),
    'certificate has expired',
  ],
  ['no ALPN', { ALPNProtocols: undefined }, 'ALPN h2'],
  ['another ALPN', { ALPNProtocols: ['http/1.1'] }, 'no application protocol'],
  ['TLS 1.2', { maxVersion: 'TLSv1.2' }, 'protocol version'],
] as const)('refuses a server with %s', async (_what, extra, message) => {
  using t = new TestReactor();
  const { server, port } = await nodeTlsServer(() => {}, extra as tls.TlsOptions);
  const context = tlsContexts.create(clientMaterial);
  const { recorder } = dialOurs(t, port, context);
  await t.until(() => recorder.isClosed);
  expect(recorder.error).toMatchObject({
    code: 'HANDSHAKE_FAILED',
    message: expect.stringContaining(message),
  });
  expect(recorder.isConnected).toBe(false);
  server.close();
  tlsContexts.release(context);
});

test('a client certificate that is only good for servers is refused, and the other way round', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'culvert-eku-'));
  try {
    const serverOnly = issueByOpenssl(folder, 'serverAuth');
    using server = new TlsServer({ material: serverMaterialOf(serverOnly.root) });
    dialNode(server.port, { cert: serverOnly.cert, key: serverOnly.key, rejectUnauthorized: false });
    expect((await server.firstClosed())!.message).toMatch(
      /unsupported certificate purpose|unsuitable certificate purpose/,
    );

    const clientOnly = issueByOpenssl(folder, 'clientAuth');
    const node = await nodeTlsServer(() => {}, { cert: clientOnly.cert, key: clientOnly.key });
    const context = tlsContexts.create({ ...clientMaterial, trustBundle: [clientOnly.root] });
    const { recorder } = dialOurs(server.t, node.port, context);
    await server.t.until(() => recorder.isClosed);
    expect(recorder.error!.message).toMatch(/certificate purpose/);
    node.server.close();
    tlsContexts.release(context);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

/** A leaf with one purpose, by the openssl command: our own issuer always writes both. */
function issueByOpenssl(folder: string, purpose: string): { cert: string; key: string; root: Buffer } {
  const at = (name: string) => join(folder, `${purpose}.${name}`);
  writeFileSync(at('ext'), `extendedKeyUsage=${purpose}\nsubjectAltName=URI:${CLIENT}\n`);
  const ec = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  run([
    'req',
    '-x509',
    ...ec,
    '-keyout',
    at('ca.key'),
    '-out',
    at('ca.crt'),
    '-subj',
    '/O=eku',
    '-days',
    '1',
  ]);
  run(['req', ...ec, '-keyout', at('key'), '-out', at('csr'), '-subj', '/CN=leaf']);
  const signer = ['-CA', at('ca.crt'), '-CAkey', at('ca.key'), '-CAcreateserial'];
  run(['x509', '-req', '-in', at('csr'), ...signer, '-extfile', at('ext'), '-days', '1', '-out', at('crt')]);
  const root = spawnSync('openssl', ['x509', '-in', at('ca.crt'), '-outform', 'der']).stdout;
  return { cert: readFileSync(at('crt'), 'utf8'), key: readFileSync(at('key'), 'utf8'), root };
}

function run(args: string[]): void {
  const { status, stderr } = spawnSync('openssl', args);
  if (status !== 0) throw new Error(`openssl ${args.join(' ')}: ${stderr.toString()}`);
}

function serverMaterialOf(root: Buffer): TlsMaterial {
  return { ...serverMaterial, trustBundle: [root] };
}

test('a context is replaced live: open connections go on, new ones get the new certificate', async () => {
  using server = new TlsServer();
  const { t } = server;
  const first = dialNode(server.port);
  await t.during(once(first, 'secureConnect'));
  const renewed = ca.issue(SERVER);
  const old = server.context;
  server.context = tlsContexts.create(renewed);
  tlsContexts.release(old);
  const second = dialNode(server.port);
  await t.during(once(second, 'secureConnect'));
  expect(second.getPeerCertificate().raw).toEqual(renewed.certificateChain[0]);
  expect(first.getPeerCertificate().raw).toEqual(serverMaterial.certificateChain[0]);
  const answer = once(first, 'data');
  first.write('still here');
  expect(String((await t.during(answer))[0])).toBe('still here');
  first.destroy();
  second.destroy();
});

test('a released context refuses new connections, and bad material is named', () => {
  using t = new TestReactor();
  const context = tlsContexts.create(clientMaterial);
  tlsContexts.release(context);
  tlsContexts.release(context);
  const { recorder } = dialOurs(t, 1, context);
  t.reactor.turn(0);
  expect(recorder.error).toMatchObject({ code: 'CONNECT_FAILED', data: { errno: 'ENOENT' } });
  const bad = (part: Partial<TlsMaterial>, message: RegExp) =>
    expect(() => tlsContexts.create({ ...clientMaterial, ...part })).toThrow(message);
  bad({ certificateChain: [] }, /chain is empty/);
  bad({ certificateChain: [Buffer.from('nonsense')] }, /certificate of the chain is not DER/);
  bad({ trustBundle: [] }, /bundle is empty/);
  bad({ trustBundle: [Buffer.alloc(100)] }, /certificate of the trust bundle is not DER/);
  bad({ privateKey: Buffer.alloc(10) }, /private key is not PKCS#8/);
  bad({ privateKey: serverMaterial.privateKey }, /does not belong to the certificate/);
});

test('intermediates are sent, so that a peer with only the root accepts us', async () => {
  const intermediate = ca.issueIntermediate('between');
  using server = new TlsServer({ material: intermediate.issue(SERVER) });
  const socket = dialNode(server.port);
  await server.t.during(once(socket, 'secureConnect'));
  expect(socket.authorized).toBe(true);
  socket.destroy();
});
