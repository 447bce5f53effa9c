/* SPDX-License-Identifier: (GPL-2.0 OR Apache-2.0) */
/* The two ends of a socket as sock_ops sees them. */
#ifndef CULVERT_SIDES_H
#define CULVERT_SIDES_H

#include <bpf/bpf_endian.h>
#include "address.h"

static __always_inline void read_local(volatile struct bpf_sock_ops *ctx, struct endpoint *local)
{
	READ_ADDRESS(local->address, ctx, ctx->family, local_ip4, local_ip6);
	local->port = bpf_htons(ctx->local_port);
}

static __always_inline void read_remote(volatile struct bpf_sock_ops *ctx, struct endpoint *remote)
{
	READ_ADDRESS(remote->address, ctx, ctx->family, remote_ip4, remote_ip6);
	/* network order in the upper half on little-endian machines, in the lower half on big-endian ones */
	remote->port = bpf_htons(bpf_ntohl(ctx->remote_port));
}

#endif
