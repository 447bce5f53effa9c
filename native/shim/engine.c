/* The table of engines, their slots, and what JavaScript calls to make, wake, stop and destroy them. */
#include "engine.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define MAX_ENGINES 256

/* Written under the lock; an engine's own thread reads its entry without it, as it lives for as long as that thread does. */
static struct engine *engines[MAX_ENGINES];
static pthread_mutex_t engines_lock = PTHREAD_MUTEX_INITIALIZER;
static int engines_made;

void list_init(struct list *head)
{
	head->next = head->prev = head;
}

bool list_linked(const struct list *node)
{
	return node->next != NULL;
}

void list_append(struct list *head, struct list *node)
{
	node->prev = head->prev;
	node->next = head;
	head->prev->next = node;
	head->prev = node;
}

void list_remove(struct list *node)
{
	if (!list_linked(node))
		return;
	node->prev->next = node->next;
	node->next->prev = node->prev;
	node->next = node->prev = NULL;
}

int64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

struct engine *engine_of(int id)
{
	struct engine *e = engines[(uint32_t)id % MAX_ENGINES];
	return e && e->id == id ? e : NULL;
}

int handle_of(const struct conn *c)
{
	return (int)(c->generation << SLOT_BITS | c->slot);
}

struct conn *conn_of(struct engine *e, int handle)
{
	if (!e || handle < 0)
		return NULL;
	uint32_t slot = handle & (MAX_SLOTS - 1);
	if (slot >= e->chunk_count * CHUNK_SLOTS)
		return NULL;
	struct conn *c = &e->chunks[slot / CHUNK_SLOTS][slot % CHUNK_SLOTS];
	return c->state != STATE_FREE && c->generation == (uint32_t)handle >> SLOT_BITS ? c : NULL;
}

static void free_push(struct engine *e, struct conn *c)
{
	c->next_free = NULL;
	if (e->free_last)
		e->free_last->next_free = c;
	else
		e->free_first = c;
	e->free_last = c;
}

static int chunk_add(struct engine *e)
{
	if (e->chunk_count * CHUNK_SLOTS >= MAX_SLOTS)
		return -EMFILE;
	struct conn **chunks = realloc(e->chunks, (e->chunk_count + 1) * sizeof *chunks);
	if (!chunks)
		return -ENOMEM;
	e->chunks = chunks;
	struct conn *chunk = calloc(CHUNK_SLOTS, sizeof *chunk);
	if (!chunk)
		return -ENOMEM;
	chunks[e->chunk_count] = chunk;
	for (uint32_t i = 0; i < CHUNK_SLOTS; i++) {
		chunk[i].slot = e->chunk_count * CHUNK_SLOTS + i;
		chunk[i].engine = e;
		free_push(e, &chunk[i]);
	}
	e->chunk_count++;
	return 0;
}

/* Slots are reused in the order they were freed, which keeps a stale generation from coming round for as long as can be. */
struct conn *conn_new(struct engine *e, int fd, enum state state)
{
	if (!e->free_first && chunk_add(e) < 0)
		return NULL;
	struct conn *c = e->free_first;
	e->free_first = c->next_free;
	if (!e->free_first)
		e->free_last = NULL;
	*c = (struct conn){ .engine = e, .slot = c->slot, .generation = c->generation, .fd = fd, .state = state };
	e->open_count++;
	return c;
}

/* Gives back everything but the descriptor, which whoever calls has closed (or only borrowed). */
void conn_free(struct conn *c)
{
	struct engine *e = c->engine;
	tls_free(c);
	output_drop(c);
	list_remove(&c->ready);
	list_remove(&c->linger);
	free(c->reason);
	c->reason = NULL;
	c->state = STATE_FREE;
	c->generation = (c->generation + 1) & GENERATION_MASK;
	e->open_count--;
	free_push(e, c);
}

