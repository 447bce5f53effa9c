import { closeSync, mkdirSync, openSync, statfsSync } from 'node:fs';
import { type NativeLibrary, openLibrary } from '../library.js';
import { type BpfCalls, bindBpfCalls, check, ENOENT } from './calls.js';
import { BpfLink, type BpfProgram, type BpfProgramInfo, readProgramInfo } from './link.js';
import { BpfMap } from './map.js';
import { BpfObject, type LoadOptions } from './object.js';
import { type KernelFeature, probeFeatures } from './probe.js';

const BPFFS_MAGIC = 0xcafe4a11;
const MAX_PROGRAMS_PER_HOOK = 64;
const MAX_IDS = 1 << 16;

/** libbpf for one thread: what makes objects, maps and links. Everything it returns owns its descriptor until close(). */
export class Bpf {
  readonly #calls: BpfCalls;

  constructor(
    _options: Record<string, never> = {},
    deps: { library: NativeLibrary } = { library: openLibrary() },
  ) {
    this.#calls = bindBpfCalls(deps.library);
  }

  /** Loads an object file (bpf/build/*.bpf.o). Throws VerifierError. */
  load(path: string, options: LoadOptions = {}): BpfObject {
    return new BpfObject({ path, ...options }, { calls: this.#calls });
  }

  /** A map of another owner, by its descriptor (as workers get it): close() leaves it open. */
  borrowMap(fd: number): BpfMap {
    return new BpfMap({ fd, owned: false }, { calls: this.#calls });
  }

  /** Null where nothing is pinned. Throws CALL_FAILED (EINVAL: it is no map). */
  openPinnedMap(path: string): BpfMap | null {
    const fd = this.#openPinned(path, 'map');
    return fd === null ? null : new BpfMap({ fd, owned: true }, { calls: this.#calls });
  }

  /** Null where nothing is pinned. A link may be there whose target is gone: it counts only if BpfLinkInfo.target is the present one. */
  openPinnedLink(path: string): BpfLink | null {
    const fd = this.#openPinned(path, 'link');
    return fd === null ? null : new BpfLink({ fd }, { calls: this.#calls });
  }

  /** Attaches beside whatever else is attached to the cgroup (a directory of cgroup2). */
  attachCgroup(program: BpfProgram, cgroupPath: string): BpfLink {
    const target = openSync(cgroupPath, 'r');
    try {
      return this.#link(program, target, { cgroupPath });
    } finally {
      closeSync(target);
    }
  }

  attachNetns(program: BpfProgram, netnsFd: number): BpfLink {
    return this.#link(program, netnsFd, { netnsFd });
  }

  /** Programs attached directly to a cgroup directory or network namespace at one hook (`program.attachType`), in order. */
  attached(target: string | number, attachType: number): BpfProgramInfo[] {
    const fd = typeof target === 'string' ? openSync(target, 'r') : target;
    try {
      const ids = Buffer.alloc(4 * MAX_PROGRAMS_PER_HOOK);
      const count = check(this.#calls.query(fd, attachType, ids, MAX_PROGRAMS_PER_HOOK), 'bpf_prog_query', {
        target,
      });
      return Array.from({ length: count }, (_, i) => this.programById(ids.readUInt32LE(4 * i)));
    } finally {
      if (typeof target === 'string') closeSync(fd);
    }
  }

  /** Ids of everything of a kind in this kernel, ours or not: to see that something is gone. */
  ids(kind: 'program' | 'map' | 'link'): Set<number> {
    const out = Buffer.alloc(4 * MAX_IDS);
    const count = check(this.#calls.ids(['program', 'map', 'link'].indexOf(kind), out, MAX_IDS), 'list ids', {
      kind,
    });
    return new Set(Array.from({ length: count }, (_, i) => out.readUInt32LE(4 * i)));
  }

  /** Makes `path` a bpffs: creates the directory and mounts one where there is none. Returns whether it mounted. */
  ensureBpffs(path: string): boolean {
    mkdirSync(path, { recursive: true, mode: 0o700 });
    if (statfsSync(path).type === BPFFS_MAGIC) return false;
    check(this.#calls.mountBpffs(path), 'mount bpffs', { path });
    return true;
  }

  /** What this kernel has of the things the mesh's programs need. */
  probe(): KernelFeature[] {
    return probeFeatures(this.#calls);
  }

  /** A struct or enum as an object file's BTF has it: `size`, and each member's offset and size (enum: value). */
  typeLayout(path: string, name: string): TypeLayout {
    const out = Buffer.alloc(1 << 14);
    const bytes = check(this.#calls.typeLayout(path, name, out, out.length), 'read BTF', { path, name });
    const lines = out.toString('utf8', 0, bytes).trimEnd().split('\n');
    const members = lines.slice(1).map((line) => {
      const [member, offset, size] = line.split(' ');
      return [member!, { offset: Number(offset), size: Number(size ?? 0) }] as const;
    });
    return { size: Number(lines[0]!.split(' ')[1]), members: Object.fromEntries(members) };
  }

  #link(program: BpfProgram, targetFd: number, data: Record<string, unknown>): BpfLink {
    const fd = this.#calls.linkCreate(program.fd, targetFd, program.attachType);
    check(fd, 'bpf_link_create', { program: program.name, ...data });
    return new BpfLink({ fd }, { calls: this.#calls });
  }

  #openPinned(path: string, kind: 'map' | 'link'): number | null {
    const fd = this.#calls.openPinned(path, kind);
    return fd === ENOENT ? null : check(fd, 'bpf_obj_get', { path, kind });
  }

  /** Throws CALL_FAILED (ENOENT) where there is none. */
  programById(id: number): BpfProgramInfo {
    const fd = check(this.#calls.programById(id), 'bpf_prog_get_fd_by_id', { id });
    try {
      return readProgramInfo(this.#calls, fd);
    } finally {
      closeSync(fd);
    }
  }
}

export interface TypeLayout {
  /** Bytes. */
  readonly size: number;
  readonly members: Readonly<Record<string, { readonly offset: number; readonly size: number }>>;
}
