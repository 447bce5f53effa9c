/**
 * What framing costs, without sockets and TLS: `node dist/mesh/http2/session.bench.js [seconds per row]`. Client and server session of one thread, the
 * slab of one is the input of the other.
 */
import { createSession } from './session.js';
import type { HeaderList, Output, Session, SessionHandler, Slab, Stream, StreamHandler } from './types.js';

const SLAB_BYTES = 512 * 1024;

class SlabOutput implements Output {
  readonly blocked = false;
  readonly slab: Slab = { bytes: Buffer.alloc(SLAB_BYTES), end: 0 };
  reserve(_bytes: number): Slab {
    return this.slab;
  }
}

class Peer implements SessionHandler, StreamHandler {
  readonly output = new SlabOutput();
  session!: Session;
  onAccepted: ((stream: Stream) => void) | null = null;
  dataBytes = 0;
  ended = 0;
  onRequest(stream: Stream): StreamHandler {
    this.onAccepted?.(stream);
    return this;
  }
  onHeaders(): void {}
  onData(stream: Stream, _bytes: Buffer, start: number, end: number): void {
    this.dataBytes += end - start;
    stream.consumed(end - start);
  }
  onEnd(stream: Stream): void {
    this.ended++;
    stream.endStream();
  }
  onReset(): void {
    throw new Error('reset in a bench');
  }
  onWritable(): void {}
  onReady(): void {}
  onGoAway(): void {}
  onDrained(): void {}
  onClosed(): void {
    throw new Error('closed in a bench');
  }
}

function makePair(): { client: Peer; server: Peer; pump: () => void } {
  const client = new Peer();
  const server = new Peer();
  const nowMs = () => performance.now();
  client.session = createSession({ role: 'client' }, { output: client.output, handler: client, nowMs });
  server.session = createSession({ role: 'server' }, { output: server.output, handler: server, nowMs });
  const move = (from: Peer, to: Peer) => {
    const end = from.output.slab.end;
    from.output.slab.end = 0;
    if (end > 0) to.session.receive(from.output.slab.bytes, 0, end);
  };
  const pump = () => {
    while (client.output.slab.end + server.output.slab.end > 0) {
      move(client, server);
      move(server, client);
    }
  };
  pump();
  return { client, server, pump };
}

function connectHeaders(serial: number): HeaderList {
  const port = 30000 + (serial % 30000);
  return [
    [':method', 'CONNECT'],
    [':authority', `10.244.1.${serial % 8}:8080`],
    [
      'baggage',
      'k8s.cluster.name=Kubernetes,k8s.namespace.name=default,k8s.deployment.name=productpage,service.name=productpage,service.version=v1',
    ],
    ['forwarded', `for="10.244.0.17:${port}";host=reviews.default.svc.cluster.local`],
    [
      'traceparent',
      `00-4bf92f3577b34da6a3ce929d0e0e${port.toString(16)}-00f067aa0ba9${port.toString(16)}-00`,
    ],
  ];
}
const RESPONSE: HeaderList = [
  [':status', '200'],
  [
    'baggage',
    'k8s.cluster.name=Kubernetes,k8s.namespace.name=default,k8s.deployment.name=reviews,service.name=reviews',
  ],
];

/** Operations per second of `step`, which says how many it did. */
function rate(seconds: number, step: () => number): number {
  const until = performance.now() + seconds * 1000;
  const start = performance.now();
  let done = 0;
  while (performance.now() < until) done += step();
  return (done / (performance.now() - start)) * 1000;
}

function benchData(seconds: number, frameBytes: number): number {
  const { client, server, pump } = makePair();
  const stream = client.session.request(connectHeaders(1), client, false);
  pump();
  const perTurn = Math.floor((256 * 1024) / (frameBytes + 9));
  const step = () => {
    const before = server.dataBytes;
    for (let i = 0; i < perTurn && stream.sendCapacity() >= frameBytes; i++) {
      stream.beginData(frameBytes);
      stream.commitData(frameBytes, false);
    }
    pump();
    return server.dataBytes - before;
  };
  rate(seconds / 3, step);
  return rate(seconds, step);
}

function benchConnect(seconds: number): number {
  const { client, server, pump } = makePair();
  server.onAccepted = (stream) => stream.sendHeaders(RESPONSE, false);
  let serial = 0;
  const step = () => {
    for (let i = 0; i < 50; i++) client.session.request(connectHeaders(serial++), client, false).endStream();
    pump();
    return 50;
  };
  rate(seconds / 2, step);
  return rate(seconds, step);
}

const seconds = Number(process.argv[2] ?? 1);
for (const bytes of [100, 1024, 16 * 1024, 32 * 1024]) {
  const perSecond = benchData(seconds, bytes);
  const nsPerFrame = (1e9 * bytes) / perSecond;
  process.stdout.write(
    `DATA frames of ${bytes} bytes: ${(perSecond / 1e6).toFixed(0)} MB/s, ${nsPerFrame.toFixed(0)} ns a frame\n`,
  );
}
const pairs = benchConnect(seconds);
process.stdout.write(
  `CONNECT and response: ${pairs.toFixed(0)} pairs/s, ${(1e6 / pairs).toFixed(2)} us a pair\n`,
);
