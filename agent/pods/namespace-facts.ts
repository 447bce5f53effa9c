/** What /proc/<pid>/net tells of a pod's network namespace without entering it. */
import { readFileSync } from 'node:fs';
import { formatAddress, isIpv6 } from '../../mesh/common/address.js';
import type { CapturedAddresses } from '../../native/bpf/index.js';

/** One address per family for redirects: the pod source's word first, else what the namespace itself has. */
export function podAddresses(known: readonly string[], pid: number): CapturedAddresses {
  return {
    ipv4:
      known.find((address) => !isIpv6(address)) ??
      ipv4Addresses(read(`/proc/${pid}/net/fib_trie`))[0] ??
      null,
    ipv6: known.find(isIpv6) ?? ipv6Addresses(read(`/proc/${pid}/net/if_inet6`))[0] ?? null,
  };
}

/** IFA_F_TENTATIVE, _DEPRECATED, _DADFAILED */
const unusableFlags = 0x40 | 0x20 | 0x08;

/** True if the namespace of a process has one of these addresses on an interface. */
export function hasAddress(pid: number, addresses: readonly string[]): boolean {
  const hasIpv4 = () => {
    const found = ipv4Addresses(read(`/proc/${pid}/net/fib_trie`));
    return addresses.some((address) => found.includes(address));
  };
  const hasIpv6 = () => {
    const found = ipv6Addresses(read(`/proc/${pid}/net/if_inet6`), 0);
    return addresses.some((address) => found.includes(address));
  };
  return (
    (addresses.some((address) => !isIpv6(address)) && hasIpv4()) || (addresses.some(isIpv6) && hasIpv6())
  );
}

/** Names of all interfaces, `lo` among them. */
export function interfaceNames(pid: number): string[] {
  const names: string[] = [];
  for (const line of read(`/proc/${pid}/net/dev`).split('\n')) {
    const name = /^\s*([^\s:]+):/.exec(line)?.[1];
    if (name !== undefined) names.push(name);
  }
  return names;
}

/** Local IPv4 addresses of a fib_trie text, without 127.0.0.0/8, in its order. */
export function ipv4Addresses(fibTrie: string): string[] {
  const found = new Set<string>();
  let last = '';
  for (const line of fibTrie.split('\n')) {
    const leaf = /\|-- (\d+\.\d+\.\d+\.\d+)$/.exec(line);
    if (leaf !== null) last = leaf[1]!;
    else if (line.includes('/32 host LOCAL') && !last.startsWith('127.')) found.add(last);
  }
  return [...found];
}

/** IPv6 addresses of global scope in an if_inet6 text, without those that have one of `unusable` flags. */
export function ipv6Addresses(ifInet6: string, unusable = unusableFlags): string[] {
  const found: string[] = [];
  for (const line of ifInet6.split('\n')) {
    const [hex, , , scope, flags] = line.trim().split(/\s+/);
    if (hex?.length !== 32 || scope !== '00' || (Number.parseInt(flags!, 16) & unusable) !== 0) continue;
    found.push(formatAddress(Buffer.from(hex, 'hex')));
  }
  return found;
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return ''; // the process has ended, or the kernel has no such protocol
  }
}
