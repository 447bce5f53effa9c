/*
 * libbpf for native/bpf: objects by handle, maps and links by descriptor. Every call returns >= 0 or -errno. Longer than 400 lines: one flat
 * list of calls, each a few lines over one of libbpf's.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

#include "culvert.h"

/* An object lives from open to close within one synchronous call of native/bpf, so few are open at once. */
#define MAX_OBJECTS 64
#define MAX_LOG_BYTES (4 << 20)

static struct bpf_object *objects[MAX_OBJECTS];
static pthread_mutex_t objects_lock = PTHREAD_MUTEX_INITIALIZER;

/* What libbpf said in this thread since the last open or load: with the verifier's log where a program was refused. */
static __thread char *log_text;
static __thread size_t log_bytes, log_capacity;

static int append_log(enum libbpf_print_level level, const char *format, va_list arguments)
{
	va_list again;
	int needed;

	if (level != LIBBPF_WARN)
		return 0;
	va_copy(again, arguments);
	needed = vsnprintf(NULL, 0, format, again);
	va_end(again);
	if (needed < 0 || log_bytes + needed + 1 > MAX_LOG_BYTES)
		return 0;
	if (log_bytes + needed + 1 > log_capacity) {
		size_t capacity = (log_bytes + needed + 1) * 2;
		char *grown = realloc(log_text, capacity);

		if (!grown)
			return 0;
		log_text = grown;
		log_capacity = capacity;
	}
	vsnprintf(log_text + log_bytes, needed + 1, format, arguments);
	log_bytes += needed;
	return needed;
}

static void clear_log(void)
{
	free(log_text);
	log_text = NULL;
	log_bytes = log_capacity = 0;
	libbpf_set_print(append_log);
}

/* Copies the end of the log (the verifier's verdict stands last) and forgets it; returns its bytes. */
CULVERT_API int culvert_bpf_take_log(uint8_t *out, uint32_t size)
{
	size_t bytes = log_bytes < size ? log_bytes : size;

	if (bytes)
		memcpy(out, log_text + log_bytes - bytes, bytes);
	clear_log();
	return bytes;
}

static struct bpf_object *object_of(int handle)
{
	return handle >= 0 && handle < MAX_OBJECTS ? objects[handle] : NULL;
}

CULVERT_API int culvert_bpf_object_open(const char *path)
{
	struct bpf_object *object;
	int handle;

	clear_log();
	object = bpf_object__open_file(path, NULL);
	if (!object)
		return -errno;
	pthread_mutex_lock(&objects_lock);
	for (handle = 0; handle < MAX_OBJECTS && objects[handle]; handle++)
		;
	if (handle < MAX_OBJECTS)
		objects[handle] = object;
	pthread_mutex_unlock(&objects_lock);
	if (handle < MAX_OBJECTS)
		return handle;
	bpf_object__close(object);
	return -EMFILE;
}

CULVERT_API int culvert_bpf_object_close(int handle)
{
	struct bpf_object *object = object_of(handle);

	if (!object)
		return -EBADF;
	bpf_object__close(object);
	pthread_mutex_lock(&objects_lock);
	objects[handle] = NULL;
	pthread_mutex_unlock(&objects_lock);
	return 0;
}

/* Sets a `const volatile` variable before load. -ENOENT: no such variable; -EINVAL: another size. */
CULVERT_API int culvert_bpf_object_set_rodata(int handle, const char *variable, const uint8_t *value, uint32_t size)
{
	struct bpf_object *object = object_of(handle);
	const struct btf_type *section;
	const struct btf_var_secinfo *info;
	struct bpf_map *map;
	struct btf *btf;
	size_t map_size;
	char *data;
	int id;

	if (!object)
		return -EBADF;
	btf = bpf_object__btf(object);
	map = bpf_object__find_map_by_name(object, ".rodata");
	/* writable before load; libbpf's own skeletons write here too */
	data = map ? (char *)bpf_map__initial_value(map, &map_size) : NULL;
	id = btf ? btf__find_by_name_kind(btf, ".rodata", BTF_KIND_DATASEC) : -ENOENT;
	if (!data || id < 0)
		return -ENOENT;
	section = btf__type_by_id(btf, id);
	info = btf_var_secinfos(section);
	for (int i = 0; i < btf_vlen(section); i++, info++) {
		const struct btf_type *var = btf__type_by_id(btf, info->type);

		if (strcmp(btf__name_by_offset(btf, var->name_off), variable))
			continue;
		if (info->size != size || info->offset + size > map_size)
			return -EINVAL;
		memcpy(data + info->offset, value, size);
		return 0;
	}
	return -ENOENT;
}

