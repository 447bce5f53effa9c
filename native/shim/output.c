/* Sending, and the bytes that the kernel did not take. */
#include "engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define FLUSH_BLOCKS 16

static struct block *block_new(struct engine *e)
{
	struct block *b = e->spare;
	if (b) {
		e->spare = b->next;
		e->spare_count--;
	} else {
		b = malloc(sizeof *b);
		if (!b)
			return NULL;
	}
	b->next = NULL;
	b->start = b->end = 0;
	return b;
}

static void block_free(struct engine *e, struct block *b)
{
	if (e->spare_count >= SPARE_BLOCKS) {
		free(b);
		return;
	}
	b->next = e->spare;
	e->spare = b;
	e->spare_count++;
}

void spare_free(struct engine *e)
{
	while (e->spare) {
		struct block *next = e->spare->next;
		free(e->spare);
		e->spare = next;
	}
}

static int output_append(struct conn *c, const unsigned char *bytes, uint32_t n)
{
	while (n > 0) {
		if (!c->last || c->last->end == BLOCK_BYTES) {
			struct block *b = block_new(c->engine);
			if (!b)
				return -ENOMEM;
			if (c->last)
				c->last->next = b;
			else
				c->first = b;
			c->last = b;
		}
		uint32_t room = BLOCK_BYTES - c->last->end;
		uint32_t part = n < room ? n : room;
		memcpy(c->last->bytes + c->last->end, bytes, part);
		c->last->end += part;
		c->pending += part;
		c->engine->pending_bytes += part;
		bytes += part;
		n -= part;
	}
	return 0;
}

/* Sends, or keeps what the kernel does not take. 0 or -errno. The caller arms epoll. */
int output_send(struct conn *c, const unsigned char *bytes, uint32_t n)
{
	if (c->pending == 0) {
		ssize_t sent = send(c->fd, bytes, n, MSG_NOSIGNAL);
		if (sent < 0) {
			if (errno != EAGAIN && errno != EINTR)
				return -errno;
			sent = 0;
		}
		bytes += sent;
		n -= sent;
	}
	return output_append(c, bytes, n);
}

static void output_consume(struct conn *c, uint32_t n)
{
	c->pending -= n;
	c->engine->pending_bytes -= n;
	while (n > 0) {
		struct block *b = c->first;
		uint32_t part = b->end - b->start < n ? b->end - b->start : n;
		b->start += part;
		n -= part;
		if (b->start < b->end)
			return;
		c->first = b->next;
		if (!c->first)
			c->last = NULL;
		block_free(c->engine, b);
	}
}

/* Sends what is pending for as long as the kernel takes it; then the FIN, if one is due. 0 or -errno. */
int output_flush(struct conn *c)
{
	while (c->pending) {
		struct iovec parts[FLUSH_BLOCKS];
		struct msghdr message = { .msg_iov = parts };
		size_t offered = 0;
		for (struct block *b = c->first; b && message.msg_iovlen < FLUSH_BLOCKS; b = b->next) {
			parts[message.msg_iovlen++] = (struct iovec){ b->bytes + b->start, b->end - b->start };
			offered += b->end - b->start;
		}
		ssize_t sent = sendmsg(c->fd, &message, MSG_NOSIGNAL);
		if (sent < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -errno;
		output_consume(c, sent);
		if ((size_t)sent < offered)
			return 0;
	}
	if (c->fin_wanted && !c->fin_sent) {
		c->fin_sent = true;
		if (shutdown(c->fd, SHUT_WR) < 0)
			return -errno;
	}
	return 0;
}

void output_drop(struct conn *c)
{
	if (c->pending)
		output_consume(c, c->pending);
}
