/* SPDX-License-Identifier: (GPL-2.0 OR Apache-2.0) */
/*
 * Every struct and constant that crosses between the kernel and user space. native/abi.ts is the twin of this
 * file and is checked against the BTF of the objects. Any change of a size, an offset or a meaning raises
 * CULVERT_ABI_VERSION: pinned maps of another version are not adopted.
 */
#ifndef CULVERT_ABI_H
#define CULVERT_ABI_H

#include <linux/types.h>

#define CULVERT_ABI_VERSION 2

/* Ports of the agent's listeners in a pod's namespace, host order. The inbound listener (15006) is reached by slot only. */
#define OUTBOUND_PORT 15001
#define HBONE_PORT 15008
/* Names: UDP and TCP. */
#define DNS_PORT 15053

/*
 * Redirected connections go to one of these ports of the pod's own address, by a hash of their destination, and sk_lookup gives them to the
 * listener on OUTBOUND_PORT: each port has the pod's ephemeral ports for itself, as each destination has without the mesh. Nobody listens there.
 */
#define REDIRECT_FIRST_PORT 14336 /* a multiple of REDIRECT_PORTS */
#define REDIRECT_PORTS 1024 /* a power of two; DNS_PORT lies within, and is never one of them */

/* Map sizes. User space may set others before load. */
#define MAX_PODS 4096
#define MAX_CONNECTIONS 65536
#define MAX_DIALS 16384
#define MAX_MPTCP 4096
#define MAX_EXCLUSIONS 65536
#define MAX_TICKETS 4096

