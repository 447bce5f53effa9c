/* How connections come to be: accepted from a listener, or dialled, perhaps from inside another network namespace. */
#define _GNU_SOURCE
#include "../../bpf/include/abi.h"
#include "engine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* HBONE, section 1.5: NODELAY everywhere; keepalive after 180 s, every 180 s, 9 probes. */
#define KEEPALIVE_SECONDS 180
#define KEEPALIVE_PROBES 9

#define ACCEPTED_BYTES (4 + 2 * ADDRESS_BYTES)

static int option(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof value);
}

static void keepalive(int fd)
{
	option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	option(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_SECONDS);
	option(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_SECONDS);
	option(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES);
}

static void socket_options(int fd)
{
	option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	keepalive(fd);
}

/*
 * Accepts from a listening socket that stays its owner's. Accepted sockets inherit its options, so they are set once, here: of plain
 * TCP also SO_LINGER 0 (a process that dies resets its connections; TLS has close_notify to tell a cut from an end). Only connections
 * that were in the backlog already do not inherit: see `settled`.
 */
CULVERT_API int culvert_listen(int id, int fd, int tls)
{
	struct engine *e = engine_of(id);
	if (!e)
		return -EBADF;
	int flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	struct conn *c = conn_new(e, fd, STATE_LISTENING);
	if (!c)
		return -ENOMEM;
	socket_options(fd);
	if (!tls)
		conn_set_linger(c, true);
	int error = conn_arm(c);
	if (error < 0) {
		conn_free(c);
		return error;
	}
	return handle_of(c);
}

/* Errors of accept that speak of one connection or of the network, not of the listener (accept(2)). */
static bool is_passing(int error)
{
	switch (error) {
	case EINTR: case ECONNABORTED: case EPERM: case EPROTO: case ENETDOWN: case ENOPROTOOPT: case EHOSTDOWN:
	case ENONET: case EHOSTUNREACH: case EOPNOTSUPP: case ENETUNREACH: case ETIMEDOUT:
		return true;
	default:
		return false;
	}
}

static int accepted(struct conn *listener, int fd, int context, const struct sockaddr_in6 *remote, unsigned char *out)
{
	struct conn *c = conn_new(listener->engine, fd, context ? STATE_HANDSHAKING : STATE_OPEN);
	if (!c) {
		close(fd);
		return -ENOMEM;
	}
	if (listener->settled) {
		c->abortive = listener->abortive;
	} else {
		socket_options(fd);
		conn_set_linger(c, listener->abortive);
	}
	struct sockaddr_in6 local = { 0 };
	socklen_t length = sizeof local;
	int error = getsockname(fd, (struct sockaddr *)&local, &length) < 0 ? -errno : 0;
	if (error == 0 && context)
		error = tls_start(c, context, true);
	if (error == 0)
		error = conn_arm(c);
	if (error < 0) {
		conn_set_linger(c, true);
		close(fd);
		conn_free(c);
		return error;
	}
	uint32_t handle = (uint32_t)handle_of(c);
	for (int i = 0; i < 4; i++)
		out[i] = handle >> (8 * i);
	address_write(&local, out + 4);
	address_write(remote, out + 4 + ADDRESS_BYTES);
	return 0;
}

/*
 * Accepts at most `max` connections; with a TLS context they start their handshake. Writes {handle, own address, peer address} for each
 * and returns how many, or -errno if there was an error before the first.
 */
