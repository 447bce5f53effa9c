/** Where a connection accepted on 15001 wanted to go: an entry of BPF's map, good for one connection. */
import type { SocketAddress } from '../../mesh/common/address.js';
import {
  Bpf,
  type BpfMap,
  decodeOriginal,
  encodeOriginalKey,
  markOriginalRead,
  sizeOf,
} from '../../native/bpf/index.js';
import type { CaptureHandles, OriginalDestinations } from './types.js';

/** One per worker: two short syscalls and no allocation but the result. */
export class OriginalDestinationMap implements OriginalDestinations {
  readonly #map: BpfMap;
  readonly #key = Buffer.alloc(sizeOf.originalKey);
  readonly #value = Buffer.alloc(sizeOf.originalValue);

  constructor(options: { handles: CaptureHandles }, deps: { bpf: Bpf } = { bpf: new Bpf() }) {
    this.#map = deps.bpf.borrowMap(options.handles.originalDestinationsFd);
  }

  take(netnsCookie: bigint, source: SocketAddress): SocketAddress | null {
    encodeOriginalKey(netnsCookie, source, this.#key);
    if (this.#map.lookup(this.#key, this.#value) === null) return null;
    const { destination, isRead, isClosed } = decodeOriginal(this.#value);
    if (isRead) return null;
    if (isClosed) {
      this.#map.delete(this.#key);
      return destination;
    }
    markOriginalRead(this.#value);
    // False: its client was reset meanwhile. If it closes between lookup and update, the entry stays until the port is used again.
    this.#map.update(this.#key, this.#value, 'replace');
    return destination;
  }
}
