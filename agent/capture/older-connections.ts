/** Connections that are older than the first hooks on a node: those of enrolled pods are in clear text, and end. */
import { tryParseAddress } from '../../mesh/common/address.js';
import { messageOf } from '../../mesh/common/errors.js';
import type { Log } from '../../mesh/log/index.js';
import { hbonePort, outboundPort } from '../../native/bpf/index.js';
import type { Net, TcpSocket } from '../../native/net/index.js';
import type { CapturedPod, Exclusions, PodState } from './types.js';

/** Pods that ran before the first hooks: what they had opened by then goes past the hooks, and is ended once each of them is captured. */
export class OlderConnections {
  readonly #net: Net;
  readonly #log: Log;
  readonly #pods = new Set<string>();

  constructor(deps: { readonly net: Net; readonly log: Log }) {
    this.#net = deps.net;
    this.#log = deps.log;
  }

  /** The hooks have just been attached, and these pods were there before. */
  begin(uids: Iterable<string>): void {
    if (!canEndConnections(this.#net)) {
      this.#log.error(
        'the kernel cannot end connections (CONFIG_INET_DIAG_DESTROY): those of enrolled pods that are older than the mesh go on in clear text until they end',
      );
      return;
    }
    for (const uid of uids) this.#pods.add(uid);
  }

  /** What has become of a pod. Only when it is settled is there something to do. */
  onState(uid: string, state: PodState, captured: CapturedPod | null): void {
    if (state === 'waiting' || state === 'refused' || !this.#pods.delete(uid) || captured === null) return;
    try {
      const ended = endOlderConnections(captured, this.#net);
      if (ended > 0)
        this.#log.warn({ uid, pod: captured.pod.name, ended }, 'connections older than the mesh were ended');
    } catch (error) {
      this.#log.error({ uid, error: messageOf(error) }, 'connections older than the mesh could not be ended');
    }
  }
}

function canEndConnections(net: Net): boolean {
  using own = net.own();
  using diag = own.socketDiag();
  return diag.canDestroy();
}

/** Ends them in one pod, at both of their ends. Listening sockets, loopback, the agent's own and what is excluded stay. Returns how many. */
function endOlderConnections(pod: CapturedPod, net: Net): number {
  using diag = net.borrowNetns(pod.netnsFd).socketDiag();
  let ended = 0;
  for (const socket of olderConnections(diag.list(), pod.pod.exclusions)) if (diag.destroy(socket)) ended++;
  return ended;
}

/** Of a pod's sockets, those that capture would have caught. */
export function olderConnections(sockets: readonly TcpSocket[], exclusions: Exclusions): TcpSocket[] {
  const listening = sockets.filter(({ isListening }) => isListening);
  const meshPorts: readonly number[] = [outboundPort, hbonePort];
  // Whoever listens on our ports is an agent; what its listeners accept is in its cgroup, too.
  const agents = new Set(
    listening.filter(({ local }) => meshPorts.includes(local.port)).map(({ cgroupId }) => cgroupId),
  );
  const served = new Set(listening.map(({ local }) => local.port));
  return sockets.filter(
    (socket) =>
      !socket.isListening &&
      !agents.has(socket.cgroupId) &&
      !isWithinPod(socket) &&
      !isExcluded(socket, exclusions, served),
  );
}

/** Loopback, and connections of the pod to itself: redirected ones among them. */
function isWithinPod({ local, remote }: TcpSocket): boolean {
  return local.address === remote.address || [local, remote].some(({ address }) => isLoopback(address));
}

function isLoopback(address: string): boolean {
  return address === '::1' || address.startsWith('127.');
}

function isExcluded(
  { local, remote }: TcpSocket,
  exclusions: Exclusions,
  served: ReadonlySet<number>,
): boolean {
  const { inboundPorts, outboundPorts, outboundRanges } = exclusions;
  if (served.has(local.port)) return inboundPorts.includes(local.port) || inboundPorts.includes(0);
  return outboundPorts.includes(remote.port) || outboundRanges.some((range) => isIn(range, remote.address));
}

function isIn(range: string, address: string): boolean {
  const [base, bits] = range.split('/') as [string, string];
  const [a, b] = [tryParseAddress(base), tryParseAddress(address)];
  if (a === null || b === null || a.length !== b.length) return false;
  for (let bit = 0; bit < Number(bits); bit++) {
    const mask = 0x80 >> (bit & 7);
    if ((a[bit >> 3]! & mask) !== (b[bit >> 3]! & mask)) return false;
  }
  return true;
}
