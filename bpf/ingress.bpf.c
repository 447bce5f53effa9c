// SPDX-License-Identifier: GPL-2.0
/*
 * cgroup_skb/ingress, attached at the parent of all pod cgroups. Holds inbound connections of a pod that the agent does not know yet:
 * what comes to a listening TCP socket (the SYN, or the ACK of a handshake begun before) is dropped, and the peer sends it again. No
 * header is parsed, so none can hide a SYN. Everything else passes after two loads. Fails closed.
 */
#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include "include/abi.h"
#include "include/address.h"
#include "include/caller.h"
#include "include/maps.h"

#define LOOPBACK_IFINDEX 1
#define PASS 1
#define DROP 0

const volatile __u64 host_netns_cookie = 0;

/* The kernel's own types, cut down to the way from a socket to its namespace; the loader finds the offsets (CO-RE). */
struct net {
	__u64 net_cookie; /* since 5.12 */
} __attribute__((preserve_access_index));

typedef struct {
	struct net *net;
} possible_net_t;

struct sock_common {
	possible_net_t skc_net;
} __attribute__((preserve_access_index));

struct sock {
	struct sock_common __sk_common;
} __attribute__((preserve_access_index));

/* bpf_get_netns_cookie is not there for cgroup_skb before 6.15. */
static __always_inline __u64 netns_cookie_of(struct bpf_sock *sk)
{
	struct sock *kernel_sk = (struct sock *)bpf_skc_to_tcp_sock(sk);

	return kernel_sk ? kernel_sk->__sk_common.skc_net.net->net_cookie : 0;
}

/* By namespace: the host's (a static pod must come up without us), and what is known by it. */
static __always_inline bool is_known_netns(struct bpf_sock *sk)
{
	__u64 netns_cookie = netns_cookie_of(sk);

	return netns_cookie == host_netns_cookie || bpf_map_lookup_elem(&captured, &netns_cookie) ||
	       bpf_map_lookup_elem(&plain_netns, &netns_cookie);
}

SEC("cgroup_skb/ingress")
int hold_ingress(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	__u32 kind;

	if (!sk || sk->state != BPF_TCP_LISTEN)
		return PASS;
	if (skb->ifindex == LOOPBACK_IFINDEX)
		return PASS;
	kind = receiver_cgroup_kind(skb);
	/* a captured pod is known by its namespace only: another one of its processes (the next sandbox, a nested one) is not steered to us */
	if (kind == CGROUP_AGENT || kind == CGROUP_PLAIN || is_known_netns(sk))
		return PASS;
	count(HELD_UNKNOWN);
	return DROP;
}

char _license[] SEC("license") = "GPL";
