// Load for the bench: an application and its clients, one thread and one epoll each, so that they cost little beside the proxies.
//
//   load serve PORT                        the application, on every address; never ends
//   load rr ADDRESS PORT CONNS SECS        100 B request, 1 KB response, over and over on CONNS kept-open connections
//   load connect ADDRESS PORT CONNS SECS   the same once per connection: connect, request, response, close; CONNS at a time
//   load up|down ADDRESS PORT CONNS SECS   bulk: bytes delivered end to end in SECS
//   load idle ADDRESS PORT CONNS           one request on each connection, prints "idle", keeps them until standard input ends
//
// SECS may have a fraction; where nothing was counted by then, a client goes on until something is, 10 s at most. A client prints "ready" (rr: once every connection has carried a request), begins when it reads a line, prints
// one line of JSON and exits with 0 only if no connection failed. The first byte of a connection says what it is: 'r' request/response, 'u' the application reads and answers every full MiB with one byte, 'd' the application writes.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { REQUEST = 100, RESPONSE = 1024, CHUNK = 128 << 10, ACK_BYTES = 1 << 20, EVENTS = 256 };
#define PATIENCE_NS 10000000000u

struct conn {
	int fd;
	char mode;            // 0 until the first byte is known (application only)
	uint32_t received;    // bytes of the current request, response or MiB
	uint32_t unsent;      // bytes that a full socket did not take
	uint64_t started_ns;
};

static char chunk[CHUNK];
static char message[RESPONSE];
static int poller;

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what)
{
	fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
	exit(2);
}

// Latencies in buckets of 1/32 of a power of two (3 % wide), in nanoseconds.
enum { SUB_BITS = 5, BUCKETS = 64 << SUB_BITS };
static uint64_t histogram[BUCKETS], max_ns;

static void record(uint64_t ns)
{
	int exponent = ns < 2u << SUB_BITS ? 0 : 63 - __builtin_clzll(ns) - SUB_BITS;
	histogram[((uint64_t)exponent << SUB_BITS) + (ns >> exponent)]++;
	if (ns > max_ns)
		max_ns = ns;
}

static double quantile_us(double q, uint64_t count)
{
	uint64_t seen = 0, wanted = (uint64_t)(q * (double)count);
	for (uint64_t i = 0; i < BUCKETS; i++) {
		seen += histogram[i];
		if (seen <= wanted)
			continue;
		uint64_t exponent = i < 2u << SUB_BITS ? 0 : (i >> SUB_BITS) - 1;
		return ((double)(i - (exponent << SUB_BITS)) + 0.5) * (double)(1ull << exponent) / 1000;
	}
	return 0;
}

static void watch(struct conn *c, uint32_t events, int operation)
{
	struct epoll_event e = { .events = events, .data.ptr = c };
	if (epoll_ctl(poller, operation, c->fd, &e))
		die("epoll_ctl");
}