static void engine_free(struct engine *e)
{
	for (uint32_t i = 0; i < e->chunk_count; i++)
		free(e->chunks[i]);
	free(e->chunks);
	spare_free(e);
	free(e->in);
	free(e->out);
	if (e->epoll_fd >= 0)
		close(e->epoll_fd);
	if (e->wake_fd >= 0)
		close(e->wake_fd);
	if (e->own_netns_fd >= 0)
		close(e->own_netns_fd);
	free(e);
}

static int engine_open(struct engine *e)
{
	e->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	e->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (e->epoll_fd < 0 || e->wake_fd < 0)
		return -errno;
	e->in = malloc(IN_BYTES);
	e->out = malloc(OUT_BYTES);
	if (!e->in || !e->out)
		return -ENOMEM;
	struct epoll_event event = { .events = EPOLLIN, .data.u32 = (uint32_t)HANDLE_WAKE };
	return epoll_ctl(e->epoll_fd, EPOLL_CTL_ADD, e->wake_fd, &event) < 0 ? -errno : 0;
}

static int engine_enter(struct engine *e)
{
	for (int tries = 0; tries < MAX_ENGINES; tries++) {
		int id = engines_made++ & 0x3fffffff;
		if (engines[id % MAX_ENGINES])
			continue;
		e->id = id;
		engines[id % MAX_ENGINES] = e;
		return id;
	}
	return -ENOSPC;
}

/* Makes an engine; any thread may, and hand its id to the one thread that will use it. */
CULVERT_API int culvert_engine_create(int linger_ms)
{
	struct engine *e = calloc(1, sizeof *e);
	if (!e)
		return -ENOMEM;
	e->epoll_fd = e->wake_fd = e->own_netns_fd = e->storage_map_fd = -1;
	e->linger_ms = linger_ms;
	list_init(&e->ready);
	list_init(&e->linger);
	int result = engine_open(e);
	if (result == 0) {
		pthread_mutex_lock(&engines_lock);
		result = engine_enter(e);
		pthread_mutex_unlock(&engines_lock);
	}
	if (result < 0)
		engine_free(e);
	return result;
}

/* Makes the engine's thread return from culvert_wait. With `stop`, that and every later wait gives -ESHUTDOWN. Any thread. */
CULVERT_API int culvert_engine_wake(int id, int stop)
{
	uint64_t one = 1;
	int result = -EBADF;
	pthread_mutex_lock(&engines_lock);
	struct engine *e = engine_of(id);
	if (e) {
		if (stop)
			atomic_store(&e->stopped, 1);
		result = write(e->wake_fd, &one, sizeof one) < 0 && errno != EAGAIN ? -errno : 0;
	}
	pthread_mutex_unlock(&engines_lock);
	return result;
}

/*
 * Resets every connection of the engine, frees all it owns, and returns how many connections that were. Only when its thread is gone,
 * or by that thread itself. Listening descriptors are not closed: they were borrowed.
 */
CULVERT_API int culvert_engine_destroy(int id)
{
	pthread_mutex_lock(&engines_lock);
	struct engine *e = engine_of(id);
	if (e)
		engines[(uint32_t)id % MAX_ENGINES] = NULL;
	pthread_mutex_unlock(&engines_lock);
	if (!e)
		return -EBADF;
	int closed = 0;
	for (uint32_t slot = 0; slot < e->chunk_count * CHUNK_SLOTS; slot++) {
		struct conn *c = &e->chunks[slot / CHUNK_SLOTS][slot % CHUNK_SLOTS];
		if (c->state == STATE_FREE)
			continue;
		if (c->state != STATE_LISTENING && c->fd >= 0) {
			if (c->state != STATE_LINGERING)
				conn_set_linger(c, true);
			close(c->fd);
			closed++;
		}
		conn_free(c);
	}
	engine_free(e);
	return closed;
}

/* Writes {connections and listeners, bytes pending} as two int64. */
CULVERT_API int culvert_engine_stats(int id, int64_t *out)
{
	struct engine *e = engine_of(id);
	if (!e)
		return -EBADF;
	out[0] = e->open_count;
	out[1] = (int64_t)e->pending_bytes;
	return 0;
}
