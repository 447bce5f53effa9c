import { once } from 'node:events';
import http2 from 'node:http2';
import { afterEach, describe, expect, test } from '@jest/globals';
import { NodeLab, type Wire } from './testing/node-lab.js';
import { Recorder } from './testing/recorder.js';
import type { SocketTransport } from './testing/socket-transport.js';
import { Echo, Exchange } from './testing/stream-pump.js';
import { ErrorCode, type HeaderList, type SessionHandler, type Stream, type StreamHandler } from './types.js';

const MIB = 1024 * 1024;
const CONNECT: HeaderList = [
  [':method', 'CONNECT'],
  [':authority', '10.0.0.1:80'],
];

function post(extra: HeaderList = []): HeaderList {
  return [
    [':method', 'POST'],
    [':scheme', 'http'],
    [':authority', 'localhost'],
    [':path', '/echo'],
    ...extra,
  ];
}

function pattern(bytes: number, seed = 1): Buffer {
  const body = Buffer.allocUnsafe(bytes);
  for (let i = 0, x = seed; i < bytes; i++) {
    x = (x * 1103515245 + 12345) & 0x7fffffff;
    body[i] = x >>> 16;
  }
  return body;
}

/** Our server: 200 and every byte back. */
class EchoServer extends Recorder implements SessionHandler {
  readonly echoes: Echo[] = [];
  override onRequest(stream: Stream, headers: HeaderList, endStream: boolean): StreamHandler {
    super.onRequest(stream, headers, endStream);
    stream.sendHeaders([[':status', '200']], false);
    const echo = new Echo();
    this.echoes.push(echo);
    return echo;
  }
}

function nodeEcho(server: http2.Http2Server): void {
  server.on('stream', (stream, headers) => {
    stream.on('error', () => {});
    if (headers[':method'] === 'CONNECT') stream.respond({ ':status': 200 });
    else
      stream.respond({ ':status': 200, 'x-saw': String(headers['x-tag'] ?? '') }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'x-done': 'yes' }));
    stream.pipe(stream);
  });
}

function exchange(transport: SocketTransport, headers: HeaderList, body: Exchange): Stream {
  return transport.run((session) => {
    const stream = session.request(headers, body, false);
    body.onWritable(stream);
    return stream;
  });
}

let lab: NodeLab | null = null;
afterEach(() => lab?.close());

