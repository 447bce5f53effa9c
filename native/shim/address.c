#include <arpa/inet.h>
#include <string.h>

#include "engine.h"

socklen_t address_read(const unsigned char *bytes, struct sockaddr_in6 *out)
{
	memset(out, 0, sizeof *out);
	if (bytes[0] == 4) {
		struct sockaddr_in *v4 = (struct sockaddr_in *)out;
		v4->sin_family = AF_INET;
		memcpy(&v4->sin_port, bytes + 2, 2);
		memcpy(&v4->sin_addr, bytes + 4, 4);
		return sizeof *v4;
	}
	if (bytes[0] != 6)
		return 0;
	out->sin6_family = AF_INET6;
	memcpy(&out->sin6_port, bytes + 2, 2);
	memcpy(&out->sin6_addr, bytes + 4, 16);
	return sizeof *out;
}

/* v4-mapped addresses (of dual-stack listeners) are written as IPv4. */
void address_write(const struct sockaddr_in6 *address, unsigned char *bytes)
{
	memset(bytes, 0, ADDRESS_BYTES);
	if (address->sin6_family == AF_INET) {
		const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
		bytes[0] = 4;
		memcpy(bytes + 2, &v4->sin_port, 2);
		memcpy(bytes + 4, &v4->sin_addr, 4);
	} else if (address->sin6_family == AF_INET6) {
		bool mapped = IN6_IS_ADDR_V4MAPPED(&address->sin6_addr);
		bytes[0] = mapped ? 4 : 6;
		memcpy(bytes + 2, &address->sin6_port, 2);
		memcpy(bytes + 4, address->sin6_addr.s6_addr + (mapped ? 12 : 0), mapped ? 4 : 16);
	}
}
