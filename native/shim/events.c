/* What epoll tells of connections, what is done about it here, and what JavaScript is told. */
#include "engine.h"

#include <errno.h>
#include <stddef.h>
#include <sys/socket.h>
#include <unistd.h>

static uint32_t wanted(const struct conn *c)
{
	uint32_t out = c->pending ? EPOLLOUT : 0;
	switch (c->state) {
	case STATE_LISTENING:
		return c->paused ? 0 : EPOLLIN;
	case STATE_CONNECTING:
		return EPOLLOUT;
	case STATE_HANDSHAKING:
		return EPOLLIN | out;
	case STATE_OPEN:
	case STATE_LINGERING:
		return (c->paused || c->eof ? 0 : EPOLLIN) | out;
	default:
		return 0;
	}
}

int conn_arm(struct conn *c)
{
	uint32_t mask = wanted(c);
	if (c->registered && (mask & ~c->armed) == 0)
		return 0;
	struct epoll_event event = { .events = mask, .data.u32 = (uint32_t)handle_of(c) };
	if (epoll_ctl(c->engine->epoll_fd, c->registered ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, c->fd, &event) < 0)
		return -errno;
	c->registered = true;
	c->armed = mask;
	return 0;
}

/*
 * An event came that nobody wants. With a mask of 0, epoll still reports HUP, for ever: a connection whose both directions have
 * ended leaves epoll until its owner wants something of it.
 */
