/*
 * TLS of a connection. OpenSSL reads and writes through a BIO of our own: it takes ciphertext from the engine's input buffer (filled by one
 * recv for many records) and puts sealed records into the engine's output buffer (emptied by one send), so SSL_write never blocks.
 */
#include "engine.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* KeyUpdate and NewSessionTicket messages that a peer may send per window; each costs us key derivation or a session object. */
#define CONTROL_MESSAGES 32
#define CONTROL_WINDOW_MS 10000

#define PLAINTEXT_BYTES 16384
#define HANDSHAKE_MESSAGE 22
#define REASON_BYTES 256

static BIO_METHOD *wire_method;
static pthread_once_t wire_once = PTHREAD_ONCE_INIT;

static int take(unsigned char *dst, int n, const unsigned char *src, uint32_t *start, uint32_t end)
{
	uint32_t part = end - *start < (uint32_t)n ? end - *start : (uint32_t)n;
	memcpy(dst, src + *start, part);
	*start += part;
	return part;
}

/* One recv: the body of a large record straight to where OpenSSL wants it, anything behind it to the input buffer. */
static ssize_t receive(struct conn *c, unsigned char *dst, int n, size_t *asked)
{
	struct engine *e = c->engine;
	if (n < DIRECT_BYTES) {
		*asked = IN_BYTES;
		return recv(c->fd, e->in, IN_BYTES, 0);
	}
	struct iovec parts[2] = { { dst, n }, { e->in, IN_BYTES } };
	struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };
	*asked = (size_t)n + IN_BYTES;
	return recvmsg(c->fd, &message, 0);
}

static int wire_read(BIO *bio, char *to, int n)
{
	struct conn *c = BIO_get_data(bio);
	struct engine *e = c->engine;
	unsigned char *dst = (unsigned char *)to;
	BIO_clear_retry_flags(bio);
	if (c->flooded)
		return -1;
	if (c->stash) {
		n = take(dst, n, c->stash, &c->stash_start, c->stash_end);
		if (c->stash_start == c->stash_end) {
			free(c->stash);
			c->stash = NULL;
		}
		return n;
	}
	if (e->in_start < e->in_end)
		return take(dst, n, e->in, &e->in_start, e->in_end);
	if (c->drained) {
		BIO_set_retry_read(bio);
		return -1;
	}
	size_t asked;
	ssize_t got = receive(c, dst, n, &asked);
	if (got < 0) {
		if (errno == EAGAIN || errno == EINTR) {
			BIO_set_retry_read(bio);
			c->drained = true;
		} else {
			c->error = errno;
		}
		return -1;
	}
	c->drained = (size_t)got < asked && got > 0;
	e->in_start = 0;
	if (n < DIRECT_BYTES) {
		e->in_end = got;
		return take(dst, n, e->in, &e->in_start, e->in_end);
	}
	e->in_end = got > n ? got - n : 0;
	return got > n ? n : got;
}

static void wire_flush(struct conn *c)
{
	struct engine *e = c->engine;
	if (e->out_bytes > 0 && c->send_error == 0)
		c->send_error = output_send(c, e->out, e->out_bytes);
	e->out_bytes = 0;
}

/* Takes everything; an error of the socket is kept for wire_end, as OpenSSL's state would not survive it here. */
static int wire_write(BIO *bio, const char *from, int n)
{
	struct conn *c = BIO_get_data(bio);
	struct engine *e = c->engine;
	BIO_clear_retry_flags(bio);
	if (e->out_bytes + n > OUT_BYTES)
		wire_flush(c);
	if (n > OUT_BYTES || (e->out_direct && e->out_bytes == 0)) {
		if (c->send_error == 0)
			c->send_error = output_send(c, (const unsigned char *)from, n);
		return n;
	}
	memcpy(e->out + e->out_bytes, from, n);
	e->out_bytes += n;
	return n;
}

static long wire_control(BIO *bio, int command, long argument, void *pointer)
{
	return command == BIO_CTRL_FLUSH || command == BIO_CTRL_DUP;
}

static int wire_create(BIO *bio)
{
	BIO_set_init(bio, 1);
	return 1;
}

static void wire_init(void)
{
	wire_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "culvert");
	if (!wire_method)
		return;
	BIO_meth_set_read(wire_method, wire_read);
	BIO_meth_set_write(wire_method, wire_write);
	BIO_meth_set_ctrl(wire_method, wire_control);
	BIO_meth_set_create(wire_method, wire_create);
}

