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
