import type { HeaderList } from '../http2/types.js';
import { type Authority, tryParseAuthority } from './authority.js';
import { formatBaggage, readBaggage } from './baggage.js';
import { formatForwarded, tryParseForwarded } from './forwarded.js';
import { isTraceparent } from './traceparent.js';
import type { Baggage, ConnectMetadata } from './types.js';

/** CONNECT's header list (hbone-and-wds.md 1.3): `:method` and `:authority`, never `:scheme` or `:path`. */
export function connectHeaders(authority: string, metadata: ConnectMetadata): HeaderList {
  const headers: [string, string][] = [
    [':method', 'CONNECT'],
    [':authority', authority],
  ];
  const add = (name: string, value: string): void => {
    if (value !== '') headers.push([name, value]);
  };
  if (metadata.baggage !== undefined) add('baggage', formatBaggage(metadata.baggage));
  add('forwarded', formatForwarded(metadata.forwardedFor, metadata.forwardedHost));
  if (metadata.traceparent !== undefined) add('traceparent', metadata.traceparent);
  return headers;
}

/** What the server answers a CONNECT that it accepts. */
export function acceptHeaders(baggage: Baggage): HeaderList {
  const text = formatBaggage(baggage);
  return text === ''
    ? [[':status', '200']]
    : [
        [':status', '200'],
        ['baggage', text],
      ];
}

/** The mesh's own headers among `headers`; what cannot be read is absent, other headers are passed over. Takes any header list. */
export function readMetadata(headers: HeaderList): ConnectMetadata {
  let baggage: Baggage | undefined;
  const metadata: { -readonly [K in keyof ConnectMetadata]: ConnectMetadata[K] } = {};
  for (const [name, value] of headers) {
    if (name === 'baggage') {
      baggage ??= {};
      readBaggage(value, baggage);
    } else if (name === 'forwarded') {
      const forwarded = tryParseForwarded(value);
      if (forwarded === null) continue;
      if (forwarded.for !== null) metadata.forwardedFor ??= forwarded.for;
      if (forwarded.host !== null) metadata.forwardedHost ??= forwarded.host;
    } else if (name === 'traceparent' && isTraceparent(value)) metadata.traceparent ??= value;
  }
  if (baggage !== undefined) metadata.baggage = baggage;
  return metadata;
}

/** The `:authority` of a well-formed CONNECT, or null: another method, `:scheme`, `:path` or `:protocol` present, an authority of neither form (all 400, hbone-and-wds.md 1.4). */
export function tryReadConnect(headers: HeaderList): (Authority & { readonly text: string }) | null {
  let text: string | null = null;
  let isConnect = false;
  for (const [name, value] of headers) {
    if (!name.startsWith(':')) break;
    if (name === ':method') isConnect = value === 'CONNECT';
    else if (name === ':authority') text = value;
    else return null;
  }
  if (!isConnect || text === null) return null;
  const authority = tryParseAuthority(text);
  return authority === null ? null : { ...authority, text };
}
