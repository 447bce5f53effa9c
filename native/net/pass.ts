import { closeSync, unlinkSync } from 'node:fs';
import { check } from '../bpf/calls.js';
import { type NativeLibrary, openLibrary } from '../library.js';

const maxFds = 253;
const maxTextBytes = 4_096;

/** Why the other process may be trusted: as the kernel noted it at connect and listen (SO_PEERCRED). */
export interface PeerProcess {
  readonly pid: number;
  readonly uid: number;
}

/** A short text and descriptors; these belong to who receives them. */
export interface Passed {
  readonly text: string;
  readonly fds: readonly number[];
}

function bindPassCalls({ bind }: NativeLibrary) {
  return {
    listen: bind<(path: string, timeoutMs: number) => number>(
      'int culvert_pass_listen(const char *path, int timeout_ms)',
    ),
    connect: bind<(path: string, timeoutMs: number) => number>(
      'int culvert_pass_connect(const char *path, int timeout_ms)',
    ),
    accept: bind<(listener: number) => number>('int culvert_pass_accept(int listener)'),
    peer: bind<(fd: number, out: Buffer) => number>('int culvert_pass_peer(int fd, uint8_t *out)'),
    send: bind<(fd: number, bytes: Buffer, length: number, fds: Buffer, count: number) => number>(
      'int culvert_pass_send(int fd, const uint8_t *bytes, uint32_t length, const uint8_t *fds, uint32_t count)',
    ),
    receive: bind<(fd: number, out: Buffer, size: number, fds: Buffer, count: Buffer) => number>(
      'int culvert_pass_receive(int fd, uint8_t *out, uint32_t size, uint8_t *fds, uint8_t *count)',
    ),
  };
}

type PassCalls = ReturnType<typeof bindPassCalls>;

/** Where another process may bring descriptors. Blocks the thread, for `timeoutMs` at most a call. */
export class PassListener implements Disposable {
  readonly path: string;
  readonly #fd: number;
  readonly #calls: PassCalls;

  /** Makes the socket file `path`, readable by those who may enter its folder. Throws NativeError. */
  constructor(
    options: { path: string; timeoutMs: number },
    deps: { library: NativeLibrary } = { library: openLibrary() },
  ) {
    this.path = options.path;
    this.#calls = bindPassCalls(deps.library);
    this.#fd = check(this.#calls.listen(options.path, options.timeoutMs), 'listen', { path: options.path });
  }

  /** Throws CALL_FAILED (EAGAIN: nobody came in time). */
  accept(): PassChannel {
    return new PassChannel({ fd: check(this.#calls.accept(this.#fd), 'accept') }, { calls: this.#calls });
  }

  /** Takes the file away, too. */
  [Symbol.dispose](): void {
    closeSync(this.#fd);
    unlinkSync(this.path);
  }
}

/** Connects to a `PassListener`. Throws NativeError. */
export function connectPass(
  options: { path: string; timeoutMs: number },
  deps: { library: NativeLibrary } = { library: openLibrary() },
): PassChannel {
  const calls = bindPassCalls(deps.library);
  const fd = check(calls.connect(options.path, options.timeoutMs), 'connect', { path: options.path });
  return new PassChannel({ fd }, { calls });
}

/** Messages with descriptors between two processes of one machine, in order and whole. Made by `PassListener` and `connectPass`. */
export class PassChannel implements Disposable {
  readonly #fd: number;
  readonly #calls: PassCalls;

  constructor(options: { fd: number }, deps: { calls: PassCalls }) {
    this.#fd = options.fd;
    this.#calls = deps.calls;
  }

  get peer(): PeerProcess {
    const out = Buffer.alloc(8);
    check(this.#calls.peer(this.#fd, out), 'SO_PEERCRED');
    return { pid: out.readInt32LE(0), uid: out.readUInt32LE(4) };
  }

  /** `text`: 1 to 4,096 bytes; at most 253 descriptors, which stay open here. Throws CALL_FAILED. */
  send(text: string, fds: readonly number[]): void {
    const bytes = Buffer.from(text);
    const numbers = Buffer.alloc(Math.max(4, fds.length * 4));
    for (const [index, fd] of fds.entries()) numbers.writeInt32LE(fd, index * 4);
    check(this.#calls.send(this.#fd, bytes, bytes.length, numbers, fds.length), 'sendmsg');
  }

  /** Null: the other side has closed. Throws CALL_FAILED (EAGAIN: nothing came in time). */
  receive(): Passed | null {
    const out = Buffer.alloc(maxTextBytes);
    const numbers = Buffer.alloc(maxFds * 4);
    const count = Buffer.alloc(4);
    const bytes = check(this.#calls.receive(this.#fd, out, out.length, numbers, count), 'recvmsg');
    if (bytes === 0) return null;
    const fds = Array.from({ length: count.readUInt32LE() }, (_, index) => numbers.readInt32LE(index * 4));
    return { text: out.toString('utf8', 0, bytes), fds };
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd);
  }
}
