// Thousands of short connections: one thread and one epoll each side.
//
//   many serve PORT                            answers one byte to each, then waits for the client to close. A connection whose first byte is
//                                              's' gets one line of JSON: {"accepted", "live", "maxLive", "duplicates", "resets"}
//   many connect ADDRESS PORT COUNT AT_ONCE    COUNT connections, AT_ONCE at a time: connect, one byte there, one back, close. Prints one line
//                                              of JSON: {"answered", "failed", "firstError", "secs", "longestMs"}; exits with 0 if none failed
//
// `duplicates`: connections whose caller (address and port, as accept() showed it) had another live connection.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 256, BUCKETS = 1 << 16 };

struct conn {
	int fd;
	double started;
	struct sockaddr_in6 caller;
	struct conn *next; // in its bucket of `live`
};

static int poller;

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "many: %s: %s\n", what, strerror(errno));
	exit(2);
}

static void watch(int fd, void *data)
{
	struct epoll_event e = { .events = EPOLLIN, .data.ptr = data };
	if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e))
		die("epoll_ctl");
}

// ---- the application

static struct conn *live[BUCKETS];
static uint64_t accepted, live_count, max_live, duplicates, resets;

static struct conn **bucket_of(const struct sockaddr_in6 *caller)
{
	uint32_t last;
	memcpy(&last, caller->sin6_addr.s6_addr + 12, sizeof last);
	return &live[(last * 31 + caller->sin6_port) % BUCKETS];
}

static int same(const struct sockaddr_in6 *a, const struct sockaddr_in6 *b)
{
	return a->sin6_port == b->sin6_port && !memcmp(&a->sin6_addr, &b->sin6_addr, sizeof a->sin6_addr);
}

static void enter(struct conn *c)
{
	struct conn **bucket = bucket_of(&c->caller);
	for (struct conn *other = *bucket; other; other = other->next)
		duplicates += same(&other->caller, &c->caller);
	c->next = *bucket;
	*bucket = c;
	accepted++;
	if (++live_count > max_live)
		max_live = live_count;
}

static void leave(struct conn *c)
{
	for (struct conn **at = bucket_of(&c->caller); *at; at = &(*at)->next) {
		if (*at != c)
			continue;
		*at = c->next;
		live_count--;
		break;
	}
	close(c->fd);
	free(c);
}

static void accept_all(int listener)
{
	for (;;) {
		struct sockaddr_in6 caller;
		socklen_t length = sizeof caller;
		int fd = accept4(listener, (struct sockaddr *)&caller, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0)
			return;
		struct conn *c = calloc(1, sizeof *c);
		c->fd = fd;
		c->caller = caller;
		enter(c);
		watch(fd, c);
	}
}

static void report(int fd)
{
	char text[256];
	int length = snprintf(text, sizeof text,
			      "{\"accepted\":%llu,\"live\":%llu,\"maxLive\":%llu,\"duplicates\":%llu,\"resets\":%llu}\n",
			      (unsigned long long)accepted, (unsigned long long)live_count, (unsigned long long)max_live,
			      (unsigned long long)duplicates, (unsigned long long)resets);
	if (send(fd, text, (size_t)length, MSG_NOSIGNAL) < 0)
		die("report");
}

static void serve_one(struct conn *c)
{
	char bytes[64];
	ssize_t n = recv(c->fd, bytes, sizeof bytes, 0);
	if (n > 0 && bytes[0] == 's')
		report(c->fd);
	else if (n > 0)
		n = send(c->fd, "y", 1, MSG_NOSIGNAL);
	if (n > 0 || (n < 0 && errno == EAGAIN))
		return;
	resets += n < 0;
	leave(c);
}

static _Noreturn void serve(int port)
{
	int one = 1, zero = 0, listener = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct sockaddr_in6 any = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port), .sin6_addr = in6addr_any };
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
	if (bind(listener, (struct sockaddr *)&any, sizeof any) || listen(listener, 4096))
		die("listen");
	watch(listener, NULL);
	printf("listening\n");
	fflush(stdout);
	for (;;) {
		struct epoll_event events[EVENTS];
		int n = epoll_wait(poller, events, EVENTS, -1);
		for (int i = 0; i < n; i++) {
			if (events[i].data.ptr)
				serve_one(events[i].data.ptr);
			else
				accept_all(listener);
		}
	}
}

