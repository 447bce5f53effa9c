/** Where a pod's questions come in: port 15053 in its own namespace, on the addresses that BPF redirects to. */
import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { closeSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { isIpv6, tryCanonicalAddress } from '../../mesh/common/address.js';
import type { NamespaceSockets } from '../../mesh/io/index.js';
import type { Transport } from './resolver.js';
import { withLength } from './upstream.js';

export const dnsPort = 15053;
/** Per pod. */
const maxTcpConnections = 64;
const tcpIdleMs = 10_000;
/** Of one connection, at once; further ones wait unread. */
const maxTcpPipelined = 16;
const tcpBacklog = 64;
/** Of a connection whose pod has asked as often as it may: until it is looked at again. */
const tcpRateWaitMs = 20;

type SocketMaker = Pick<NamespaceSockets, 'bindUdp' | 'listenTcp'>;

/** A pod's sockets for names: questions wait in them until listeners take them over. */
export class PodSockets {
  readonly #udp = new Map<string, number>();
  readonly #tcp: number;

  /** Throws the native boundary's error (EADDRINUSE, …). */
  constructor(
    options: { readonly netnsFd: number; readonly addresses: readonly string[] },
    deps: { readonly sockets: SocketMaker },
  ) {
    const { netnsFd, addresses } = options;
    try {
      for (const address of addresses)
        this.#udp.set(address, deps.sockets.bindUdp(netnsFd, address, dnsPort));
      const family = addresses.some(isIpv6) ? 'dual' : 'ipv4';
      this.#tcp = deps.sockets.listenTcp(netnsFd, { port: dnsPort, family, backlog: tcpBacklog });
    } catch (error) {
      for (const fd of this.#udp.values()) closeSync(fd);
      throw error;
    }
  }

  /** Descriptors, UDP ones by address; the caller's from here on. */
  take(): { readonly udp: ReadonlyMap<string, number>; readonly tcp: number } {
    return { udp: this.#udp, tcp: this.#tcp };
  }

  /** Unless they were taken. */
  close(): void {
    for (const fd of [...this.#udp.values(), this.#tcp]) closeSync(fd);
  }
}

export interface ListenersOptions {
  readonly sockets: PodSockets;
}

export interface ListenersDeps {
  /** Of questions: one over UDP that is too much is dropped, one over TCP waits. */
  readonly rate: { tryTake(): boolean };
  /** False: no connection that BPF has sent here; it is reset. */
  readonly isRedirected: (address: string, port: number) => boolean;
  readonly handle: (bytes: Buffer, transport: Transport, respond: (answer: Buffer) => void) => void;
  readonly onError: (error: Error) => void;
}

/** Answers from construction on, to the addresses of the sockets only: the pod itself. Owns the sockets. */
export class PodListeners {
  readonly #deps: ListenersDeps;
  readonly #udp: UdpSocket[] = [];
  readonly #server: Server;
  readonly #connections = new Set<Socket>();

  constructor(options: ListenersOptions, deps: ListenersDeps) {
    this.#deps = deps;
    const { udp, tcp } = options.sockets.take();
    this.#server = createServer({ allowHalfOpen: true }, (socket) => this.#onConnection(socket));
    this.#server.maxConnections = maxTcpConnections;
    this.#server.on('error', deps.onError);
    const own = new Set(udp.keys());
    for (const [address, fd] of udp) this.#receive(fd, address, own);
    this.#server.listen({ fd: tcp });
  }

  /** No connection is open. */
  get isIdle(): boolean {
    return this.#connections.size === 0;
  }

  close(): void {
    for (const socket of this.#udp.splice(0)) socket.close();
    if (this.#server.listening) this.#server.close();
    for (const connection of this.#connections) connection.destroy();
  }

  #receive(fd: number, address: string, own: ReadonlySet<string>): void {
    const socket = createSocket(isIpv6(address) ? 'udp6' : 'udp4');
    socket.on('error', this.#deps.onError);
    socket.on('message', (bytes, from) => {
      // Nobody but the pod itself: this is no resolver for its network.
      if (!own.has(from.address) || !this.#deps.rate.tryTake()) return;
      this.#deps.handle(bytes, 'udp', (answer) => {
        if (this.#udp.includes(socket)) socket.send(answer, from.port, from.address, () => {});
      });
    });
    socket.bind({ fd });
    this.#udp.push(socket);
  }

  #onConnection(socket: Socket): void {
    const address = tryCanonicalAddress(socket.remoteAddress ?? '');
    if (address === null || !this.#deps.isRedirected(address, socket.remotePort!)) {
      socket.on('error', () => {}).resetAndDestroy();
      return;
    }
    this.#connections.add(socket);
    socket.setTimeout(tcpIdleMs, () => socket.destroy());
    socket.on('error', () => socket.destroy());
    socket.on('close', () => this.#connections.delete(socket));
    readMessages(socket, this.#deps.rate, (bytes, respond) => this.#deps.handle(bytes, 'tcp', respond));
  }
}

/**
 * Messages with their lengths before them, in any pieces; answers in the order in which they are known (RFC 7766 6.2.1.1). A client that does not
 * read its answers is not read either; one that asks too fast waits.
 */
export function readMessages(
  socket: Socket,
  rate: { tryTake(): boolean },
  handle: (bytes: Buffer, respond: (answer: Buffer) => void) => void,
): void {
  let received: Buffer = Buffer.alloc(0);
  let waiting = 0;
  let ended = false;
  let tooFast: NodeJS.Timeout | null = null;
  const hasRoom = () => waiting < maxTcpPipelined && !socket.writableNeedDrain && tooFast === null;
  const ask = (message: Buffer) => {
    let isFirst = true;
    waiting++;
    handle(message, (answer) => {
      if (!isFirst) return;
      isFirst = false;
      if (!socket.destroyed) socket.write(withLength(answer));
      // Not at once: a turn belongs to others, too.
      setImmediate(() => {
        waiting--;
        next();
      });
    });
  };
  const next = () => {
    while (hasRoom() && !socket.destroyed && received.length >= 2) {
      const end = 2 + received.readUInt16BE(0);
      if (received.length < end) break;
      if (!rate.tryTake()) {
        tooFast = setTimeout(() => {
          tooFast = null;
          next();
        }, tcpRateWaitMs);
        break;
      }
      const message = Buffer.from(received.subarray(2, end));
      received = received.subarray(end);
      ask(message);
    }
    if (hasRoom()) socket.resume();
    else socket.pause();
    if (ended && waiting === 0 && tooFast === null) socket.end();
  };
  socket.on('drain', next);
  socket.on('data', (bytes) => {
    received = received.length === 0 ? bytes : Buffer.concat([received, bytes]);
    next();
  });
  socket.on('end', () => {
    ended = true;
    next();
  });
}
