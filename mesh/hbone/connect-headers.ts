import type { HeaderList } from '../http2/types.js';
import { type Authority, tryParseAuthority } from './authority.js';
import { type BaggageTexts, readBaggage } from './baggage.js';
import { formatForwarded, tryParseForwarded } from './forwarded.js';
import { isTraceparent } from './traceparent.js';
import type { Baggage, ConnectMetadata } from './types.js';

/** CONNECT's header list (hbone-and-wds.md 1.3): `:method` and `:authority`, never `:scheme` or `:path`. */
export function connectHeaders(
  authority: string,
  metadata: ConnectMetadata,
  traceparent: string,
  texts: BaggageTexts,
): HeaderList {
  const headers: [string, string][] = [
    [':method', 'CONNECT'],
    [':authority', authority],
  ];
  const baggage = metadata.baggage === undefined ? '' : texts.of(metadata.baggage);
  if (baggage !== '') headers.push(['baggage', baggage]);
  const forwarded = formatForwarded(metadata.forwardedFor, metadata.forwardedHost);
  if (forwarded !== '') headers.push(['forwarded', forwarded]);
  headers.push(['traceparent', traceparent]);
  return headers;
}

/** What the server answers a CONNECT that it accepts. */
export function acceptHeaders(baggage: Baggage, texts: BaggageTexts): HeaderList {
  const text = texts.of(baggage);
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

/** A CONNECT whose form is right. */
export interface ConnectRequest extends Authority {
  /** As sent. */
  readonly authority: string;
}

/** Null (400, hbone-and-wds.md 1.4): another method, `:scheme`, `:path` or `:protocol` present, an authority of neither form. */
export function tryReadConnect(headers: HeaderList): ConnectRequest | null {
  let authority: string | null = null;
  let isConnect = false;
  for (const [name, value] of headers) {
    if (!name.startsWith(':')) break;
    if (name === ':method') isConnect = value === 'CONNECT';
    else if (name === ':authority') authority = value;
    else return null;
  }
  if (!isConnect || authority === null) return null;
  const parsed = tryParseAuthority(authority);
  return parsed === null ? null : { authority, address: parsed.address, host: parsed.host };
}