describe.each<Wire>(['tcp', 'tls'])('our client, a node:http2 server, over %s', (wire) => {
  test('a hundred requests at once, bodies of all sizes, headers and trailers', async () => {
    lab = new NodeLab(wire);
    const transport = await lab.clientOf(nodeEcho, new Recorder());
    const all = Array.from({ length: 100 }, (_, i) => new Exchange(pattern(i * i * 40, i + 1)));
    for (const [i, one] of all.entries()) exchange(transport, post([['x-tag', `tag-${i}`]]), one);
    for (const [i, one] of all.entries()) {
      expect(await one.done).toBe('end');
      expect(one.status()).toBe('200');
      expect(one.headers[0]).toContainEqual(['x-saw', `tag-${i}`]);
      expect(one.headers.at(-1)).toEqual([['x-done', 'yes']]);
      expect(one.receivedHash).toBe(one.bodyHash);
    }
    expect(transport.session.openStreams).toBe(0);
  });

  test('CONNECT with 24 MiB each way', async () => {
    lab = new NodeLab(wire);
    const transport = await lab.clientOf(nodeEcho, new Recorder());
    const one = new Exchange(pattern(24 * MIB));
    exchange(transport, CONNECT, one);
    expect(await one.done).toBe('end');
    expect(one.receivedHash).toBe(one.bodyHash);
  });

  test('the response ends first, our side goes on', async () => {
    lab = new NodeLab(wire);
    let received = 0;
    const finished = new Promise<void>((resolve) => {
      void lab!
        .clientOf((server) => {
          server.on('stream', (stream) => {
            stream.respond({ ':status': 200 });
            stream.end('bye');
            stream.on('data', (chunk: Buffer) => {
              received += chunk.length;
            });
            stream.on('end', () => resolve());
          });
        }, new Recorder())
        .then(async (transport) => {
          const one = new Exchange(pattern(300_000));
          const stream = transport.run((session) => session.request(CONNECT, one, false));
          expect(await one.done).toBe('end');
          transport.run(() => one.onWritable(stream));
        });
    });
    await finished;
    expect(received).toBe(300_000);
  });

  test('resets carry their code in both directions', async () => {
    lab = new NodeLab(wire);
    const codes: number[] = [];
    const transport = await lab.clientOf((server) => {
      server.on('stream', (stream, headers) => {
        stream.on('error', () => {});
        stream.on('close', () => codes.push(stream.rstCode));
        if (headers[':path'] === '/reset') stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR);
      });
    }, new Recorder());
    const theirs = new Exchange(Buffer.alloc(0));
    const path: HeaderList = [
      [':method', 'GET'],
      [':scheme', 'http'],
      [':authority', 'localhost'],
      [':path', '/reset'],
    ];
    transport.run((session) => session.request(path, theirs, false));
    expect(await theirs.done).toBe('reset');
    expect(theirs.resetCode).toBe(ErrorCode.INTERNAL_ERROR);
    const ours = transport.run((session) => session.request(CONNECT, new Exchange(Buffer.alloc(0)), false));
    transport.run(() => ours.reset(ErrorCode.CANCEL));
    await new Promise<void>((resolve) => {
      transport.run((session) => session.ping(() => resolve()));
    });
    expect(codes).toContain(ErrorCode.CANCEL);
  });

  test('1xx responses come before the final one', async () => {
    lab = new NodeLab(wire);
    const transport = await lab.clientOf((server) => {
      server.on('stream', (stream) => {
        stream.additionalHeaders({ ':status': 103, link: '</a.css>' });
        stream.respond({ ':status': 204 }, { endStream: true });
      });
    }, new Recorder());
    const one = new Exchange(Buffer.alloc(0));
    transport.run((session) => session.request(post(), one, true));
    expect(await one.done).toBe('end');
    expect(one.headers.map((headers) => headers[0]![1])).toEqual(['103', '204']);
  });

  test('SETTINGS that change under way: windows, frame size, header table', async () => {
    lab = new NodeLab(wire);
    const transport = await lab.clientOf((server) => {
      nodeEcho(server);
      server.on('session', (session) => {
        let round = 0;
        const change = () => {
          if (session.closed || session.destroyed || round > 20) return;
          round++;
          session.settings(
            {
              initialWindowSize: round % 2 === 0 ? 1000 : 1_000_000,
              maxFrameSize: round % 3 === 0 ? 16_384 : 1_000_000,
              headerTableSize: (round % 4) * 1000,
            },
            () => setTimeout(change, 5),
          );
        };
        change();
      });
    }, new Recorder());
    const rounds = Array.from({ length: 8 }, (_, i) => i);
    for (const round of rounds) {
      const some = Array.from({ length: 5 }, (_, i) => new Exchange(pattern(400_000, round * 5 + i)));
      for (const one of some) exchange(transport, post([['x-tag', `${round}`]]), one);
      for (const one of some) {
        expect(await one.done).toBe('end');
        expect(one.receivedHash).toBe(one.bodyHash);
      }
    }
  });

  test('GOAWAY: no new streams, open ones end, then drained', async () => {
    lab = new NodeLab(wire);
    let close: () => void = () => {};
    const recorder = new Recorder();
    const transport = await lab.clientOf((server) => {
      nodeEcho(server);
      server.on('session', (session) => {
        close = () => session.close();
      });
    }, recorder);
    const one = new Exchange(pattern(100_000));
    const stream = transport.run((session) => session.request(post(), one, false));
    await new Promise<void>((resolve) => {
      transport.run((session) => session.ping(() => resolve()));
    });
    close();
    await new Promise<void>((resolve) => {
      recorder.onGoAway = () => resolve();
    });
    expect(transport.session.acceptsStreams).toBe(false);
    expect(() => transport.session.request(post(), one, true)).toThrow('no new streams');
    transport.run(() => one.onWritable(stream));
    expect(await one.done).toBe('end');
    expect(one.receivedHash).toBe(one.bodyHash);
    expect(recorder.of('drained')).toHaveLength(1);
  });

  test('the transport is lost: streams hear it as a reset, never as an end', async () => {
    lab = new NodeLab(wire);
    const transport = await lab.clientOf((server) => {
      server.on('stream', (stream) => {
        stream.on('error', () => {});
        stream.respond({ ':status': 200 });
        stream.session?.destroy();
      });
    }, new Recorder());
    const one = new Exchange(Buffer.alloc(0));
    transport.run((session) => session.request(CONNECT, one, false));
    expect(await one.done).toBe('reset');
  });

  test('a server that does not read stops us at its window, and other streams go on', async () => {
    lab = new NodeLab(wire);
    let resume: () => void = () => {};
    const transport = await lab.clientOf((server) => {
      server.on('stream', (stream, headers) => {
        stream.respond({ ':status': 200 });
        if (headers[':authority'] === 'stalled:1') resume = () => stream.pipe(stream);
        else stream.pipe(stream);
      });
    }, new Recorder());
    const stalled = new Exchange(pattern(2 * MIB));
    exchange(
      transport,
      [
        [':method', 'CONNECT'],
        [':authority', 'stalled:1'],
      ],
      stalled,
    );
    const other = new Exchange(pattern(2 * MIB, 7));
    exchange(transport, CONNECT, other);
    expect(await other.done).toBe('end');
    expect(other.receivedHash).toBe(other.bodyHash);
    expect(stalled.receivedBytes).toBe(0);
    resume();
    expect(await stalled.done).toBe('end');
    expect(stalled.receivedHash).toBe(stalled.bodyHash);
  });
});

