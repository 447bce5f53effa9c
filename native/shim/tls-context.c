/* SSL contexts of the process, by number: made by the main thread, used by every worker, replaced but never changed. */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"

#define MAX_CONTEXTS 4096
/* AES-128 first: both are allowed by HBONE (1.2), and it costs less. */
#define CIPHER_SUITES "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384"
#define GROUPS "X25519:P-256:P-384"
#define VERIFY_DEPTH 8

static const unsigned char alpn_h2[] = "\x02h2";

/* An id is sequence * MAX_CONTEXTS + index, so that one released long ago finds nothing. Ids start above 0. */
static SSL_CTX *contexts[MAX_CONTEXTS];
static int context_ids[MAX_CONTEXTS];
static int contexts_made;
static pthread_mutex_t contexts_lock = PTHREAD_MUTEX_INITIALIZER;

static int choose_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_length, const unsigned char *in, unsigned int in_length,
		       void *argument)
{
	int found = SSL_select_next_proto((unsigned char **)out, out_length, alpn_h2, sizeof alpn_h2 - 1, in, in_length);
	return found == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* OpenSSL asks choose_alpn only of clients that name protocols at all. */
static int check_hello(SSL *ssl, int *alert, void *argument)
{
	const unsigned char *extension;
	size_t length;
	if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_application_layer_protocol_negotiation, &extension, &length) == 1)
		return SSL_CLIENT_HELLO_SUCCESS;
	ERR_raise(ERR_LIB_SSL, SSL_R_NO_APPLICATION_PROTOCOL);
	*alert = SSL_AD_NO_APPLICATION_PROTOCOL;
	return SSL_CLIENT_HELLO_ERROR;
}

static int set_options(SSL_CTX *ctx)
{
	SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	SSL_CTX_set_verify_depth(ctx, VERIFY_DEPTH);
	SSL_CTX_set_alpn_select_cb(ctx, choose_alpn, NULL);
	SSL_CTX_set_client_hello_cb(ctx, check_hello, NULL);
	return SSL_CTX_set_num_tickets(ctx, 0) == 1 && SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) == 1 &&
	       SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) == 1 && SSL_CTX_set_ciphersuites(ctx, CIPHER_SUITES) == 1 &&
	       SSL_CTX_set1_groups_list(ctx, GROUPS) == 1 && SSL_CTX_set_alpn_protos(ctx, alpn_h2, sizeof alpn_h2 - 1) == 0;
}

static const char *use_chain(SSL_CTX *ctx, const unsigned char *der, int length)
{
	const unsigned char *at = der;
	for (int i = 0; at < der + length; i++) {
		X509 *certificate = d2i_X509(NULL, &at, der + length - at);
		if (!certificate)
			return "a certificate of the chain is not DER";
		int ok = i == 0 ? SSL_CTX_use_certificate(ctx, certificate) : SSL_CTX_add1_chain_cert(ctx, certificate);
		X509_free(certificate);
		if (ok != 1)
			return "a certificate of the chain is not usable";
	}
	return at == der ? "the certificate chain is empty" : NULL;
}

static const char *use_key(SSL_CTX *ctx, const unsigned char *der, int length)
{
	EVP_PKEY *key = d2i_AutoPrivateKey(NULL, &der, length);
	if (!key)
		return "the private key is not PKCS#8 DER";
	int ok = SSL_CTX_use_PrivateKey(ctx, key);
	EVP_PKEY_free(key);
	return ok == 1 && SSL_CTX_check_private_key(ctx) == 1 ? NULL : "the private key does not belong to the certificate";
}

static const char *use_roots(SSL_CTX *ctx, const unsigned char *der, int length)
{
	const unsigned char *at = der;
	X509_STORE *store = SSL_CTX_get_cert_store(ctx);
	while (at < der + length) {
		X509 *certificate = d2i_X509(NULL, &at, der + length - at);
		if (!certificate)
			return "a certificate of the trust bundle is not DER";
		int ok = X509_STORE_add_cert(store, certificate);
		X509_free(certificate);
		if (ok != 1)
			return "a certificate of the trust bundle is not usable";
	}
	return at == der ? "the trust bundle is empty" : NULL;
}

static int context_enter(SSL_CTX *ctx)
{
	int result = -ENOSPC;
	pthread_mutex_lock(&contexts_lock);
	for (int tries = 0; tries < MAX_CONTEXTS && result < 0; tries++) {
		int id = contexts_made = contexts_made % 0x3fffffff + 1;
		if (contexts[id % MAX_CONTEXTS])
			continue;
		contexts[id % MAX_CONTEXTS] = ctx;
		context_ids[id % MAX_CONTEXTS] = result = id;
	}
	pthread_mutex_unlock(&contexts_lock);
	return result;
}

/*
 * Makes a context from DER: chain (leaf first) and roots are certificates one behind the other. Returns its id, or -errno; -EINVAL with
 * what is wrong as text (NUL-terminated) in `error`.
 */
CULVERT_API int culvert_tls_context(const unsigned char *chain, int chain_length, const unsigned char *key, int key_length,
				    const unsigned char *roots, int roots_length, char *error, int error_capacity)
{
	ERR_clear_error();
	SSL_CTX *ctx = SSL_CTX_new(TLS_method());
	if (!ctx)
		return -ENOMEM;
	const char *wrong = set_options(ctx) ? NULL : "this OpenSSL lacks TLS 1.3, its AES-GCM suites or the groups";
	if (!wrong)
		wrong = use_chain(ctx, chain, chain_length);
	if (!wrong)
		wrong = use_key(ctx, key, key_length);
	if (!wrong)
		wrong = use_roots(ctx, roots, roots_length);
	int result = -EINVAL;
	if (wrong) {
		const char *reason = ERR_reason_error_string(ERR_peek_last_error());
		snprintf(error, error_capacity, "%s%s%s", wrong, reason ? ": " : "", reason ? reason : "");
	} else {
		result = context_enter(ctx);
	}
	ERR_clear_error();
	if (result < 0)
		SSL_CTX_free(ctx);
	return result;
}

/* Takes the id away; connections made with it keep the context until they end. */
CULVERT_API int culvert_tls_context_release(int id)
{
	pthread_mutex_lock(&contexts_lock);
	int index = (uint32_t)id % MAX_CONTEXTS;
	SSL_CTX *ctx = id > 0 && context_ids[index] == id ? contexts[index] : NULL;
	if (ctx) {
		contexts[index] = NULL;
		context_ids[index] = 0;
	}
	pthread_mutex_unlock(&contexts_lock);
	SSL_CTX_free(ctx);
	return ctx ? 0 : -EBADF;
}

/* A reference to the context, or NULL. */
SSL_CTX *tls_context_ref(int id)
{
	pthread_mutex_lock(&contexts_lock);
	int index = (uint32_t)id % MAX_CONTEXTS;
	SSL_CTX *ctx = id > 0 && context_ids[index] == id ? contexts[index] : NULL;
	if (ctx)
		SSL_CTX_up_ref(ctx);
	pthread_mutex_unlock(&contexts_lock);
	return ctx;
}
