import { spawn, spawnSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import tls from 'node:tls';
import { expect, test } from '@jest/globals';
import { ListeningSocket } from '../../test/support/listening-socket.js';
import { Echo, Recorder, TestReactor } from '../../test/support/reactor.js';
import { nodeTlsOptions, TestCa } from '../../test/support/test-ca.js';
import { type Tap, Wire } from '../../test/support/wire.js';
import { createTlsContext, releaseTlsContext } from './tls-context.js';
import type { Connection, TlsMaterial } from './types.js';

const HOST = '127.0.0.1';
const SERVER = 'spiffe://cluster.local/ns/shop/sa/server';
const CLIENT = 'spiffe://cluster.local/ns/shop/sa/client';
const HOUR_MS = 3_600_000;
const ca = new TestCa();
const serverMaterial = ca.issue(SERVER);
const clientMaterial = ca.issue(CLIENT);

/** Our TLS server; `accepted` has a recorder per connection. */
class Server implements Disposable {
  readonly t: TestReactor;
  readonly listening = new ListeningSocket();
  readonly accepted: Recorder[] = [];
  readonly connections: Connection[] = [];
  context: number;

  constructor(options: { material?: TlsMaterial; t?: TestReactor; handshakeTimeoutMs?: number } = {}) {
    this.t = options.t ?? new TestReactor();
    this.context = createTlsContext(options.material ?? serverMaterial);
    const tlsOptions = () => ({
      context: this.context,
      handshakeTimeoutMs: options.handshakeTimeoutMs ?? 10_000,
    });
    const onAccepted = (connection: Connection) => {
      const echo = new Echo(this.t.reactor);
      this.accepted.push(echo);
      this.connections.push(connection);
      return echo;
    };
    this.t.reactor.listen({ fd: this.listening.fd, tls: tlsOptions }, { onAccepted });
  }

  get port(): number {
    return this.listening.port;
  }

  async firstClosed(): Promise<Recorder['error']> {
    await this.t.until(() => this.accepted[0]?.isClosed === true, 'the server side to fail');
    return this.accepted[0]!.error;
  }

  [Symbol.dispose](): void {
    this.t[Symbol.dispose]();
    this.listening.close();
    releaseTlsContext(this.context);
  }
}

function dial(port: number, extra: tls.ConnectionOptions = {}): tls.TLSSocket {
  const socket = tls.connect({
    port,
    host: HOST,
    ...nodeTlsOptions(clientMaterial),
    ALPNProtocols: ['h2'],
    checkServerIdentity: () => undefined,
    ...extra,
  });
  socket.on('error', () => {});
  return socket;
}

/** The error that ended it; empty if it ended without. */
function failureOf(socket: tls.TLSSocket): Promise<string> {
  let message = '';
  socket.on('error', (error) => {
    message = error.message;
  });
  return new Promise((resolve) => socket.on('close', () => resolve(message)));
}

/** node:tls as the server. */
async function nodeServer(
  onSocket: (socket: tls.TLSSocket) => void,
  extra: tls.TlsOptions = {},
): Promise<{ server: tls.Server; port: number }> {
  const server = tls.createServer({
    ...nodeTlsOptions(serverMaterial),
    requestCert: true,
    ALPNProtocols: ['h2'],
    allowHalfOpen: true,
    ...extra,
  });
  server.on('secureConnection', (socket) => {
    socket.on('error', () => {});
    onSocket(socket);
  });
  server.on('tlsClientError', () => {});
  server.listen(0, HOST);
  await once(server, 'listening');
  return { server, port: (server.address() as net.AddressInfo).port };
}

interface Dialled {
  readonly connection: Connection;
  readonly recorder: Recorder;
}

function dialFrom(t: TestReactor, port: number, context: number, handshakeTimeoutMs = 10_000): Dialled {
  const recorder = new Recorder(t.reactor);
  const connection = t.reactor.connect(
    { to: { address: HOST, port }, connectTimeoutMs: 10_000, tls: { context, handshakeTimeoutMs } },
    recorder,
  );
  return { connection, recorder };
}

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

test('serves node:tls with mutual TLS 1.3, ALPN h2, our suite, no tickets', async () => {
  using server = new Server();
  const { t } = server;
  const socket = dial(server.port);
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
  using server = new Server();
  const socket = dial(server.port, { ciphers: 'TLS_AES_256_GCM_SHA384' });
  await server.t.during(once(socket, 'secureConnect'));
  expect(socket.getCipher().name).toBe('TLS_AES_256_GCM_SHA384');
  socket.destroy();
  using other = new Server();
  dial(other.port, { ciphers: 'TLS_CHACHA20_POLY1305_SHA256' });
  expect(await other.firstClosed()).toMatchObject({
    code: 'HANDSHAKE_FAILED',
    message: expect.stringContaining('no shared cipher'),
  });
});

test('dials node:tls, writes early, half-closes; sends no SNI', async () => {
  using t = new TestReactor();
  let serverName: unknown = 'unset';
  const { server, port } = await nodeServer((socket) => {
    serverName = socket.servername;
    socket.on('data', (chunk) => socket.write(chunk));
    socket.on('end', () => socket.end('bye'));
  });
  const context = createTlsContext(clientMaterial);
  const { connection, recorder } = dialFrom(t, port, context);
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
  releaseTlsContext(context);
});

test.each([1, 100, 5000, 40_000, 700_000])(
  'megabytes in writes of %i bytes arrive unchanged',
  async (size) => {
    using server = new Server();
    const { t } = server;
    const payload = randomBytes(size < 100 ? 20_000 : 6 << 20);
    const socket = dial(server.port);
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
  using server = new Server();
  const { t } = server;
  const socket = dial(server.port);
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
  using server = new Server();
  const { t } = server;
  const socket = dial(server.port);
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
  using server = new Server();
  // The bundle stays ours, so that it is the server that refuses.
  const socket = dial(server.port, {
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
  const { server, port } = await nodeServer(() => {}, extra as tls.TlsOptions);
  const context = createTlsContext(clientMaterial);
  const { recorder } = dialFrom(t, port, context);
  await t.until(() => recorder.isClosed);
  expect(recorder.error).toMatchObject({
    code: 'HANDSHAKE_FAILED',
    message: expect.stringContaining(message),
  });
  expect(recorder.isConnected).toBe(false);
  server.close();
  releaseTlsContext(context);
});

test('a client certificate that is only good for servers is refused, and the other way round', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'culvert-eku-'));
  try {
    const serverOnly = issueByOpenssl(folder, 'serverAuth');
    using server = new Server({ material: serverMaterialOf(serverOnly.root) });
    dial(server.port, { cert: serverOnly.cert, key: serverOnly.key, rejectUnauthorized: false });
    expect((await server.firstClosed())!.message).toMatch(
      /unsupported certificate purpose|unsuitable certificate purpose/,
    );

    const clientOnly = issueByOpenssl(folder, 'clientAuth');
    const node = await nodeServer(() => {}, { cert: clientOnly.cert, key: clientOnly.key });
    const context = createTlsContext({ ...clientMaterial, trustBundle: [clientOnly.root] });
    const { recorder } = dialFrom(server.t, node.port, context);
    await server.t.until(() => recorder.isClosed);
    expect(recorder.error!.message).toMatch(/certificate purpose/);
    node.server.close();
    releaseTlsContext(context);
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
  using server = new Server();
  const { t } = server;
  const first = dial(server.port);
  await t.during(once(first, 'secureConnect'));
  const renewed = ca.issue(SERVER);
  const old = server.context;
  server.context = createTlsContext(renewed);
  releaseTlsContext(old);
  const second = dial(server.port);
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
  const context = createTlsContext(clientMaterial);
  releaseTlsContext(context);
  releaseTlsContext(context);
  const { recorder } = dialFrom(t, 1, context);
  t.reactor.turn(0);
  expect(recorder.error).toMatchObject({ code: 'CONNECT_FAILED', data: { errno: 'ENOENT' } });
  const bad = (part: Partial<TlsMaterial>, message: RegExp) =>
    expect(() => createTlsContext({ ...clientMaterial, ...part })).toThrow(message);
  bad({ certificateChain: [] }, /chain is empty/);
  bad({ certificateChain: [Buffer.from('nonsense')] }, /certificate of the chain is not DER/);
  bad({ trustBundle: [] }, /bundle is empty/);
  bad({ trustBundle: [Buffer.alloc(100)] }, /certificate of the trust bundle is not DER/);
  bad({ privateKey: Buffer.alloc(10) }, /private key is not PKCS#8/);
  bad({ privateKey: serverMaterial.privateKey }, /does not belong to the certificate/);
});

test('intermediates are sent, so that a peer with only the root accepts us', async () => {
  const intermediate = ca.issueIntermediate('between');
  using server = new Server({ material: intermediate.issue(SERVER) });
  const socket = dial(server.port);
  await server.t.during(once(socket, 'secureConnect'));
  expect(socket.authorized).toBe(true);
  socket.destroy();
});

test('a TLS stream cut without close_notify is RESET, not an end', async () => {
  using server = new Server();
  let isCut = false;
  const wire = new Wire(server.port, { toServer: (chunk) => (isCut ? 'fin' : chunk) });
  const socket = dial(await wire.listen());
  await server.t.during(once(socket, 'secureConnect'));
  socket.write('before');
  await server.t.until(() => server.accepted[0]?.received.length === 6);
  isCut = true;
  socket.write('cut');
  const error = await server.firstClosed();
  expect(error).toMatchObject({ code: 'RESET', message: expect.stringContaining('without close_notify') });
  expect(server.accepted[0]!.hasEnded).toBe(false);
  wire.close();
});

test.each([
  ['truncated', (chunk: Buffer) => chunk.subarray(0, -4)],
  ['flipped', (chunk: Buffer) => Buffer.concat([chunk.subarray(0, -1), Buffer.of(chunk.at(-1)! ^ 1)])],
  ['no TLS at all', () => Buffer.from('GET / HTTP/1.1\r\nhost: x\r\n\r\n')],
  ['an oversized header', () => Buffer.concat([Buffer.of(23, 3, 3, 255, 255), Buffer.alloc(1000)])],
])(
  'a broken record (%s) on an open connection is RESET, behind the bytes before it',
  async (what, breakIt) => {
    using server = new Server();
    let isBroken = false;
    const wire = new Wire(server.port, { toServer: (chunk) => (isBroken ? breakIt(chunk) : chunk) });
    const socket = dial(await wire.listen());
    await server.t.during(once(socket, 'secureConnect'));
    socket.write('before');
    await server.t.until(() => server.accepted[0]?.received.length === 6);
    isBroken = true;
    socket.write('broken record');
    if (what === 'truncated') {
      await server.t.for(20);
      isBroken = false;
      socket.write('the next');
    }
    expect(await server.firstClosed()).toMatchObject({ code: 'RESET' });
    expect(server.accepted[0]!.received.toString()).toBe('before');
    wire.close();
  },
);

test('an alert from the peer ends an open connection as RESET with its name', async () => {
  // The server does not know our root. In TLS 1.3 our side of the handshake is done before it says so.
  using server = new Server({ material: { ...serverMaterial, trustBundle: [new TestCa('another').root] } });
  const context = createTlsContext(clientMaterial);
  const { recorder } = dialFrom(server.t, server.port, context);
  await server.t.until(() => recorder.isClosed);
  expect(recorder.events).toEqual(['connected', 'failed', 'closed RESET']);
  expect(recorder.error!.message).toContain('alert unknown ca');
  releaseTlsContext(context);
});

/** Bytes each way of a whole handshake with one byte of data, as a node client and our server make it. */
async function handshakeBytes(server: Server): Promise<{ toServer: number; toClient: number }> {
  const count = { toServer: 0, toClient: 0 };
  const counting =
    (way: 'toServer' | 'toClient'): Tap =>
    (chunk) => {
      count[way] += chunk.length;
      return chunk;
    };
  const wire = new Wire(server.port, { toServer: counting('toServer'), toClient: counting('toClient') });
  const socket = dial(await wire.listen());
  socket.write('x');
  await server.t.during(once(socket, 'data'));
  socket.destroy();
  wire.close();
  return count;
}

test.each(['toServer', 'toClient'] as const)(
  'RST or FIN at every stage of the handshake (%s)',
  async (way) => {
    using server = new Server();
    const total = (await handshakeBytes(server))[way];
    for (let stop = 0; stop <= total; stop += Math.ceil(total / 24)) {
      for (const end of [null, 'fin'] as const) {
        const before = server.accepted.length;
        let didEnd = false;
        const tap: Tap = (chunk, offset) => {
          if (didEnd || offset >= stop) {
            didEnd = true;
            return end;
          }
          return chunk.subarray(0, stop - offset);
        };
        const wire = new Wire(server.port, { [way]: tap });
        const socket = dial(await wire.listen());
        socket.write('x');
        if (stop === 0 && way === 'toServer' && end === null) await server.t.for(10);
        else await server.t.until(() => server.accepted.length > before);
        await server.t.for(5);
        socket.destroy();
        wire.close();
      }
    }
    await server.t.until(
      () => server.t.reactor.native.stats().connections === 1,
      'all connections to be gone',
    );
    expect(server.t.reactor.counters.exceptions).toBe(0);
  },
);

test('handshakes have a deadline on both sides', async () => {
  using server = new Server({ handshakeTimeoutMs: 50 });
  const silent = net.connect(server.port, HOST).on('error', () => {});
  expect(await server.firstClosed()).toMatchObject({ code: 'HANDSHAKE_TIMEOUT' });
  silent.destroy();
  using mute = new ListeningSocket();
  const context = createTlsContext(clientMaterial);
  const { recorder } = dialFrom(server.t, mute.port, context, 50);
  await server.t.until(() => recorder.isClosed);
  expect(recorder.error).toMatchObject({ code: 'HANDSHAKE_TIMEOUT' });
  releaseTlsContext(context);
});

test('a flood of KeyUpdates ends the connection; a few are fine', async () => {
  using server = new Server();
  const { t } = server;
  const folder = mkdtempSync(join(tmpdir(), 'culvert-keyupdate-'));
  const { cert, key } = nodeTlsOptions(clientMaterial);
  writeFileSync(join(folder, 'crt'), cert);
  writeFileSync(join(folder, 'key'), key);
  const client = spawn('openssl', [
    ...['s_client', '-connect', `${HOST}:${server.port}`, '-alpn', 'h2', '-tls1_3'],
    ...['-cert', join(folder, 'crt'), '-key', join(folder, 'key')],
  ]);
  client.stdin.on('error', () => {});
  try {
    await t.until(() => server.accepted[0]?.isConnected === true);
    for (let i = 0; i < 10; i++) {
      client.stdin.write('K\n');
      await t.for(5);
    }
    client.stdin.write('hello\n');
    await t.until(() => server.accepted[0]!.received.toString() === 'hello\n');
    for (let i = 0; i < 60 && !server.accepted[0]!.isClosed; i++) {
      client.stdin.write('k\n');
      await t.for(5);
    }
    expect(await server.firstClosed()).toMatchObject({
      code: 'RESET',
      message: expect.stringContaining('TLS control messages'),
    });
  } finally {
    client.kill();
    rmSync(folder, { recursive: true });
  }
});

test('without TLS material at hand, connections are reset', async () => {
  using t = new TestReactor();
  using listening = new ListeningSocket();
  t.reactor.listen({ fd: listening.fd, tls: () => null }, { onAccepted: () => new Echo(t.reactor) });
  const socket = net.connect(listening.port, HOST);
  expect((await t.during(once(socket, 'error')))[0]).toMatchObject({ code: 'ECONNRESET' });
});

test('an end asked for before the handshake is done comes after it, with the early bytes', async () => {
  using server = new Server();
  const context = createTlsContext(clientMaterial);
  const { connection, recorder } = dialFrom(server.t, server.port, context);
  connection.pauseReading();
  connection.write(Buffer.from('all of it'), 0, 9);
  connection.shutdownWrite();
  await server.t.until(() => server.accepted[0]?.hasEnded === true);
  expect(server.accepted[0]!.received.toString()).toBe('all of it');
  await sleep(20);
  await server.t.for(20);
  expect(recorder.received.length).toBe(0);
  connection.resumeReading();
  await server.t.until(() => recorder.hasEnded);
  expect(recorder.received.toString()).toBe('all of it');
  connection.close();
  releaseTlsContext(context);
});
