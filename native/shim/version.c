#include <openssl/crypto.h>

#include "culvert.h"

/* Raised when the meaning of a call changes; native/library.ts refuses a library of another version. */
CULVERT_API int culvert_abi_version(void)
{
	return 1;
}

/* The OpenSSL that the symbols were bound to: Node's own. */
CULVERT_API const char *culvert_openssl_version(void)
{
	return OpenSSL_version(OPENSSL_VERSION);
}

/* 1 in the sanitizer tier's build. */
CULVERT_API int culvert_is_sanitized(void)
{
#ifdef __SANITIZE_ADDRESS__
	return 1;
#else
	return 0;
#endif
}