static void wire_begin(struct conn *c)
{
	ERR_clear_error();
	c->drained = false;
	c->engine->in_start = c->engine->in_end = 0;
	c->engine->out_direct = false;
}

/* After every call of OpenSSL: sends what it wrote, keeps the ciphertext it did not ask for. 0 or -errno. */
static int wire_end(struct conn *c)
{
	struct engine *e = c->engine;
	wire_flush(c);
	uint32_t left = e->in_end - e->in_start;
	if (left > 0) {
		c->stash = malloc(left);
		if (!c->stash)
			return -ENOMEM;
		memcpy(c->stash, e->in + e->in_start, left);
		c->stash_start = 0;
		c->stash_end = left;
		e->in_start = e->in_end = 0;
	}
	return c->send_error;
}

/* Post-handshake messages cost CPU and, with a peer that does not read, memory. */
static void on_message(int write_p, int version, int type, const void *bytes, size_t length, SSL *ssl, void *argument)
{
	if (write_p || type != HANDSHAKE_MESSAGE)
		return;
	struct conn *c = BIO_get_data(SSL_get_rbio(ssl));
	if (c->state != STATE_OPEN)
		return;
	int64_t now = now_ms();
	if (now - c->control_window_ms > CONTROL_WINDOW_MS) {
		c->control_window_ms = now;
		c->control_count = 0;
	}
	if (++c->control_count > CONTROL_MESSAGES)
		c->flooded = true;
}

int tls_start(struct conn *c, int context, bool server)
{
	pthread_once(&wire_once, wire_init);
	SSL_CTX *ctx = tls_context_ref(context);
	if (!ctx)
		return -ENOENT;
	c->ssl = SSL_new(ctx);
	SSL_CTX_free(ctx);
	BIO *bio = wire_method ? BIO_new(wire_method) : NULL;
	if (!c->ssl || !bio) {
		BIO_free(bio);
		ERR_clear_error();
		return -ENOMEM;
	}
	BIO_set_data(bio, c);
	SSL_set_bio(c->ssl, bio, bio);
	SSL_set_msg_callback(c->ssl, on_message);
	if (server)
		SSL_set_accept_state(c->ssl);
	else
		SSL_set_connect_state(c->ssl);
	return 0;
}

void tls_free(struct conn *c)
{
	if (c->ssl)
		SSL_free(c->ssl);
	c->ssl = NULL;
	free(c->stash);
	c->stash = NULL;
}

/* What went wrong, in words; the error queue is OpenSSL's stack, the first entry is the cause. */
static void explain(struct conn *c, char *text)
{
	unsigned long error = ERR_peek_error();
	const char *reason = error ? ERR_reason_error_string(error) : NULL;
	long verified = c->ssl ? SSL_get_verify_result(c->ssl) : X509_V_OK;
	if (c->flooded)
		snprintf(text, REASON_BYTES, "more than %d TLS control messages in %d s", CONTROL_MESSAGES, CONTROL_WINDOW_MS / 1000);
	else if (error && ERR_GET_REASON(error) == SSL_R_CERTIFICATE_VERIFY_FAILED)
		snprintf(text, REASON_BYTES, "certificate verify failed: %s", X509_verify_cert_error_string(verified));
	else if (reason)
		snprintf(text, REASON_BYTES, "%s", reason);
	else if (c->error)
		snprintf(text, REASON_BYTES, "%s", strerror(c->error));
	else
		snprintf(text, REASON_BYTES, "%s", c->state == STATE_OPEN ? "the TLS stream was cut without close_notify" : "the peer ended the connection during the handshake");
	ERR_clear_error();
}

static void tls_fail(struct conn *c, enum stage stage)
{
	char text[REASON_BYTES];
	explain(c, text);
	int error = c->error ? c->error : c->send_error ? -c->send_error : 0;
	conn_fail(c, stage, error, text);
}

static bool speaks_h2(SSL *ssl)
{
	const unsigned char *name;
	unsigned int length;
	SSL_get0_alpn_selected(ssl, &name, &length);
	return length == 2 && memcmp(name, "h2", 2) == 0;
}