CULVERT_API int culvert_bpf_object_set_max_entries(int handle, const char *name, uint32_t max_entries)
{
	struct bpf_object *object = object_of(handle);
	struct bpf_map *map = object ? bpf_object__find_map_by_name(object, name) : NULL;

	if (!object)
		return -EBADF;
	return map ? bpf_map__set_max_entries(map, max_entries) : -ENOENT;
}

/* Lets the object use a map that is there already. -EINVAL: its type, flags, key or value differ. -ENOENT: the object has no such map. */
CULVERT_API int culvert_bpf_object_reuse_map(int handle, const char *name, int fd)
{
	struct bpf_object *object = object_of(handle);
	struct bpf_map *map = object ? bpf_object__find_map_by_name(object, name) : NULL;
	struct bpf_map_info info = {};
	uint32_t size = sizeof(info);
	int err;

	if (!object)
		return -EBADF;
	if (!map)
		return -ENOENT;
	err = bpf_obj_get_info_by_fd(fd, &info, &size);
	if (err)
		return err;
	if (info.type != (uint32_t)bpf_map__type(map) || info.key_size != bpf_map__key_size(map) ||
	    info.value_size != bpf_map__value_size(map) || info.map_flags != bpf_map__map_flags(map))
		return -EINVAL;
	return bpf_map__reuse_fd(map, fd);
}

CULVERT_API int culvert_bpf_object_load(int handle)
{
	struct bpf_object *object = object_of(handle);

	if (!object)
		return -EBADF;
	return bpf_object__load(object);
}

/*
 * After load: one line per map ("map NAME FD") and program ("program NAME FD ATTACH_TYPE"); the descriptors are
 * duplicates and belong to the caller. Before load: the names, with FD -1. Returns the bytes, or -ENOSPC.
 */
CULVERT_API int culvert_bpf_object_list(int handle, uint8_t *out, uint32_t size)
{
	struct bpf_object *object = object_of(handle);
	struct bpf_program *program;
	struct bpf_map *map;
	uint32_t used = 0;
	int fd;

	if (!object)
		return -EBADF;
	bpf_object__for_each_map(map, object) {
		/* of variables: only sections that user space writes to after the load, `.data.<name>` */
		if (bpf_map__is_internal(map) && strncmp(bpf_map__name(map), ".data.", 6))
			continue;
		fd = bpf_map__fd(map) < 0 ? -1 : fcntl(bpf_map__fd(map), F_DUPFD_CLOEXEC, 0);
		used += snprintf((char *)out + used, size - used, "map %s %d\n", bpf_map__name(map), fd);
		if (used >= size)
			return -ENOSPC;
	}
	bpf_object__for_each_program(program, object) {
		fd = bpf_program__fd(program) < 0 ? -1 : fcntl(bpf_program__fd(program), F_DUPFD_CLOEXEC, 0);
		used += snprintf((char *)out + used, size - used, "program %s %d %d\n", bpf_program__name(program), fd,
				 bpf_program__expected_attach_type(program));
		if (used >= size)
			return -ENOSPC;
	}
	return used;
}

CULVERT_API int culvert_bpf_map_lookup(int fd, const uint8_t *key, uint8_t *value)
{
	return bpf_map_lookup_elem(fd, key, value);
}

CULVERT_API int culvert_bpf_map_take(int fd, const uint8_t *key, uint8_t *value)
{
	return bpf_map_lookup_and_delete_elem(fd, key, value);
}

CULVERT_API int culvert_bpf_map_update(int fd, const uint8_t *key, const uint8_t *value, uint32_t flags)
{
	return bpf_map_update_elem(fd, key, value, flags);
}

