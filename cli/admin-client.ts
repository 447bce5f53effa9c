import { request } from 'node:http';
import { formatSocketAddress, type SocketAddress } from '../mesh/common/address.js';
import { messageOf } from '../mesh/common/errors.js';
import { CliError } from './errors.js';

/** Answers of more are not ours: 10,000 workloads are 10 MB. */
const maxAnswerBytes = 512 * 1024 * 1024;
const timeoutMs = 10_000;

/** A program's admin port (hbone-and-wds.md 7.3), on this machine's loopback. */
export class AdminClient {
  readonly #program: string;
  readonly #at: SocketAddress;

  constructor(options: { readonly program: string; readonly at: SocketAddress }) {
    this.#program = options.program;
    this.#at = options.at;
  }

  /** GET; the answer's JSON. Errors: UNREACHABLE, REFUSED. */
  async json(path: string): Promise<unknown> {
    const text = await this.text('GET', path);
    try {
      return JSON.parse(text);
    } catch (error) {
      throw this.#refused(path, `answered what is no JSON: ${messageOf(error)}`);
    }
  }

  /** The answer's text. Errors: UNREACHABLE, REFUSED. */
  async text(method: 'GET' | 'POST', path: string): Promise<string> {
    const { status, body } = await this.#ask(method, path);
    if (status !== 200) throw this.#refused(path, `answered ${status}: ${body.trim()}`);
    return body;
  }

  #ask(method: string, path: string): Promise<{ status: number; body: string }> {
    const { address, port } = this.#at;
    return new Promise((resolve, reject) => {
      const fail = (error: unknown) =>
        reject(
          new CliError(
            'UNREACHABLE',
            `no ${this.#program} answers at ${formatSocketAddress(this.#at)}: ${messageOf(error)} (--${this.#program} IP:PORT for another; run this on the node, as root)`,
            { address: formatSocketAddress(this.#at) },
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

  #refused(path: string, what: string): CliError {
    return new CliError('REFUSED', `the ${this.#program} at ${formatSocketAddress(this.#at)} ${what}`, {
      path,
    });
  }
}
