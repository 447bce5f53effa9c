import { IdentityError } from './errors.js';

const BLOCK = /-----BEGIN ([A-Z0-9 ]+)-----\s*([A-Za-z0-9+/=\s]+?)-----END ([A-Z0-9 ]+)-----/g;

/** DER of every block with this label (RFC 7468), in order; text around blocks is allowed. Throws BAD_PEM for another label, an unfinished block, or none at all. */
export function pemToDer(pem: string, label: string): Buffer[] {
  const found: Buffer[] = [];
  for (const [, begin, body, end] of pem.matchAll(BLOCK)) {
    if (begin !== label || end !== label)
      throw new IdentityError('BAD_PEM', `a PEM block is "${begin}", not "${label}"`);
    found.push(Buffer.from(body!, 'base64'));
  }
  if (found.length === 0 || pem.split('-----BEGIN ').length - 1 !== found.length) {
    throw new IdentityError('BAD_PEM', `no complete PEM block "${label}"`);
  }
  return found;
}

export function derToPem(der: Buffer, label: string): string {
  const lines = der.toString('base64').match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`;
}
