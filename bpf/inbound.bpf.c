// SPDX-License-Identifier: GPL-2.0
/*
 * sk_lookup, one instance and one `listeners` map per pod, attached to the pod's network namespace. Steers every inbound TCP connection,
 * whatever its port, to the agent's listeners; the accepted socket's local address is the original destination. Fails closed: no
 * listener, no connection, also where plaintext would be allowed. (SK_DROP ends the lookup without a socket: the peer gets an RST.)
 */
#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_helpers.h>
#include "include/abi.h"
#include "include/address.h"
#include "include/maps.h"

/* Cookie of the pod's namespace: sk_lookup has no way to ask for it. Written after the load, so that programs can be loaded before there are pods. */
volatile __u64 netns_cookie SEC(".data.pod") = 0;

/* Per pod. A slot names one member of a SO_REUSEPORT group, the kernel spreads over the group; it empties when that member closes. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, SLOT_COUNT);
	__type(key, __u32); /* enum listener_slot */
	__type(value, __u64);
} listeners SEC(".maps");

static __always_inline void read_sides(volatile struct bpf_sk_lookup *ctx, __be32 remote[4], __be32 local[4])
{
	READ_ADDRESS(remote, ctx, ctx->family, remote_ip4, remote_ip6);
	READ_ADDRESS(local, ctx, ctx->family, local_ip4, local_ip6);
}

/* A connection of the pod itself that connect.bpf.c has redirected. */
static __always_inline bool is_redirected(struct bpf_sk_lookup *ctx, const __be32 remote[4])
{
	struct original_key key = { .netns_cookie = netns_cookie, .port = ctx->remote_port, .family = ctx->family };

	if (ctx->local_port - REDIRECT_FIRST_PORT >= REDIRECT_PORTS && ctx->local_port != DNS_PORT)
		return false;
	set_ipv6(key.address, remote[0], remote[1], remote[2], remote[3]);
	key.listener = bpf_htons(ctx->local_port);
	return bpf_map_lookup_elem(&original_dst, &key);
}

/* Of kubelet, from the host's namespace: the application itself has to answer a probe. */
static __always_inline bool has_ticket(struct bpf_sk_lookup *ctx, const __be32 remote[4], const __be32 local[4])
{
	struct ticket ticket = {};
	__u64 *written;

	set_ipv6(ticket.source.address, remote[0], remote[1], remote[2], remote[3]);
	set_ipv6(ticket.destination.address, local[0], local[1], local[2], local[3]);
	ticket.source.port = ctx->remote_port;
	ticket.destination.port = bpf_htons(ctx->local_port);
	written = bpf_map_lookup_elem(&tickets, &ticket);
	return written && bpf_ktime_get_ns() - *written < TICKET_SECONDS * 1000000000ULL;
}

/* By the pod's annotations. HBONE comes to us in any case. */
static __always_inline bool is_excluded(__u16 port)
{
	return is_excluded_port(netns_cookie, port, INBOUND) || is_excluded_port(netns_cookie, 0, INBOUND);
}

static __always_inline int steer(struct bpf_sk_lookup *ctx, __u32 slot)
{
	struct bpf_sock *listener = bpf_map_lookup_elem(&listeners, &slot);
	long refused;

	if (!listener) {
		count(DROPPED_NO_LISTENER);
		return SK_DROP;
	}
	refused = bpf_sk_assign(ctx, listener, 0);
	bpf_sk_release(listener);
	if (refused) {
		count(DROPPED_NOT_ASSIGNED);
		return SK_DROP;
	}
	return SK_PASS;
}

static __always_inline int pass(__u32 reason)
{
	count(reason);
	return SK_PASS;
}

SEC("sk_lookup")
int inbound(struct bpf_sk_lookup *ctx)
{
	__be32 remote[4], local[4];

	if (ctx->protocol != IPPROTO_TCP)
		return SK_PASS;
	read_sides(ctx, remote, local);
	if (is_redirected(ctx, remote))
		return ctx->local_port == DNS_PORT ? SK_PASS : steer(ctx, SLOT_OUTBOUND);
	/* from within: the agent's dials to the application, and connections to oneself */
	if (is_loopback(remote) || same_address(remote, local))
		return SK_PASS;
	if (ctx->local_port == HBONE_PORT)
		return steer(ctx, SLOT_HBONE);
	if (is_excluded(ctx->local_port))
		return pass(PASSED_EXCLUDED);
	if (has_ticket(ctx, remote, local))
		return pass(PASSED_PROBE);
	return steer(ctx, SLOT_INBOUND);
}

char _license[] SEC("license") = "GPL";
