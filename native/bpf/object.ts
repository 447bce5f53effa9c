import { getSystemErrorName } from 'node:util';
import { NativeError } from '../errors.js';
import { type BpfCalls, check } from './calls.js';
import { BpfProgram } from './link.js';
import { BpfMap } from './map.js';

/** The kernel (or libbpf) refused an object; `log` has everything they said, the verifier's log included. */
export class VerifierError extends NativeError {
  readonly log: string;

  constructor(message: string, data: Record<string, unknown>, log: string) {
    super('BPF', message, { ...data, log });
    this.log = log;
  }
}

export interface LoadOptions {
  /** `const volatile` variables; a number is 32 bits wide, a bigint 64. */
  readonly rodata?: Readonly<Record<string, number | bigint>>;
  /** Maps that are there already and that the object shall use. They stay the caller's. */
  readonly reuseMaps?: Readonly<Record<string, BpfMap>>;
  /** Other sizes than the object's own, for maps that are created. */
  readonly maxEntries?: Readonly<Record<string, number>>;
}

const LOG_BYTES = 1 << 20;
const LIST_BYTES = 1 << 14;

/** A loaded object: its programs and maps by name. Closing it closes their descriptors; links and pins live on. */
export class BpfObject implements Disposable {
  readonly #maps = new Map<string, BpfMap>();
  readonly #programs = new Map<string, BpfProgram>();

  /** open → rodata → sizes → reuse → load. Throws VerifierError, or CALL_FAILED naming the variable or map at fault. */
  constructor(options: { path: string } & LoadOptions, deps: { calls: BpfCalls }) {
    const { path } = options;
    const { calls } = deps;
    const handle = calls.objectOpen(path);
    if (handle < 0) throw refused(calls, `open ${path}`, handle, { path });
    try {
      prepare(calls, handle, options);
      const result = calls.objectLoad(handle);
      if (result < 0) throw refused(calls, `load ${path}`, result, { path });
      this.#adopt(calls, handle);
    } finally {
      calls.objectClose(handle);
    }
  }

  /** Throws BPF when the object has no such map. */
  map(name: string): BpfMap {
    return this.#maps.get(name) ?? missing('map', name);
  }

  /** Throws BPF when the object has no such program. */
  program(name: string): BpfProgram {
    return this.#programs.get(name) ?? missing('program', name);
  }

  get maps(): ReadonlyMap<string, BpfMap> {
    return this.#maps;
  }

  get programs(): ReadonlyMap<string, BpfProgram> {
    return this.#programs;
  }

  close(): void {
    for (const map of this.#maps.values()) map.close();
    for (const program of this.#programs.values()) program.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #adopt(calls: BpfCalls, handle: number): void {
    const out = Buffer.alloc(LIST_BYTES);
    const bytes = check(calls.objectList(handle, out, out.length), 'list');
    for (const line of out.toString('utf8', 0, bytes).split('\n')) {
      const [kind, name, fd, attachType] = line.split(' ');
      if (kind === 'map') this.#maps.set(name!, new BpfMap({ fd: Number(fd), owned: true }, { calls }));
      if (kind === 'program') {
        const options = { name: name!, fd: Number(fd), attachType: Number(attachType) };
        this.#programs.set(name!, new BpfProgram(options, { calls }));
      }
    }
  }
}

function prepare(calls: BpfCalls, handle: number, options: { path: string } & LoadOptions): void {
  const { path } = options;
  for (const [variable, value] of Object.entries(options.rodata ?? {})) {
    const bytes = encodeNumber(value);
    check(calls.objectSetRodata(handle, variable, bytes, bytes.length), 'set rodata', { path, variable });
  }
  for (const [map, maxEntries] of Object.entries(options.maxEntries ?? {})) {
    check(calls.objectSetMaxEntries(handle, map, maxEntries), 'set max_entries', { path, map });
  }
  for (const [map, existing] of Object.entries(options.reuseMaps ?? {})) {
    check(calls.objectReuseMap(handle, map, existing.fd), 'reuse map', { path, map });
  }
}

function encodeNumber(value: number | bigint): Buffer {
  const bytes = Buffer.alloc(typeof value === 'bigint' ? 8 : 4);
  if (typeof value === 'bigint') bytes.writeBigUInt64LE(value);
  else bytes.writeUInt32LE(value);
  return bytes;
}

function refused(
  calls: BpfCalls,
  what: string,
  result: number,
  data: Record<string, unknown>,
): VerifierError {
  const out = Buffer.alloc(LOG_BYTES);
  const log = out.toString('utf8', 0, calls.takeLog(out, out.length));
  const errno = getSystemErrorName(result);
  return new VerifierError(`${what}: ${errno}\n${lastLines(log)}`, { ...data, errno }, log);
}

function lastLines(log: string): string {
  return log.trimEnd().split('\n').slice(-8).join('\n');
}

function missing(kind: string, name: string): never {
  throw new NativeError('BPF', `the object has no ${kind} ${name}`, { kind, name });
}