CULVERT_API int culvert_bpf_map_delete(int fd, const uint8_t *key)
{
	return bpf_map_delete_elem(fd, key);
}

/* `key` null: the first. -ENOENT: there is none. */
CULVERT_API int culvert_bpf_map_next_key(int fd, const uint8_t *key, uint8_t *next)
{
	return bpf_map_get_next_key(fd, key, next);
}

/* Up to `count` entries after cursor `in` (null: from the start); returns how many, `*done` is 1 at the end. `out` may equal `in`. */
CULVERT_API int culvert_bpf_map_lookup_batch(int fd, uint8_t *in, uint8_t *out, uint8_t *keys, uint8_t *values, uint32_t count,
					     uint8_t *done)
{
	int err = bpf_map_lookup_batch(fd, in, out, keys, values, &count, NULL);

	*done = err == -ENOENT;
	return err && err != -ENOENT ? err : (int)count;
}

/* Writes `count` entries in one call; returns how many were written, or -errno when none was. */
CULVERT_API int culvert_bpf_map_update_batch(int fd, const uint8_t *keys, const uint8_t *values, uint32_t count)
{
	uint32_t written = count;
	int err = bpf_map_update_batch(fd, keys, values, &written, NULL);

	return err && !written ? err : (int)written;
}

/* type, id, key bytes, value bytes, max entries, flags: six words, then the name in 16 bytes. */
CULVERT_API int culvert_bpf_map_info(int fd, uint8_t *out)
{
	struct bpf_map_info info = {};
	uint32_t size = sizeof(info);
	int err = bpf_obj_get_info_by_fd(fd, &info, &size);

	if (err)
		return err;
	memcpy(out, (uint32_t[]){ info.type, info.id, info.key_size, info.value_size, info.max_entries, info.map_flags }, 24);
	memcpy(out + 24, info.name, 16);
	return 0;
}

CULVERT_API int culvert_bpf_possible_cpus(void)
{
	return libbpf_num_possible_cpus();
}

CULVERT_API int culvert_bpf_pin(int fd, const char *path)
{
	return bpf_obj_pin(fd, path);
}

/* Opens what is pinned at `path`; -EINVAL when it is not of `kind` ("map", "prog" or "link"). */
CULVERT_API int culvert_bpf_open_pinned(const char *path, const char *kind)
{
	char proc[48], target[64] = "";
	int fd = bpf_obj_get(path);

	if (fd < 0)
		return fd;
	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
	/* "anon_inode:bpf-map", "anon_inode:bpf_link": the kernel is not of one mind on the separator */
	if (readlink(proc, target, sizeof(target) - 1) > 0 && strstr(target, kind))
		return fd;
	close(fd);
	return -EINVAL;
}

CULVERT_API int culvert_bpf_link_create(int program_fd, int target_fd, int attach_type)
{
	return bpf_link_create(program_fd, target_fd, attach_type, NULL);
}

/* Replaces the program of a live link at once: there is no moment without one. */
CULVERT_API int culvert_bpf_link_update(int link_fd, int program_fd)
{
	return bpf_link_update(link_fd, program_fd, NULL);
}

CULVERT_API int culvert_bpf_link_detach(int link_fd)
{
	return bpf_link_detach(link_fd);
}

/* type, id, program id, attach type as words, then the target as two words: cgroup id or netns inode, 0 when it is gone. */
CULVERT_API int culvert_bpf_link_info(int fd, uint8_t *out)
{
	struct bpf_link_info info = {};
	uint32_t size = sizeof(info), attach_type = 0;
	uint64_t target = 0;
	int err = bpf_obj_get_info_by_fd(fd, &info, &size);

	if (err)
		return err;
	if (info.type == BPF_LINK_TYPE_CGROUP) {
		target = info.cgroup.cgroup_id;
		attach_type = info.cgroup.attach_type;
	} else if (info.type == BPF_LINK_TYPE_NETNS) {
		target = info.netns.netns_ino;
		attach_type = info.netns.attach_type;
	}
	memcpy(out, (uint32_t[]){ info.type, info.id, info.prog_id, attach_type }, 16);
	memcpy(out + 16, &target, 8);
	return 0;
}

