import { getSystemErrorName } from 'node:util';
import { NativeError } from '../errors.js';
import type { NativeLibrary } from '../library.js';

/** The shim's BPF calls (native/shim/bpf.c), one prototype per line. Every one returns >= 0 or -errno. */
export function bindBpfCalls({ bind }: NativeLibrary) {
  return {
    takeLog: bind<(out: Buffer, size: number) => number>(
      'int culvert_bpf_take_log(uint8_t *out, uint32_t size)',
    ),
    objectOpen: bind<(path: string) => number>('int culvert_bpf_object_open(const char *path)'),
    objectClose: bind<(handle: number) => number>('int culvert_bpf_object_close(int handle)'),
    objectSetRodata: bind<(handle: number, variable: string, value: Buffer, size: number) => number>(
      'int culvert_bpf_object_set_rodata(int handle, const char *variable, const uint8_t *value, uint32_t size)',
    ),
    objectSetMaxEntries: bind<(handle: number, map: string, maxEntries: number) => number>(
      'int culvert_bpf_object_set_max_entries(int handle, const char *name, uint32_t max_entries)',
    ),
    objectReuseMap: bind<(handle: number, map: string, fd: number) => number>(
      'int culvert_bpf_object_reuse_map(int handle, const char *name, int fd)',
    ),
    objectLoad: bind<(handle: number) => number>('int culvert_bpf_object_load(int handle)'),
    objectList: bind<(handle: number, out: Buffer, size: number) => number>(
      'int culvert_bpf_object_list(int handle, uint8_t *out, uint32_t size)',
    ),
    mapLookup: bind<(fd: number, key: Buffer, value: Buffer) => number>(
      'int culvert_bpf_map_lookup(int fd, const uint8_t *key, uint8_t *value)',
    ),
    mapTake: bind<(fd: number, key: Buffer, value: Buffer) => number>(
      'int culvert_bpf_map_take(int fd, const uint8_t *key, uint8_t *value)',
    ),
    mapUpdate: bind<(fd: number, key: Buffer, value: Buffer, flags: number) => number>(
      'int culvert_bpf_map_update(int fd, const uint8_t *key, const uint8_t *value, uint32_t flags)',
    ),
    mapDelete: bind<(fd: number, key: Buffer) => number>(
      'int culvert_bpf_map_delete(int fd, const uint8_t *key)',
    ),
    mapNextKey: bind<(fd: number, key: Buffer | null, next: Buffer) => number>(
      'int culvert_bpf_map_next_key(int fd, const uint8_t *key, uint8_t *next)',
    ),
    mapLookupBatch: bind<
      (
        fd: number,
        cursor: Buffer | null,
        out: Buffer,
        keys: Buffer,
        values: Buffer,
        count: number,
        done: Buffer,
      ) => number
    >(
      'int culvert_bpf_map_lookup_batch(int fd, uint8_t *in, uint8_t *out, uint8_t *keys, uint8_t *values, uint32_t count, uint8_t *done)',
    ),
    mapUpdateBatch: bind<(fd: number, keys: Buffer, values: Buffer, count: number) => number>(
      'int culvert_bpf_map_update_batch(int fd, const uint8_t *keys, const uint8_t *values, uint32_t count)',
    ),
    mapInfo: bind<(fd: number, out: Buffer) => number>('int culvert_bpf_map_info(int fd, uint8_t *out)'),
    possibleCpus: bind<() => number>('int culvert_bpf_possible_cpus()'),
    pin: bind<(fd: number, path: string) => number>('int culvert_bpf_pin(int fd, const char *path)'),
    openPinned: bind<(path: string, kind: string) => number>(
      'int culvert_bpf_open_pinned(const char *path, const char *kind)',
    ),
    linkCreate: bind<(programFd: number, targetFd: number, attachType: number) => number>(
      'int culvert_bpf_link_create(int program_fd, int target_fd, int attach_type)',
    ),
    linkUpdate: bind<(linkFd: number, programFd: number) => number>(
      'int culvert_bpf_link_update(int link_fd, int program_fd)',
    ),
    linkDetach: bind<(linkFd: number) => number>('int culvert_bpf_link_detach(int link_fd)'),
    linkInfo: bind<(fd: number, out: Buffer) => number>('int culvert_bpf_link_info(int fd, uint8_t *out)'),
    programInfo: bind<(fd: number, out: Buffer) => number>(
      'int culvert_bpf_program_info(int fd, uint8_t *out)',
    ),
    programById: bind<(id: number) => number>('int culvert_bpf_program_by_id(uint32_t id)'),
    query: bind<(targetFd: number, attachType: number, ids: Buffer, count: number) => number>(
      'int culvert_bpf_query(int target_fd, int attach_type, uint32_t *ids, uint32_t count)',
    ),
    ids: bind<(kind: number, ids: Buffer, count: number) => number>(
      'int culvert_bpf_ids(int kind, uint32_t *ids, uint32_t count)',
    ),
    probeProgram: bind<(type: number) => number>('int culvert_bpf_probe_program(int program_type)'),
    probeMap: bind<(type: number) => number>('int culvert_bpf_probe_map(int map_type)'),
    probeHelper: bind<(type: number, helper: number) => number>(
      'int culvert_bpf_probe_helper(int program_type, int helper)',
    ),
    typeLayout: bind<(path: string, name: string, out: Buffer, size: number) => number>(
      'int culvert_bpf_type_layout(const char *path, const char *name, uint8_t *out, uint32_t size)',
    ),
    mountBpffs: bind<(path: string) => number>('int culvert_bpf_mount_bpffs(const char *path)'),
  };
}

export type BpfCalls = ReturnType<typeof bindBpfCalls>;

/** Returns `result`, or throws CALL_FAILED with the operation and errno's name where it is negative. */
export function check(result: number, operation: string, data: Record<string, unknown> = {}): number {
  if (result >= 0) return result;
  const errno = getSystemErrorName(result);
  const about = Object.entries(data).map(([name, value]) => ` ${name}=${String(value)}`);
  throw new NativeError('CALL_FAILED', `${operation}${about.join('')}: ${errno}`, {
    operation,
    errno,
    ...data,
  });
}

/** errno values (negative) that callers treat as an answer. The numbers are the same on x64 and arm64. */
export const ENOENT = -2;
export const EEXIST = -17;
