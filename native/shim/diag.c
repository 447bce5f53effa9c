/* TCP sockets of a network namespace by sock_diag: listed, and ended. Every call returns >= 0 or -errno. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include "culvert.h"

/* What native/net/diag.ts reads. */
struct tcp_record {
	uint8_t family, state, pad[2];
	struct inet_diag_sockid id;
	uint32_t pad2;
	uint64_t cgroup; /* 0: a handshake that is not over yet */
};
_Static_assert(sizeof(struct tcp_record) == 64, "crosses to TypeScript: size");

struct diag_request {
	struct nlmsghdr header;
	struct inet_diag_req_v2 body;
};

static int ask(int fd, struct diag_request *request, int type, int flags)
{
	request->header = (struct nlmsghdr){ .nlmsg_len = sizeof(*request), .nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | flags };
	request->body.sdiag_protocol = IPPROTO_TCP;
	return send(fd, request, sizeof(*request), 0) < 0 ? -errno : 0;
}

static void read_record(const struct nlmsghdr *header, struct tcp_record *record)
{
	const struct inet_diag_msg *message = NLMSG_DATA(header);
	int left = header->nlmsg_len - NLMSG_LENGTH(sizeof(*message));

	memset(record, 0, sizeof(*record));
	record->family = message->idiag_family;
	record->state = message->idiag_state;
	record->id = message->id;
	for (const struct rtattr *attribute = (const struct rtattr *)(message + 1); RTA_OK(attribute, left);
	     attribute = RTA_NEXT(attribute, left)) {
		if (attribute->rta_type == INET_DIAG_CGROUP_ID)
			memcpy(&record->cgroup, RTA_DATA(attribute), sizeof(record->cgroup));
	}
}

/* All sockets of a family whose state is in `states` (bits); `fd`: a NETLINK_SOCK_DIAG socket. Returns how many; -ENOBUFS: more than `room`. */
CULVERT_API int culvert_net_tcp_list(int fd, int family, uint32_t states, struct tcp_record *out, uint32_t room)
{
	struct diag_request request = { .body = { .sdiag_family = family, .idiag_states = states } };
	_Alignas(struct nlmsghdr) char buffer[32768];
	int err = ask(fd, &request, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP);
	uint32_t count = 0;

	if (err)
		return err;
	for (;;) {
		int bytes = recv(fd, buffer, sizeof(buffer), 0);

		if (bytes < 0)
			return -errno;
		for (struct nlmsghdr *header = (struct nlmsghdr *)buffer; NLMSG_OK(header, bytes); header = NLMSG_NEXT(header, bytes)) {
			if (header->nlmsg_type == NLMSG_DONE)
				return count > room ? -ENOBUFS : (int)count;
			if (header->nlmsg_type == NLMSG_ERROR)
				return ((struct nlmsgerr *)NLMSG_DATA(header))->error;
			if (count < room)
				read_record(header, &out[count]);
			count++; /* the dump is read to its end, so that the next one does not begin with its rest */
		}
	}
}

/* Ends one socket, as an RST of its peer would, and tells the peer. -ENOENT: it is gone; -EOPNOTSUPP: no CONFIG_INET_DIAG_DESTROY. */
CULVERT_API int culvert_net_tcp_destroy(int fd, const struct tcp_record *record)
{
	struct diag_request request = { .body = { .sdiag_family = record->family, .idiag_states = ~0U, .id = record->id } };
	_Alignas(struct nlmsghdr) char buffer[1024];
	struct nlmsghdr *header = (struct nlmsghdr *)buffer;
	int err = ask(fd, &request, SOCK_DESTROY, NLM_F_ACK), bytes;

	if (err)
		return err;
	bytes = recv(fd, buffer, sizeof(buffer), 0);
	if (bytes < 0)
		return -errno;
	if (!NLMSG_OK(header, (unsigned)bytes) || header->nlmsg_type != NLMSG_ERROR)
		return -EPROTO;
	return ((struct nlmsgerr *)NLMSG_DATA(header))->error;
}
