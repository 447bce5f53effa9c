/* SPDX-License-Identifier: (GPL-2.0 OR Apache-2.0) */
/*
 * Every struct and constant that crosses between the kernel and user space. native/abi.ts is the twin of this
 * file and is checked against the BTF of the objects. Any change of a size, an offset or a meaning raises
 * CULVERT_ABI_VERSION: pinned maps of another version are not adopted.
 */
#ifndef CULVERT_ABI_H
#define CULVERT_ABI_H

#include <linux/types.h>

#define CULVERT_ABI_VERSION 1

/* Ports of the agent's listeners in a pod's namespace, host order. The inbound listener (15006) is reached by slot only. */
#define OUTBOUND_PORT 15001
#define HBONE_PORT 15008
/* Names: UDP and TCP. */
#define DNS_PORT 15053

/* Map sizes. User space may set others before load. */
#define MAX_PODS 4096
#define MAX_CONNECTIONS 65536
#define MAX_DIALS 16384

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

/*
 * Map original_dst: a redirected connection, by its client's side -> where it wanted to go. Port alone would mix up
 * connections that are bound to different source addresses. The entry lives as long as the client's socket.
 */
struct original_key {
	__u64 netns_cookie;
	__be32 address[4]; /* source, v4-mapped */
	__be16 port;       /* source */
	__u16 family;      /* of the packets: AF_INET also for v4-mapped sockets */
	__u32 pad;         /* 0 */
};
ABI_SIZE(struct original_key, 32);
ABI_OFFSET(struct original_key, address, 8);
ABI_OFFSET(struct original_key, port, 24);
ABI_OFFSET(struct original_key, family, 26);

enum original_state {
	ORIGINAL_UNREAD = 0,
	ORIGINAL_READ = 1, /* written by the agent when it has accepted the connection */
	ORIGINAL_CLOSED = 2, /* the client has sent all and left before that: the agent takes the entry out when it accepts */
};

struct original_value {
	struct endpoint destination;
	__u32 state; /* enum original_state */
};
ABI_SIZE(struct original_value, 24);
ABI_OFFSET(struct original_value, state, 20);

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
	SLOT_COUNT = 2,
};

/* Keys of the per-CPU array `counters`: every refusal and drop, by reason. */
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
	COUNTER_COUNT = 11,
};

#endif
