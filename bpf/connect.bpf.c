// SPDX-License-Identifier: GPL-2.0
/*
 * cgroup/connect4|6 and getpeername4|6, attached once at the parent of all pod cgroups. Decides, by who connects and in which
 * namespace, whether a TCP connection, or a UDP socket that asks for names, goes out plainly, to the agent's listener in the pod's
 * namespace, or not at all. Fails closed: what is not known, and what cannot be recorded, gets EPERM. Everything else is left alone.
 */
#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_helpers.h>
#include "include/abi.h"
#include "include/address.h"
#include "include/decide.h"
#include "include/maps.h"

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

/* Room for one more entry now? Asked by inserting one: the count of a hash cannot be read before Linux 6.6. */
static __always_inline bool original_has_room(__u64 netns_cookie, __u64 socket_cookie)
{
	/* family 0 belongs to no connection */
	struct original_key probe = { .netns_cookie = netns_cookie };
	struct original_value none = {};

	probe.address[0] = (__u32)socket_cookie;
	probe.address[1] = socket_cookie >> 32;
	if (bpf_map_update_elem(&original_dst, &probe, &none, BPF_ANY))
		return false;
	bpf_map_delete_elem(&original_dst, &probe);
	return true;
}

static __always_inline bool callers_has_room(__u64 netns_cookie, __u64 socket_cookie)
{
	struct dial_key probe = { .netns_cookie = netns_cookie };
	struct endpoint none = {};

	probe.source.address[0] = (__u32)socket_cookie;
	probe.source.address[1] = socket_cookie >> 32;
	if (bpf_map_update_elem(&callers, &probe, &none, BPF_ANY))
		return false;
	bpf_map_delete_elem(&callers, &probe);
	return true;
}

/* The agent dials an application only if the caller's address will get there: else the application would see a local one. */
static __always_inline enum verdict check_dial(struct bpf_sock_addr *ctx, __u64 netns_cookie)
{
	struct bpf_sock *sk = ctx->sk;

	if (!sk || !bpf_sk_storage_get(&caller_sk, sk, NULL, 0))
		return PLAIN;
	if (!callers_has_room(netns_cookie, bpf_get_socket_cookie(ctx)))
		return refuse(REFUSED_CALLERS_FULL);
	return PLAIN;
}

/*
 * By destination, so that those of several do not share one set of ephemeral ports. Not the port for names, which lies within the range, and not
 * the one that the socket is bound to: it would be connected with itself.
 */
static __always_inline __u16 redirect_port(const struct endpoint *destination, const struct bpf_sock *sk)
{
	const __be32 *address = destination->address;
	__u32 hash = address[0] ^ address[1] * 0x9e3779b1 ^ address[2] * 0x85ebca6b ^ address[3] * 0xc2b2ae35;
	__u32 own = sk ? sk->src_port : 0, port;

	hash = (hash ^ destination->port * 0x27d4eb2f) * 0x9e3779b1;
	port = REDIRECT_FIRST_PORT + (hash >> 16) % REDIRECT_PORTS;
	if (port == DNS_PORT || port == own)
		port ^= 1;
	if (port == DNS_PORT || port == own)
		port ^= 2;
	return port;
}

static __always_inline bool is_excluded(__u64 netns_cookie, const struct captured_pod *pod, const struct endpoint *destination)
{
	struct range_key range = { .prefix_bits = 8 * (sizeof(range) - sizeof(range.prefix_bits)) };
	__u32 *family;

	if ((pod->flags & POD_EXCLUDES_PORTS) && is_excluded_port(netns_cookie, bpf_ntohs(destination->port), OUTBOUND))
		return true;
	if (!(pod->flags & POD_EXCLUDES_RANGES))
		return false;
	range.netns_cookie[0] = (__u32)netns_cookie;
	range.netns_cookie[1] = netns_cookie >> 32;
	__builtin_memcpy(range.address, destination->address, sizeof(range.address));
	/* ::/0 holds the v4-mapped addresses, too, but says nothing of IPv4 */
	family = bpf_map_lookup_elem(&excluded_ranges, &range);
	return family && *family == family_of(destination->address);
}

