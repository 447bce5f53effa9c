// Sockets of the unusual kinds, which node:net does not make.
//
//   sockets KIND ADDRESS PORT [KEY=VALUE…]   connects, sends the line "peer", and prints one line of JSON: {"local", "remote", "answer", "error"}
//   sockets serve KIND PORT                  accepts; prints {"accepted", "peer", "local"} of each connection (what accept, getpeername and
//                                            getsockname say), answers one byte and waits for its end
//   sockets transfer ADDRESS PORT LINE HOW   sends the line and reads to the end (HOW: "down"); sends zeros until it fails, from the start
//                                            ("up") or from the peer's end on ("late"). Prints "answered" at the first byte and {"ended": "fin"|"error", "error", "received"} at
//                                            the end. (libuv tells a reset that comes behind bytes not yet read as an end.)
//
// KIND: tcp, mptcp, fastopen (sendto with MSG_FASTOPEN), fastopen-connect (TCP_FASTOPEN_CONNECT), mapped (an IPv6 socket to ::ffff:ADDRESS).
// bind=ADDRESS, port=PORT: the local side, bound before; device=NAME: SO_BINDTODEVICE; hold=1: prints, then waits for the end of standard
// input before it closes. Addresses are printed as "address port", as the socket gives them.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif
#ifndef TCP_FASTOPEN_CONNECT
#define TCP_FASTOPEN_CONNECT 30
#endif

struct address {
	struct sockaddr_storage bytes;
	socklen_t length;
};

static int is(const char *a, const char *b)
{
	return !strcmp(a, b);
}

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "sockets: %s: %s\n", what, strerror(errno));
	exit(2);
}

static struct address address_of(const char *text, int port, int mapped)
{
	struct address a = { .length = sizeof(struct sockaddr_in6) };
	struct sockaddr_in *v4 = (void *)&a.bytes;
	struct sockaddr_in6 *v6 = (void *)&a.bytes;
	char wide[64];
	snprintf(wide, sizeof wide, "%s%s", mapped ? "::ffff:" : "", text);
	if (inet_pton(AF_INET6, wide, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons((uint16_t)port);
		return a;
	}
	v4->sin_family = AF_INET;
	v4->sin_port = htons((uint16_t)port);
	a.length = sizeof *v4;
	if (inet_pton(AF_INET, wide, &v4->sin_addr) != 1)
		die(wide);
	return a;
}

static const char *show(const struct address *a, char text[64])
{
	const struct sockaddr_in *v4 = (const void *)&a->bytes;
	const struct sockaddr_in6 *v6 = (const void *)&a->bytes;
	int is_v6 = a->bytes.ss_family == AF_INET6;
	inet_ntop(a->bytes.ss_family, is_v6 ? (const void *)&v6->sin6_addr : (const void *)&v4->sin_addr, text, 64);
	snprintf(text + strlen(text), 8, " %d", ntohs(is_v6 ? v6->sin6_port : v4->sin_port));
	return text;
}

typedef int (*name_of)(int, struct sockaddr *, socklen_t *);

static const char *name(name_of of, int fd, char text[64])
{
	struct address a = { .length = sizeof a.bytes };
	if (of(fd, (struct sockaddr *)&a.bytes, &a.length))
		return strcpy(text, strerrorname_np(errno));
	return show(&a, text);
}

static int open_socket(const char *kind, int family)
{
	int one = 1, fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, is(kind, "mptcp") ? IPPROTO_MPTCP : 0);
	if (fd < 0)
		die("socket");
	if (is(kind, "fastopen-connect") && setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &one, sizeof one))
		die("TCP_FASTOPEN_CONNECT");
	return fd;
}

static void prepare(int fd, int argc, char **argv, int mapped)
{
	const char *from = NULL;
	int port = 0, one = 1;
	for (int i = 0; i < argc; i++) {
		if (!strncmp(argv[i], "device=", 7) && setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, argv[i] + 7, strlen(argv[i] + 7)))
			die("SO_BINDTODEVICE");
		if (!strncmp(argv[i], "bind=", 5))
			from = argv[i] + 5;
		if (!strncmp(argv[i], "port=", 5))
			port = atoi(argv[i] + 5);
	}
	if (!from)
		return;
	struct address a = address_of(from, port, mapped);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(fd, (struct sockaddr *)&a.bytes, a.length))
		die("bind");
}

static const char line[] = "peer\n";

// Connects and sends the line; 0 or an errno.
static int start(const char *kind, int fd, const struct address *to)
{
	const struct sockaddr *address = (const void *)&to->bytes;
	if (is(kind, "fastopen"))
		return sendto(fd, line, strlen(line), MSG_FASTOPEN | MSG_NOSIGNAL, address, to->length) < 0 ? errno : 0;
	if (connect(fd, address, to->length))
		return errno;
	return send(fd, line, strlen(line), MSG_NOSIGNAL) < 0 ? errno : 0;
}

