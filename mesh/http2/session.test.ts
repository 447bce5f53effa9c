import { describe, expect, test } from '@jest/globals';
import { createSession } from './session.js';
import { MemoryOutput } from './testing/memory-output.js';
import { Recorder } from './testing/recorder.js';
import { ErrorCode, type HeaderList, type SessionOptions } from './types.js';

const CONNECT: HeaderList = [
  [':method', 'CONNECT'],
  [':authority', '10.0.0.1:80'],
  ['baggage', 'k8s.cluster.name=c'],
];

class Side {
  readonly output = new MemoryOutput();
  readonly recorder = new Recorder();
  nowMs = 0;
  readonly session;
  constructor(options: SessionOptions) {
    this.session = createSession(options, {
      output: this.output,
      handler: this.recorder,
      nowMs: () => this.nowMs,
    });
  }
}

function connect(client: Partial<SessionOptions> = {}, server: Partial<SessionOptions> = {}) {
  const c = new Side({ role: 'client', ...client });
  const s = new Side({ role: 'server', ...server });
  const pump = () => {
    for (;;) {
      const up = c.output.take();
      const down = s.output.take();
      if (up.length + down.length === 0) return;
      s.session.receive(up, 0, up.length);
      c.session.receive(down, 0, down.length);
    }
  };
  pump();
  return { c, s, pump };
}

describe('a session pair', () => {
  test('becomes ready, settings acknowledged on both sides', () => {
    const { c, s } = connect();
    expect(c.recorder.of('ready')).toHaveLength(1);
    expect(s.recorder.of('ready')).toHaveLength(1);
    expect(c.session.settingsAcked && s.session.settingsAcked).toBe(true);
    expect(c.session.peerMaxConcurrentStreams).toBe(200);
  });

  test('CONNECT carries bytes both ways, half-closed per direction', () => {
    const { c, s, pump } = connect();
    const stream = c.session.request(CONNECT, c.recorder, false);
    stream.sendData(Buffer.from('hello'), 0, 5, false);
    pump();
    const accepted = s.recorder.streams.get(1)!;
    expect(s.recorder.of('request')[0]!.headers).toEqual(CONNECT);
    expect(s.recorder.of('data')[0]!.text).toBe('hello');
    accepted.sendHeaders([[':status', '200']], false);
    stream.endStream();
    pump();
    expect(s.recorder.of('end')).toHaveLength(1);
    expect(c.recorder.of('end')).toHaveLength(0);
    accepted.sendData(Buffer.from('world'), 0, 5, true);
    pump();
    expect(c.recorder.of('data')[0]!.text).toBe('world');
    expect(c.recorder.of('end')).toHaveLength(1);
    expect(c.session.openStreams + s.session.openStreams).toBe(0);
  });

  test('a reset reaches the peer with its code', () => {
    const { c, s, pump } = connect();
    c.session.request(CONNECT, c.recorder, false).reset(ErrorCode.CANCEL);
    pump();
    expect(s.recorder.of('reset')).toEqual([
      { type: 'reset', id: 1, code: ErrorCode.CANCEL, sessionLost: false },
    ]);
    expect(c.recorder.of('reset')).toEqual([]);
  });

  test('megabytes pass, and the stream window grows to its ceiling', () => {
    const { c, s, pump } = connect();
    const stream = c.session.request(CONNECT, c.recorder, false);
    pump();
    const chunk = Buffer.alloc(64 * 1024, 'x');
    let sent = 0;
    while (sent < 32 * 1024 * 1024) {
      while (stream.sendCapacity() > 0) sent += stream.sendData(chunk, 0, chunk.length, false);
      pump();
    }
    stream.endStream();
    pump();
    expect(s.recorder.of('data').reduce((sum, event) => sum + event.text.length, 0)).toBe(sent);
    expect(s.recorder.of('end')).toHaveLength(1);
  });
});
