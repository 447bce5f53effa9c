/**
 * Asks a pod's own resolvers, from inside its namespace. Every try has a socket of its own, connected to one server: the kernel chooses a random port
 * and takes datagrams of that server only, so an answer must match server, port, id and question.
 */
import { randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { closeSync } from 'node:fs';
import { Socket } from 'node:net';
import { isIpv6 } from '../../mesh/common/address.js';
import { parseResponse, sameQuestion, withId } from './message.js';
import { DnsError, DnsFormatError, type Query, type Response, rcode } from './types.js';

const nameServicePort = 53;

export interface UpstreamOptions {
  /** For all tries together. Below glibc's 5 s, so that a client hears of the failure. */
  readonly timeoutMs: number;
  /** For one server, if there is time for another. */
  readonly tryTimeoutMs: number;
}

export interface UpstreamDeps {
  readonly sockets: {
    udp(netnsFd: number, family: 'ipv4' | 'ipv6'): number;
    tcp(netnsFd: number, family: 'ipv4' | 'ipv6'): number;
  };
  readonly nowMs: () => number;
}

/** Whom to ask, and from where. */
export interface UpstreamTarget {
  readonly netnsFd: number;
  /** In order of preference. */
  readonly servers: readonly string[];
  /** False: the pod is gone, and its descriptor may be another's. */
  readonly isThere: () => boolean;
}

interface Try {
  readonly netnsFd: number;
  readonly server: string;
  readonly timeoutMs: number;
  readonly id: number;
  readonly message: Buffer;
  /** Null: not the answer to this try. */
  readonly accept: (bytes: Buffer) => Response | null;
}

export class Upstream {
  readonly #options: UpstreamOptions;
  readonly #deps: UpstreamDeps;

  constructor(options: UpstreamOptions, deps: UpstreamDeps) {
    this.#options = options;
    this.#deps = deps;
  }

  /**
   * The response of the first server that answers well; over TCP where that is asked for, or where UDP was not enough. If none does, the last answer that
   * said so. Throws DnsError NO_UPSTREAM, UPSTREAM_FAILED.
   */
  async ask(target: UpstreamTarget, query: Query, transport: 'udp' | 'tcp'): Promise<Response> {
    const { servers } = target;
    if (servers.length === 0)
      throw new DnsError('NO_UPSTREAM', "the pod's resolv.conf names no server to ask");
    const deadlineMs = this.#deps.nowMs() + this.#options.timeoutMs;
    let unwell: Response | null = null;
    let cause: unknown = null;
    for (let i = 0; i < Math.max(2, servers.length); i++) {
      const leftMs = deadlineMs - this.#deps.nowMs();
      if (leftMs <= 0 || !target.isThere()) break;
      const timeoutMs = Math.min(leftMs, this.#options.tryTimeoutMs);
      try {
        const server = servers[i % servers.length]!;
        const response = await this.#askServer(target, server, query, transport, timeoutMs);
        if (isWell(response)) return response;
        unwell = response;
      } catch (error) {
        cause = error;
      }
    }
    if (unwell !== null) return unwell;
    throw new DnsError('UPSTREAM_FAILED', `none of ${servers.join(', ')} answered`, { servers }, cause);
  }

  async #askServer(
    target: UpstreamTarget,
    server: string,
    query: Query,
    transport: 'udp' | 'tcp',
    timeoutMs: number,
  ): Promise<Response> {
    const { netnsFd } = target;
    const endMs = this.#deps.nowMs() + timeoutMs;
    if (transport === 'udp') {
      const response = await this.#udp(newTry(netnsFd, server, query, timeoutMs));
      if (!response.truncated) return response;
      if (!target.isThere()) throw new Error('the pod is gone');
    }
    return await this.#tcp(newTry(netnsFd, server, query, Math.max(1, endMs - this.#deps.nowMs())));
  }

  #udp({ netnsFd, server, timeoutMs, message, accept }: Try): Promise<Response> {
    const isV6 = isIpv6(server);
    const fd = this.#deps.sockets.udp(netnsFd, isV6 ? 'ipv6' : 'ipv4');
    return new Promise((resolve, reject) => {
      const socket = createSocket(isV6 ? 'udp6' : 'udp4');
      const end = (finish: () => void) => {
        clearTimeout(timer);
        socket.removeAllListeners().on('error', () => {});
        socket.close();
        finish();
      };
      const timer = setTimeout(() => end(() => reject(new Error(`no answer in ${timeoutMs} ms`))), timeoutMs);
      socket.on('error', (error) => end(() => reject(error)));
      socket.on('message', (bytes) => {
        const response = accept(bytes);
        if (response !== null) end(() => resolve(response));
      });
      // A pod can name a server that there is no way to. Only as an event does a failed connect come to 'error'.
      socket.on('connect', () => socket.send(message));
      try {
        socket.bind({ fd }, () => socket.connect(nameServicePort, server));
      } catch (error) {
        closeSync(fd);
        end(() => reject(error));
      }
    });
  }

  #tcp({ netnsFd, server, timeoutMs, message, accept }: Try): Promise<Response> {
    const fd = this.#deps.sockets.tcp(netnsFd, isIpv6(server) ? 'ipv6' : 'ipv4');
    return new Promise((resolve, reject) => {
      const socket = new Socket({ fd });
      const end = (finish: () => void) => {
        clearTimeout(timer);
        socket.removeAllListeners().on('error', () => {});
        socket.destroy();
        finish();
      };
      const timer = setTimeout(() => end(() => reject(new Error(`no answer in ${timeoutMs} ms`))), timeoutMs);
      let received: Buffer = Buffer.alloc(0);
      socket.on('error', (error) => end(() => reject(error)));
      socket.on('end', () => end(() => reject(new Error('the server has closed'))));
      socket.on('data', (bytes) => {
        received = Buffer.concat([received, bytes]);
        if (received.length < 2 || received.length < 2 + received.readUInt16BE(0)) return;
        const response = accept(received.subarray(2, 2 + received.readUInt16BE(0)));
        end(() => (response === null ? reject(new Error('an answer to something else')) : resolve(response)));
      });
      socket.connect(nameServicePort, server, () => socket.write(withLength(message)));
    });
  }
}

/** RFC 1035 4.2.2: over TCP the length comes first. */
export function withLength(message: Buffer): Buffer {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(message.length);
  return Buffer.concat([length, message]);
}

function newTry(netnsFd: number, server: string, query: Query, timeoutMs: number): Try {
  const id = randomInt(65_536);
  return {
    netnsFd,
    server,
    timeoutMs,
    id,
    message: withId(query.bytes, id),
    accept: (bytes) => {
      try {
        const response = parseResponse(Buffer.from(bytes));
        return response.id === id && sameQuestion(response.question, query.question) ? response : null;
      } catch (error) {
        if (error instanceof DnsFormatError) return null;
        throw error;
      }
    },
  };
}

/** Another server may know better than one that fails or will not serve us. */
function isWell(response: Response): boolean {
  return (
    response.rcode !== rcode.serverFailure &&
    response.rcode !== rcode.notImplemented &&
    response.rcode !== rcode.refused
  );
}