static int client(const char *kind, int argc, char **argv)
{
	int mapped = is(kind, "mapped"), error, used = 0;
	struct address to = address_of(argv[0], atoi(argv[1]), mapped);
	int fd = open_socket(kind, to.bytes.ss_family);
	char answer[1024] = "", local[64] = "", remote[64] = "";
	prepare(fd, argc - 2, argv + 2, mapped);
	error = start(kind, fd, &to);
	// What an application asks for is asked right after connect, and while it waits.
	if (!error) {
		name(getsockname, fd, local);
		name(getpeername, fd, remote);
	}
	while (!error && used < (int)sizeof answer - 1) {
		ssize_t n = recv(fd, answer + used, sizeof answer - 1 - (size_t)used, 0);
		if (n < 0)
			error = errno;
		if (n <= 0)
			break;
		used += (int)n;
	}
	for (char *c = answer; *c; c++)
		*c = *c == '"' ? '\'' : *c;
	printf("{\"local\":\"%s\",\"remote\":\"%s\",\"answer\":\"%s\",\"error\":\"%s\"}\n", local, remote, answer,
	       error ? strerrorname_np(error) : "");
	fflush(stdout);
	for (int i = 2; i < argc; i++)
		while (is(argv[i], "hold=1") && getchar() != EOF)
			;
	return 0;
}

static _Noreturn void serve(const char *kind, int port)
{
	int one = 1, listener = open_socket(kind, AF_INET6);
	struct address any = address_of("::", port, 0);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(listener, (struct sockaddr *)&any.bytes, any.length) || listen(listener, 64))
		die("listen");
	printf("listening\n");
	fflush(stdout);
	for (;;) {
		struct address from = { .length = sizeof from.bytes };
		char accepted[64], peer[64], local[64], byte;
		int fd = accept(listener, (struct sockaddr *)&from.bytes, &from.length);
		if (fd < 0)
			die("accept");
		printf("{\"accepted\":\"%s\",\"peer\":\"%s\",\"local\":\"%s\"}\n", show(&from, accepted), name(getpeername, fd, peer),
		       name(getsockname, fd, local));
		fflush(stdout);
		if (send(fd, "y", 1, MSG_NOSIGNAL) == 1 && !shutdown(fd, SHUT_WR))
			while (recv(fd, &byte, 1, 0) > 0)
				;
		close(fd);
	}
}

// Returns 0, or the errno of a failed connection; 1 in `ended` at the peer's end.
static int transfer_step(int fd, short events, long long *received, int *ended)
{
	static char bytes[128 << 10], zeros[64 << 10];
	if (!*ended && events & (POLLIN | POLLERR | POLLHUP)) {
		ssize_t n = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
		if (n > 0 && *received == 0) {
			printf("answered\n");
			fflush(stdout);
		}
		if (n < 0 && errno != EAGAIN)
			return errno;
		*ended = n == 0;
		*received += n > 0 ? n : 0;
	}
	if (events & POLLOUT && send(fd, zeros, sizeof zeros, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EAGAIN)
		return errno;
	return 0;
}

static int transfer(const char *address, const char *port, const char *first, const char *how)
{
	int up = is(how, "up"), goes_on = !is(how, "down");
	struct address to = address_of(address, atoi(port), 0);
	int fd = open_socket("tcp", to.bytes.ss_family), ended = 0, error = 0;
	long long received = 0;
	if (connect(fd, (struct sockaddr *)&to.bytes, to.length))
		error = errno;
	else if (send(fd, first, strlen(first), MSG_NOSIGNAL) < 0 || send(fd, "\n", 1, MSG_NOSIGNAL) < 0)
		error = errno;
	while (!error && (!ended || goes_on)) {
		struct pollfd p = { .fd = fd, .events = (short)(ended ? POLLOUT : POLLIN | (up ? POLLOUT : 0)) };
		if (poll(&p, 1, -1) > 0)
			error = transfer_step(fd, p.revents, &received, &ended);
	}
	printf("{\"ended\":\"%s\",\"error\":\"%s\",\"received\":%lld}\n", error ? "error" : "fin", error ? strerrorname_np(error) : "",
	       received);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 6 && is(argv[1], "transfer"))
		return transfer(argv[2], argv[3], argv[4], argv[5]);
	if (argc == 4 && is(argv[1], "serve"))
		serve(argv[2], atoi(argv[3]));
	if (argc < 4) {
		fprintf(stderr, "usage: sockets KIND ADDRESS PORT [KEY=VALUE…] | sockets serve KIND PORT | sockets transfer ADDRESS PORT LINE down|up|late\n");
		return 2;
	}
	return client(argv[1], argc - 2, argv + 2);
}