async function readAll(stream: http2.ClientHttp2Stream): Promise<Buffer> {
  const parts: Buffer[] = [];
  stream.on('data', (chunk: Buffer) => parts.push(chunk));
  await once(stream, 'end');
  return Buffer.concat(parts);
}

describe.each<Wire>(['tcp', 'tls'])('a node:http2 client, our server, over %s', (wire) => {
  test('a hundred requests at once, bodies and trailers echoed', async () => {
    lab = new NodeLab(wire);
    const server = new EchoServer();
    const { client } = await lab.serverOf(server);
    await Promise.all(
      Array.from({ length: 100 }, async (_, i) => {
        const body = pattern(i * 2000, i + 1);
        const stream = client.request({ ':method': 'POST', ':path': `/${i}` }, { waitForTrailers: true });
        stream.on('wantTrailers', () => stream.sendTrailers({ 'x-number': String(i) }));
        const trailers = once(stream, 'trailers');
        stream.end(body);
        expect((await readAll(stream)).equals(body)).toBe(true);
        expect((await trailers)[0]).toMatchObject({ 'x-number': String(i) });
      }),
    );
    expect(server.of('request')).toHaveLength(100);
    expect(server.of('closed')).toEqual([]);
  });

  test('CONNECT with 24 MiB each way, and the echo never holds more than a window', async () => {
    lab = new NodeLab(wire);
    const server = new EchoServer();
    // node counts what it has yet to send; by default it gives up at 10 MB
    const { client } = await lab.serverOf(server, {}, { maxSessionMemory: 100 });
    const body = pattern(24 * MIB);
    const stream = client.request({ ':method': 'CONNECT', ':authority': '10.0.0.1:80' });
    stream.end(body);
    expect((await readAll(stream)).equals(body)).toBe(true);
    expect(server.echoes[0]!.mostQueuedBytes).toBeLessThanOrEqual(4 * MIB);
  });

  test('resets carry their code in both directions', async () => {
    lab = new NodeLab(wire);
    const server = new Recorder();
    server.onRequestHook = (stream, headers) => {
      if (headers.some(([, value]) => value === '/reset')) stream.reset(ErrorCode.REFUSED_STREAM);
    };
    const { client } = await lab.serverOf(server);
    const theirs = client.request({ ':path': '/reset' });
    theirs.on('error', () => {});
    await new Promise((resolve) => theirs.once('close', resolve));
    expect(theirs.rstCode).toBe(ErrorCode.REFUSED_STREAM);
    const ours = client.request({ ':method': 'POST', ':path': '/stay' });
    ours.on('error', () => {});
    ours.write('x');
    await new Promise((resolve) => client.ping(resolve));
    ours.close(http2.constants.NGHTTP2_CANCEL);
    await new Promise((resolve) => client.ping(resolve));
    expect(server.of('reset')).toEqual([
      { type: 'reset', id: 3, code: ErrorCode.CANCEL, sessionLost: false },
    ]);
  });

  test('a graceful GOAWAY lets open and racing streams finish', async () => {
    lab = new NodeLab(wire);
    const server = new EchoServer();
    const { client, transport } = await lab.serverOf(server);
    const stream = client.request({ ':method': 'POST' });
    await once(stream, 'response');
    const goaway = once(client, 'goaway');
    transport.run((session) => session.goAway(ErrorCode.NO_ERROR));
    await goaway;
    stream.end('last words');
    expect(String(await readAll(stream))).toBe('last words');
    await once(client, 'close');
    expect(server.of('drained')).toHaveLength(1);
    expect(server.of('closed')).toEqual([]);
  });

  test('a client that does not read: our sending stops at its window, other streams go on', async () => {
    lab = new NodeLab(wire);
    const server = new EchoServer();
    const { client, transport } = await lab.serverOf(server);
    const stalled = client.request({ ':method': 'POST' });
    stalled.end(pattern(4 * MIB));
    await once(stalled, 'response');
    const other = client.request({ ':method': 'POST' });
    const body = pattern(MIB, 3);
    other.end(body);
    expect((await readAll(other)).equals(body)).toBe(true);
    expect(transport.output.pendingBytes).toBeLessThan(MIB);
    expect((await readAll(stalled)).length).toBe(4 * MIB);
  });

  test('its SETTINGS change under way', async () => {
    lab = new NodeLab(wire);
    const server = new EchoServer();
    const { client } = await lab.serverOf(server);
    for (let round = 0; round < 12; round++) {
      client.settings({
        initialWindowSize: round % 2 === 0 ? 500 : 200_000,
        maxFrameSize: round % 3 === 0 ? 16_384 : 100_000,
        headerTableSize: (round % 4) * 500,
      });
      const body = pattern(100_000, round);
      const stream = client.request({ ':method': 'POST', 'x-some-header': `value ${round % 3}` });
      stream.end(body);
      expect((await readAll(stream)).equals(body)).toBe(true);
    }
    expect(server.of('closed')).toEqual([]);
  });
});
