/*
 * The engine: what one worker thread's reactor owns outside of JavaScript. An engine holds connections in slots; JavaScript knows a
 * connection by its handle (slot and generation), so a handle kept too long finds nothing (-EBADF) instead of somebody else's socket.
 * Whatever must be closed or freed belongs to the engine, so that the main thread can destroy the engine of a worker that died.
 */
#ifndef CULVERT_ENGINE_H
#define CULVERT_ENGINE_H

#include <netinet/in.h>
#include <openssl/ssl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "culvert.h"

/* A handle is generation << SLOT_BITS | slot, 31 bits: a small integer for V8. */
#define SLOT_BITS 18
#define MAX_SLOTS (1 << SLOT_BITS)
#define GENERATION_MASK 0x1fff
#define CHUNK_SLOTS 256

#define WAIT_EVENTS 256
/* Handshakes per wait: each costs about 0.3 ms, and established connections are not to stand behind a crowd of them. */
#define HANDSHAKES_PER_WAIT 8

/* Bytes the kernel did not take wait in blocks; this many stay with the engine when they are empty. */
#define BLOCK_BYTES 32768
#define SPARE_BLOCKS 16

/* Ciphertext comes in here before OpenSSL asks for it. Bodies of records above DIRECT_BYTES go straight to OpenSSL's own buffer. */
#define IN_BYTES 16384
#define DIRECT_BYTES 4096
/* Sealed records are gathered here and leave in one send. */
#define OUT_BYTES (4 * 16640)

/* What culvert_wait reports of a connection. */
enum {
	EVENT_READABLE = 1,
	EVENT_DRAINED = 2,
	EVENT_CONNECTED = 4,
	EVENT_FAILED = 8,
	EVENT_ACCEPTABLE = 16,
};
#define HANDLE_WAKE (-1)

enum state {
	STATE_FREE,
	STATE_LISTENING,
	STATE_CONNECTING,
	STATE_HANDSHAKING,
	STATE_OPEN,
	/* Closed by its owner: only sends what is pending, then waits for the peer's end. JavaScript no longer knows it. */
	STATE_LINGERING,
	/* Nothing left but the reason, until its owner has read it. */
	STATE_FAILED,
};

/* Where a connection failed; the twin of IoErrorCode. */
enum stage { STAGE_CONNECT = 1, STAGE_HANDSHAKE = 2, STAGE_ESTABLISHED = 3, STAGE_RESOURCES = 4 };

struct block {
	struct block *next;
	uint32_t start, end;
	unsigned char bytes[BLOCK_BYTES];
};

struct list {
	struct list *next, *prev;
};

struct conn {
	struct list ready; /* in engine->ready: has readable bytes that epoll does not know of */
	struct list linger; /* in engine->linger, oldest first */
	struct engine *engine;
	struct conn *next_free;
	SSL *ssl;
	char *reason; /* of a failure */
	/* Output the kernel did not take. */
	struct block *first, *last;
	uint32_t pending;
	/* Ciphertext received but not yet asked for by OpenSSL. */
	unsigned char *stash;
	uint32_t stash_start, stash_end;
	int64_t linger_deadline_ms;
	int64_t control_window_ms;
	uint32_t control_count; /* KeyUpdate and NewSessionTicket messages in this window */
	int fd;
	int error; /* errno of the failure; 0: TLS */
	uint32_t slot, generation;
	uint32_t armed; /* epoll mask in the kernel */
	uint8_t state, stage;
	bool registered; /* with epoll */
	bool paused;
	bool eof; /* the peer's direction has ended and was reported */
	bool fin_wanted, fin_sent;
	bool abortive; /* the socket has SO_LINGER 0: it resets if the process dies */
	bool settled; /* listener: whatever it accepts from now on was made after its options were set */
	bool drained; /* the socket had no more bytes in this call */
	bool flooded;
	bool doomed; /* failed after bytes that are still to be delivered */
	int send_error;
};

struct engine {
	int id, epoll_fd, wake_fd, own_netns_fd, linger_ms;
	/* The map of socket storage last used, and the size of its values. */
	int storage_map_fd;
	uint32_t storage_value_bytes;
	atomic_int stopped;
	struct conn **chunks;
	uint32_t chunk_count, open_count;
	struct conn *free_first, *free_last;
	struct list ready, linger;
	struct block *spare;
	uint32_t spare_count;
	uint64_t pending_bytes;
	unsigned char *in;
	uint32_t in_start, in_end;
	unsigned char *out;
	uint32_t out_bytes;
	bool out_direct; /* one record only: send it from OpenSSL's buffer */
	struct epoll_event events[WAIT_EVENTS];
};

/* engine.c */
struct engine *engine_of(int id);
struct conn *conn_of(struct engine *e, int handle);
int handle_of(const struct conn *c);
struct conn *conn_new(struct engine *e, int fd, enum state state);
void conn_free(struct conn *c);
int64_t now_ms(void);

void list_init(struct list *head);
bool list_linked(const struct list *node);
void list_append(struct list *head, struct list *node);
void list_remove(struct list *node);

/* events.c */
/* Brings the kernel's epoll mask up to what is wanted; interest that is no longer wanted is left until it fires. 0 or -errno. */
int conn_arm(struct conn *c);

/* output.c */
int output_send(struct conn *c, const unsigned char *bytes, uint32_t n);
int output_flush(struct conn *c);
void output_drop(struct conn *c);
void spare_free(struct engine *e);

/* conn.c: the end of a connection's life */
void conn_fail(struct conn *c, enum stage stage, int error, const char *reason);
void conn_set_linger(struct conn *c, bool abortive);
void conn_linger_step(struct conn *c, uint32_t events);
void conn_ready(struct conn *c);

/* tls.c */
int tls_start(struct conn *c, int context, bool server);
/* 1 done, 0 goes on, -1 failed (conn_fail was called). */
int tls_handshake(struct conn *c);
int tls_read(struct conn *c, unsigned char *bytes, int n);
int tls_write(struct conn *c, const unsigned char *bytes, int n);
int tls_shutdown(struct conn *c);
void tls_free(struct conn *c);

/* tls-context.c */
SSL_CTX *tls_context_ref(int context);

/* address.c: an address crosses as 20 bytes {family 4|6, 0, port big-endian, 16 address bytes}; family 0: none */
#define ADDRESS_BYTES 20
socklen_t address_read(const unsigned char *bytes, struct sockaddr_in6 *out);
void address_write(const struct sockaddr_in6 *address, unsigned char *bytes);

#endif
