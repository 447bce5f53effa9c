import { closeSync, fstatSync, openSync } from 'node:fs';
import { tryParseAddress } from '../../mesh/common/address.js';
import { check } from '../bpf/calls.js';
import { NativeError } from '../errors.js';
import { type NativeLibrary, openLibrary } from '../library.js';
import { bindNetCalls, type NetCalls } from './calls.js';
import { SocketDiag } from './diag.js';

const AF_INET = 2;
const AF_INET6 = 10;
const AF_NETLINK = 16;
const SOCK_RAW = 3;
const NETLINK_SOCK_DIAG = 4;
const SOCK_NONBLOCK = 0o4000;

export interface ListenOptions {
  /** 0: the kernel chooses. */
  readonly port: number;
  /** 'dual': IPv6 and IPv4; 'ipv4' where the namespace has no IPv6. */
  readonly family: 'dual' | 'ipv4';
  /** Connections that wait for accept. */
  readonly backlog: number;
}

/** Opens network namespaces from one thread. */
export class Net {
  readonly #calls: NetCalls;

  constructor(
    _options: Record<string, never> = {},
    deps: { library: NativeLibrary } = { library: openLibrary() },
  ) {
    this.#calls = bindNetCalls(deps.library);
  }

  /** `path`: /run/netns/NAME, /proc/PID/ns/net, ... Throws the open's own error. */
  openNetns(path: string): NetworkNamespace {
    return new NetworkNamespace({ fd: openSync(path, 'r'), owned: true }, { calls: this.#calls });
  }

  ofProcess(pid: number): NetworkNamespace {
    return this.openNetns(`/proc/${pid}/ns/net`);
  }

  /** The namespace of this thread. */
  own(): NetworkNamespace {
    return this.openNetns('/proc/thread-self/ns/net');
  }

  /**
   * The first `maxBytes` of a file as a process of a pod sees it: links stay inside its root. Throws CALL_FAILED (EINVAL: it is no plain
   * file, or one that a process would have to answer for).
   */
  readFileOf(pid: number, path: string, maxBytes: number): string {
    const out = Buffer.alloc(maxBytes);
    const bytes = check(this.#calls.readAs(pid, path, out, maxBytes), 'read', { pid, path });
    return out.toString('utf8', 0, bytes);
  }

  /** A namespace of another owner, by its descriptor: close() leaves it open. */
  borrowNetns(fd: number): NetworkNamespace {
    return new NetworkNamespace({ fd, owned: false }, { calls: this.#calls });
  }
}

/**
 * One network namespace, held by a descriptor. Its calls enter it, make a socket and return, on this thread and in one go: nothing
 * else ever runs inside it. A thread that could not return ends the process.
 */
export class NetworkNamespace implements Disposable {
  readonly fd: number;
  readonly #calls: NetCalls;
  #owned: boolean;

  constructor(options: { fd: number; owned: boolean }, deps: { calls: NetCalls }) {
    this.fd = options.fd;
    this.#owned = options.owned;
    this.#calls = deps.calls;
  }

  /** What links and /proc call it. Reused by the kernel after its end. */
  get inode(): bigint {
    return fstatSync(this.fd, { bigint: true }).ino;
  }

  /** SO_NETNS_COOKIE (Linux 5.14): unique until the next boot. */
  cookie(): bigint {
    const bytes = Buffer.alloc(8);
    check(this.#calls.cookie(this.fd, bytes), 'SO_NETNS_COOKIE');
    return bytes.readBigUInt64LE();
  }

  /** Whether these files say 0 as seen from inside: /proc/sys/net/… belongs to the namespace of whoever opens it. Throws CALL_FAILED where one cannot be read. */
  areOff(paths: readonly string[]): boolean[] {
    const out = Buffer.alloc(paths.length);
    const text = Buffer.from(paths.map((path) => `${path}\0`).join(''));
    check(this.#calls.readSwitches(this.fd, text, paths.length, out), 'read', { paths: paths.join(' ') });
    return [...out].map((byte) => byte === 0x30);
  }

  /** A non-blocking TCP listener on all addresses, in a SO_REUSEPORT group with others on its port; the caller owns the descriptor. */
  listen(options: ListenOptions): number {
    const family = options.family === 'dual' ? AF_INET6 : AF_INET;
    const fd = this.#calls.listen(this.fd, family, options.port, options.backlog);
    return check(fd, 'listen', { port: options.port, family: options.family });
  }

  /** Its TCP sockets; the caller closes it. */
  socketDiag(): SocketDiag {
    const fd = check(this.#calls.socket(this.fd, AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG), 'socket');
    return new SocketDiag({ fd }, { calls: this.#calls });
  }

  /** A blocking TCP socket, not yet bound or connected; the caller owns the descriptor. */
  tcpSocket(family: 'ipv4' | 'ipv6'): number {
    return check(this.#calls.socket(this.fd, family === 'ipv4' ? AF_INET : AF_INET6, 1, 0), 'socket');
  }

  /** A non-blocking UDP socket, not yet bound; the caller owns the descriptor. */
  udpSocket(family: 'ipv4' | 'ipv6'): number {
    const type = 2 | SOCK_NONBLOCK;
    return check(this.#calls.socket(this.fd, family === 'ipv4' ? AF_INET : AF_INET6, type, 0), 'socket');
  }

  /** A non-blocking UDP socket bound to one address and port, which it may share with others of ours; the caller owns the descriptor. */
  bindUdp(address: string, port: number): number {
    const bytes = tryParseAddress(address);
    if (bytes === null) throw new NativeError('OUT_OF_BOUNDS', `not an IP address: ${address}`, { address });
    return check(this.#calls.udp(this.fd, bytes, bytes.length, port), 'bind', { address, port });
  }

  close(): void {
    if (!this.#owned) return;
    this.#owned = false;
    closeSync(this.fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
