/** Names of addresses (RFC 1035 3.5, RFC 3596 2.5), and the labels of any name. */
import { formatAddress } from '../../mesh/common/address.js';

/** By unescaped dots. */
export function labelsOf(name: string): string[] {
  return name.includes('\\') ? name.split(/(?<!\\)\./) : name.split('.');
}

/** The address that `4.3.2.1.in-addr.arpa` or `….ip6.arpa` stands for, as canonical text; null for every other name. */
export function addressOfPtrName(name: string): string | null {
  const labels = labelsOf(name);
  const family = labels.slice(-2).join('.');
  const parts = labels.slice(0, -2).reverse();
  if (family === 'in-addr.arpa' && parts.length === 4) {
    return parts.every((part) => /^(?:0|[1-9]\d{0,2})$/.test(part) && Number(part) < 256)
      ? parts.join('.')
      : null;
  }
  if (family !== 'ip6.arpa' || parts.length !== 32 || !parts.every((part) => /^[0-9a-f]$/.test(part)))
    return null;
  return formatAddress(Buffer.from(parts.join(''), 'hex'));
}
