/* Sockets inside other network namespaces. Every call returns >= 0 or -errno; descriptors are close-on-exec. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "culvert.h"

#ifndef FUSE_SUPER_MAGIC
#define FUSE_SUPER_MAGIC 0x65735546
#endif

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71 /* Linux 5.14 */
#endif

/*
 * Enters `netns_fd` on this thread; returns the way home, a descriptor. Nothing else may run on the thread until leave(). A thread that
 * cannot go back would send everybody's traffic from the wrong namespace, so then the process ends.
 */
static int enter(int netns_fd)
{
	int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC), err;

	if (home < 0)
		return -errno;
	if (!setns(netns_fd, CLONE_NEWNET))
		return home;
	err = -errno;
	close(home);
	return err;
}

static void leave(int home)
{
	if (setns(home, CLONE_NEWNET)) {
		fputs("culvert: cannot return to the own network namespace\n", stderr);
		abort();
	}
	close(home);
}

/* A socket made inside `netns_fd` (-1: here). */
static int socket_in(int netns_fd, int family, int type, int protocol)
{
	int home = netns_fd < 0 ? -1 : enter(netns_fd), fd, err;

	if (netns_fd >= 0 && home < 0)
		return home;
	fd = socket(family, type | SOCK_CLOEXEC, protocol);
	err = -errno;
	if (home >= 0)
		leave(home);
	return fd < 0 ? err : fd;
}

/*
 * The first byte of each of these files, '0' or '1' for a switch of /proc/sys/net, as seen from inside: `paths` are NUL-terminated one after the
 * other, `out` has a place for each. Returns how many there are, or the -errno of the first that cannot be read.
 */
CULVERT_API int culvert_net_read_switches(int netns_fd, const char *paths, int count, uint8_t *out)
{
	int home = enter(netns_fd), err = 0;

	if (home < 0)
		return home;
	for (int i = 0; i < count && !err; i++, paths += strlen(paths) + 1) {
		int fd = open(paths, O_RDONLY | O_CLOEXEC);

		if (fd < 0 || read(fd, out + i, 1) != 1)
			err = fd < 0 ? -errno : -EIO;
		if (fd >= 0)
			close(fd);
	}
	leave(home);
	return err ? err : count;
}

CULVERT_API int culvert_net_socket(int netns_fd, int family, int type, int protocol)
{
	return socket_in(netns_fd, family, type, protocol);
}

CULVERT_API int culvert_net_cookie(int netns_fd, uint8_t *cookie)
{
	int fd = socket_in(netns_fd, AF_INET, SOCK_DGRAM, 0);
	socklen_t size = 8;
	int err;

	if (fd < 0)
		return fd;
	err = getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, cookie, &size) ? -errno : 0;
	close(fd);
	return err;
}

static int bind_any(int fd, int family, int port)
{
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_ANY_INIT };
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(port) };
	int off = 0;

	if (family == AF_INET)
		return bind(fd, (struct sockaddr *)&v4, sizeof(v4));
	if (setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)))
		return -1;
	return bind(fd, (struct sockaddr *)&v6, sizeof(v6));
}

/*
 * A non-blocking listening TCP socket on all addresses inside `netns_fd`: AF_INET6 is dual-stack. SO_REUSEPORT lets every worker, and the
 * next agent beside this one, have a socket of its own on the port. Port 0: the kernel chooses.
 */
CULVERT_API int culvert_net_listen(int netns_fd, int family, int port, int backlog)
{
	int fd = socket_in(netns_fd, family, SOCK_STREAM | SOCK_NONBLOCK, IPPROTO_TCP);
	int on = 1, err;

	if (fd < 0)
		return fd;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) || setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) ||
	    bind_any(fd, family, port) || listen(fd, backlog)) {
		err = -errno;
		close(fd);
		return err;
	}
	return fd;
}

/*
 * A non-blocking UDP socket inside `netns_fd`, bound to one address (4 or 16 bytes), which need not be usable yet (IPv6 that is still being
 * checked). SO_REUSEPORT as above.
 */
CULVERT_API int culvert_net_udp(int netns_fd, const uint8_t *address, int bytes, int port)
{
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(port) };
	bool is_v4 = bytes == 4;
	int fd, on = 1, err;

	if (!is_v4 && bytes != 16)
		return -EINVAL;
	memcpy(is_v4 ? (void *)&v4.sin_addr : (void *)&v6.sin6_addr, address, bytes);
	fd = socket_in(netns_fd, is_v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK, IPPROTO_UDP);
	if (fd < 0)
		return fd;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) || setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &on, sizeof(on)) ||
	    bind(fd, is_v4 ? (struct sockaddr *)&v4 : (struct sockaddr *)&v6, is_v4 ? sizeof(v4) : sizeof(v6))) {
		err = -errno;
		close(fd);
		return err;
	}
	return fd;
}

/* A descriptor (O_PATH) of `path` below `root`; links, absolute ones too, stay inside it. */
static int path_below(int root, const char *path)
{
	struct open_how how = { .flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS };
	int fd = syscall(SYS_openat2, root, path, &how, sizeof(how));

	return fd < 0 ? -errno : fd;
}

/* File systems whose files wait for a process of the pod, or lose what is read from them (/proc/kmsg, trace_pipe). */
static bool is_live(const struct statfs *filesystem)
{
	switch ((uint32_t)filesystem->f_type) {
	case FUSE_SUPER_MAGIC: case PROC_SUPER_MAGIC: case DEBUGFS_MAGIC: case TRACEFS_MAGIC:
		return true;
	default:
		return false;
	}
}

/* What may be read without waiting for anybody, and without effect. */
static int check_plain_file(int fd)
{
	struct statfs filesystem;
	struct stat file;

	if (fstat(fd, &file) || fstatfs(fd, &filesystem))
		return -errno;
	if (!S_ISREG(file.st_mode) || is_live(&filesystem))
		return -EINVAL;
	return 0;
}

/*
 * The start of a file as the process `pid` sees it; returns its bytes. The pod owns every part of the path: no link leads out of its root, and
 * what is no file is refused (EINVAL) before it is opened (a FIFO would never answer).
 */
CULVERT_API int culvert_net_read_as(int pid, const char *path, uint8_t *out, uint32_t size)
{
	char name[64];
	int root, file, fd, err;
	ssize_t bytes;

	snprintf(name, sizeof(name), "/proc/%d/root", pid);
	root = open(name, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		return -errno;
	file = path_below(root, path);
	close(root);
	if (file < 0)
		return file;
	err = check_plain_file(file);
	snprintf(name, sizeof(name), "/proc/self/fd/%d", file);
	fd = err ? -1 : open(name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (!err && fd < 0)
		err = -errno;
	close(file);
	if (err)
		return err;
	bytes = read(fd, out, size);
	err = -errno;
	close(fd);
	return bytes < 0 ? err : (int)bytes;
}