// ---- the clients

static struct sockaddr_storage target;
static socklen_t target_length;
static uint64_t answered, failed;
static int first_error;
static double longest;

static void resolve(const char *address, int port)
{
	struct sockaddr_in *v4 = (void *)&target;
	struct sockaddr_in6 *v6 = (void *)&target;
	if (inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons((uint16_t)port);
		target_length = sizeof *v4;
	} else if (inet_pton(AF_INET6, address, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons((uint16_t)port);
		target_length = sizeof *v6;
	} else {
		errno = EINVAL;
		die(address);
	}
}

static void note_failure(int error)
{
	if (failed++ == 0)
		first_error = error;
}

// Connects, and sends as soon as that is done. Blocking connects on loopback-fast paths would do, but not one at a time.
static void dial(struct conn *c)
{
	for (;;) {
		c->started = now();
		c->fd = socket(target.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (c->fd < 0)
			die("socket");
		if (!connect(c->fd, (struct sockaddr *)&target, target_length) || errno == EINPROGRESS)
			break;
		note_failure(errno);
		close(c->fd);
		c->fd = -1;
		return;
	}
	struct epoll_event e = { .events = EPOLLOUT, .data.ptr = c };
	if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &e))
		die("epoll_ctl");
}

// Returns 1 when the connection is over, well or not.
static int client_event(struct conn *c, uint32_t events)
{
	int error = 0;
	socklen_t length = sizeof error;
	char answer;
	if (events & (EPOLLERR | EPOLLHUP)) {
		getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
		note_failure(error ? error : EPIPE);
		return 1;
	}
	if (events & EPOLLOUT) {
		struct epoll_event e = { .events = EPOLLIN, .data.ptr = c };
		if (send(c->fd, "x", 1, MSG_NOSIGNAL) == 1)
			return epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &e) ? 1 : 0;
		note_failure(errno);
		return 1;
	}
	ssize_t n = recv(c->fd, &answer, 1, 0);
	if (n < 0 && errno == EAGAIN)
		return 0;
	if (n == 1 && answer == 'y')
		answered++;
	else
		note_failure(n < 0 ? errno : EPROTO);
	return 1;
}

static int run(uint64_t count, uint64_t at_once)
{
	struct conn *conns = calloc(at_once, sizeof *conns);
	uint64_t dialled = 0;
	double start = now();
	for (; dialled < at_once && dialled < count; dialled++)
		dial(&conns[dialled]);
	while (answered + failed < count) {
		struct epoll_event events[EVENTS];
		int n = epoll_wait(poller, events, EVENTS, 10000);
		if (n == 0)
			break; // Nothing for 10 s: what is under way has failed.
		for (int i = 0; i < n; i++) {
			struct conn *c = events[i].data.ptr;
			if (!client_event(c, events[i].events))
				continue;
			if (now() - c->started > longest)
				longest = now() - c->started;
			close(c->fd);
			if (dialled < count) {
				dialled++;
				dial(c);
			}
		}
	}
	failed = count - answered;
	printf("{\"answered\":%llu,\"failed\":%llu,\"firstError\":\"%s\",\"secs\":%.3f,\"longestMs\":%.1f}\n",
	       (unsigned long long)answered, (unsigned long long)failed, first_error ? strerrorname_np(first_error) : "",
	       now() - start, longest * 1000);
	return failed != 0;
}

int main(int argc, char **argv)
{
	struct rlimit files = { 65536, 65536 };
	setrlimit(RLIMIT_NOFILE, &files);
	poller = epoll_create1(EPOLL_CLOEXEC);
	if (argc == 3 && !strcmp(argv[1], "serve"))
		serve(atoi(argv[2]));
	if (argc != 6 || strcmp(argv[1], "connect")) {
		fprintf(stderr, "usage: many serve PORT | many connect ADDRESS PORT COUNT AT_ONCE\n");
		return 2;
	}
	resolve(argv[2], atoi(argv[3]));
	return run(strtoull(argv[4], NULL, 10), strtoull(argv[5], NULL, 10));
}
