import { closeSync, readFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import type { SocketAddress } from '../../../mesh/common/address.js';
import {
  Bpf,
  type BpfLink,
  type BpfMap,
  type BpfObject,
  type CgroupKind,
  type CounterName,
  cgroupKind,
  counterNames,
  decodeOriginal,
  decodeOriginalKey,
  encodeCapturedPod,
  encodeOriginalKey,
  encodeU32,
  encodeU64,
  hbonePort,
  type LoadOptions,
  listenerSlot,
  outboundPort,
} from '../../../native/bpf/index.js';
import { cgroupId, Net } from '../../../native/net/index.js';
import { packageRoot } from '../../../native/package-root.js';
import type { LabNode, LabPod, Place } from '../../lab/index.js';

export const objectPath = (name: string) => join(packageRoot(), `bpf/build/${name}.bpf.o`);

/** What a test listener says of each connection, as JSON, before it closes. */
export interface Accepted {
  readonly listener: string;
  readonly remote: string;
  readonly local: string;
  /** Of the original destination entry, if there is one. */
  readonly destination: string | null;
}

/** The mesh's hooks on one lab node, with listeners that only tell what came to them: an agent reduced to its kernel side. */
export class Datapath implements Disposable {
  readonly bpf = new Bpf();
  readonly net = new Net();
  readonly node: LabNode;
  readonly objects: Record<'connect' | 'sockops' | 'ingress' | 'dns', BpfObject>;
  readonly links: BpfLink[] = [];
  readonly #closers: (() => void)[] = [];
  readonly #inbound = new Map<string, Inbound>();

  constructor(node: LabNode, options: Pick<LoadOptions, 'maxEntries'> = {}) {
    this.node = node;
    using host = this.net.openNetns(`/run/netns/${node.netns}`);
    const rodata = {
      host_netns_cookie: host.cookie(),
      parent_cgroup: cgroupId(node.kubepods),
      parent_level: 1, // as seen in a node that is a container: it lies deeper
    };
    const connect = this.bpf.load(objectPath('connect'), { rodata, ...options });
    const sockops = this.bpf.load(objectPath('sockops'), { reuseMaps: Object.fromEntries(connect.maps) });
    const [ingress, dns] = ['ingress', 'dns'].map((name) =>
      this.bpf.load(objectPath(name), { rodata, reuseMaps: Object.fromEntries(connect.maps) }),
    ) as [BpfObject, BpfObject];
    this.objects = { connect, sockops, ingress, dns };
  }

  /** Attaches all hooks of the pods' parent. */
  attach(): this {
    const { connect, sockops, ingress, dns } = this.objects;
    const programs = [
      ...sockops.programs.values(),
      ...connect.programs.values(),
      ...ingress.programs.values(),
      ...dns.programs.values(),
    ];
    for (const program of programs) this.links.push(this.bpf.attachCgroup(program, this.node.kubepods));
    return this;
  }

  /** sock_ops at the cgroup of an agent that runs outside the pods' parent. */
  attachAgent(cgroup: string): void {
    this.links.push(this.bpf.attachCgroup(this.objects.sockops.program('sock_ops'), cgroup));
  }

  map(name: string): BpfMap {
    return this.objects.connect.map(name);
  }

  /** Says what the processes of a pod are. */
  list(pod: LabPod, kind: CgroupKind): void {
    this.map('pod_cgroups').update(encodeU64(cgroupId(pod.cgroup)), encodeU32(cgroupKind[kind]));
  }

  forget(pod: LabPod): void {
    this.map('pod_cgroups').delete(encodeU64(cgroupId(pod.cgroup)));
  }

  cookie(pod: LabPod | LabNode): bigint {
    using netns = this.net.openNetns(`/run/netns/${pod.netns}`);
    return netns.cookie();
  }

  /**
   * Outbound capture of a pod, with a listener in its namespace. `accepts` false: connections wait in the listener's queue, as they do for
   * an agent that is busy. Nothing comes in from outside unless `captureInbound` follows.
   */
  captureOutbound(pod: LabPod, options: { accepts?: boolean } = {}): bigint {
    const cookie = this.capture(pod);
    this.list(pod, 'captured');
    const listener = this.listen(pod, outboundPort);
    setSlot(this.#steer(pod).slots, 'outbound', listener);
    if (options.accepts ?? true) this.serve('outbound', listener, cookie);
    else this.#closers.push(() => closeSync(listener));
    return cookie;
  }

  /** Says that the pod's namespace is captured, no more. */
  capture(pod: LabPod): bigint {
    const cookie = this.cookie(pod);
    const ipv4 = pod.ips.find((ip) => !ip.includes(':')) ?? null;
    const ipv6 = pod.ips.find((ip) => ip.includes(':')) ?? null;
    this.map('captured').update(encodeU64(cookie), encodeCapturedPod({ ipv4, ipv6 }));
    return cookie;
  }

  /** Inbound capture: the program in the pod's namespace and, unless `empty`, a listener in each slot. */
  captureInbound(pod: LabPod, options: { empty?: boolean } = {}): Inbound {
    const cookie = this.cookie(pod);
    const inbound = this.#steer(pod);
    if (!options.empty) {
      for (const [slot, port] of [
        ['inbound', 15006],
        ['hbone', hbonePort],
      ] as const) {
        const fd = this.listen(pod, port);
        setSlot(inbound.slots, slot, fd);
        this.serve(slot, fd, cookie);
      }
    }
    return inbound;
  }

  /** The sk_lookup program in the pod's namespace, once. */
  #steer(pod: LabPod): Inbound {
    const before = this.#inbound.get(pod.uid);
    if (before !== undefined) return before;
    const object = this.bpf.load(objectPath('inbound'), {
      reuseMaps: Object.fromEntries(this.objects.connect.maps),
    });
    object.map('.data.pod').update(encodeU32(0), encodeU64(this.cookie(pod)));
    using netns = this.net.openNetns(`/run/netns/${pod.netns}`);
    const link = this.bpf.attachNetns(object.program('inbound'), netns.fd);
    this.#closers.push(() => [link, object].map((one) => one.close()));
    const inbound = { object, link, slots: object.map('listeners') };
    this.#inbound.set(pod.uid, inbound);
    return inbound;
  }

  /** A listening descriptor inside the pod; the caller serves or closes it. */
  listen(pod: LabPod, port: number, family: 'dual' | 'ipv4' = 'dual'): number {
    using netns = this.net.openNetns(`/run/netns/${pod.netns}`);
    return netns.listen({ port, family, backlog: 1024 });
  }

  /** Answers every connection with what is known of it. */
  serve(listener: string, fd: number, cookie: bigint): Server {
    const server = createServer((socket) => {
      socket.on('error', () => undefined).resume();
      if (socket.remoteAddress === undefined) return socket.destroy(); // reset before it was accepted
      return socket.end(`${JSON.stringify(this.#describe(listener, socket, cookie))}\n`);
    });
    server.listen({ fd });
    this.#closers.push(() => server.close());
    return server;
  }

  /** Where the connection from `address`:`port` in the namespace wants to go, if nobody has accepted it yet. */
  original(cookie: bigint, address: string, port: number): SocketAddress | null {
    for (const [key, value] of this.map('original_dst').entries()) {
      const { netnsCookie, source } = decodeOriginalKey(key);
      if (netnsCookie === cookie && source.address === address && source.port === port)
        return decodeOriginal(value);
    }
    return null;
  }

  counter(name: CounterName): number {
    return Number(this.map('counters').sumPerCpu(encodeU32(counterNames.indexOf(name))));
  }

  /** What a counter rises by meanwhile. */
  async counted<T>(name: CounterName, during: () => Promise<T>): Promise<[result: T, rise: number]> {
    const before = this.counter(name);
    return [await during(), this.counter(name) - before];
  }

  close(): void {
    for (const closer of this.#closers.splice(0)) closer();
    for (const link of this.links.splice(0)) link.close();
    for (const object of Object.values(this.objects)) object.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #describe(listener: string, socket: Socket, cookie: bigint): Accepted {
    const address = plain(socket.remoteAddress!);
    const key = encodeOriginalKey(cookie, { address, port: socket.remotePort! }, socket.localPort!);
    const value = this.map('original_dst').take(key);
    const original = value === null ? null : decodeOriginal(value);
    return {
      listener,
      remote: text(address, socket.remotePort!),
      local: text(plain(socket.localAddress!), socket.localPort!),
      destination: original === null ? null : text(original.address, original.port),
    };
  }
}

export interface Inbound {
  readonly object: BpfObject;
  readonly link: BpfLink;
  readonly slots: BpfMap;
}

export function setSlot(slots: BpfMap, slot: keyof typeof listenerSlot, fd: number): void {
  slots.update(encodeU32(listenerSlot[slot]), encodeU64(BigInt(fd)));
}

/** A process of `pod`'s cgroup in another pod's namespace: an agent at work inside a pod. */
export function placeOf(cgroup: LabPod, netns: LabPod): Place {
  const container = readFileSync(`/proc/${cgroup.pausePid}/cgroup`, 'utf8').match(/^0::(.*)$/m)![1]!;
  return {
    cgroup: join(cgroup.node.lab.names.cgroup.replace(/\/culvert-lab.*/, ''), container),
    netns: netns.netns,
  };
}

export function closeAll(...fds: number[]): void {
  for (const fd of fds) closeSync(fd);
}

function plain(address: string): string {
  return address.replace(/^::ffff:/, '');
}

function text(address: string, port: number): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}
