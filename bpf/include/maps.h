/* SPDX-License-Identifier: (GPL-2.0 OR Apache-2.0) */
/* The maps, one name each; those marked [pinned] are shared by all objects and outlive the agent. */
#ifndef CULVERT_MAPS_H
#define CULVERT_MAPS_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "abi.h"

/* [pinned] Hashes are preallocated: what fits is known, and an update fails only because the map is full. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_PODS);
	__type(key, __u64);   /* cgroup id */
	__type(value, __u32); /* enum cgroup_kind */
} pod_cgroups SEC(".maps");

/* [pinned] */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_PODS);
	__type(key, __u64); /* netns cookie */
	__type(value, struct captured_pod);
} captured SEC(".maps");

/* [pinned] Namespaces outside the mesh, for what no cgroup can tell. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_PODS);
	__type(key, __u64);   /* netns cookie */
	__type(value, __u32); /* 1 */
} plain_netns SEC(".maps");

/* [pinned] */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_CONNECTIONS);
	__type(key, struct original_key);
	__type(value, struct original_value);
} original_dst SEC(".maps");

/* [pinned] As original_dst, for as long as the socket lives: getpeername of an MPTCP socket does not find its subflow's storage. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_MPTCP);
	__type(key, struct original_key);
	__type(value, struct endpoint);
} mptcp_peers SEC(".maps");

/* [pinned] */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_EXCLUSIONS);
	__type(key, struct port_key);
	__type(value, __u32);
} excluded_ports SEC(".maps");

/* [pinned] Tries cannot be preallocated. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, MAX_EXCLUSIONS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct range_key);
	__type(value, __u32);
} excluded_ranges SEC(".maps");

/* [pinned] Where too many are under way the oldest is forgotten, and its connection comes to the agent. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_TICKETS);
	__type(key, struct ticket);
	__type(value, __u64);
} tickets SEC(".maps");

/* [pinned] */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_DIALS);
	__type(key, struct dial_key);
	__type(value, struct endpoint);
} callers SEC(".maps");

/* [pinned] */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct caller);
} caller_sk SEC(".maps");

/* [pinned] What getpeername shows: the original destination of a client, the true caller of a server. Kernel only. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct endpoint);
} peer_sk SEC(".maps");

/* [pinned] */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTER_COUNT);
	__type(key, __u32);   /* enum counter */
	__type(value, __u64);
} counters SEC(".maps");

static __always_inline void count(__u32 reason)
{
	__u64 *cell = bpf_map_lookup_elem(&counters, &reason);

	if (cell)
		*cell += 1;
}

static __always_inline bool is_excluded_port(__u64 netns_cookie, __u16 port, __u16 direction)
{
	struct port_key key = { .netns_cookie = netns_cookie, .port = port, .direction = direction };

	return bpf_map_lookup_elem(&excluded_ports, &key);
}

#endif