/* id as a word, then the name in 16 bytes and the tag (a hash of the instructions) in 8. */
CULVERT_API int culvert_bpf_program_info(int fd, uint8_t *out)
{
	struct bpf_prog_info info = {};
	uint32_t size = sizeof(info);
	int err = bpf_obj_get_info_by_fd(fd, &info, &size);

	if (err)
		return err;
	memcpy(out, &info.id, 4);
	memcpy(out + 4, info.name, 16);
	memcpy(out + 20, info.tag, 8);
	return 0;
}

CULVERT_API int culvert_bpf_program_by_id(uint32_t id)
{
	return bpf_prog_get_fd_by_id(id);
}

/* Ids of the programs attached to a cgroup or netns at one hook, not those inherited from above; returns how many. */
CULVERT_API int culvert_bpf_query(int target_fd, int attach_type, uint32_t *ids, uint32_t count)
{
	uint32_t flags = 0;
	int err = bpf_prog_query(target_fd, attach_type, 0, &flags, ids, &count);

	return err ? err : (int)count;
}

/* Ids of all programs (kind 0), maps (1) or links (2) of this kernel, ascending; returns how many, or -ENOSPC. */
CULVERT_API int culvert_bpf_ids(int kind, uint32_t *ids, uint32_t count)
{
	uint32_t id = 0, used = 0;
	int err;

	for (;;) {
		err = kind == 0 ? bpf_prog_get_next_id(id, &id) : kind == 1 ? bpf_map_get_next_id(id, &id) : bpf_link_get_next_id(id, &id);
		if (err)
			return err == -ENOENT ? (int)used : err;
		if (used == count)
			return -ENOSPC;
		ids[used++] = id;
	}
}

/* 1: the kernel runs programs of this type; 0: it does not. */
CULVERT_API int culvert_bpf_probe_program(int program_type)
{
	return libbpf_probe_bpf_prog_type(program_type, NULL);
}

CULVERT_API int culvert_bpf_probe_map(int map_type)
{
	return libbpf_probe_bpf_map_type(map_type, NULL);
}

CULVERT_API int culvert_bpf_probe_helper(int program_type, int helper)
{
	return libbpf_probe_bpf_helper(program_type, helper, NULL);
}

static int list_members(const struct btf *btf, const struct btf_type *type, char *out, uint32_t size)
{
	const struct btf_member *member = btf_members(type);
	const struct btf_enum *value = btf_enum(type);
	uint32_t used = snprintf(out, size, "size %u\n", type->size);

	for (int i = 0; i < btf_vlen(type) && used < size; i++) {
		if (btf_is_enum(type))
			used += snprintf(out + used, size - used, "%s %d\n", btf__name_by_offset(btf, value[i].name_off), value[i].val);
		else
			used += snprintf(out + used, size - used, "%s %u %lld\n", btf__name_by_offset(btf, member[i].name_off),
					 btf_member_bit_offset(type, i) / 8, (long long)btf__resolve_size(btf, member[i].type));
	}
	return used < size ? (int)used : -ENOSPC;
}

/* BTF of an object file: "size N", then "MEMBER OFFSET SIZE" a line for a struct, "NAME VALUE" for an enum. Returns the bytes. */
CULVERT_API int culvert_bpf_type_layout(const char *path, const char *name, uint8_t *out, uint32_t size)
{
	struct btf *btf = btf__parse(path, NULL);
	int id, result;

	if (!btf)
		return -errno;
	id = btf__find_by_name_kind(btf, name, BTF_KIND_STRUCT);
	if (id < 0)
		id = btf__find_by_name_kind(btf, name, BTF_KIND_ENUM);
	result = id < 0 ? id : list_members(btf, btf__type_by_id(btf, id), (char *)out, size);
	btf__free(btf);
	return result;
}

CULVERT_API int culvert_bpf_mount_bpffs(const char *path)
{
	return mount("bpf", path, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700") ? -errno : 0;
}
