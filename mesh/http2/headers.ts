import type { HeaderList } from './types.js';

/** What a field name means to the framing layer; every other name is an ordinary field. */
const Kind = {
  METHOD: 1,
  SCHEME: 2,
  PATH: 3,
  AUTHORITY: 4,
  PROTOCOL: 5,
  STATUS: 6,
  CONNECTION_SPECIFIC: 7,
  TE: 8,
  CONTENT_LENGTH: 9,
  HOST: 10,
} as const;
const LAST_PSEUDO = Kind.STATUS;

const KINDS: ReadonlyMap<string, number> = new Map([
  [':method', Kind.METHOD],
  [':scheme', Kind.SCHEME],
  [':path', Kind.PATH],
  [':authority', Kind.AUTHORITY],
  [':protocol', Kind.PROTOCOL],
  [':status', Kind.STATUS],
  ['connection', Kind.CONNECTION_SPECIFIC],
  ['proxy-connection', Kind.CONNECTION_SPECIFIC],
  ['keep-alive', Kind.CONNECTION_SPECIFIC],
  ['transfer-encoding', Kind.CONNECTION_SPECIFIC],
  ['upgrade', Kind.CONNECTION_SPECIFIC],
  ['te', Kind.TE],
  ['content-length', Kind.CONTENT_LENGTH],
  ['host', Kind.HOST],
]);

