import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { setPriority } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { waitFor } from '../lab/index.js';

export interface ControllerProcessOptions {
  readonly kubeconfig: string;
  /** State folder; its log lies beside it. */
  readonly state: string;
  /** xDS; kept over restarts, as agents know it. */
  readonly port: number;
  /** Further flags of node. */
  readonly nodeFlags?: readonly string[];
  readonly nice: number;
}

/** What a phase cost the controller. */
export interface Usage {
  readonly seconds: number;
  readonly cpuSeconds: number;
  /** Largest resident set seen, MB (10^6 bytes). */
  readonly peakMb: number;
}

const SAMPLE_MS = 100;

/** The controller as its users run it; its CPU and memory, by phase. */
export class ControllerProcess {
  readonly port: number;
  readonly #child: ChildProcess;
  readonly #monitoring: string;
  readonly #sampler: NodeJS.Timeout;
  #peakMb = 0;
  #phasePeakMb = 0;

  private constructor(child: ChildProcess, port: number, monitoringPort: number) {
    this.#child = child;
    this.port = port;
    this.#monitoring = `http://127.0.0.1:${monitoringPort}`;
    this.#sampler = setInterval(() => this.#sample(), SAMPLE_MS);
  }

  static async spawn(options: ControllerProcessOptions): Promise<ControllerProcess> {
    const monitoringPort = await freePort();
    const program = fileURLToPath(new URL('../../control/main.js', import.meta.url));
    const { state, port, kubeconfig, nodeFlags = [], nice } = options;
    const listen = ['--listen', `127.0.0.1:${port}`, '--admin-listen', '127.0.0.1:0'];
    const monitoring = ['--monitoring-listen', `127.0.0.1:${monitoringPort}`];
    const source = ['--source', 'kubernetes', '--kubeconfig', kubeconfig, '--state', state];
    const child = spawn(process.execPath, [...nodeFlags, program, ...source, ...listen, ...monitoring], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, NODE_OPTIONS: '' },
    });
    setPriority(child.pid!, nice); // before it has threads: they have what their process began with
    const log = createWriteStream(join(state, '..', 'controller.log'), { flags: 'a' });
    child.stdout?.pipe(log);
    child.stderr?.pipe(log);
    return new ControllerProcess(child, port, monitoringPort);
  }

  async ready(timeoutMs: number): Promise<void> {
    await waitFor(
      'the controller to be ready',
      async () => {
        if (this.#child.exitCode !== null) throw new Error('the controller ended; see controller.log');
        const answer = await fetch(`${this.#monitoring}/healthz/ready`).catch(() => null);
        return answer?.status === 200;
      },
      { timeoutMs, intervalMs: 50 },
    );
  }

  /** Of all values of a metric, by `name{labels}` as it is exposed. */
  async metrics(): Promise<ReadonlyMap<string, number>> {
    const text = await (await fetch(`${this.#monitoring}/metrics`)).text();
    const values = new Map<string, number>();
    for (const line of text.split('\n')) {
      const parts = /^([^#\s]\S*) (\S+)$/.exec(line);
      if (parts !== null) values.set(parts[1]!, Number(parts[2]));
    }
    return values;
  }

  get peakMb(): number {
    return this.#peakMb;
  }

  get rssMb(): number {
    return residentMb(this.#child.pid!);
  }

  get cpuSeconds(): number {
    return cpuSecondsOf(this.#child.pid!);
  }

  /** Ends when the answer is asked for. */
  phase(): () => Usage {
    const startMs = performance.now();
    const startCpu = this.cpuSeconds;
    this.#phasePeakMb = 0;
    return () => {
      this.#sample();
      return {
        seconds: (performance.now() - startMs) / 1000,
        cpuSeconds: this.cpuSeconds - startCpu,
        peakMb: this.#phasePeakMb,
      };
    };
  }

  async stop(): Promise<void> {
    clearInterval(this.#sampler);
    if (this.#child.exitCode !== null) return;
    const exited = once(this.#child, 'exit');
    this.#child.kill('SIGTERM');
    await exited;
  }

  #sample(): void {
    if (this.#child.exitCode !== null) return;
    const mb = residentMb(this.#child.pid!);
    this.#peakMb = Math.max(this.#peakMb, mb);
    this.#phasePeakMb = Math.max(this.#phasePeakMb, mb);
  }
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  return port;
}

/** User and system time of all threads so far. */
export function cpuSecondsOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

function residentMb(pid: number): number {
  const kb = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? '0';
  return (Number(kb) * 1024) / 1e6;
}
