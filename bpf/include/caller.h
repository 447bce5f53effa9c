/* SPDX-License-Identifier: (GPL-2.0 OR Apache-2.0) */
/* Which pod a cgroup belongs to. */
#ifndef CULVERT_CALLER_H
#define CULVERT_CALLER_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "maps.h"

/* The parent of all pod cgroups. Pods lie one level below it (guaranteed QoS) or two. */
const volatile __u64 parent_cgroup = 0;
/* Its level (the root is 0) as user space sees it; where that sees a container's root (a node that is a container), it lies deeper. */
const volatile __u32 parent_level = 0;
#define HIDDEN_LEVELS 8

static __always_inline __u32 kind_of(__u64 cgroup_id)
{
	__u32 *kind = cgroup_id ? bpf_map_lookup_elem(&pod_cgroups, &cgroup_id) : NULL;

	return kind ? *kind : 0;
}

/* enum cgroup_kind of the pod whose process runs now, 0 when it is not known. */
static __always_inline __u32 caller_cgroup_kind(void)
{
	__u32 level, kind;

	for (level = parent_level; level <= parent_level + HIDDEN_LEVELS; level++) {
		if (bpf_get_current_ancestor_cgroup_id(level) != parent_cgroup)
			continue;
		kind = kind_of(bpf_get_current_ancestor_cgroup_id(level + 2));
		return kind ? kind : kind_of(bpf_get_current_ancestor_cgroup_id(level + 1));
	}
	return 0;
}

/* The same for the pod that owns the packet's socket. */
static __always_inline __u32 receiver_cgroup_kind(struct __sk_buff *skb)
{
	__u32 level, kind;

	for (level = parent_level; level <= parent_level + HIDDEN_LEVELS; level++) {
		if (bpf_skb_ancestor_cgroup_id(skb, level) != parent_cgroup)
			continue;
		kind = kind_of(bpf_skb_ancestor_cgroup_id(skb, level + 2));
		return kind ? kind : kind_of(bpf_skb_ancestor_cgroup_id(skb, level + 1));
	}
	return 0;
}

#endif
