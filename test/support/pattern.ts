const period = 251;
const block = Buffer.from(Array.from({ length: period * 300 }, (_, index) => index % period));

/** `length` ≤ 65536 bytes of an endless pattern from `offset` on: a byte lost, doubled or swapped shows. */
export function pattern(offset: number, length: number): Buffer {
  const start = offset % period;
  return block.subarray(start, start + length);
}