/** tchar of RFC 9110 section 5.6.2, without upper case (RFC 9113 section 8.2.1). */
const NAME_CHARACTERS = (() => {
  const allowed = new Uint8Array(256);
  for (const character of "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
    allowed[character.charCodeAt(0)] = 1;
  return allowed;
})();

const TAB = 0x09;
const SPACE = 0x20;
const DELETE = 0x7f;

function isName(name: string): boolean {
  if (name.length === 0) return false;
  for (let i = 0; i < name.length; i++) if (NAME_CHARACTERS[name.charCodeAt(i)] !== 1) return false;
  return true;
}

/** No NUL, CR or LF, no blank at either end; nothing beyond an octet. */
function isValue(value: string): boolean {
  const length = value.length;
  if (length === 0) return true;
  const first = value.charCodeAt(0);
  const last = value.charCodeAt(length - 1);
  if (first === SPACE || first === TAB || last === SPACE || last === TAB) return false;
  for (let i = 0; i < length; i++) {
    const code = value.charCodeAt(i);
    if (code <= 0x0d && (code === 0 || code === 0x0a || code === 0x0d)) return false;
    if (code > 0xff) return false;
  }
  return true;
}

/** The parts of a request line and the :status: visible characters, so that they stay what they are in HTTP/1.1 (RFC 9113 section 10.3). */
function isVisible(value: string): boolean {
  for (let i = 0; i < value.length; i++) {
    const code = value.charCodeAt(i);
    if (code <= SPACE || code === DELETE) return false;
  }
  return true;
}

/** A decimal number of at most 15 digits, or -1. */
function parseLength(value: string): number {
  return /^\d{1,15}$/.test(value) ? Number(value) : -1;
}

type Known = HeaderList[number] | null;
/** Fields remembered per list, and characters of a value that is remembered: a few KiB a session. */
const KNOWN_FIELDS = 8;
const KNOWN_VALUE_CHARACTERS = 512;

/**
 * Checks one header list against RFC 9113 section 8 and keeps what the framing layer needs from it. One instance serves a session, for what it
 * receives and for what it sends. Each check returns null, or the reason why the message is malformed.
 */
export class HeaderCheck {
  /** Of the list checked last: content-length, -1 where there is none. */
  contentLength = -1;
  status = 0;
  method = '';
  private path = '';
  private authority = '';
  private host = '';
  private isHttp = false;
  private hasProtocol = false;
  /** The fields that stood at each place of the last requests and responses. */
  private readonly knownRequest: Known[] = [];
  private readonly knownResponse: Known[] = [];
  /** Bit per pseudo-header seen. */
  private seen = 0;
  private seenRegular = false;

  /** `allowProtocol`: extended CONNECT was agreed on (RFC 8441). */
  request(headers: HeaderList, allowProtocol: boolean): string | null {
    const problem = this.fields(headers, this.knownRequest);
    if (problem !== null) return problem;
    if (this.has(Kind.STATUS)) return ':status in a request';
    if (!this.has(Kind.METHOD) || !isMethod(this.method)) return 'no valid :method';
    if (this.hasProtocol && !(allowProtocol && this.method === 'CONNECT')) return ':protocol not allowed';
    if (
      this.host !== '' &&
      this.authority !== '' &&
      this.host.toLowerCase() !== this.authority.toLowerCase()
    ) {
      return 'host differs from :authority';
    }
    return this.isTunnel ? this.checkConnect() : this.checkTarget();
  }

  response(headers: HeaderList): string | null {
    const problem = this.fields(headers, this.knownResponse);
    if (problem !== null) return problem;
    if (this.seen !== 1 << Kind.STATUS) return 'a response needs :status and no other pseudo-header';
    if (this.status < 100 || this.status > 599) return 'no valid :status';
    return this.status === 101 ? '101 does not exist in HTTP/2' : null;
  }

  trailers(headers: HeaderList): string | null {
    const problem = this.fields(headers, []);
    if (problem !== null) return problem;
    return this.seen === 0 ? null : 'pseudo-header in trailers';
  }

  /** CONNECT without `:protocol`: DATA is a tunnel's bytes, not content. True for extended CONNECT as well, which has none either. */
  get isConnect(): boolean {
    return this.method === 'CONNECT';
  }

  private get isTunnel(): boolean {
    return this.isConnect && !this.hasProtocol;
  }

  private checkConnect(): string | null {
    if (this.has(Kind.SCHEME) || this.has(Kind.PATH)) return 'CONNECT with :scheme or :path';
    return this.authority === '' ? 'CONNECT without :authority' : null;
  }

  private checkTarget(): string | null {
    if (!this.has(Kind.SCHEME) || !this.has(Kind.PATH) || this.path === '') return 'no :scheme or :path';
    if (this.hasProtocol && this.authority === '') return 'extended CONNECT without :authority';
    if (!this.isHttp) return null;
    if (this.authority === '' && this.host === '') return 'no :authority and no host';
    if (this.path.charCodeAt(0) !== 0x2f && !(this.path === '*' && this.method === 'OPTIONS'))
      return 'bad :path';
    return this.authority.includes('@') ? 'userinfo in :authority' : null;
  }

  private has(kind: number): boolean {
    return (this.seen & (1 << kind)) !== 0;
  }

  /** What is sent again and again (by HPACK index, or from a cache) is the very same object: its characters were looked at before. */
  private fields(headers: HeaderList, known: Known[]): string | null {
    this.contentLength = -1;
    this.status = 0;
    this.method = '';
    this.path = '';
    this.authority = '';
    this.host = '';
    this.isHttp = false;
    this.hasProtocol = false;
    this.seen = 0;
    this.seenRegular = false;
    for (let i = 0; i < headers.length; i++) {
      const field = headers[i]!;
      const isKnown = known[i] === field;
      const problem = this.field(field[0], field[1], isKnown);
      if (problem !== null) return problem;
      if (!isKnown && i < KNOWN_FIELDS) known[i] = field[1].length <= KNOWN_VALUE_CHARACTERS ? field : null;
    }
    return null;
  }

  private field(name: string, value: string, isKnown: boolean): string | null {
    if (!isKnown && !isValue(value)) return `bad characters in the value of ${JSON.stringify(name)}`;
    const kind = KINDS.get(name) ?? 0;
    if (kind !== 0 && kind <= LAST_PSEUDO) return this.pseudo(kind, name, value, isKnown);
    this.seenRegular = true;
    if (kind === 0) return isKnown || isName(name) ? null : `bad field name ${JSON.stringify(name)}`;
    return this.special(kind, name, value);
  }

  private pseudo(kind: number, name: string, value: string, isKnown: boolean): string | null {
    if (this.seenRegular) return `${name} after ordinary fields`;
    if (this.has(kind)) return `${name} twice`;
    if (!isKnown && !isVisible(value)) return `bad characters in ${name}`;
    this.seen |= 1 << kind;
    if (kind === Kind.METHOD) this.method = value;
    else if (kind === Kind.PATH) this.path = value;
    else if (kind === Kind.AUTHORITY) this.authority = value;
    else if (kind === Kind.SCHEME) this.isHttp = value === 'https' || value === 'http';
    else if (kind === Kind.PROTOCOL) this.hasProtocol = true;
    else this.status = /^\d{3}$/.test(value) ? Number(value) : 0;
    return null;
  }

  private special(kind: number, name: string, value: string): string | null {
    if (kind === Kind.CONNECTION_SPECIFIC) return `connection-specific field ${name}`;
    if (kind === Kind.TE) return value.toLowerCase() === 'trailers' ? null : 'te other than trailers';
    if (kind === Kind.HOST) {
      if (this.host !== '' && this.host !== value) return 'two hosts';
      this.host = value;
      return null;
    }
    const length = parseLength(value);
    if (length < 0 || (this.contentLength >= 0 && this.contentLength !== length)) return 'bad content-length';
    this.contentLength = length;
    return null;
  }
}

/** A method is a token, of either case (RFC 9110 section 9.1). */
function isMethod(method: string): boolean {
  return isName(method.toLowerCase());
}
