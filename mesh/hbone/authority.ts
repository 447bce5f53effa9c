import { type SocketAddress, tryParseSocketAddress } from '../common/address.js';

/** The two forms of HBONE's `:authority` (hbone-and-wds.md 1.3); exactly one is set. */
export interface Authority {
  readonly address: SocketAddress | null;
  readonly host: { readonly hostname: string; readonly port: number } | null;
}

const HOST_PORT = /^([^:[\]]+):([1-9]\d{0,4})$/;
/** Labels as DNS carries them (underscores do occur), a leading `*` as services of ServiceEntry may have it; the last label is not a number, so that no malformed IPv4 address passes. */
const HOSTNAME =
  /^(?:\*\.)?(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/i;
const NUMBER_AT_END = /(?:^|\.)[0-9]+$/;

/** A DNS name of at most 253 characters, not an IP address. */
export function isHostname(text: string): boolean {
  return text.length <= 253 && HOSTNAME.test(text) && !NUMBER_AT_END.test(text);
}

/** `1.2.3.4:80`, `[2001:db8::1]:80` or `name.ns.svc:80`, ports 1-65535; null for anything else. */
export function tryParseAuthority(text: string): Authority | null {
  const address = tryParseSocketAddress(text);
  if (address !== null) return address.port === 0 ? null : { address, host: null };
  const parts = HOST_PORT.exec(text);
  if (parts === null) return null;
  const hostname = parts[1]!;
  const port = Number(parts[2]);
  if (port > 65535 || !isHostname(hostname)) return null;
  return { address: null, host: { hostname: hostname.toLowerCase(), port } };
}
