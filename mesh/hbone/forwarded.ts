import { formatSocketAddress, type SocketAddress, tryParseSocketAddress } from '../common/address.js';
import { isHostname } from './authority.js';

/** What HBONE reads of `forwarded` (RFC 7239): `for="<client ip:port>"`, then `;host=<service hostname>` if a service was addressed. */
export interface Forwarded {
  readonly for: SocketAddress | null;
  readonly host: string | null;
}

/** The header's value, or '' if there is nothing to say. */
export function formatForwarded(client: SocketAddress | undefined, host: string | undefined): string {
  const parts: string[] = [];
  if (client !== undefined) parts.push(`for="${formatSocketAddress(client)}"`);
  if (host !== undefined && isHostname(host)) parts.push(`host=${host}`);
  return parts.join(';');
}

const PLAIN_FOR = 'for="';
const PLAIN_HOST = ';host=';

/** One `name=value` of an element, the value a token or a quoted string (RFC 7239 section 4). */
const PAIR = /([!#$%&'*+\-.^_`|~0-9A-Za-z]+)=(?:([!#$%&'*+\-.^_`|~0-9A-Za-z]+)|"((?:[^"\\]|\\.)*)")/y;

/**
 * The first element of the header (the hop nearest to the client). Null where it is not by the grammar or says one thing twice; a `for` that is not ip:port (`unknown`, `_hidden`, no port)
 * and a `host` that is no hostname are left null.
 */
export function tryParseForwarded(text: string): Forwarded | null {
  return tryParsePlain(text) ?? tryParseElement(text);
}

/** `for="ip:port"`, perhaps with `;host=name`, as all HBONE peers write it: 2 us less than by the grammar. Null: anything else. */
function tryParsePlain(text: string): Forwarded | null {
  if (!text.startsWith(PLAIN_FOR)) return null;
  const quote = text.indexOf('"', PLAIN_FOR.length);
  const client = quote < 0 ? null : tryParseSocketAddress(text.slice(PLAIN_FOR.length, quote));
  if (client === null) return null;
  if (quote === text.length - 1) return { for: client, host: null };
  if (!text.startsWith(PLAIN_HOST, quote + 1)) return null;
  const host = text.slice(quote + 1 + PLAIN_HOST.length);
  return isHostname(host) ? { for: client, host } : null;
}

function tryParseElement(text: string): Forwarded | null {
  let client: string | null = null;
  let host: string | null = null;
  let at = 0;
  for (;;) {
    PAIR.lastIndex = at;
    const pair = PAIR.exec(text);
    if (pair === null) return null;
    at = PAIR.lastIndex;
    const name = pair[1]!.toLowerCase();
    const value = pair[2] ?? pair[3]!.replace(/\\(.)/g, '$1');
    if (name === 'for') {
      if (client !== null) return null;
      client = value;
    } else if (name === 'host') {
      if (host !== null) return null;
      host = value;
    }
    if (at === text.length || /^[ \t]*,/.test(text.slice(at))) break;
    if (text[at] !== ';') return null;
    at++;
  }
  return {
    for: client === null ? null : tryParseSocketAddress(client),
    host: host !== null && isHostname(host) ? host : null,
  };
}
