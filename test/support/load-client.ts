// Load for tests of interruptions: `node load-client.js HOST PORT`, against tcp-app. Three kinds of clients at once, each in loops:
//   short      a connection per request (`peer`), ended by the application
//   keepAlive  a connection for 3 s with a request (an echoed line) every 20 ms, ended by the client
//   stream     a connection for 3 s on which bytes go both ways without a pause, ended by the client
// A line on standard input ends it: what is under way finishes, then it prints its report (`LoadReport`) as one line of JSON.
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { pattern } from './pattern.js';

export interface LoadCounts {
  connections: number;
  requests: number;
  /** Never connected. */
  failedConnections: number;
  /** Requests without their whole answer, by what came instead. */
  failedRequests: number;
  readonly causes: Record<string, number>;
}

export type LoadReport = Readonly<Record<'short' | 'keepAlive' | 'stream', LoadCounts>>;

const [host = '', port = '9000'] = process.argv.slice(2);
const lifeMs = 3_000;
const answerTimeoutMs = 15_000;
let isStopping = false;

const newCounts = (): LoadCounts => ({
  connections: 0,
  requests: 0,
  failedConnections: 0,
  failedRequests: 0,
  causes: {},
});
const report: LoadReport = { short: newCounts(), keepAlive: newCounts(), stream: newCounts() };

/** One connection, its bytes as they come. */
class Client {
  readonly socket: Socket;
  received = '';
  receivedBytes = 0;
  keepsText = true;
  hasEnded = false;
  failure = '';
  #wake: () => void = () => {};

  constructor() {
    this.socket = connect({ host, port: Number(port), allowHalfOpen: true, noDelay: true });
    this.socket.on('connect', () => this.#wake());
    this.socket.on('data', (chunk: Buffer) => {
      this.receivedBytes += chunk.length;
      if (this.keepsText) this.received += chunk.toString('latin1');
      this.#wake();
    });
    this.socket.on('end', () => {
      this.hasEnded = true;
      this.#wake();
    });
    this.socket.on('error', (error: NodeJS.ErrnoException) => {
      this.failure = error.code ?? error.message;
      this.#wake();
    });
  }

  /** Throws what went wrong. */
  async until(done: () => boolean): Promise<void> {
    const timer = setTimeout(() => {
      this.failure = 'timeout';
      this.#wake();
    }, answerTimeoutMs);
    try {
      while (!done()) {
        if (this.failure !== '') throw new Error(this.failure);
        if (this.hasEnded) throw new Error('ended too early');
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    } finally {
      clearTimeout(timer);
    }
  }

  async connected(counts: LoadCounts): Promise<boolean> {
    counts.connections++;
    try {
      await this.until(() => !this.socket.connecting);
      return true;
    } catch (error) {
      counts.failedConnections++;
      note(counts, error);
      return false;
    }
  }
}

function note(counts: LoadCounts, error: unknown): void {
  const cause = (error as Error).message;
  counts.causes[cause] = (counts.causes[cause] ?? 0) + 1;
}

async function request(counts: LoadCounts, run: () => Promise<void>): Promise<boolean> {
  counts.requests++;
  try {
    await run();
    return true;
  } catch (error) {
    counts.failedRequests++;
    note(counts, error);
    return false;
  }
}

async function short(): Promise<void> {
  const client = new Client();
  if (await client.connected(report.short)) {
    await request(report.short, async () => {
      client.socket.write('peer\n');
      await client.until(() => client.hasEnded);
      JSON.parse(client.received);
    });
  }
  client.socket.end();
  await sleep(10);
}

async function keepAlive(): Promise<void> {
  const client = new Client();
  const counts = report.keepAlive;
  if (!(await client.connected(counts))) return;
  client.socket.write('echo\n');
  const untilMs = performance.now() + lifeMs;
  for (let n = 0; performance.now() < untilMs; n++) {
    const isAnswered = await request(counts, async () => {
      client.received = '';
      client.socket.write(`line ${n}\n`);
      await client.until(() => client.received.endsWith('\n'));
      if (client.received !== `line ${n}\n`) throw new Error(`wrong answer ${client.received}`);
    });
    if (!isAnswered) {
      client.socket.destroy();
      return;
    }
    await sleep(20);
  }
  client.received = '';
  await request(counts, () => endWell(client));
}

async function endWell(client: Client): Promise<void> {
  client.keepsText = true;
  client.received = '';
  client.socket.end();
  await client.until(() => client.hasEnded);
  if (!client.received.endsWith('over')) throw new Error('ended without its last word');
}

async function stream(): Promise<void> {
  const client = new Client();
  const counts = report.stream;
  if (!(await client.connected(counts))) return;
  await request(counts, async () => {
    client.socket.write('echo\n');
    client.keepsText = false;
    const untilMs = performance.now() + lifeMs;
    let sentBytes = 0;
    while (performance.now() < untilMs) {
      client.socket.write(pattern(sentBytes, 16_384));
      sentBytes += 16_384;
      await client.until(() => client.receivedBytes >= sentBytes - 65_536);
      await sleep(5);
    }
    await client.until(() => client.receivedBytes === sentBytes);
    await endWell(client);
  });
  client.socket.destroy();
}

async function loop(run: () => Promise<void>): Promise<void> {
  while (!isStopping) await run();
}

const loops = [short, short, short, short, keepAlive, keepAlive, keepAlive, keepAlive, stream, stream].map(
  loop,
);
process.stdout.write('started\n');
createInterface({ input: process.stdin }).once('line', () => {
  isStopping = true;
  void Promise.all(loops).then(() => {
    process.stdout.write(`${JSON.stringify(report)}\n`, () => process.exit(0));
  });
});