int tls_handshake(struct conn *c)
{
	wire_begin(c);
	int result = SSL_do_handshake(c->ssl);
	int error = SSL_get_error(c->ssl, result);
	int sent = wire_end(c);
	if (result == 1 && sent == 0) {
		if (!speaks_h2(c->ssl)) {
			conn_fail(c, STAGE_HANDSHAKE, 0, "the peer did not negotiate ALPN h2");
			return -1;
		}
		if (c->stash)
			conn_ready(c);
		return 1;
	}
	if (sent < 0 || error != SSL_ERROR_WANT_READ || conn_arm(c) < 0) {
		tls_fail(c, STAGE_HANDSHAKE);
		return -1;
	}
	return 0;
}

/* A failure behind bytes that were already read is told by the next read. */
static int read_failed(struct conn *c, int done)
{
	char text[REASON_BYTES];
	explain(c, text);
	if (done == 0) {
		int error = c->error ? c->error : c->send_error ? -c->send_error : 0;
		conn_fail(c, STAGE_ESTABLISHED, error, text);
		return -ECONNRESET;
	}
	c->reason = c->reason ? c->reason : strdup(text);
	c->doomed = true;
	conn_ready(c);
	return done;
}

int tls_read(struct conn *c, unsigned char *bytes, int n)
{
	if (c->doomed) {
		conn_fail(c, STAGE_ESTABLISHED, c->error, NULL);
		return -ECONNRESET;
	}
	wire_begin(c);
	int done = 0, error = SSL_ERROR_NONE;
	while (done < n) {
		int result = SSL_read(c->ssl, bytes + done, n - done);
		if (result <= 0) {
			error = SSL_get_error(c->ssl, result);
			break;
		}
		done += result;
	}
	int sent = wire_end(c);
	if (c->pending && sent == 0)
		sent = conn_arm(c);
	bool ended = error == SSL_ERROR_ZERO_RETURN;
	if (sent < 0)
		c->send_error = sent;
	if (sent < 0 || c->flooded || (error != SSL_ERROR_NONE && error != SSL_ERROR_WANT_READ && !ended))
		return read_failed(c, done);
	if (c->stash || SSL_pending(c->ssl) > 0 || (ended && done > 0))
		conn_ready(c);
	else
		list_remove(&c->ready);
	if (ended && done == 0) {
		c->eof = true;
		list_remove(&c->ready);
		return 0;
	}
	return done > 0 ? done : -EAGAIN;
}

int tls_write(struct conn *c, const unsigned char *bytes, int n)
{
	wire_begin(c);
	c->engine->out_direct = n <= PLAINTEXT_BYTES;
	int result = SSL_write(c->ssl, bytes, n);
	int sent = wire_end(c);
	if (result == n && sent == 0)
		return 0;
	tls_fail(c, STAGE_ESTABLISHED);
	return sent < 0 ? sent : -ECONNRESET;
}

int tls_shutdown(struct conn *c)
{
	wire_begin(c);
	SSL_shutdown(c->ssl);
	int sent = wire_end(c);
	ERR_clear_error();
	return sent;
}

/* The peer's leaf certificate as DER: its length, -ENOENT without one, -ENOSPC if it does not fit. */
CULVERT_API int culvert_peer_certificate(int id, int handle, unsigned char *out, int capacity)
{
	struct conn *c = conn_of(engine_of(id), handle);
	if (!c || !c->ssl)
		return -ENOENT;
	X509 *certificate = SSL_get1_peer_certificate(c->ssl);
	if (!certificate)
		return -ENOENT;
	int length = i2d_X509(certificate, NULL);
	if (length > 0 && length <= capacity)
		i2d_X509(certificate, &out);
	X509_free(certificate);
	return length <= 0 ? -EINVAL : length <= capacity ? length : -ENOSPC;
}

/* The peer's chain as it was verified, leaf first and root last, as DER one behind the other: its length, -ENOENT without one, -ENOSPC if it does not fit. */
CULVERT_API int culvert_peer_chain(int id, int handle, unsigned char *out, int capacity)
{
	struct conn *c = conn_of(engine_of(id), handle);
	STACK_OF(X509) *chain = c && c->ssl ? SSL_get0_verified_chain(c->ssl) : NULL;
	if (!chain)
		return -ENOENT;
	int total = 0;
	for (int i = 0; i < sk_X509_num(chain); i++) {
		int length = i2d_X509(sk_X509_value(chain, i), NULL);
		if (length <= 0)
			return -EINVAL;
		if (length > capacity - total)
			return -ENOSPC;
		i2d_X509(sk_X509_value(chain, i), &out);
		total += length;
	}
	return total > 0 ? total : -ENOENT;
}