#define ABI_SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), #type " crosses to user space: size")
#define ABI_OFFSET(type, member, bytes) \
	_Static_assert(__builtin_offsetof(type, member) == (bytes), #type "." #member " crosses to user space: offset")

/* An address and port. IPv4 is always written v4-mapped (::ffff:a.b.c.d), whatever the socket's family. */
struct endpoint {
	__be32 address[4];
	__be16 port;
	__u16 pad; /* 0 */
};
ABI_SIZE(struct endpoint, 20);
ABI_OFFSET(struct endpoint, port, 16);

/* Map pod_cgroups: cgroup id of a pod -> what its processes may do. A pod that is not listed is not known yet. */
enum cgroup_kind {
	CGROUP_AGENT = 1,    /* of a live agent: connects plainly from any namespace */
	CGROUP_PLAIN = 2,    /* not in the mesh (also: host network) */
	CGROUP_CAPTURED = 3, /* in the mesh: what it connects is decided by its namespace */
};

/* Map captured: netns cookie -> pod in the mesh. */
enum captured_flags {
	POD_HAS_IPV4 = 1,
	POD_HAS_IPV6 = 2,
	POD_EXCLUDES_PORTS = 4,  /* has outbound entries in excluded_ports */
	POD_EXCLUDES_RANGES = 8, /* has entries in excluded_ranges */
	POD_DNS = 16, /* what goes to port 53 goes to DNS_PORT; else TCP as all TCP, UDP plainly */
};

struct captured_pod {
	__be32 ipv4;
	__u32 flags; /* enum captured_flags */
	__be32 ipv6[4];
};
ABI_SIZE(struct captured_pod, 24);
ABI_OFFSET(struct captured_pod, flags, 4);
ABI_OFFSET(struct captured_pod, ipv6, 8);

/* Map excluded_ports: what of a captured pod stays as it is without the mesh, by its user's will. Value: 1. */
enum direction {
	OUTBOUND = 0,
	INBOUND = 1,
};

struct port_key {
	__u64 netns_cookie;
	__u16 port;      /* host order; 0: every port */
	__u16 direction; /* enum direction */
	__u32 pad;       /* 0 */
};
ABI_SIZE(struct port_key, 16);
ABI_OFFSET(struct port_key, port, 8);
ABI_OFFSET(struct port_key, direction, 10);

/* Map excluded_ranges (LPM): destinations that a captured pod reaches without the mesh. Value: AF_INET or AF_INET6, that of the range. */
struct range_key {
	__u32 prefix_bits; /* of what follows: 64 for the namespace, then those of the v4-mapped or IPv6 range */
	__u32 netns_cookie[2]; /* as in memory: this struct has no room for padding */
	__be32 address[4];
};
ABI_SIZE(struct range_key, 28);
ABI_OFFSET(struct range_key, netns_cookie, 4);
ABI_OFFSET(struct range_key, address, 12);

/*
 * Map original_dst: a redirected connection that the agent has not accepted yet, by its client's side and the port that it was sent to ->
 * where it wanted to go. The agent takes the entry out in one step; what is not taken goes when its client's socket ends, unless that
 * has sent all and left in order.
 */
struct original_key {
	__u64 netns_cookie;
	__be32 address[4]; /* source, v4-mapped */
	__be16 port;       /* source */
	__u16 family;      /* of the packets: AF_INET also for v4-mapped sockets */
	__be16 listener;   /* port that it was sent to; 0 in map mptcp_peers */
	__u16 pad;         /* 0 */
};
ABI_SIZE(struct original_key, 32);
ABI_OFFSET(struct original_key, address, 8);
ABI_OFFSET(struct original_key, port, 24);
ABI_OFFSET(struct original_key, family, 26);
ABI_OFFSET(struct original_key, listener, 28);

struct original_value {
	struct endpoint destination;
	__u32 born; /* seconds of CLOCK_MONOTONIC */
};
ABI_SIZE(struct original_value, 24);
ABI_OFFSET(struct original_value, born, 20);

/* Map tickets: a connection that kubelet has opened from the host's namespace -> when (ns of CLOCK_MONOTONIC). sk_lookup lets it through. */
struct ticket {
	struct endpoint source;
	struct endpoint destination;
};
ABI_SIZE(struct ticket, 40);

#define TICKET_SECONDS 60

/*
 * Socket storage caller_sk: set by the agent on the socket with which it dials the application, before connect.
 * BPF tells in `state` whether the dial was recorded; native/shim/dial.c ends one that was not.
 */
enum caller_state {
	CALLER_SET = 0,
	CALLER_RECORDED = 1,
	CALLER_LOST = 2, /* callers was full: the application would see the dialling address; end the connection */
};

struct caller {
	struct endpoint endpoint; /* whom accept() and getpeername() of the application shall show */
	__u32 state;              /* enum caller_state */
};
ABI_SIZE(struct caller, 24);
ABI_OFFSET(struct caller, state, 20);

/* Map callers: a dial on its way from the agent to the application, by its 4-tuple -> struct endpoint of the caller. */
struct dial_key {
	__u64 netns_cookie;
	struct endpoint source;
	struct endpoint destination;
};
ABI_SIZE(struct dial_key, 48);
ABI_OFFSET(struct dial_key, source, 8);
ABI_OFFSET(struct dial_key, destination, 28);

/* Keys of the SOCKMAP `listeners`, one map per pod. */
enum listener_slot {
	SLOT_INBOUND = 0,
	SLOT_HBONE = 1,
	SLOT_OUTBOUND = 2,
	SLOT_COUNT = 3,
};

/* Keys of the per-CPU array `counters`: every refusal and drop, by reason, and what is let through in clear. */
enum counter {
	REFUSED_UNKNOWN = 0,       /* connect: pod, or namespace within it, not known: EPERM */
	REFUSED_NO_ADDRESS = 1,    /* connect: the pod has no address of the destination's family: EPERM */
	REFUSED_ORIGINAL_FULL = 2, /* connect: original_dst full: EPERM */
	REFUSED_NO_STORAGE = 3,    /* connect: no memory for the socket's storage: EPERM */
	REFUSED_CALLERS_FULL = 4,  /* connect of the agent: callers full: EPERM */
	LOST_ORIGINAL = 5,         /* original_dst filled up between connect and SYN: the agent resets the connection */
	LOST_CALLER = 6,           /* callers filled up between connect and SYN: caller.state tells the agent */
	LOST_PEER = 7,             /* no memory for an accepted socket's storage: it shows the dialling address */
	HELD_UNKNOWN = 8,          /* ingress: SYN to a pod that is not known yet, dropped; the peer retries */
	DROPPED_NO_LISTENER = 9,   /* inbound: the slot is empty */
	DROPPED_NOT_ASSIGNED = 10, /* inbound: the listener does not take this family */
	PASSED_PROBE = 11,         /* inbound: kubelet's, with a ticket: to the application's own socket */
	PASSED_EXCLUDED = 12,      /* connect, inbound: excluded by the pod's annotations: in clear */
	LOST_PEER_NAME = 13,       /* mptcp_peers full: getpeername of an MPTCP socket shows the pod's own address */
	COUNTER_COUNT = 14,
};

#endif
