/** The workers' side of capture: where a connection accepted on 15001 wanted to go, and how to dial an application for a caller. */
import { formatSocketAddress, isIpv6, type SocketAddress } from '../../mesh/common/address.js';
import type { ConnectOptions } from '../../mesh/io/types.js';
import {
  Bpf,
  type BpfMap,
  decodeOriginal,
  encodeCaller,
  encodeOriginalKey,
  sizeOf,
  writeOriginalSides,
} from '../../native/bpf/index.js';
import { hashNumber, hashText, ShownPorts } from './shown-ports.js';
import { CaptureError, type CaptureHandles, type OriginalDestinations } from './types.js';

const maxKeys = 1024;

/** An entry of BPF's map is good for one connection. One per worker: one short syscall and no allocation but the result. */
export class OriginalDestinationMap implements OriginalDestinations {
  readonly #map: BpfMap;
  /** Per namespace, with its cookie written: a bigint costs more than all the rest of the key. */
  readonly #keys = new Map<bigint, Buffer>();
  readonly #value = Buffer.alloc(sizeOf.originalValue);

  constructor(options: { handles: CaptureHandles }, deps: { bpf: Bpf } = { bpf: new Bpf() }) {
    this.#map = deps.bpf.borrowMap(options.handles.originalDestinationsFd);
  }

  take(netnsCookie: bigint, source: SocketAddress, listener: number): SocketAddress | null {
    // In one step: BPF may look at the entry at the same time, because the client closes.
    const value = this.#map.take(this.#keyOf(netnsCookie, source, listener), this.#value);
    return value === null ? null : decodeOriginal(value);
  }

  #keyOf(netnsCookie: bigint, source: SocketAddress, listener: number): Buffer {
    let key = this.#keys.get(netnsCookie);
    if (key === undefined) {
      // Namespaces come and go with pods; a node has few at a time.
      if (this.#keys.size >= maxKeys) this.#keys.clear();
      key = encodeOriginalKey(netnsCookie, source, listener);
      this.#keys.set(netnsCookie, key);
    } else writeOriginalSides(key, source, listener);
    return key;
  }
}

export interface ApplicationDialerOptions {
  readonly workerIndex: number;
  readonly handles: CaptureHandles;
  readonly connectTimeoutMs?: number;
}

export interface ApplicationDial {
  /** To be used before the next `dial`: the socket storage is the dialer's own buffer. */
  readonly options: ConnectOptions;
  /** Whom the application sees. */
  readonly shown: SocketAddress;
  /** Gives the shown port back. Call it once, when the connection has ended or failed. */
  release(): void;
}

/** Of a captured pod. */
export interface DialledPod {
  readonly netnsFd: number;
  readonly netnsCookie: bigint;
}

/** Ports shown where the caller's own cannot be: the ephemeral range that Linux has by default. */
const firstPort = 32_768;
const portCount = 28_232;
/** Ports tried before a caller is refused. */
const maxTries = 64;
/**
 * Source addresses per worker: 127.(64 + worker).0.1 to 127.(64 + worker).0.254. Rotating, because each has its own 28,000 ports towards one
 * destination, and closed ones wait for a minute: 119,000 connections a second. 64,000 addresses, each with an entry in the kernel's TCP metrics, cost 1 us more a dial.
 */
const firstSourceOctet = 64;
const sourceCount = 254;
/** IPv6 dials from the pod's own address to one destination, all workers together; half of what makes the kernel search for a free port. */
const ownAddressDialsPerMinute = 6_000;
const timeWaitMs = 60_000;

/**
 * How the agent dials an application in its pod so that it sees its caller (design.md 3, "Dialling the application"): from a rotating
 * address in 127.0.0.0/8 (IPv6: the pod's own, or ::1) to the address that the caller wanted; BPF shows the application the caller's own address, and a port
 * that no other live connection of that caller to it has. One per worker.
 */
export class ApplicationDialer {
  readonly #options: Required<ApplicationDialerOptions>;
  readonly #ports: ShownPorts;
  readonly #nowMs: () => number;
  /** Since when IPv6 dials from a pod's own address are counted, and how many by destination. */
  #countedSinceMs = 0;
  readonly #ownAddressDials = new Map<string, number>();
  readonly #sources: readonly string[];
  readonly #caller = Buffer.alloc(sizeOf.caller);
  /** The part of a scope's hash that stands for the pod. */
  readonly #pods = new WeakMap<DialledPod, number>();
  #nextSource: number;
  #nextPort: number;

