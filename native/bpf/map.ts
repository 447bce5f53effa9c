import { closeSync } from 'node:fs';
import { NativeError } from '../errors.js';
import { type BpfCalls, check, EEXIST, ENOENT } from './calls.js';

export interface BpfMapInfo {
  readonly type: number;
  readonly id: number;
  readonly name: string;
  /** Bytes of a key as user space gives it. */
  readonly keySize: number;
  /** Bytes of a value as user space gives it; for a per-CPU map, of all CPUs together. */
  readonly valueSize: number;
  readonly maxEntries: number;
  readonly flags: number;
}

/** 'create': only if the key is absent; 'replace': only if it is there. */
export type UpdateMode = 'any' | 'create' | 'replace';

const updateFlags = { any: 0, create: 1, replace: 2 } as const;
const HASH = 1;
const perCpuTypes: readonly number[] = [5, 6, 10];
const BATCH_ENTRIES = 256;

/** A BPF map by its descriptor. Keys and values are Buffers of exactly the map's sizes (native/abi.ts makes them). */
export class BpfMap implements Disposable {
  readonly fd: number;
  readonly info: BpfMapInfo;
  readonly #calls: BpfCalls;
  #owned: boolean;

  /** `owned`: close() closes the descriptor. */
  constructor(options: { fd: number; owned: boolean }, deps: { calls: BpfCalls }) {
    this.fd = options.fd;
    this.#owned = options.owned;
    this.#calls = deps.calls;
    this.info = readInfo(deps.calls, options.fd);
  }

  /** The value, or null. `into` saves the allocation. */
  lookup(key: Buffer, into: Buffer = Buffer.alloc(this.info.valueSize)): Buffer | null {
    this.#checkSizes(key, into);
    const result = this.#calls.mapLookup(this.fd, key, into);
    if (result === ENOENT) return null;
    check(result, 'bpf_map_lookup_elem', { map: this.info.name });
    return into;
  }

  /** Removes the entry and returns its value, in one step, or null (hash maps, Linux 5.14). */
  take(key: Buffer, into: Buffer = Buffer.alloc(this.info.valueSize)): Buffer | null {
    this.#checkSizes(key, into);
    const result = this.#calls.mapTake(this.fd, key, into);
    if (result === ENOENT) return null;
    check(result, 'bpf_map_lookup_and_delete_elem', { map: this.info.name });
    return into;
  }

  /** Returns false when `mode` does not permit it. Throws CALL_FAILED (E2BIG: the map is full). */
  update(key: Buffer, value: Buffer, mode: UpdateMode = 'any'): boolean {
    this.#checkSizes(key, value);
    const result = this.#calls.mapUpdate(this.fd, key, value, updateFlags[mode]);
    if ((mode === 'create' && result === EEXIST) || (mode === 'replace' && result === ENOENT)) return false;
    check(result, 'bpf_map_update_elem', { map: this.info.name });
    return true;
  }

  /** Returns whether there was such an entry. */
  delete(key: Buffer): boolean {
    this.#checkSizes(key, null);
    const result = this.#calls.mapDelete(this.fd, key);
    if (result === ENOENT || result === -22) return this.#absent(result);
    check(result, 'bpf_map_delete_elem', { map: this.info.name });
    return true;
  }

  /** All entries, as far as they stay; entries made or removed meanwhile may be missed. */
  *entries(): Generator<[key: Buffer, value: Buffer]> {
    if (this.info.type === HASH) {
      yield* this.#batches();
      return;
    }
    for (const key of this.#keys()) {
      const value = this.lookup(key);
      if (value !== null) yield [key, value];
    }
  }

  /** Writes many entries in one call per 256. Throws CALL_FAILED when one cannot be written; those before it are. */
  updateBatch(entries: Iterable<readonly [key: Buffer, value: Buffer]>): void {
    const all = [...entries];
    for (const [key, value] of all) this.#checkSizes(key, value);
    for (let start = 0; start < all.length; start += BATCH_ENTRIES) {
      const some = all.slice(start, start + BATCH_ENTRIES);
      const keys = Buffer.concat(some.map(([key]) => key));
      const values = Buffer.concat(some.map(([, value]) => value));
      const written = this.#calls.mapUpdateBatch(this.fd, keys, values, some.length);
      check(written < some.length && written >= 0 ? -7 : written, 'bpf_map_update_batch', {
        map: this.info.name,
      });
    }
  }

