/* One connection: reading, writing, and the ways in which it ends. */
#include "engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A lingering connection's incoming bytes are thrown away, this many per event. */
#define DISCARD_BYTES (8 * IN_BYTES)

static struct conn *stream_of(int id, int handle)
{
	struct conn *c = conn_of(engine_of(id), handle);
	return c && c->state >= STATE_CONNECTING && c->state <= STATE_OPEN ? c : NULL;
}

static struct conn *open_of(int id, int handle)
{
	struct conn *c = conn_of(engine_of(id), handle);
	return c && c->state == STATE_OPEN ? c : NULL;
}

/* With SO_LINGER 0 a close (the kernel's too, when the process dies) resets the connection instead of ending it cleanly. */
void conn_set_linger(struct conn *c, bool abortive)
{
	if (c->abortive == abortive)
		return;
	struct linger linger = { .l_onoff = abortive, .l_linger = 0 };
	if (setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger) == 0)
		c->abortive = abortive;
}

/* Throws away what has come in. Returns true at the peer's end or on an error. */
static bool discard(struct conn *c)
{
	for (int done = 0; done < DISCARD_BYTES;) {
		ssize_t n = recv(c->fd, c->engine->in, IN_BYTES, 0);
		if (n <= 0)
			return n == 0 || (errno != EAGAIN && errno != EINTR);
		done += n;
	}
	return false;
}

/* Marks it as having readable bytes in user space; see report_ready. */
void conn_ready(struct conn *c)
{
	if (!c->paused && !list_linked(&c->ready))
		list_append(&c->engine->ready, &c->ready);
}

/*
 * The end of a connection that failed: socket and TLS are let go at once, the reason stays for its owner. An alert that OpenSSL wrote is
 * still on its way, so a TLS connection ends by FIN, with the receive queue emptied (else the kernel would reset it).
 */
void conn_fail(struct conn *c, enum stage stage, int error, const char *reason)
{
	c->stage = error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOBUFS ? STAGE_RESOURCES : stage;
	c->error = error;
	if (reason && !c->reason)
		c->reason = strdup(reason);
	if (c->ssl && error == 0) {
		conn_set_linger(c, false);
		discard(c);
	} else {
		conn_set_linger(c, true);
	}
	close(c->fd);
	c->fd = -1;
	c->registered = false;
	tls_free(c);
	output_drop(c);
	list_remove(&c->ready);
	c->state = STATE_FAILED;
}

/*
 * Reads up to `length` bytes to bytes + offset. 0: the peer's direction ended; -EAGAIN: nothing there; other -errno: it failed, see
 * culvert_failure.
 */
CULVERT_API int culvert_read(int id, int handle, unsigned char *bytes, int offset, int length)
{
	struct conn *c = open_of(id, handle);
	if (!c)
		return -EBADF;
	if (c->eof)
		return 0;
	if (c->ssl)
		return tls_read(c, bytes + offset, length);
	ssize_t n = recv(c->fd, bytes + offset, length, 0);
	if (n > 0)
		return n;
	if (n == 0) {
		c->eof = true;
		return 0;
	}
	if (errno == EAGAIN || errno == EINTR)
		return -EAGAIN;
	int error = errno;
	conn_fail(c, STAGE_ESTABLISHED, error, NULL);
	return -error;
}

static int after_write(struct conn *c, int error)
{
	if (error < 0) {
		if (c->state != STATE_FAILED)
			conn_fail(c, STAGE_ESTABLISHED, -error, NULL);
		return error;
	}
	if (c->pending) {
		error = conn_arm(c);
		if (error < 0) {
			conn_fail(c, STAGE_RESOURCES, -error, NULL);
			return error;
		}
	}
	return c->pending;
}

/* Sends all of bytes[offset, offset + length); what the kernel does not take is kept. Returns the bytes kept in all, or -errno: it failed. */
CULVERT_API int culvert_write(int id, int handle, const unsigned char *bytes, int offset, int length)
{
	struct conn *c = open_of(id, handle);
	if (!c)
		return -EBADF;
	if (c->fin_wanted)
		return -EPIPE;
	if (length == 0)
		return c->pending;
	if (c->ssl)
		return after_write(c, tls_write(c, bytes + offset, length));
	return after_write(c, output_send(c, bytes + offset, length));
}

/* FIN (TLS: close_notify, FIN) behind what is pending. Returns the bytes pending, or -errno: it failed. */
CULVERT_API int culvert_shutdown(int id, int handle)
{
	struct conn *c = open_of(id, handle);
	if (!c)
		return -EBADF;
	if (c->fin_wanted)
		return c->pending;
	int error = c->ssl ? tls_shutdown(c) : 0;
	c->fin_wanted = true;
	if (error == 0 && c->pending == 0)
		error = output_flush(c);
	return after_write(c, error);
}

