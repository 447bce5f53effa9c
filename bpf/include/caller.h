/* SPDX-License-Identifier: (GPL-2.0 OR Apache-2.0) */
/* Which pod a cgroup belongs to. */
#ifndef CULVERT_CALLER_H
#define CULVERT_CALLER_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "maps.h"

/* Level of the parent of all pod cgroups (the root is 0). Pods lie one level below it (guaranteed QoS) or two. */
const volatile __u32 parent_level = 0;

static __always_inline __u32 kind_of(__u64 cgroup_id)
{
	__u32 *kind = cgroup_id ? bpf_map_lookup_elem(&pod_cgroups, &cgroup_id) : NULL;

	return kind ? *kind : 0;
}

/* enum cgroup_kind of the pod whose process runs now, 0 when it is not known. */
static __always_inline __u32 caller_cgroup_kind(void)
{
	__u32 kind = kind_of(bpf_get_current_ancestor_cgroup_id(parent_level + 2));

	return kind ? kind : kind_of(bpf_get_current_ancestor_cgroup_id(parent_level + 1));
}

/* The same for the pod that owns the packet's socket. */
static __always_inline __u32 receiver_cgroup_kind(struct __sk_buff *skb)
{
	__u32 kind = kind_of(bpf_skb_ancestor_cgroup_id(skb, parent_level + 2));

	return kind ? kind : kind_of(bpf_skb_ancestor_cgroup_id(skb, parent_level + 1));
}

#endif