  /** The sum over all CPUs of a per-CPU map's 64-bit value. */
  sumPerCpu(key: Buffer): bigint {
    const values = this.lookup(key);
    let sum = 0n;
    for (let at = 0; values !== null && at < values.length; at += 8) sum += values.readBigUInt64LE(at);
    return sum;
  }

  pin(path: string): void {
    check(this.#calls.pin(this.fd, path), 'bpf_obj_pin', { path });
  }

  close(): void {
    if (!this.#owned) return;
    this.#owned = false;
    closeSync(this.fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  *#batches(): Generator<[Buffer, Buffer]> {
    const { keySize, valueSize } = this.info;
    let entries = Math.min(BATCH_ENTRIES, this.info.maxEntries);
    const cursor = Buffer.alloc(Math.max(keySize, 4));
    const done = Buffer.alloc(1);
    for (let from: Buffer | null = null; done[0] === 0; ) {
      const keys = Buffer.alloc(keySize * entries);
      const values = Buffer.alloc(valueSize * entries);
      const count = this.#calls.mapLookupBatch(this.fd, from, cursor, keys, values, entries, done);
      if (count === -28 && entries < this.info.maxEntries) {
        entries = Math.min(entries * 2, this.info.maxEntries); // one hash bucket holds more than that
        continue;
      }
      check(count, 'bpf_map_lookup_batch', { map: this.info.name });
      from = cursor;
      for (let i = 0; i < count; i++) {
        yield [
          keys.subarray(i * keySize, (i + 1) * keySize),
          values.subarray(i * valueSize, (i + 1) * valueSize),
        ];
      }
    }
  }

  #keys(): Buffer[] {
    const keys: Buffer[] = [];
    for (let last: Buffer | null = null; keys.length < this.info.maxEntries; ) {
      const next = Buffer.alloc(this.info.keySize);
      const result = this.#calls.mapNextKey(this.fd, last, next);
      if (result === ENOENT) break;
      check(result, 'bpf_map_get_next_key', { map: this.info.name });
      keys.push(next);
      last = next;
    }
    return keys;
  }

  /** A sockmap says EINVAL for an empty slot. */
  #absent(result: number): boolean {
    if (result !== ENOENT && this.info.type !== 15)
      check(result, 'bpf_map_delete_elem', { map: this.info.name });
    return false;
  }

  #checkSizes(key: Buffer, value: Buffer | null): void {
    if (key.length === this.info.keySize && (value === null || value.length === this.info.valueSize)) return;
    const { name, keySize, valueSize } = this.info;
    throw new NativeError(
      'OUT_OF_BOUNDS',
      `map ${name} has keys of ${keySize} and values of ${valueSize} bytes, not ${key.length} and ${value?.length}`,
      { map: name },
    );
  }
}

function readInfo(calls: BpfCalls, fd: number): BpfMapInfo {
  const raw = Buffer.alloc(40);
  check(calls.mapInfo(fd, raw), 'bpf_obj_get_info_by_fd', { fd });
  const type = raw.readUInt32LE(0);
  const valueSize = raw.readUInt32LE(12);
  const cpus = perCpuTypes.includes(type) ? check(calls.possibleCpus(), 'libbpf_num_possible_cpus') : 1;
  return {
    type,
    id: raw.readUInt32LE(4),
    keySize: raw.readUInt32LE(8),
    valueSize: cpus === 1 && !perCpuTypes.includes(type) ? valueSize : Math.ceil(valueSize / 8) * 8 * cpus,
    maxEntries: raw.readUInt32LE(16),
    flags: raw.readUInt32LE(20),
    name: cString(raw, 24, 16),
  };
}

/** Text up to the first zero byte. */
export function cString(bytes: Buffer, offset: number, length: number): string {
  const end = bytes.indexOf(0, offset);
  return bytes.toString('utf8', offset, end < 0 || end > offset + length ? offset + length : end);
}
