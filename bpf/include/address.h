/* SPDX-License-Identifier: (GPL-2.0 OR Apache-2.0) */
/* Addresses of every family in one form: 16 bytes, IPv4 as ::ffff:a.b.c.d. */
#ifndef CULVERT_ADDRESS_H
#define CULVERT_ADDRESS_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "abi.h"

#define AF_INET 2
#define AF_INET6 10

static __always_inline void set_ipv4(__be32 address[4], __be32 ipv4)
{
	address[0] = 0;
	address[1] = 0;
	address[2] = bpf_htonl(0xffff);
	address[3] = ipv4;
}

static __always_inline void set_ipv6(__be32 address[4], __be32 w0, __be32 w1, __be32 w2, __be32 w3)
{
	address[0] = w0;
	address[1] = w1;
	address[2] = w2;
	address[3] = w3;
}

/*
 * Reads an address from fields `ip4` and `ip6` of a context or socket. All loads come first and are volatile: out of two branches the
 * compiler makes one load from a computed address, which the verifier refuses.
 */
#define READ_ADDRESS(to, source, of_family, ip4, ip6)                                                      \
	do {                                                                                               \
		__be32 v4 = (source)->ip4;                                                                 \
		__be32 w0 = (source)->ip6[0], w1 = (source)->ip6[1];                                       \
		__be32 w2 = (source)->ip6[2], w3 = (source)->ip6[3];                                       \
		if ((of_family) == AF_INET)                                                                \
			set_ipv4(to, v4);                                                                  \
		else                                                                                       \
			set_ipv6(to, w0, w1, w2, w3);                                                      \
	} while (0)

static __always_inline bool is_ipv4(const __be32 address[4])
{
	return address[0] == 0 && address[1] == 0 && address[2] == bpf_htonl(0xffff);
}

static __always_inline bool is_loopback(const __be32 address[4])
{
	if (is_ipv4(address))
		return (address[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	return address[0] == 0 && address[1] == 0 && address[2] == 0 && address[3] == bpf_htonl(1);
}

/* connect() to 0.0.0.0 or :: goes to the machine itself. */
static __always_inline bool is_unspecified(const __be32 address[4])
{
	return address[0] == 0 && address[1] == 0 && address[3] == 0 &&
	       (address[2] == 0 || address[2] == bpf_htonl(0xffff));
}

static __always_inline bool same_address(const __be32 a[4], const __be32 b[4])
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3];
}

static __always_inline __u16 family_of(const __be32 address[4])
{
	return is_ipv4(address) ? AF_INET : AF_INET6;
}

#endif
