/* SPDX-License-Identifier: (GPL-2.0 OR Apache-2.0) */
/* Whose socket this is, and where a captured pod's socket is sent instead: for the programs of cgroup/connect and cgroup/sendmsg. */
#ifndef CULVERT_DECIDE_H
#define CULVERT_DECIDE_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "abi.h"
#include "address.h"
#include "caller.h"
#include "maps.h"

#define NAME_SERVICE_PORT 53

/* Cookie of the host's network namespace. */
const volatile __u64 host_netns_cookie = 0;

enum verdict {
	REFUSE,
	PLAIN,
	REDIRECT,
};

enum caller_kind {
	CALLER_UNKNOWN,
	CALLER_AGENT,
	CALLER_PLAIN,
	CALLER_CAPTURED,
};

static __always_inline enum verdict refuse(__u32 reason)
{
	count(reason);
	return REFUSE;
}

/*
 * The order matters (design.md, section 3): an agent inside a captured namespace is plain, a captured pod in a plain cgroup is not.
 * `pod` is set for CALLER_CAPTURED.
 */
static __always_inline enum caller_kind who_calls(__u64 netns_cookie, const struct endpoint *destination, struct captured_pod **pod)
{
	__u32 kind = caller_cgroup_kind();

	if (kind == CGROUP_AGENT)
		return CALLER_AGENT;
	if (netns_cookie == host_netns_cookie)
		return CALLER_PLAIN;
	if (is_loopback(destination->address) || is_unspecified(destination->address))
		return CALLER_PLAIN;
	*pod = bpf_map_lookup_elem(&captured, &netns_cookie);
	if (*pod)
		return CALLER_CAPTURED;
	if (kind == CGROUP_PLAIN || bpf_map_lookup_elem(&plain_netns, &netns_cookie))
		return CALLER_PLAIN;
	return CALLER_UNKNOWN;
}

static __always_inline bool is_dns(const struct endpoint *destination, const struct captured_pod *pod)
{
	return destination->port == bpf_htons(NAME_SERVICE_PORT) && (pod->flags & POD_DNS);
}

/* The address that a socket call is about, of either family, and another in its place. */
static __always_inline void read_ipv4(const struct bpf_sock_addr *ctx, struct endpoint *to)
{
	set_ipv4(to->address, ctx->user_ip4);
	to->port = ctx->user_port;
}

static __always_inline void read_ipv6(const struct bpf_sock_addr *ctx, struct endpoint *to)
{
	set_ipv6(to->address, ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]);
	to->port = ctx->user_port;
}

static __always_inline void write_ipv4(struct bpf_sock_addr *ctx, const struct endpoint *from)
{
	ctx->user_ip4 = from->address[3];
	ctx->user_port = from->port;
}

static __always_inline void write_ipv6(struct bpf_sock_addr *ctx, const struct endpoint *from)
{
	ctx->user_ip6[0] = from->address[0];
	ctx->user_ip6[1] = from->address[1];
	ctx->user_ip6[2] = from->address[2];
	ctx->user_ip6[3] = from->address[3];
	ctx->user_port = from->port;
}

/*
 * To the pod's own address, not to 127.0.0.1: getsockname, bound sources and bound devices then behave as without the mesh. What the
 * socket wanted is kept in its storage.
 */
static __always_inline enum verdict redirect(struct bpf_sock_addr *ctx, const struct captured_pod *pod,
					     const struct endpoint *destination, __u16 port, struct endpoint *listener)
{
	bool ipv4 = is_ipv4(destination->address);
	struct bpf_sock *sk = ctx->sk;
	struct endpoint *original;

	if (!(pod->flags & (ipv4 ? POD_HAS_IPV4 : POD_HAS_IPV6)))
		return refuse(REFUSED_NO_ADDRESS);
	original = sk ? bpf_sk_storage_get(&peer_sk, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE) : NULL;
	if (!original)
		return refuse(REFUSED_NO_STORAGE);
	*original = *destination;
	if (ipv4)
		set_ipv4(listener->address, pod->ipv4);
	else
		set_ipv6(listener->address, pod->ipv6[0], pod->ipv6[1], pod->ipv6[2], pod->ipv6[3]);
	listener->port = bpf_htons(port);
	return REDIRECT;
}

/* Of UDP only what asks for names is looked at. */
static __always_inline enum verdict decide_udp(struct bpf_sock_addr *ctx, const struct endpoint *destination,
					       struct endpoint *listener)
{
	struct captured_pod *pod = NULL;

	if (destination->port != bpf_htons(NAME_SERVICE_PORT))
		return PLAIN;
	switch (who_calls(bpf_get_netns_cookie(ctx), destination, &pod)) {
	case CALLER_AGENT:
	case CALLER_PLAIN:
		return PLAIN;
	case CALLER_CAPTURED:
		if (!pod || !is_dns(destination, pod))
			return PLAIN;
		return redirect(ctx, pod, destination, DNS_PORT, listener);
	default:
		return refuse(REFUSED_UNKNOWN);
	}
}

#endif