CULVERT_API int culvert_accept(int id, int handle, int context, unsigned char *out, int max)
{
	struct conn *listener = conn_of(engine_of(id), handle);
	if (!listener || listener->state != STATE_LISTENING)
		return -EBADF;
	int n = 0;
	for (int tries = 0; tries < max; tries++) {
		struct sockaddr_in6 remote = { 0 };
		socklen_t length = sizeof remote;
		int fd = accept4(listener->fd, (struct sockaddr *)&remote, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
		int error = fd < 0 ? -errno : accepted(listener, fd, context, &remote, out + n * ACCEPTED_BYTES);
		if (error == 0) {
			n++;
			continue;
		}
		if (fd < 0 && is_passing(-error))
			continue;
		listener->settled = listener->settled || error == -EAGAIN;
		return n > 0 || error == -EAGAIN ? n : error;
	}
	return n;
}

/* A socket of `family` inside the namespace. A thread that cannot return to its own namespace must not go on. */
static int socket_in(struct engine *e, int family, int netns_fd)
{
	if (netns_fd < 0)
		return socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (e->own_netns_fd < 0)
		e->own_netns_fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (e->own_netns_fd < 0 || setns(netns_fd, CLONE_NEWNET) < 0)
		return -1;
	int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int error = errno;
	if (setns(e->own_netns_fd, CLONE_NEWNET) < 0) {
		perror("culvert: cannot return to the thread's own network namespace");
		abort();
	}
	errno = error;
	return fd;
}

/* The kernel reads as many bytes as the map's values have: asked once per map, so that a shorter buffer is never overrun. */
static int storage_size_check(struct engine *e, int map_fd, int value_length)
{
	if (e->storage_map_fd != map_fd) {
		struct bpf_map_info info = { 0 };
		union bpf_attr attr;
		memset(&attr, 0, sizeof attr);
		attr.info.bpf_fd = map_fd;
		attr.info.info_len = sizeof info;
		attr.info.info = (uintptr_t)&info;
		if (syscall(SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &attr, sizeof attr) < 0)
			return -errno;
		e->storage_map_fd = map_fd;
		e->storage_value_bytes = info.value_size;
	}
	return e->storage_value_bytes == (uint32_t)value_length && value_length == sizeof(struct caller) ? 0 : -EMSGSIZE;
}

static int storage_set(struct engine *e, int fd, int map_fd, const unsigned char *value, int value_length)
{
	int error = storage_size_check(e, map_fd, value_length);
	if (error < 0)
		return error;
	union bpf_attr attr;
	memset(&attr, 0, sizeof attr);
	attr.map_fd = map_fd;
	attr.key = (uintptr_t)&fd;
	attr.value = (uintptr_t)value;
	attr.flags = BPF_ANY;
	return syscall(SYS_bpf, BPF_MAP_UPDATE_ELEM, &attr, sizeof attr) < 0 ? -errno : 0;
}

/*
 * BPF tells in the storage, during connect(), whether the application will see the caller. If not (a full map, or no program at our
 * cgroup), it must not go on as somebody local.
 */
static int storage_check(int fd, int map_fd)
{
	struct caller caller = { 0 };
	union bpf_attr attr;
	memset(&attr, 0, sizeof attr);
	attr.map_fd = map_fd;
	attr.key = (uintptr_t)&fd;
	attr.value = (uintptr_t)&caller;
	if (syscall(SYS_bpf, BPF_MAP_LOOKUP_ELEM, &attr, sizeof attr) < 0)
		return -errno;
	return caller.state == CALLER_RECORDED ? 0 : -ENOBUFS;
}

/*
 * Starts the connect: 1 if it is done already, 0 if it goes on. Socket storage is only ever given for dials inside a pod. They need no
 * keepalive (four calls), and their handshake runs inside connect(), which yet says EINPROGRESS: asked again, it knows. That saves two
 * epoll_ctl, SO_ERROR and a turn, 3 us of a tunnel's 55.
 */
static int dial(struct engine *e, int fd, const unsigned char *addresses, int map_fd, const unsigned char *value, int value_length)
{
	struct sockaddr_in6 to, from;
	socklen_t to_length = address_read(addresses, &to), from_length = address_read(addresses + ADDRESS_BYTES, &from);
	if (to_length == 0)
		return -EAFNOSUPPORT;
	bool in_pod = map_fd >= 0;
	option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	if (!in_pod)
		keepalive(fd);
	if (from_length > 0) {
		if (from.sin6_port == 0 && option(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1) < 0)
			return -errno;
		if (bind(fd, (struct sockaddr *)&from, from_length) < 0)
			return -errno;
	}
	int error = in_pod ? storage_set(e, fd, map_fd, value, value_length) : 0;
	if (error < 0)
		return error;
	int done = connect(fd, (struct sockaddr *)&to, to_length);
	if (done < 0 && errno == EINPROGRESS && in_pod)
		done = connect(fd, (struct sockaddr *)&to, to_length);
	if (done < 0 && errno != EINPROGRESS && errno != EALREADY)
		return -errno;
	error = in_pod ? storage_check(fd, map_fd) : 0;
	return error < 0 ? error : done == 0;
}

/*
 * Dials from `addresses` = {to, from or none}; `netns_fd` and `map_fd` may be -1, `context` 0 (no TLS). `value` is a struct caller (bpf/include/abi.h).
 * Returns a handle, or -errno; its end is told by culvert_wait, unless addresses[1] says 1: then (only without TLS) it is connected now.
 */
CULVERT_API int culvert_connect(int id, int netns_fd, unsigned char *addresses, int map_fd, const unsigned char *value,
				int value_length, int context)
{
	struct engine *e = engine_of(id);
	if (!e)
		return -EBADF;
	int fd = socket_in(e, addresses[0] == 6 ? AF_INET6 : AF_INET, netns_fd);
	if (fd < 0)
		return -errno;
	struct conn *c = conn_new(e, fd, STATE_CONNECTING);
	if (!c) {
		close(fd);
		return -ENOMEM;
	}
	if (!context)
		conn_set_linger(c, true);
	int error = dial(e, fd, addresses, map_fd, value, value_length);
	addresses[1] = error == 1 && !context;
	if (addresses[1])
		c->state = STATE_OPEN;
	if (error >= 0 && context)
		error = tls_start(c, context, false);
	if (error >= 0)
		error = conn_arm(c);
	if (error < 0) {
		close(fd);
		conn_free(c);
		return error;
	}
	return handle_of(c);
}

/*
 * Two connections that are each other's peer, of this process: what is written to the first comes out of the second, which is a TLS
 * client whose wire is the first. So TLS runs inside a tunnel. Writes both handles; 0 or -errno.
 */
CULVERT_API int culvert_pair(int id, int context, int32_t *handles)
{
	struct engine *e = engine_of(id);
	if (!e)
		return -EBADF;
	int fds[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) < 0)
		return -errno;
	struct conn *wire = conn_new(e, fds[0], STATE_OPEN), *secure = conn_new(e, fds[1], STATE_CONNECTING);
	int error = wire && secure ? tls_start(secure, context, false) : -ENOMEM;
	if (error == 0)
		error = conn_arm(wire);
	if (error == 0)
		error = conn_arm(secure);
	if (error < 0) {
		close(fds[0]);
		close(fds[1]);
		if (wire)
			conn_free(wire);
		if (secure)
			conn_free(secure);
		return error;
	}
	handles[0] = handle_of(wire);
	handles[1] = handle_of(secure);
	return 0;
}
