import { type ChildProcess, execFile, spawn } from 'node:child_process';
import type { SocketAddress } from '../../mesh/common/address.js';
import { messageOf } from '../../mesh/common/errors.js';
import { CliError } from '../errors.js';

const answerTimeoutMs = 30_000;
const forwardTimeoutMs = 20_000;
const maxAnswerBytes = 512 * 1024 * 1024;

export interface KubectlOptions {
  /** The program, by path or as in PATH. */
  readonly program: string;
  /** Empty: as kubectl finds it (KUBECONFIG, ~/.kube/config). */
  readonly kubeconfig: string;
  /** Empty: the current one. */
  readonly context: string;
}

/** A port of loopback that leads to a port of a pod, as long as `end` was not called. */
export interface Forward {
  readonly at: SocketAddress;
  end(): void;
}

/** The user's kubectl, whose credentials and plugins are his own. Errors: CLUSTER, with what kubectl said. */
export class Kubectl {
  readonly #program: string;
  readonly #common: readonly string[];
  readonly #forwards = new Set<ChildProcess>();
  readonly #onExit = () => this.close();
  #isClosed = false;

  constructor({ program, kubeconfig, context }: KubectlOptions) {
    this.#program = program;
    this.#common = [
      ...(kubeconfig === '' ? [] : ['--kubeconfig', kubeconfig]),
      ...(context === '' ? [] : ['--context', context]),
    ];
  }

  /** Standard output of one command. */
  text(...args: string[]): Promise<string> {
    const options = { timeout: answerTimeoutMs, maxBuffer: maxAnswerBytes };
    return new Promise((resolve, reject) => {
      execFile(this.#program, [...this.#common, ...args], options, (error, stdout, stderr) => {
        if (error === null) resolve(stdout);
        else reject(this.#failed(args, stderr, error));
      });
    });
  }

  async json<Shape>(...args: string[]): Promise<Shape> {
    const text = await this.text(...args, '-o', 'json');
    try {
      return JSON.parse(text) as Shape;
    } catch (error) {
      throw this.#failed(args, `answered what is no JSON: ${messageOf(error)}`, error);
    }
  }

  /** Ends at `close` at the latest. */
  async forward(pod: {
    readonly namespace: string;
    readonly name: string;
    readonly port: number;
  }): Promise<Forward> {
    const { namespace, name, port } = pod;
    // A child that came now would be nobody's, and keep us from ending.
    if (this.#isClosed) throw new CliError('CLUSTER', 'kubectl is not asked any more', {});
    const args = ['port-forward', '-n', namespace, `pod/${name}`, `:${port}`, '--address', '127.0.0.1'];
    const child = spawn(this.#program, [...this.#common, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
    if (this.#forwards.size === 0) process.once('exit', this.#onExit);
    this.#forwards.add(child);
    child.once('close', () => {
      this.#forwards.delete(child);
      if (this.#forwards.size === 0) process.off('exit', this.#onExit);
    });
    const at = { address: '127.0.0.1', port: await this.#portOf(child, args) };
    return { at, end: () => void child.kill('SIGTERM') };
  }

  /** Ends what was forwarded. */
  close(): void {
    this.#isClosed = true;
    for (const child of this.#forwards) child.kill('SIGTERM');
  }

  #portOf(child: ChildProcess, args: readonly string[]): Promise<number> {
    let said = '';
    let complaints = '';
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        child.kill('SIGTERM');
        reject(this.#failed(args, `nothing for ${forwardTimeoutMs / 1000} s`, null));
      }, forwardTimeoutMs);
      const fail = (error: Error | null) => {
        clearTimeout(timer);
        reject(this.#failed(args, complaints || said, error));
      };
      child.stdout!.on('data', (chunk: Buffer) => {
        said += chunk.toString();
        const port = /^Forwarding from 127\.0\.0\.1:(\d+) /m.exec(said)?.[1];
        if (port === undefined) return;
        clearTimeout(timer);
        resolve(Number(port));
      });
      child.stderr!.on('data', (chunk: Buffer) => {
        complaints = (complaints + chunk.toString()).slice(-4000);
      });
      child.once('error', fail);
      child.once('close', () => fail(null));
    });
  }

  #failed(args: readonly string[], said: string, error: unknown): CliError {
    const isMissing = (error as NodeJS.ErrnoException | null)?.code === 'ENOENT';
    const what = isMissing
      ? 'is not found: install it, or name it with --kubectl'
      : said.trim().split('\n').slice(-3).join('; ') || messageOf(error);
    const command = args
      .filter((arg) => !arg.startsWith('-'))
      .slice(0, 2)
      .join(' ');
    return new CliError(
      'CLUSTER',
      `${this.#program} ${isMissing ? '' : `${command}: `}${what}`,
      { args },
      error,
    );
  }
}
