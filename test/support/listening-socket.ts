import { openLibrary } from '../../native/index.js';

const AF_INET = 2;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0o2000000;

/** A listening socket on 127.0.0.1 that nobody accepts from yet, as the main thread owns them. */
export class ListeningSocket implements Disposable {
  readonly fd: number;
  readonly port: number;
  readonly #close: (fd: number) => number;

  constructor(backlog = 1024) {
    // Symbols of libc are found through the shim, which depends on it.
    const libc = openLibrary();
    this.#close = libc.bind('int close(int fd)');
    this.fd = libc.bind<(a: number, b: number, c: number) => number>('int socket(int, int, int)')(
      AF_INET,
      SOCK_STREAM | SOCK_CLOEXEC,
      0,
    );
    const address = Buffer.alloc(16);
    address.writeUInt16LE(AF_INET, 0);
    address.set([127, 0, 0, 1], 4);
    const bind = libc.bind<(fd: number, address: Buffer, length: number) => number>(
      'int bind(int, uint8_t *, int)',
    );
    const listen = libc.bind<(fd: number, backlog: number) => number>('int listen(int, int)');
    const name = libc.bind<(fd: number, address: Buffer, length: Int32Array) => number>(
      'int getsockname(int, uint8_t *, int32_t *)',
    );
    if (bind(this.fd, address, 16) < 0 || listen(this.fd, backlog) < 0) throw new Error('cannot listen');
    name(this.fd, address, Int32Array.of(16));
    this.port = address.readUInt16BE(2);
  }

  close(): void {
    this.#close(this.fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
