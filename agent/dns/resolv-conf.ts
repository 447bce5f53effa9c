/** What of a pod's resolv.conf(5) is used: its servers. Search lists are the application's resolver's own business. */
import { isIpv6, isLoopback, tryCanonicalAddress } from '../../mesh/common/address.js';

/** The pod owns the file: no more of it is read. Kubernetes allows 3 servers and 2048 characters of search list. */
export const maxResolvConfBytes = 16_384;
/** As many as glibc uses. */
const maxServers = 3;

/**
 * Its servers, in order, as canonical text. Left out: what is no plain address (names, addresses with a zone), and addresses of the pod itself, of
 * which nothing can be asked: a resolver there sends its own questions to us.
 */
export function parseResolvConf(text: string, ownAddresses: readonly string[] = []): string[] {
  const servers: string[] = [];
  for (const line of text.split('\n')) {
    const [keyword, value] = line.trim().split(/\s+/);
    if (keyword !== 'nameserver' || value === undefined) continue;
    const address = tryCanonicalAddress(value);
    if (address === null || !isAskable(address) || ownAddresses.includes(address)) continue;
    if (!servers.includes(address)) servers.push(address);
    if (servers.length === maxServers) break;
  }
  return servers;
}

/** Not the machine itself, a group, or an address without the zone it needs. */
function isAskable(address: string): boolean {
  if (isLoopback(address)) return false;
  if (isIpv6(address)) return address !== '::' && !/^(?:fe[89ab]|ff)/.test(address);
  const first = Number(address.split('.')[0]);
  return first > 0 && first < 224;
}
