import { existsSync, readFileSync } from 'node:fs';
import type { BpfCalls } from './calls.js';

/** One thing the mesh needs of the kernel. */
export interface KernelFeature {
  readonly name: string;
  readonly present: boolean;
  /** What does not work without it. */
  readonly neededFor: string;
  /** Linux version that brought it. */
  readonly since: string;
  /** What happens where it is not: the agent refuses to start, or goes on in a lesser way. */
  readonly without: 'refused' | 'IPv4 only';
}

// enum bpf_prog_type, bpf_map_type and bpf_func_id of <linux/bpf.h>: user-space ABI, fixed for ever.
const program = { cgroupSkb: 8, sockOps: 13, cgroupSockAddr: 18, skLookup: 30 } as const;
const map = { sockmap: 15, skStorage: 24 } as const;
const helper = {
  skStorageGet: 107,
  skbAncestorCgroupId: 83,
  netnsCookie: 122,
  currentAncestorCgroupId: 123,
  skAssign: 124,
  skcToTcpSock: 137,
} as const;

/** Each feature by its own probe, so that a refusal can name what is missing. */
export function probeFeatures(calls: BpfCalls): KernelFeature[] {
  const hasProgram = (type: number) => calls.probeProgram(type) === 1;
  const hasMap = (type: number) => calls.probeMap(type) === 1;
  const hasHelper = (type: number, id: number) => calls.probeHelper(type, id) === 1;
  const feature = (name: string, since: string, neededFor: string, present: boolean): KernelFeature => ({
    name,
    present,
    neededFor,
    since,
    without: 'refused',
  });
  const ipv6 = feature('IPv6', '2.6', 'connections over IPv6', existsSync('/proc/sys/net/ipv6'));
  return [
    { ...ipv6, without: 'IPv4 only' },
    feature(
      'BTF of the kernel (/sys/kernel/btf/vmlinux)',
      '5.4',
      'ingress hold',
      existsSync('/sys/kernel/btf/vmlinux'),
    ),
    feature(
      'cgroup2 mounted',
      '4.5',
      'everything',
      readFileSync('/proc/self/mountinfo', 'utf8').includes(' - cgroup2 '),
    ),
    feature('cgroup/connect4|6', '4.17', 'outbound capture', hasProgram(program.cgroupSockAddr)),
    feature('sock_ops', '4.13', 'original destinations', hasProgram(program.sockOps)),
    feature('cgroup_skb', '4.10', 'ingress hold', hasProgram(program.cgroupSkb)),
    feature('sk_lookup', '5.9', 'inbound capture', hasProgram(program.skLookup)),
    feature('sockmap', '4.14', 'inbound capture', hasMap(map.sockmap)),
    feature('sk_storage', '5.2', 'original destinations, callers', hasMap(map.skStorage)),
    feature(
      'sk_storage in cgroup/connect',
      '5.9',
      'original destinations',
      hasHelper(program.cgroupSockAddr, helper.skStorageGet),
    ),
    feature(
      'bpf_get_netns_cookie in cgroup/connect',
      '5.7',
      'outbound capture',
      hasHelper(program.cgroupSockAddr, helper.netnsCookie),
    ),
    feature(
      'bpf_get_netns_cookie in sock_ops',
      '5.15',
      'original destinations',
      hasHelper(program.sockOps, helper.netnsCookie),
    ),
    feature(
      'bpf_get_current_ancestor_cgroup_id',
      '5.7',
      'who connects',
      hasHelper(program.cgroupSockAddr, helper.currentAncestorCgroupId),
    ),
    feature(
      'bpf_skb_ancestor_cgroup_id',
      '4.19',
      'ingress hold',
      hasHelper(program.cgroupSkb, helper.skbAncestorCgroupId),
    ),
    feature('bpf_skc_to_tcp_sock', '5.10', 'ingress hold', hasHelper(program.cgroupSkb, helper.skcToTcpSock)),
    feature(
      'bpf_sk_assign in sk_lookup',
      '5.9',
      'inbound capture',
      hasHelper(program.skLookup, helper.skAssign),
    ),
  ];
}