static __always_inline enum verdict redirect_tcp(struct bpf_sock_addr *ctx, __u64 netns_cookie, const struct captured_pod *pod,
						 const struct endpoint *destination, struct endpoint *listener)
{
	if (!original_has_room(netns_cookie, bpf_get_socket_cookie(ctx)))
		return refuse(REFUSED_ORIGINAL_FULL);
	return redirect(ctx, pod, destination, is_dns(destination, pod) ? DNS_PORT : redirect_port(destination, ctx->sk), listener);
}

static __always_inline enum verdict decide_tcp(struct bpf_sock_addr *ctx, const struct endpoint *destination,
					       struct endpoint *listener)
{
	__u64 netns_cookie = bpf_get_netns_cookie(ctx);
	struct captured_pod *pod = NULL;

	switch (who_calls(netns_cookie, destination, &pod)) {
	case CALLER_AGENT:
		return check_dial(ctx, netns_cookie);
	case CALLER_PLAIN:
		return PLAIN;
	case CALLER_CAPTURED:
		if (!pod)
			return REFUSE;
		if (is_excluded(netns_cookie, pod, destination)) {
			count(PASSED_EXCLUDED);
			return PLAIN;
		}
		return redirect_tcp(ctx, netns_cookie, pod, destination, listener);
	default:
		return refuse(REFUSED_UNKNOWN);
	}
}

static __always_inline enum verdict handle_connect(struct bpf_sock_addr *ctx, const struct endpoint *destination,
						   struct endpoint *listener)
{
	enum verdict verdict;

	if (ctx->protocol == IPPROTO_TCP)
		verdict = decide_tcp(ctx, destination, listener);
	else if (ctx->protocol == IPPROTO_UDP)
		verdict = decide_udp(ctx, destination, listener);
	else
		return PLAIN;
	/* a socket may connect anew after AF_UNSPEC: what it wanted before must not be taken for what it wants now */
	if (verdict != REDIRECT && ctx->sk)
		bpf_sk_storage_delete(&peer_sk, ctx->sk);
	return verdict;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	struct endpoint destination = {}, listener = {};
	enum verdict verdict;

	read_ipv4(ctx, &destination);
	verdict = handle_connect(ctx, &destination, &listener);
	if (verdict == REDIRECT)
		write_ipv4(ctx, &listener);
	return verdict != REFUSE;
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	struct endpoint destination = {}, listener = {};
	enum verdict verdict;

	read_ipv6(ctx, &destination);
	verdict = handle_connect(ctx, &destination, &listener);
	if (verdict == REDIRECT)
		write_ipv6(ctx, &listener);
	return verdict != REFUSE;
}

/* getpeername on an MPTCP socket runs on the MPTCP socket itself, whose storage is not the subflow's: found by its local side. */
static __always_inline struct endpoint *mptcp_peer(struct bpf_sock_addr *ctx, volatile struct bpf_sock *sk)
{
	struct original_key key = { .netns_cookie = bpf_get_netns_cookie(ctx) };

	READ_ADDRESS(key.address, sk, sk->family, src_ip4, src_ip6);
	key.family = family_of(key.address);
	key.port = bpf_htons(sk->src_port);
	return bpf_map_lookup_elem(&mptcp_peers, &key);
}

/* Whom getpeername (and accept) shall show; null: whom the kernel knows. */
static __always_inline struct endpoint *shown_peer(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;

	if (!sk)
		return NULL;
	if (ctx->protocol == IPPROTO_MPTCP)
		return mptcp_peer(ctx, sk);
	return bpf_sk_storage_get(&peer_sk, sk, NULL, 0);
}

SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *ctx)
{
	struct endpoint *peer = shown_peer(ctx);

	if (!peer)
		return 1;
	/* an IPv6 caller cannot be shown by an IPv4 socket; 0.0.0.0 at least claims nothing, 127.x would claim to be local */
	ctx->user_ip4 = is_ipv4(peer->address) ? peer->address[3] : 0;
	ctx->user_port = peer->port;
	return 1;
}

SEC("cgroup/getpeername6")
int getpeername6(struct bpf_sock_addr *ctx)
{
	struct endpoint *peer = shown_peer(ctx);

	if (peer)
		write_ipv6(ctx, peer);
	return 1;
}

char _license[] SEC("license") = "GPL";
