// SPDX-License-Identifier: GPL-2.0
/*
 * sock_ops, attached at the parent of all pod cgroups and at the agent's own cgroup. Carries the original destination of a redirected
 * connection to the agent, and the caller's address from the agent to the application, and forgets both in time. It only records:
 * what it cannot record the agent finds missing, and resets.
 */
#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include "include/abi.h"
#include "include/address.h"
#include "include/maps.h"
#include "include/sides.h"

static __always_inline void original_key_of(struct bpf_sock_ops *ctx, struct original_key *key)
{
	struct endpoint local = {}, remote = {};

	read_local(ctx, &local);
	read_remote(ctx, &remote);
	key->netns_cookie = bpf_get_netns_cookie(ctx); /* in sock_ops since 5.15 */
	set_ipv6(key->address, local.address[0], local.address[1], local.address[2], local.address[3]);
	key->port = local.port;
	key->family = family_of(local.address);
	key->listener = remote.port;
}

/* The kernel's own type, cut down; the loader finds the offset (CO-RE). */
struct tcp_sock {
	bool is_mptcp;
} __attribute__((preserve_access_index));

static __always_inline bool is_mptcp(struct bpf_sock *sk)
{
	struct tcp_sock *tcp = bpf_core_field_exists(struct tcp_sock, is_mptcp) ? (struct tcp_sock *)bpf_skc_to_tcp_sock(sk) : NULL;

	return tcp && tcp->is_mptcp;
}

static __always_inline void watch_close(struct bpf_sock_ops *ctx)
{
	bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
}

/* The 4-tuple is final and the SYN not yet sent: whoever accepts this connection finds the entry. */
static __always_inline void record_original(struct bpf_sock_ops *ctx, struct bpf_sock *sk, const struct endpoint *destination)
{
	struct original_value value = { .destination = *destination, .born = bpf_ktime_get_ns() / 1000000000ULL };
	struct original_key key = {};

	original_key_of(ctx, &key);
	if (bpf_map_update_elem(&original_dst, &key, &value, BPF_ANY))
		count(LOST_ORIGINAL);
	if (is_mptcp(sk)) {
		key.listener = 0;
		if (bpf_map_update_elem(&mptcp_peers, &key, destination, BPF_ANY))
			count(LOST_PEER_NAME);
	}
	watch_close(ctx);
}

static __always_inline void record_caller(struct bpf_sock_ops *ctx, struct caller *caller)
{
	struct dial_key key = { .netns_cookie = bpf_get_netns_cookie(ctx) };
	struct endpoint endpoint = caller->endpoint;

	read_local(ctx, &key.source);
	read_remote(ctx, &key.destination);
	if (bpf_map_update_elem(&callers, &key, &endpoint, BPF_ANY)) {
		caller->state = CALLER_LOST;
		count(LOST_CALLER);
		return;
	}
	caller->state = CALLER_RECORDED;
	watch_close(ctx);
}

static __always_inline void on_connect(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	struct endpoint *destination = bpf_sk_storage_get(&peer_sk, sk, NULL, 0);
	struct caller *caller = bpf_sk_storage_get(&caller_sk, sk, NULL, 0);

	if (destination)
		record_original(ctx, sk, destination);
	if (caller)
		record_caller(ctx, caller);
}

/* The application's new socket: take over the caller's address, if it is the agent that has dialled. */
static __always_inline void on_accepted(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	struct dial_key key = { .netns_cookie = bpf_get_netns_cookie(ctx) };
	struct endpoint *caller, *peer;

	read_remote(ctx, &key.source);
	read_local(ctx, &key.destination);
	caller = bpf_map_lookup_elem(&callers, &key);
	if (!caller)
		return;
	peer = bpf_sk_storage_get(&peer_sk, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (peer)
		*peer = *caller;
	else
		count(LOST_PEER);
	bpf_map_delete_elem(&callers, &key);
}

/*
 * What the agent has not taken. A client that writes, closes and is gone may be so before the agent has accepted: its bytes wait in the
 * agent's queue, and so must the entry. FIN_WAIT2 is the only state in which a socket ends while its peer has still to read; all others
 * end by RST or after both FINs.
 */
static __always_inline void forget_original(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	struct original_key key = {};

	original_key_of(ctx, &key);
	if (ctx->args[0] != BPF_TCP_FIN_WAIT2)
		bpf_map_delete_elem(&original_dst, &key);
	if (is_mptcp(sk)) {
		key.listener = 0;
		bpf_map_delete_elem(&mptcp_peers, &key);
	}
}

/* Only of sockets that were recorded. The port is still theirs, so no newer connection can have the same key. */
static __always_inline void on_closed(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	if (bpf_sk_storage_get(&peer_sk, sk, NULL, 0))
		forget_original(ctx, sk);
	if (bpf_sk_storage_get(&caller_sk, sk, NULL, 0)) {
		struct dial_key key = { .netns_cookie = bpf_get_netns_cookie(ctx) };

		read_local(ctx, &key.source);
		read_remote(ctx, &key.destination);
		bpf_map_delete_elem(&callers, &key);
	}
}

SEC("sockops")
int sock_ops(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;

	if (!sk)
		return 1;
	if (ctx->op == BPF_SOCK_OPS_TCP_CONNECT_CB)
		on_connect(ctx, sk);
	else if (ctx->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		on_accepted(ctx, sk);
	else if (ctx->op == BPF_SOCK_OPS_STATE_CB && ctx->args[1] == BPF_TCP_CLOSE)
		on_closed(ctx, sk);
	return 1;
}

char _license[] SEC("license") = "GPL";
