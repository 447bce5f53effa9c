// TCP client for tests: `node tcp-client.js '{"host": …, "port": …, …}'`. Prints one line of JSON (`TcpOutcome`) when the connection is over.
// Prints `answered` when the first byte comes, so that a test can act while it is open. Standard input acts on it: `end`, `reset`, or `say WORD`,
// which sends the word as a line and prints `heard WORD` when the peer has sent it back.
import { createHash } from 'node:crypto';
import { connect } from 'node:net';
import { createInterface } from 'node:readline';
import { pattern } from './pattern.js';

export interface TcpClientOptions {
  readonly host: string;
  readonly port: number;
  readonly localAddress?: string;
  /** First line. */
  readonly line: string;
  /** Pattern bytes to send after it. */
  readonly bytes?: number;
  /** FIN after what is sent; else the connection stays open until the peer ends it. */
  readonly end?: boolean;
  /** Bytes per second at most to read; absent: as fast as possible. */
  readonly timeoutMs?: number;
}

export interface TcpOutcome {
  /** How the peer's direction ended. */
  readonly ended: 'fin' | 'error' | 'timeout';
  readonly error: string;
  readonly received: number;
  readonly sha256: string;
  /** The first KiB. */
  readonly text: string;
  readonly local: string;
  readonly remote: string;
  readonly connectMs: number;
  readonly totalMs: number;
}

const options = JSON.parse(process.argv[2]!) as TcpClientOptions;
const startedMs = performance.now();
const hash = createHash('sha256');
let received = 0;
let text = '';
let awaited = '';
let heard = '';
let connectMs = -1;
let local = '';
let remote = '';

const socket = connect({
  host: options.host,
  port: options.port,
  allowHalfOpen: true,
  noDelay: true,
  ...(options.localAddress === undefined ? {} : { localAddress: options.localAddress }),
});

socket.on('connect', () => {
  connectMs = performance.now() - startedMs;
  local = `${socket.localAddress} ${socket.localPort}`;
  remote = `${socket.remoteAddress} ${socket.remotePort}`;
  socket.write(`${options.line}\n`);
  sendPattern(0);
});
socket.on('data', (chunk: Buffer) => {
  if (received === 0) process.stdout.write('answered\n');
  hash.update(chunk);
  received += chunk.length;
  if (text.length < 1024) text += chunk.toString('latin1').slice(0, 1024);
  listenFor(chunk);
});
socket.on('end', () => finish('fin', ''));
socket.on('error', (error) => finish('error', (error as NodeJS.ErrnoException).code ?? error.message));
setTimeout(() => finish('timeout', ''), options.timeoutMs ?? 20_000);

createInterface({ input: process.stdin }).on('line', (line) => {
  if (line === 'end') socket.end();
  if (line.startsWith('say ')) {
    awaited = line.slice(4);
    heard = '';
    socket.write(`${awaited}\n`);
  }
  if (line === 'reset') {
    socket.resetAndDestroy();
    finish('error', 'own reset');
  }
});

function listenFor(chunk: Buffer): void {
  if (awaited === '') return;
  heard += chunk.toString('latin1');
  if (!heard.includes(`${awaited}\n`)) return;
  process.stdout.write(`heard ${awaited}\n`);
  awaited = '';
}

function sendPattern(from: number): void {
  const bytes = options.bytes ?? 0;
  let at = from;
  while (at < bytes) {
    const chunk = pattern(at, Math.min(65_536, bytes - at));
    at += chunk.length;
    if (!socket.write(chunk)) {
      socket.once('drain', () => sendPattern(at));
      return;
    }
  }
  if (options.end === true) socket.end();
}

function finish(ended: TcpOutcome['ended'], error: string): void {
  const totalMs = performance.now() - startedMs;
  const outcome: TcpOutcome = {
    ended,
    error,
    received,
    sha256: hash.digest('hex'),
    text,
    local,
    remote,
    connectMs,
    totalMs,
  };
  process.stdout.write(`${JSON.stringify(outcome)}\n`, () => process.exit(0));
}