  constructor(
    options: ApplicationDialerOptions,
    deps: { readonly nowMs: () => number } = { nowMs: () => performance.now() },
  ) {
    this.#options = { connectTimeoutMs: 10_000, ...options };
    this.#nowMs = deps.nowMs;
    this.#ports = new ShownPorts(options.handles.shownPorts, options.workerIndex);
    const octet = firstSourceOctet + options.workerIndex;
    this.#sources = Array.from({ length: sourceCount }, (_, i) => `127.${octet}.0.${i + 1}`);
    this.#nextSource = Math.floor(Math.random() * sourceCount);
    this.#nextPort = Math.floor(Math.random() * portCount);
  }

  /**
   * `to`: what the caller wanted. `caller.address` is shown as it is; of its ports `wantedPort` (0: none) if it is free, else another. Throws
   * NO_SHOWN_PORT when 64 ports in a row are in use: tens of thousands of connections, or one caller with that many.
   */
  dial(pod: DialledPod, to: SocketAddress, caller: SocketAddress, wantedPort: number): ApplicationDial {
    const scope = hashText(caller.address, hashNumber(to.port, hashText(to.address, this.#seedOf(pod))));
    const { port, claim } = this.#claim(scope, wantedPort, caller);
    const shown = { address: caller.address, port };
    const { handles, connectTimeoutMs } = this.#options;
    return {
      shown,
      options: {
        to,
        netnsFd: pod.netnsFd,
        fromAddress: isIpv6(to.address) ? this.#ipv6Source(pod, to) : this.#ipv4Source(),
        socketStorage: { mapFd: handles.callerStorageFd, value: encodeCaller(shown, this.#caller) },
        connectTimeoutMs,
      },
      release: () => this.#ports.release(claim),
    };
  }

  #seedOf(pod: DialledPod): number {
    let seed = this.#pods.get(pod);
    if (seed === undefined) {
      seed = hashText(String(pod.netnsCookie));
      this.#pods.set(pod, seed);
    }
    return seed;
  }

  #claim(scope: number, wantedPort: number, caller: SocketAddress): { port: number; claim: number } {
    let port = wantedPort > 0 ? wantedPort : this.#anyPort();
    for (let tries = 0; tries < maxTries; tries++) {
      const claim = this.#ports.claim(scope, port);
      if (claim >= 0) return { port, claim };
      port = this.#anyPort();
    }
    throw new CaptureError(
      'NO_SHOWN_PORT',
      `no free port to show an application its caller ${caller.address} with`,
    );
  }

  #anyPort(): number {
    // A stride without common factor with the count: neighbours in time are not neighbours in number.
    this.#nextPort = (this.#nextPort + 9_973) % portCount;
    return firstPort + this.#nextPort;
  }

  #ipv4Source(): string {
    this.#nextSource = (this.#nextSource + 1) % sourceCount;
    return this.#sources[this.#nextSource]!;
  }

  /**
   * The kernel sends no RST to ::1 from another address of the pod (it looks for ::1 on that address's own interface): nobody listening would
   * be a time-out, and an application that has closed would never say so. So the dial comes from the address that it goes to. But a closed
   * connection keeps its port there for a minute, towards ::1 only for 1 s, and with few ports left each connect searches
   * for long: what is above the budget comes from ::1.
   */
  #ipv6Source(pod: DialledPod, to: SocketAddress): string {
    const destination = `${pod.netnsCookie} ${formatSocketAddress(to)}`;
    const nowMs = this.#nowMs();
    if (nowMs - this.#countedSinceMs >= timeWaitMs) {
      this.#countedSinceMs = nowMs;
      this.#ownAddressDials.clear();
    }
    const dials = (this.#ownAddressDials.get(destination) ?? 0) + 1;
    this.#ownAddressDials.set(destination, dials);
    return dials <= ownAddressDialsPerMinute / this.#options.handles.workers ? to.address : '::1';
  }
}
