import type { Memo } from '../common/memo.js';
import type { HeaderList } from '../http2/types.js';
import type { Authority } from './authority.js';
import { type BaggageTexts, readBaggage } from './baggage.js';
import { formatForwarded, tryParseForwarded } from './forwarded.js';
import { isTraceparent } from './traceparent.js';
import type { Baggage, ConnectMetadata } from './types.js';

type HeaderField = HeaderList[number];

const CONNECT: HeaderField = [':method', 'CONNECT'];
const OK: HeaderField = [':status', '200'];

/** CONNECT's header list (hbone-and-wds.md 1.3): `:method` and `:authority`, never `:scheme` or `:path`. Fields that come again are the same objects. */
export function connectHeaders(
  authority: HeaderField,
  metadata: ConnectMetadata,
  traceparent: string,
  texts: BaggageTexts,
): HeaderList {
  const headers: HeaderField[] = [CONNECT, authority];
  const baggage = metadata.baggage === undefined ? null : texts.fieldOf(metadata.baggage);
  if (baggage !== null) headers.push(baggage);
  const forwarded = formatForwarded(metadata.forwardedFor, metadata.forwardedHost);
  if (forwarded !== '') headers.push(['forwarded', forwarded]);
  if (metadata.forwardedNetwork !== undefined)
    headers.push(['x-forwarded-network', metadata.forwardedNetwork]);
  headers.push(['traceparent', traceparent]);
  return headers;
}

/** What the server answers a CONNECT that it accepts. */
export function acceptHeaders(baggage: Baggage, texts: BaggageTexts): HeaderList {
  const field = texts.fieldOf(baggage);
  return field === null ? [OK] : [OK, field];
}

/** The mesh's own headers among `headers`; what cannot be read is absent, other headers are passed over. Takes any header list. */
export function readMetadata(headers: HeaderList, texts: BaggageTexts): ConnectMetadata {
  const metadata: { -readonly [K in keyof ConnectMetadata]: ConnectMetadata[K] } = {};
  for (const [name, value] of headers) {
    if (name === 'baggage') {
      metadata.baggage = merged(metadata.baggage, value, texts);
    } else if (name === 'forwarded') {
      const forwarded = tryParseForwarded(value);
      if (forwarded === null) continue;
      if (forwarded.for !== null) metadata.forwardedFor ??= forwarded.for;
      if (forwarded.host !== null) metadata.forwardedHost ??= forwarded.host;
    } else if (name === 'x-forwarded-network') metadata.forwardedNetwork ??= value;
    else if (name === 'traceparent' && isTraceparent(value)) metadata.traceparent ??= value;
  }
  return metadata;
}

/** Several lines merge; one, as everybody sends it, is parsed once for all tunnels (6 % of the agent's time per connection when it was not). */
function merged(earlier: Baggage | undefined, line: string, texts: BaggageTexts): Baggage {
  if (earlier === undefined) return texts.in(line);
  const both = { ...earlier };
  readBaggage(line, both);
  return both;
}

/** A CONNECT whose form is right. */
export interface ConnectRequest extends Authority {
  /** As sent. */
  readonly authority: string;
}

/** Null (400, hbone-and-wds.md 1.4): another method, `:scheme`, `:path` or `:protocol` present, an authority of neither form. */
export function tryReadConnect(
  headers: HeaderList,
  authorities: Memo<Authority | null>,
): ConnectRequest | null {
  let authority: string | null = null;
  let isConnect = false;
  for (const [name, value] of headers) {
    if (!name.startsWith(':')) break;
    if (name === ':method') isConnect = value === 'CONNECT';
    else if (name === ':authority') authority = value;
    else return null;
  }
  if (!isConnect || authority === null) return null;
  const parsed = authorities.of(authority);
  return parsed === null ? null : { authority, address: parsed.address, host: parsed.host };
}