/* Stops (1) or restarts (0) what culvert_wait tells of readable bytes, or of connections to accept. */
CULVERT_API int culvert_pause(int id, int handle, int paused)
{
	struct conn *c = conn_of(engine_of(id), handle);
	if (!c || (c->state != STATE_OPEN && c->state != STATE_LISTENING))
		return -EBADF;
	c->paused = paused;
	if (paused) {
		list_remove(&c->ready);
		return 0;
	}
	if (c->stash || c->doomed || (c->ssl && !c->eof && (SSL_pending(c->ssl) > 0 || SSL_get_shutdown(c->ssl) & SSL_RECEIVED_SHUTDOWN)))
		conn_ready(c);
	return conn_arm(c);
}

/*
 * SO_LINGER 0 stays until the last byte and the FIN are the kernel's: should this process or thread die before, a FIN would tell of an end
 * that was none.
 */
static void linger_settle(struct conn *c)
{
	if (c->pending == 0)
		conn_set_linger(c, false);
}

/* The linger time counts from the last byte that the kernel took: a slow reader is served, one that has stopped is cut. */
static void linger_restart(struct conn *c)
{
	linger_settle(c);
	c->linger_deadline_ms = now_ms() + c->engine->linger_ms;
	list_remove(&c->linger);
	list_append(&c->engine->linger, &c->linger);
}

/* What a lingering connection does with its events: the rest of its output, the FIN, and then waits for the peer's end. */
void conn_linger_step(struct conn *c, uint32_t events)
{
	uint32_t before = c->pending;
	bool over = output_flush(c) < 0;
	if (c->pending < before)
		linger_restart(c);
	if (events & ~EPOLLOUT && discard(c))
		c->eof = true;
	if (!over && (!c->eof || c->pending)) {
		/* After the peer's end only EPOLLOUT is of interest; while nothing is pending, only its end. */
		struct epoll_event event = { .events = (c->eof ? 0 : EPOLLIN) | (c->pending ? EPOLLOUT : 0),
					     .data.u32 = (uint32_t)handle_of(c) };
		if (event.events != c->armed)
			over = epoll_ctl(c->engine->epoll_fd, EPOLL_CTL_MOD, c->fd, &event) < 0;
		c->armed = event.events;
		/* Hung up for good: nobody reads the rest. */
		over = over || events & EPOLLHUP;
		if (!over)
			return;
	}
	close(c->fd);
	conn_free(c);
}

static void close_gracefully(struct conn *c)
{
	int error = c->ssl && !c->fin_wanted ? tls_shutdown(c) : 0;
	if (error == 0 && !(c->eof && c->pending == 0)) {
		c->fin_wanted = true;
		c->paused = false;
		error = output_flush(c);
		tls_free(c);
		list_remove(&c->ready);
		c->state = STATE_LINGERING;
		if (error == 0)
			error = conn_arm(c);
		if (error == 0) {
			linger_restart(c);
			return;
		}
	}
	linger_settle(c);
	close(c->fd);
	conn_free(c);
}

/* The owner lets go: the handle is dead from here on. With `reset`, by RST; else pending output goes out first, within the linger time. */
CULVERT_API int culvert_close(int id, int handle, int reset)
{
	struct engine *e = engine_of(id);
	struct conn *c = conn_of(e, handle);
	if (!c || c->state == STATE_LINGERING)
		return -EBADF;
	if (c->state == STATE_OPEN && !reset) {
		close_gracefully(c);
		return 0;
	}
	if (c->state == STATE_LISTENING) {
		epoll_ctl(e->epoll_fd, EPOLL_CTL_DEL, c->fd, NULL);
	} else if (c->fd >= 0) {
		conn_set_linger(c, true);
		close(c->fd);
	}
	conn_free(c);
	return 0;
}

/* Why it failed: writes {stage, errno as int32 little-endian, text} and returns its length. */
CULVERT_API int culvert_failure(int id, int handle, unsigned char *out, int capacity)
{
	struct conn *c = conn_of(engine_of(id), handle);
	if (!c || c->state != STATE_FAILED || capacity < 5)
		return -EBADF;
	const char *text = c->reason ? c->reason : strerror(c->error);
	size_t length = strlen(text);
	if (length > (size_t)capacity - 5)
		length = capacity - 5;
	out[0] = c->stage;
	for (int i = 0; i < 4; i++)
		out[1 + i] = (uint32_t)c->error >> (8 * i);
	memcpy(out + 5, text, length);
	return 5 + length;
}

/* 1 while the TCP connect has not ended. */
CULVERT_API int culvert_is_connecting(int id, int handle)
{
	struct conn *c = conn_of(engine_of(id), handle);
	return c && c->state == STATE_CONNECTING;
}

/* Writes the connection's own address and its peer's (see ADDRESS_BYTES). */
CULVERT_API int culvert_addresses(int id, int handle, unsigned char *out)
{
	struct conn *c = stream_of(id, handle);
	if (!c)
		return -EBADF;
	struct sockaddr_in6 address = { 0 };
	socklen_t length = sizeof address;
	if (getsockname(c->fd, (struct sockaddr *)&address, &length) < 0)
		return -errno;
	address_write(&address, out);
	length = sizeof address;
	if (getpeername(c->fd, (struct sockaddr *)&address, &length) < 0)
		return -errno;
	address_write(&address, out + ADDRESS_BYTES);
	return 0;
}
