// SPDX-License-Identifier: GPL-2.0
/*
 * sock_ops, attached at kubelet's cgroup. Writes a ticket for every connection that kubelet opens from the host's namespace, when its
 * 4-tuple is final and the SYN not yet sent; inbound.bpf.c lets through what has one. A ticket ends with its socket.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "include/abi.h"
#include "include/address.h"
#include "include/maps.h"
#include "include/sides.h"

const volatile __u64 host_netns_cookie = 0;

static __always_inline void write_ticket(struct bpf_sock_ops *ctx, const struct ticket *ticket)
{
	__u64 now = bpf_ktime_get_ns();

	if (bpf_get_netns_cookie(ctx) != host_netns_cookie)
		return;
	/* an LRU map does not get full; if it has no memory, the connection comes to the agent */
	bpf_map_update_elem(&tickets, ticket, &now, BPF_ANY);
	bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
}

SEC("sockops")
int probe_tickets(struct bpf_sock_ops *ctx)
{
	struct ticket ticket = {};

	if (ctx->op != BPF_SOCK_OPS_TCP_CONNECT_CB && ctx->op != BPF_SOCK_OPS_STATE_CB)
		return 1;
	read_local(ctx, &ticket.source);
	read_remote(ctx, &ticket.destination);
	if (ctx->op == BPF_SOCK_OPS_TCP_CONNECT_CB)
		write_ticket(ctx, &ticket);
	else if (ctx->args[1] == BPF_TCP_CLOSE)
		bpf_map_delete_elem(&tickets, &ticket);
	return 1;
}

char _license[] SEC("license") = "GPL";
