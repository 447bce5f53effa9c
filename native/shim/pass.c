/* Descriptors that go from one process to another over a unix socket (SOCK_SEQPACKET, SCM_RIGHTS). Every call returns >= 0 or -errno; all block, for a bounded time. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "culvert.h"

#define MAX_FDS 253 /* SCM_MAX_FD */

static int unix_address(struct sockaddr_un *address, const char *path)
{
	if (strlen(path) >= sizeof(address->sun_path))
		return -ENAMETOOLONG;
	memset(address, 0, sizeof(*address));
	address->sun_family = AF_UNIX;
	strcpy(address->sun_path, path);
	return 0;
}

/* `fd`, if the last call for it was done; else it is closed, and that call's -errno. */
static int fd_if(bool done, int fd)
{
	int err = -errno;

	if (done)
		return fd;
	close(fd);
	return err;
}

static int unix_socket(int timeout_ms)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	struct timeval timeout = { .tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000 };

	if (fd < 0)
		return -errno;
	return fd_if(!setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) &&
			     !setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)),
		     fd);
}

/* Listens at `path`, which must not be there yet. */
CULVERT_API int culvert_pass_listen(const char *path, int timeout_ms)
{
	struct sockaddr_un address;
	int err = unix_address(&address, path), fd;

	if (err)
		return err;
	fd = unix_socket(timeout_ms);
	if (fd < 0)
		return fd;
	return fd_if(!bind(fd, (struct sockaddr *)&address, sizeof(address)) && !listen(fd, 1), fd);
}

CULVERT_API int culvert_pass_connect(const char *path, int timeout_ms)
{
	struct sockaddr_un address;
	int err = unix_address(&address, path), fd;

	if (err)
		return err;
	fd = unix_socket(timeout_ms);
	if (fd < 0)
		return fd;
	return fd_if(!connect(fd, (struct sockaddr *)&address, sizeof(address)), fd);
}

/* Time-outs of the listener hold for what it accepts, too. */
CULVERT_API int culvert_pass_accept(int listener)
{
	struct timeval timeout;
	socklen_t size = sizeof(timeout);
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		return -errno;
	return fd_if(!getsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &timeout, &size) &&
			     !setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)),
		     fd);
}

/* Writes {pid, uid} of the process at the other end, as it was at connect or listen. */
CULVERT_API int culvert_pass_peer(int fd, int32_t *out)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size))
		return -errno;
	out[0] = peer.pid;
	out[1] = (int32_t)peer.uid;
	return 0;
}

/* One message of `length` (> 0) bytes with `count` descriptors. */
CULVERT_API int culvert_pass_send(int fd, const uint8_t *bytes, uint32_t length, const int32_t *fds, uint32_t count)
{
	union {
		char bytes[CMSG_SPACE(MAX_FDS * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { .iov_base = (void *)bytes, .iov_len = length };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *header;
	ssize_t sent;

	if (count > MAX_FDS || !length)
		return -EINVAL;
	if (count) {
		memset(&control, 0, sizeof(control));
		message.msg_control = control.bytes;
		message.msg_controllen = CMSG_SPACE(count * sizeof(int));
		header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(header), fds, count * sizeof(int));
	}
	do {
		sent = sendmsg(fd, &message, MSG_NOSIGNAL);
	} while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : (int)sent;
}

/*
 * One message: its bytes to `out`, its descriptors (close-on-exec) to `fds`, which has room for MAX_FDS, and their number to `count`. Returns the
 * bytes, 0 at the end; a message that did not fit is -EMSGSIZE, and its descriptors are closed.
 */
CULVERT_API int culvert_pass_receive(int fd, uint8_t *out, uint32_t size, int32_t *fds, uint32_t *count)
{
	union {
		char bytes[CMSG_SPACE(MAX_FDS * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { .iov_base = out, .iov_len = size };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control) };
	struct cmsghdr *header;
	ssize_t got;

	*count = 0;
	do {
		got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
	} while (got < 0 && errno == EINTR);
	if (got < 0)
		return -errno;
	for (header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
		if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
			continue;
		*count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fds, CMSG_DATA(header), *count * sizeof(int));
	}
	if (!(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
		return (int)got;
	while (*count > 0)
		close(fds[--*count]);
	return -EMSGSIZE;
}
