import { Net } from '../../native/net/index.js';

type Family = 'ipv4' | 'ipv6';

/**
 * Sockets inside pods' network namespaces, and files as pods see them, for threads that run on Node's own event loop. Every descriptor is
 * non-blocking but `tcp`'s (Node makes it so), and the caller's. Errors are the native boundary's (CALL_FAILED with errno).
 */
export class NamespaceSockets {
  readonly #net = new Net();

  /** Not yet bound. */
  udp(netnsFd: number, family: Family): number {
    using namespace = this.#net.borrowNetns(netnsFd);
    return namespace.udpSocket(family);
  }

  /** Not yet connected. */
  tcp(netnsFd: number, family: Family): number {
    using namespace = this.#net.borrowNetns(netnsFd);
    return namespace.tcpSocket(family);
  }

  bindUdp(netnsFd: number, address: string, port: number): number {
    using namespace = this.#net.borrowNetns(netnsFd);
    return namespace.bindUdp(address, port);
  }

  /** On all addresses of the families given. */
  listenTcp(netnsFd: number, options: { port: number; family: 'dual' | 'ipv4'; backlog: number }): number {
    using namespace = this.#net.borrowNetns(netnsFd);
    return namespace.listen(options);
  }

  /** The start of a file as a process of a pod sees it; no link leads out of its root, and only plain files are read. */
  readFileOf(pid: number, path: string, maxBytes: number): string {
    return this.#net.readFileOf(pid, path, maxBytes);
  }
}
