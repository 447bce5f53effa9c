// SPDX-License-Identifier: GPL-2.0
/*
 * cgroup/sendmsg4|6 and recvmsg4|6, attached once at the parent of all pod cgroups. A captured pod's datagram to port 53 goes to the
 * agent's listener in the pod's namespace, and what comes back from there seems to come from whom the application had asked. Sockets that
 * are connected pass connect.bpf.c instead when they send, and this when they receive. Fails closed: a pod not known gets EPERM.
 */
#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_helpers.h>
#include "include/abi.h"
#include "include/address.h"
#include "include/decide.h"
#include "include/maps.h"

/* A datagram elsewhere leaves the storage alone: an answer to an earlier question may still be on its way. */
SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	struct endpoint destination = {}, listener = {};
	enum verdict verdict;

	read_ipv4(ctx, &destination);
	verdict = decide_udp(ctx, &destination, &listener);
	if (verdict == REDIRECT)
		write_ipv4(ctx, &listener);
	return verdict != REFUSE;
}

/* v4-mapped destinations come to sendmsg4. */
SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	struct endpoint destination = {}, listener = {};
	enum verdict verdict;

	read_ipv6(ctx, &destination);
	verdict = decide_udp(ctx, &destination, &listener);
	if (verdict == REDIRECT)
		write_ipv6(ctx, &listener);
	return verdict != REFUSE;
}

/* Whom a datagram from `source` shall seem to come from; null: from `source`. */
static __always_inline struct endpoint *shown_source(struct bpf_sock_addr *ctx, const struct endpoint *source)
{
	__u64 netns_cookie = bpf_get_netns_cookie(ctx);
	struct bpf_sock *sk = ctx->sk;
	struct captured_pod *pod;
	__be32 own[4];

	if (source->port != bpf_htons(DNS_PORT) || !sk)
		return NULL;
	pod = bpf_map_lookup_elem(&captured, &netns_cookie);
	if (!pod)
		return NULL;
	if (is_ipv4(source->address))
		set_ipv4(own, pod->ipv4);
	else
		set_ipv6(own, pod->ipv6[0], pod->ipv6[1], pod->ipv6[2], pod->ipv6[3]);
	return same_address(source->address, own) ? bpf_sk_storage_get(&peer_sk, sk, NULL, 0) : NULL;
}

SEC("cgroup/recvmsg4")
int recvmsg4(struct bpf_sock_addr *ctx)
{
	struct endpoint source = {}, *shown;

	read_ipv4(ctx, &source);
	shown = shown_source(ctx, &source);
	if (shown)
		write_ipv4(ctx, shown);
	return 1;
}

SEC("cgroup/recvmsg6")
int recvmsg6(struct bpf_sock_addr *ctx)
{
	struct endpoint source = {}, *shown;

	read_ipv6(ctx, &source);
	shown = shown_source(ctx, &source);
	if (shown)
		write_ipv6(ctx, shown);
	return 1;
}

char _license[] SEC("license") = "GPL";