static void no_delay(int fd)
{
	int one = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

// Sends what is owed. 0: all gone or the socket is full (then EPOLLOUT wakes us), -1: the connection failed.
static int send_message(struct conn *c, uint32_t length)
{
	uint32_t was_unsent = c->unsent;
	c->unsent += length;
	while (c->unsent > 0) {
		uint32_t part = c->unsent < RESPONSE ? c->unsent : RESPONSE;
		ssize_t n = send(c->fd, message, part, MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN)
			return -1;
		if (n < 0)
			break;
		c->unsent -= (uint32_t)n;
	}
	if (!was_unsent != !c->unsent)
		watch(c, c->unsent ? EPOLLIN | EPOLLOUT : EPOLLIN, EPOLL_CTL_MOD);
	return 0;
}

// ---- the application

static int serve_input(struct conn *c)
{
	ssize_t n = recv(c->fd, chunk, c->mode == 'r' ? RESPONSE : CHUNK, 0);
	if (n <= 0)
		return n < 0 && errno == EAGAIN ? 0 : -1;
	if (c->mode == 0) {
		c->mode = chunk[0];
		if (c->mode == 'd')
			watch(c, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
		if (c->mode != 'r' && c->mode != 'u' && c->mode != 'd')
			return -1;
	}
	if (c->mode == 'd')
		return 0;
	uint32_t unit = c->mode == 'r' ? REQUEST : ACK_BYTES, answer = c->mode == 'r' ? RESPONSE : 1;
	c->received += (uint32_t)n;
	uint32_t full = c->received / unit;
	c->received %= unit;
	return full ? send_message(c, full * answer) : 0;
}

static int serve_output(struct conn *c)
{
	if (c->mode != 'd')
		return send_message(c, 0);
	ssize_t n = send(c->fd, chunk, CHUNK, MSG_NOSIGNAL);
	return n < 0 && errno != EAGAIN ? -1 : 0;
}

static void accept_all(int listener)
{
	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0)
			return;
		no_delay(fd);
		struct conn *c = calloc(1, sizeof *c);
		c->fd = fd;
		watch(c, EPOLLIN, EPOLL_CTL_ADD);
	}
}

static _Noreturn void serve(int port)
{
	int one = 1, zero = 0, listener = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct sockaddr_in6 any = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port), .sin6_addr = in6addr_any };
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
	if (bind(listener, (struct sockaddr *)&any, sizeof any) || listen(listener, 4096))
		die("listen");
	struct conn self = { .fd = listener };
	watch(&self, EPOLLIN, EPOLL_CTL_ADD);
	printf("listening on %d\n", port);
	fflush(stdout);
	for (;;) {
		struct epoll_event events[EVENTS];
		int n = epoll_wait(poller, events, EVENTS, -1);
		for (int i = 0; i < n; i++) {
			struct conn *c = events[i].data.ptr;
			if (c == &self) {
				accept_all(listener);
				continue;
			}
			int failed = events[i].events & EPOLLOUT ? serve_output(c) : 0;
			if (!failed && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
				failed = serve_input(c);
			if (failed) {
				close(c->fd);
				free(c);
			}
		}
	}
}

// ---- the clients

static struct sockaddr_storage target;
static socklen_t target_length;
static uint64_t operations, bytes, failures;
static int once; // one operation per connection

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

static void open_conn(struct conn *c, char mode)
{
	*c = (struct conn){ .fd = socket(target.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), .mode = mode };
	if (c->fd < 0)
		die("socket");
	no_delay(c->fd);
	c->started_ns = now_ns();
	if (connect(c->fd, (struct sockaddr *)&target, target_length) && errno != EINPROGRESS)
		die("connect");
	c->unsent = mode == 'r' ? REQUEST : mode == 'd' ? 1 : 0;
	watch(c, EPOLLIN | EPOLLOUT, EPOLL_CTL_ADD); // Owing bytes, so that connecting ends in a send.
}

// A kept-open connection that fails is not opened again: the run has failed.
static void fail(struct conn *c)
{
	failures++;
	close(c->fd);
	if (once)
		open_conn(c, c->mode);
}

static int response(struct conn *c, uint64_t deadline_ns)
{
	ssize_t n = recv(c->fd, chunk, RESPONSE, 0);
	if (n <= 0)
		return n < 0 && errno == EAGAIN ? 0 : -1;
	c->received += (uint32_t)n;
	if (c->received < RESPONSE)
		return 0;
	uint64_t now = now_ns();
	record(now - c->started_ns);
	operations++;
	c->received = 0;
	c->started_ns = now;
	if (!deadline_ns)
		return 0;
	if (!once)
		return send_message(c, REQUEST);
	close(c->fd);
	open_conn(c, 'r');
	return 0;
}

