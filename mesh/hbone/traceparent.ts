import { randomFillSync } from 'node:crypto';

/** W3C trace context, version 00: `00-<trace id>-<parent id>-<flags>`, 55 characters, no id all zero. */
const TRACEPARENT = /^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/;

export function isTraceparent(text: string): boolean {
  return text.length === 55 && TRACEPARENT.test(text);
}

const IDS_BYTES = 24;

/** Makes random `traceparent` values, not sampled, as a connection without one gets it. Random bytes are fetched for 64 at a time. */
export class TraceparentSource {
  private readonly pool = Buffer.alloc(64 * IDS_BYTES);
  private at = this.pool.length;

  next(): string {
    if (this.at === this.pool.length) {
      randomFillSync(this.pool);
      this.at = 0;
    }
    const ids = this.pool.toString('hex', this.at, this.at + IDS_BYTES);
    this.at += IDS_BYTES;
    // an id of zeros only is forbidden; 64 random bits will not be that
    return `00-${ids.slice(0, 32)}-${ids.slice(32)}-00`;
  }
}
