import { closeSync } from 'node:fs';
import { type BpfCalls, check } from './calls.js';
import { cString } from './map.js';

/** A loaded program: what a link is made of. Owned by whoever loaded it; a link keeps it alive by itself. */
export class BpfProgram implements Disposable {
  readonly name: string;
  readonly fd: number;
  /** enum bpf_attach_type. */
  readonly attachType: number;
  readonly #calls: BpfCalls;
  #open = true;

  constructor(options: { name: string; fd: number; attachType: number }, deps: { calls: BpfCalls }) {
    this.name = options.name;
    this.fd = options.fd;
    this.attachType = options.attachType;
    this.#calls = deps.calls;
  }

  info(): BpfProgramInfo {
    return readProgramInfo(this.#calls, this.fd);
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    closeSync(this.fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

export interface BpfProgramInfo {
  readonly id: number;
  /** At most 15 characters. */
  readonly name: string;
  /** Hash of the instructions, hex. */
  readonly tag: string;
}

export interface BpfLinkInfo {
  readonly id: number;
  readonly type: 'cgroup' | 'netns' | 'other';
  readonly programId: number;
  /** enum bpf_attach_type. */
  readonly attachType: number;
  /** Cgroup id or inode of the network namespace; 0 when it is gone: such a link does nothing any more. */
  readonly target: bigint;
}

/** A program at its hook. Closing the descriptor detaches it, unless it is pinned. */
export class BpfLink implements Disposable {
  readonly fd: number;
  readonly #calls: BpfCalls;
  #open = true;

  constructor(options: { fd: number }, deps: { calls: BpfCalls }) {
    this.fd = options.fd;
    this.#calls = deps.calls;
  }

  info(): BpfLinkInfo {
    const raw = Buffer.alloc(24);
    check(this.#calls.linkInfo(this.fd, raw), 'bpf_obj_get_info_by_fd', { fd: this.fd });
    const type = raw.readUInt32LE(0);
    return {
      type: type === 3 ? 'cgroup' : type === 5 ? 'netns' : 'other',
      id: raw.readUInt32LE(4),
      programId: raw.readUInt32LE(8),
      attachType: raw.readUInt32LE(12),
      target: raw.readBigUInt64LE(16),
    };
  }

  pin(path: string): void {
    check(this.#calls.pin(this.fd, path), 'bpf_obj_pin', { path });
  }

  /** Puts `program` in the place of the present one, with no moment in which none runs. */
  updateProgram(program: BpfProgram): void {
    check(this.#calls.linkUpdate(this.fd, program.fd), 'bpf_link_update', { program: program.name });
  }

  /** Takes the program off its hook at once, pinned or not. The link stays, without a target. */
  detach(): void {
    check(this.#calls.linkDetach(this.fd), 'bpf_link_detach', { fd: this.fd });
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    closeSync(this.fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** Of the program behind a descriptor. */
export function readProgramInfo(calls: BpfCalls, fd: number): BpfProgramInfo {
  const raw = Buffer.alloc(28);
  check(calls.programInfo(fd, raw), 'bpf_obj_get_info_by_fd', { fd });
  return { id: raw.readUInt32LE(0), name: cString(raw, 4, 16), tag: raw.toString('hex', 20, 28) };
}
