import { closeSync } from 'node:fs';
import { formatAddress, type SocketAddress } from '../../mesh/common/address.js';
import { check, ENOENT } from '../bpf/calls.js';
import type { NetCalls } from './calls.js';

const AF_INET = 2;
const AF_INET6 = 10;
const recordBytes = 64;
const EOPNOTSUPP = -95;
const ENOBUFS = -105;
/** enum of the kernel's tcp_states.h, as bits. */
const states = { timeWait: 1 << 6, close: 1 << 7, listen: 1 << 10 } as const;
const allStates = 0xffff;

/** A TCP socket as the kernel lists it. */
export interface TcpSocket {
  /** IPv4 addresses of IPv6 sockets are written as IPv4. */
  readonly local: SocketAddress;
  readonly remote: SocketAddress;
  readonly isListening: boolean;
  /** Of whoever made it (for an accepted one: who listened); 0 while its handshake is under way. */
  readonly cgroupId: bigint;
  /** Names it to the kernel. */
  readonly record: Buffer;
}

/** The TCP sockets of one network namespace, by sock_diag. Owns a descriptor. */
export class SocketDiag implements Disposable {
  readonly #fd: number;
  readonly #calls: NetCalls;

  constructor(options: { readonly fd: number }, deps: { readonly calls: NetCalls }) {
    this.#fd = options.fd;
    this.#calls = deps.calls;
  }

  /** Everything but what is closed (also: TIME_WAIT). Throws CALL_FAILED. */
  list(): TcpSocket[] {
    return [AF_INET, AF_INET6].flatMap((family) => this.#listFamily(family));
  }

  /** Ends a connection at both of its ends. False: it is gone. Throws CALL_FAILED (EOPNOTSUPP: see `canDestroy`). */
  destroy(socket: TcpSocket): boolean {
    const result = this.#calls.tcpDestroy(this.#fd, socket.record);
    if (result === ENOENT) return false;
    check(result, 'SOCK_DESTROY');
    return true;
  }

  /** Whether this kernel can (CONFIG_INET_DIAG_DESTROY): asked with a socket that there is not. */
  canDestroy(): boolean {
    const nobody = Buffer.alloc(recordBytes);
    nobody[0] = AF_INET;
    return this.#calls.tcpDestroy(this.#fd, nobody) !== EOPNOTSUPP;
  }

  close(): void {
    closeSync(this.#fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #listFamily(family: number): TcpSocket[] {
    const wanted = allStates & ~(states.timeWait | states.close);
    for (let room = 1024; ; room *= 4) {
      const out = Buffer.alloc(room * recordBytes);
      const count = this.#calls.tcpList(this.#fd, family, wanted, out, room);
      if (count === ENOBUFS) continue;
      check(count, 'SOCK_DIAG_BY_FAMILY', { family });
      return Array.from({ length: count }, (_, i) =>
        decode(out.subarray(i * recordBytes, (i + 1) * recordBytes)),
      );
    }
  }
}

/** struct tcp_record of native/shim/diag.c. */
function decode(record: Buffer): TcpSocket {
  const bytes = record[0] === AF_INET ? 4 : 16;
  return {
    local: { address: formatAddress(record, 8, bytes), port: record.readUInt16BE(4) },
    remote: { address: formatAddress(record, 24, bytes), port: record.readUInt16BE(6) },
    isListening: record[1] === 10,
    cgroupId: record.readBigUInt64LE(56),
    record,
  };
}