static int client_event(struct conn *c, uint32_t events, uint64_t deadline_ns)
{
	ssize_t n;
	if (events & EPOLLOUT && c->mode == 'u') {
		n = send(c->fd, chunk, CHUNK, MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN)
			return -1;
	} else if (events & EPOLLOUT && send_message(c, 0)) {
		return -1;
	}
	if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return 0;
	if (c->mode == 'r')
		return response(c, deadline_ns);
	static char received[CHUNK];
	n = recv(c->fd, received, CHUNK, 0);
	if (n <= 0)
		return n < 0 && errno == EAGAIN ? 0 : -1;
	bytes += c->mode == 'u' ? (uint64_t)n * ACK_BYTES : (uint64_t)n;
	return 0;
}

// At the deadline, or, without one, when every connection had its response. A short reading on a busy machine waits for something to count.
static int is_over(uint64_t count, uint64_t deadline_ns)
{
	if (!deadline_ns)
		return operations + failures >= count;
	if (!once && failures >= count)
		return 1;
	uint64_t now = now_ns();
	return now >= deadline_ns && (operations || bytes || failures || now >= deadline_ns + PATIENCE_NS);
}

static void run(uint64_t count, uint64_t deadline_ns)
{
	struct epoll_event events[EVENTS];
	while (!is_over(count, deadline_ns)) {
		int n = epoll_wait(poller, events, EVENTS, 100);
		for (int i = 0; i < n; i++) {
			struct conn *c = events[i].data.ptr;
			if (client_event(c, events[i].events, deadline_ns))
				fail(c);
		}
	}
}

int main(int argc, char **argv)
{
	struct rlimit files = { 65536, 65536 };
	setrlimit(RLIMIT_NOFILE, &files);
	poller = epoll_create1(EPOLL_CLOEXEC);
	const char *what = argc > 1 ? argv[1] : "";
	if (!strcmp(what, "serve") && argc == 3)
		serve(atoi(argv[2]));
	int idle = !strcmp(what, "idle");
	if (argc != (idle ? 5 : 6)) {
		fprintf(stderr, "usage: load serve PORT | load rr|connect|up|down ADDRESS PORT CONNS SECS | load idle ADDRESS PORT CONNS\n");
		return 2;
	}
	char mode = !strcmp(what, "up") ? 'u' : !strcmp(what, "down") ? 'd' : 'r';
	uint64_t count = strtoull(argv[4], NULL, 10);
	once = !strcmp(what, "connect");
	memset(chunk, mode, sizeof chunk);
	memset(message, mode, sizeof message);
	resolve(argv[2], atoi(argv[3]));
	struct conn *conns = calloc(count, sizeof *conns);
	int kept_open = idle || !strcmp(what, "rr");
	if (kept_open) {
		for (uint64_t i = 0; i < count; i++)
			open_conn(&conns[i], mode);
		run(count, 0);
	}
	puts(idle ? "idle" : "ready");
	fflush(stdout);
	while (getchar() != (idle ? EOF : '\n'))
		if (feof(stdin))
			return 2;
	if (idle)
		return failures != 0;
	operations = max_ns = 0;
	memset(histogram, 0, sizeof histogram);
	uint64_t start = now_ns();
	for (uint64_t i = 0; i < count; i++) {
		conns[i].started_ns = start;
		if (!kept_open)
			open_conn(&conns[i], mode);
		else if (!failures && send_message(&conns[i], REQUEST))
			fail(&conns[i]);
	}
	run(count, start + (uint64_t)(atof(argv[5]) * 1e9));
	double secs = (double)(now_ns() - start) / 1e9;
	printf("{\"operations\":%llu,\"bytes\":%llu,\"failures\":%llu,\"secs\":%.6f,\"p50Us\":%.1f,\"p99Us\":%.1f,\"maxUs\":%.1f}\n",
	       (unsigned long long)operations, (unsigned long long)bytes, (unsigned long long)failures, secs,
	       quantile_us(0.5, operations), quantile_us(0.99, operations), (double)max_ns / 1000);
	return failures != 0;
}
