// Clients for tests, one process: `node tcp-prober.js '{"host": …, "port": …, "connections": N, "intervalMs": …}'`. Each keeps a connection to an
// `echo` application open, sends a line every interval and waits for it; when the connection ends it opens the next at once. A line on
// standard input prints what has happened so far as one line of JSON (`ProberReport`); the end of standard input ends it.
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';

export interface ProberOptions {
  readonly host: string;
  readonly port: number;
  readonly connections: number;
  readonly intervalMs: number;
}

export interface ProberReport {
  readonly answers: number;
  /** Connections that ended by an error, by its code. */
  readonly errors: Readonly<Record<string, number>>;
  /** Connections that the peer ended cleanly: echo never does. */
  readonly ends: number;
  /** Longest time from a connect or a line to its answer, or to the error that came instead. */
  readonly longestWaitMs: number;
  /** Lines under way now. */
  readonly waiting: number;
  /** Connections that have lived since the last report. */
  readonly unharmed: number;
}

const options = JSON.parse(process.argv[2]!) as ProberOptions;
const errors: Record<string, number> = {};
const probes: Probe[] = [];
let answers = 0;
let ends = 0;
let longestWaitMs = 0;

class Probe {
  isUnharmed = false;
  #socket: Socket | null = null;
  #sentMs = 0;
  #next: NodeJS.Timeout | null = null;

  get isWaiting(): boolean {
    return this.#sentMs > 0;
  }

  open(): void {
    this.#sentMs = performance.now();
    const socket = connect({ host: options.host, port: options.port, noDelay: true });
    this.#socket = socket;
    socket.on('connect', () => socket.write('echo\nx\n'));
    socket.on('data', () => this.#answered());
    socket.on('end', () => {
      ends++;
    });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      const code = error.code ?? error.message;
      errors[code] = (errors[code] ?? 0) + 1;
    });
    socket.on('close', () => this.#closed());
  }

  #answered(): void {
    answers++;
    this.#waited();
    this.#next = setTimeout(() => {
      this.#sentMs = performance.now();
      this.#socket!.write('x\n');
    }, options.intervalMs);
  }

  #closed(): void {
    if (this.#next !== null) clearTimeout(this.#next);
    this.isUnharmed = false;
    this.#waited();
    // Not in a tight loop where nothing listens.
    setTimeout(() => this.open(), 5);
  }

  #waited(): void {
    if (this.#sentMs > 0) longestWaitMs = Math.max(longestWaitMs, performance.now() - this.#sentMs);
    this.#sentMs = 0;
  }
}

for (let i = 0; i < options.connections; i++) {
  const probe = new Probe();
  probes.push(probe);
  probe.open();
}

createInterface({ input: process.stdin })
  .on('line', () => {
    const report: ProberReport = {
      answers,
      errors,
      ends,
      longestWaitMs,
      waiting: probes.filter((probe) => probe.isWaiting).length,
      unharmed: probes.filter((probe) => probe.isUnharmed).length,
    };
    for (const probe of probes) probe.isUnharmed = true;
    process.stdout.write(`${JSON.stringify(report)}\n`);
  })
  .on('close', () => process.exit(0));
