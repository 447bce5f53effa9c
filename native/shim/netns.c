/* Sockets inside other network namespaces. Every call returns >= 0 or -errno; descriptors are close-on-exec. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "culvert.h"

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

/* The start of a file whose content depends on who opens it (/proc/sys/net/...), as seen from inside; returns its bytes. */
CULVERT_API int culvert_net_read_file(int netns_fd, const char *path, uint8_t *out, uint32_t size)
{
	int home = enter(netns_fd), fd, err;
	ssize_t bytes;

	if (home < 0)
		return home;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	err = -errno;
	leave(home);
	if (fd < 0)
		return err;
	bytes = read(fd, out, size);
	err = -errno;
	close(fd);
	return bytes < 0 ? err : (int)bytes;
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
