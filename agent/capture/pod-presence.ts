/** Our presence in one pod's namespace: a listener per worker and port, and the sk_lookup program that steers inbound connections to them. */
import { closeSync } from 'node:fs';
import {
  type BpfMap,
  type BpfObject,
  encodeU32,
  encodeU64,
  hbonePort,
  listenerSlot,
  outboundPort,
} from '../../native/bpf/index.js';
import { NativeError } from '../../native/index.js';
import type { Net, NetworkNamespace } from '../../native/net/index.js';
import type { SeenNamespace } from '../pods/index.js';
import { interfaceNames, podAddresses } from '../pods/index.js';
import type { PodPresence } from './enrolment.js';
import { adoptLink, pinNew, takeOver } from './links.js';
import type { NodeDatapath } from './node-datapath.js';
import type { CapturedPod, InheritedPod, LocalPod } from './types.js';
import { CaptureError } from './types.js';

/** The inbound listener's own port; connections come to it by sk_lookup only. */
const inboundPort = 15006;
const listenerPorts = { outbound: outboundPort, inbound: inboundPort, hbone: hbonePort } as const;
type ListenerKind = keyof typeof listenerPorts;

export interface PresenceOptions {
  readonly pod: LocalPod;
  readonly seen: SeenNamespace;
  readonly workers: number;
  readonly listenBacklog: number;
  /** Of the agent before us; they are closed if they are not of this pod's namespace. */
  readonly inherited: InheritedPod | null;
}

/** Listens in the pod's namespace; nothing comes there before `steer`. Throws CaptureError (POD_GONE, ROUTE_LOCALNET). */
export function openPresence(options: PresenceOptions, deps: { datapath: NodeDatapath }): PodPresence {
  const { pod, workers, listenBacklog, inherited } = options;
  // Whatever comes, they are closed.
  const fds = inherited === null ? [] : allSockets(inherited);
  let namespace: NetworkNamespace | null = null;
  try {
    const entered = openNamespace(deps.datapath.net, options.seen);
    namespace = entered;
    refuseRouteLocalnet(entered, options.seen.pid);
    const netnsCookie = entered.cookie();
    const found = inherited?.netnsCookie === netnsCookie ? inherited.sockets : {};
    const listenAll = (kind: ListenerKind): number[] => {
      const sockets = [...(found[kind] ?? [])];
      while (sockets.length < workers) {
        const fd = listen(entered, listenerPorts[kind], listenBacklog);
        sockets.push(fd);
        fds.push(fd);
      }
      return sockets;
    };
    const captured: CapturedPod = {
      pod,
      netnsFd: entered.fd,
      netnsCookie,
      pid: options.seen.pid,
      addresses: Object.values(podAddresses(pod.addresses, options.seen.pid)).filter(
        (address) => typeof address === 'string',
      ),
      outboundFds: listenAll('outbound'),
      inboundFds: listenAll('inbound'),
      hboneFds: listenAll('hbone'),
    };
    return new Presence({ captured, namespace: entered, fds }, deps);
  } catch (error) {
    for (const fd of fds) closeSync(fd);
    namespace?.close();
    throw error;
  }
}

function allSockets({ sockets }: InheritedPod): number[] {
  return Object.values(sockets).flat();
}

class Presence implements PodPresence {
  readonly captured: CapturedPod;
  readonly #namespace: NetworkNamespace;
  readonly #fds: number[];
  readonly #datapath: NodeDatapath;

  constructor(
    options: { captured: CapturedPod; namespace: NetworkNamespace; fds: number[] },
    deps: { datapath: NodeDatapath },
  ) {
    this.captured = options.captured;
    this.#namespace = options.namespace;
    this.#fds = options.fds;
    this.#datapath = deps.datapath;
  }

  steer(): void {
    const { pins, bpf } = this.#datapath;
    const { uid } = this.captured.pod;
    const linkPath = pins.pod(uid, 'link');
    using adopted = adoptLink(bpf, linkPath, this.#namespace.inode);
    if (adopted === null) this.#datapath.removePod(uid); // what is left of an earlier namespace
    using object = this.#loadInbound(pins.pod(uid, 'listeners', true));
    const program = object.program('inbound');
    this.#fillSlots(object.map('listeners'));
    if (adopted !== null) adopted.updateProgram(program);
    else if (!takeOver(bpf, linkPath, pins.olderPodLinks(uid), this.#namespace.inode, program))
      pinNew(linkPath, bpf.attachNetns(program, this.#namespace.fd)).close();
  }

  unsteer(): void {
    this.#datapath.removePod(this.captured.pod.uid);
  }

  closeListeners(): void {
    for (const fd of this.#fds.splice(0)) closeSync(fd);
  }

  close(): void {
    this.closeListeners();
    this.#namespace.close();
  }

  #loadInbound(listenersPath: string): BpfObject {
    const { bpf } = this.#datapath;
    using pinned = bpf.openPinnedMap(listenersPath);
    const object = this.#datapath.loadInbound(this.captured.netnsCookie, pinned);
    if (pinned === null) object.map('listeners').pin(listenersPath);
    return object;
  }

  /** Any one member stands for its SO_REUSEPORT group; ours stays open as long as the pod is captured. */
  #fillSlots(listeners: BpfMap): void {
    listeners.update(encodeU32(listenerSlot.inbound), encodeU64(BigInt(this.captured.inboundFds[0]!)));
    listeners.update(encodeU32(listenerSlot.hbone), encodeU64(BigInt(this.captured.hboneFds[0]!)));
    listeners.update(encodeU32(listenerSlot.outbound), encodeU64(BigInt(this.captured.outboundFds[0]!)));
  }
}

function openNamespace(net: Net, seen: SeenNamespace): NetworkNamespace {
  let namespace: NetworkNamespace | null = null;
  try {
    namespace = net.ofProcess(seen.pid);
    if (namespace.inode === BigInt(seen.inode)) return namespace;
  } catch (error) {
    throw new CaptureError('POD_GONE', 'its process has ended', { pid: seen.pid }, error);
  }
  namespace.close();
  throw new CaptureError('POD_GONE', 'its process has another network namespace now', { pid: seen.pid });
}

/** Where an interface takes 127.0.0.0/8 from the network, anybody there could pass for the agent and reach the application in clear text. */
function refuseRouteLocalnet(namespace: NetworkNamespace, pid: number): void {
  const names = ['all', ...interfaceNames(pid)];
  const paths = names.map((name) => `/proc/sys/net/ipv4/conf/${name}/route_localnet`);
  const on = namespace.areOff(paths).indexOf(false);
  if (on < 0) return;
  throw new CaptureError('ROUTE_LOCALNET', `${paths[on]} is not 0 in the pod's namespace`, {
    interface: names[on],
  });
}

function listen(namespace: NetworkNamespace, port: number, backlog: number): number {
  try {
    return namespace.listen({ port, family: 'dual', backlog });
  } catch (error) {
    // A kernel without IPv6. In a namespace that merely has no IPv6 address a dual-stack socket serves IPv4.
    if (!(error instanceof NativeError) || error.data['errno'] !== 'EAFNOSUPPORT') throw error;
    return namespace.listen({ port, family: 'ipv4', backlog });
  }
}