static void conn_disarm(struct conn *c, bool hung_up)
{
	uint32_t mask = wanted(c);
	struct epoll_event event = { .events = mask, .data.u32 = (uint32_t)handle_of(c) };
	if (hung_up && mask == 0) {
		epoll_ctl(c->engine->epoll_fd, EPOLL_CTL_DEL, c->fd, NULL);
		c->registered = false;
	} else if (mask != c->armed) {
		epoll_ctl(c->engine->epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
	}
	c->armed = mask;
}

static int socket_error(int fd)
{
	int error = 0;
	socklen_t length = sizeof error;
	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0 ? errno : error;
}

static int handshake_events(struct conn *c)
{
	int done = tls_handshake(c);
	if (done == 0)
		return 0;
	if (done < 0)
		return EVENT_FAILED;
	c->state = STATE_OPEN;
	conn_arm(c);
	return EVENT_CONNECTED | (list_linked(&c->ready) ? EVENT_READABLE : 0);
}

static int connecting_events(struct conn *c)
{
	int error = socket_error(c->fd);
	if (error) {
		conn_fail(c, STAGE_CONNECT, error, NULL);
		return EVENT_FAILED;
	}
	if (c->ssl) {
		c->state = STATE_HANDSHAKING;
		return handshake_events(c);
	}
	c->state = STATE_OPEN;
	conn_arm(c);
	conn_disarm(c, false);
	return EVENT_CONNECTED;
}

static int flush_events(struct conn *c)
{
	int error = output_flush(c);
	if (error < 0) {
		conn_fail(c, STAGE_ESTABLISHED, -error, NULL);
		return EVENT_FAILED;
	}
	return c->pending ? 0 : EVENT_DRAINED;
}

static int open_events(struct conn *c, uint32_t events)
{
	int result = 0;
	if (events & EPOLLOUT && c->pending)
		result = flush_events(c);
	else if (events & EPOLLOUT)
		conn_disarm(c, events & EPOLLHUP);
	if (result == EVENT_FAILED || !(events & ~EPOLLOUT))
		return result;
	if (!c->paused && !c->eof)
		return result | EVENT_READABLE;
	int error = events & EPOLLERR ? socket_error(c->fd) : 0;
	if (error) {
		conn_fail(c, STAGE_ESTABLISHED, error, NULL);
		return EVENT_FAILED;
	}
	conn_disarm(c, events & EPOLLHUP);
	return result;
}

static int conn_events(struct conn *c, uint32_t events, int *handshakes)
{
	switch (c->state) {
	case STATE_LISTENING:
		if (!c->paused)
			return EVENT_ACCEPTABLE;
		conn_disarm(c, events & EPOLLHUP);
		return 0;
	case STATE_CONNECTING:
		return connecting_events(c);
	case STATE_HANDSHAKING:
		if (events & EPOLLOUT && c->pending && flush_events(c) == EVENT_FAILED)
			return EVENT_FAILED;
		if (!(events & ~EPOLLOUT)) {
			conn_disarm(c, false);
			return 0;
		}
		/* Those above the budget are reported again by the next wait, after the others. */
		return ++*handshakes > HANDSHAKES_PER_WAIT ? 0 : handshake_events(c);
	case STATE_OPEN:
		return open_events(c, events);
	case STATE_LINGERING:
		conn_linger_step(c, events);
		return 0;
	default:
		return 0;
	}
}

static void wake_clear(struct engine *e)
{
	uint64_t count;
	if (read(e->wake_fd, &count, sizeof count) < 0)
		return; /* another thread's write raced; level-triggered */
}

/* Connections in the linger list are in the order of their deadlines. Returns the ms until the next, or -1. */
static int linger_expire(struct engine *e)
{
	if (e->linger.next == &e->linger)
		return -1;
	int64_t now = now_ms();
	while (e->linger.next != &e->linger) {
		struct conn *c = (struct conn *)((char *)e->linger.next - offsetof(struct conn, linger));
		if (c->linger_deadline_ms > now)
			return (int)(c->linger_deadline_ms - now);
		/* What the kernel has is the kernel's to deliver. */
		if (c->pending)
			conn_set_linger(c, true);
		close(c->fd);
		conn_free(c);
	}
	return -1;
}

/* Connections whose readable bytes are in user space already. */
static int report_ready(struct engine *e, int32_t *out, int max)
{
	int n = 0;
	for (struct list *node = e->ready.next; node != &e->ready && n < max; node = node->next, n++) {
		struct conn *c = (struct conn *)node;
		out[2 * n] = handle_of(c);
		out[2 * n + 1] = EVENT_READABLE;
	}
	/* The rest of a list longer than `max` comes first next time. */
	if (n == max) {
		for (int i = 0; i < n; i++) {
			struct list *node = e->ready.next;
			list_remove(node);
			list_append(&e->ready, node);
		}
	}
	return n;
}

/*
 * Waits for at most timeout_ms and writes {handle, EVENT_…} pairs to `out`. Handshakes, pending output and lingering connections are
 * dealt with here. Returns the number of pairs, or -ESHUTDOWN once the engine was stopped.
 */
CULVERT_API int culvert_wait(int id, int32_t *out, int max_pairs, int timeout_ms)
{
	struct engine *e = engine_of(id);
	if (!e || max_pairs < 2)
		return -EBADF;
	int linger = linger_expire(e);
	if (linger >= 0 && (timeout_ms < 0 || linger < timeout_ms))
		timeout_ms = linger;
	int n = report_ready(e, out, max_pairs / 2);
	int room = max_pairs - n < WAIT_EVENTS ? max_pairs - n : WAIT_EVENTS;
	int count = epoll_wait(e->epoll_fd, e->events, room, n ? 0 : timeout_ms);
	if (atomic_load_explicit(&e->stopped, memory_order_relaxed))
		return -ESHUTDOWN;
	if (count < 0)
		return errno == EINTR ? n : -errno;
	int handshakes = 0;
	for (int i = 0; i < count; i++) {
		int handle = (int)e->events[i].data.u32;
		int what = 0;
		if (handle == HANDLE_WAKE) {
			wake_clear(e);
			what = EVENT_READABLE;
		} else {
			struct conn *c = conn_of(e, handle);
			what = c ? conn_events(c, e->events[i].events, &handshakes) : 0;
		}
		if (!what)
			continue;
		out[2 * n] = handle;
		out[2 * n + 1] = what;
		n++;
	}
	return n;
}
