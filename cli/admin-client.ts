import { request } from 'node:http';
import { formatSocketAddress, type SocketAddress } from '../mesh/common/address.js';
import { messageOf } from '../mesh/common/errors.js';
import { CliError } from './errors.js';

/** Answers of more are not ours: 10,000 workloads are 10 MB. */
const maxAnswerBytes = 512 * 1024 * 1024;
const timeoutMs = 10_000;

export interface AdminClientOptions {
  readonly program: string;
  /** On this machine's loopback; of a pod, once it is forwarded. */
  readonly at: SocketAddress | (() => Promise<SocketAddress>);
}

/** A program's admin port (hbone-and-wds.md 7.3). */
export class AdminClient {
  readonly #program: string;
  readonly #at: AdminClientOptions['at'];

  constructor(options: AdminClientOptions) {
    this.#program = options.program;
    this.#at = options.at;
  }

  /** GET; the answer's JSON. Errors: UNREACHABLE, REFUSED. */
  async json(path: string): Promise<unknown> {
    const text = await this.text('GET', path);
    try {
      return JSON.parse(text);
    } catch (error) {
      throw this.#refused(await this.#address(), path, `answered what is no JSON: ${messageOf(error)}`);
    }
  }

  /** The answer's text. Errors: UNREACHABLE, REFUSED. */
  async text(method: 'GET' | 'POST', path: string): Promise<string> {
    const at = await this.#address();
    const { status, body } = await this.#ask(at, method, path);
    if (status !== 200) throw this.#refused(at, path, `answered ${status}: ${body.trim()}`);
    return body;
  }

  async #address(): Promise<SocketAddress> {
    return typeof this.#at === 'function' ? await this.#at() : this.#at;
  }

  #ask(at: SocketAddress, method: string, path: string): Promise<{ status: number; body: string }> {
    const { address, port } = at;
    const hint =
      typeof this.#at === 'function'
        ? 'forwarded by kubectl'
        : `--${this.#program} IP:PORT for another; run this on the node, as root, or with --node for a node of a cluster`;
    return new Promise((resolve, reject) => {
      const fail = (error: unknown) =>
        reject(
          new CliError(
            'UNREACHABLE',
            `no ${this.#program} answers at ${formatSocketAddress(at)}: ${messageOf(error)} (${hint})`,
            { address: formatSocketAddress(at) },
            error,
          ),
        );
      const sent = request(
        { host: address, port, path, method, timeout: timeoutMs, agent: false },
        (answer) => {
          const chunks: Buffer[] = [];
          let bytes = 0;
          answer.on('data', (chunk: Buffer) => {
            bytes += chunk.length;
            if (bytes > maxAnswerBytes)
              answer.destroy(new Error(`answered more than ${maxAnswerBytes} bytes`));
            chunks.push(chunk);
          });
          answer.on('error', fail);
          answer.on('end', () =>
            resolve({ status: answer.statusCode ?? 0, body: Buffer.concat(chunks).toString() }),
          );
        },
      );
      sent.on('timeout', () => sent.destroy(new Error(`nothing for ${timeoutMs / 1000} s`)));
      sent.on('error', fail);
      sent.end();
    });
  }

  #refused(at: SocketAddress, path: string, what: string): CliError {
    return new CliError('REFUSED', `the ${this.#program} at ${formatSocketAddress(at)} ${what}`, {
      path,
    });
  }
}
