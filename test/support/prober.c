// Clients that go on by themselves: prober ADDRESS PORT CONNECTIONS INTERVAL_MS
//
// Each keeps a connection to an `echo` application open, sends a line every interval and waits for it; when the connection ends it opens
// the next 5 ms later. A line on standard input prints what has happened so far as one line of JSON (ProberReport in mesh-harness.ts); the end
// of standard input ends it. In C, because libuv tells a reset that comes behind bytes not yet read as an end.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 64, REOPEN_MS = 5, ERRNOS = 256 };

struct probe {
	int fd; // -1: to be opened at `next`
	int connected;
	int unharmed;   // has lived since the last report
	double sent;    // 0: nothing under way
	double next;    // when to send or to open, 0: not now
};

static struct sockaddr_storage target;
static socklen_t target_length;
static int poller;
static struct probe *probes;
static int count;
static double interval, longest;
static unsigned long long answers, ends, errors[ERRNOS];

static double now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1000 + (double)t.tv_nsec / 1e6;
}

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "prober: %s: %s\n", what, strerror(errno));
	exit(2);
}

static void watch(struct probe *p, uint32_t events, int operation)
{
	struct epoll_event e = { .events = events, .data.ptr = p };
	if (epoll_ctl(poller, operation, p->fd, &e))
		die("epoll_ctl");
}

static void waited(struct probe *p)
{
	double ms = p->sent ? now_ms() - p->sent : 0;
	if (ms > longest)
		longest = ms;
	p->sent = 0;
}

static void over(struct probe *p, int error)
{
	if (error)
		errors[error % ERRNOS]++;
	else
		ends++;
	waited(p);
	close(p->fd);
	p->fd = -1;
	p->unharmed = 0;
	p->next = now_ms() + REOPEN_MS;
}

static void open_probe(struct probe *p)
{
	int one = 1;
	*p = (struct probe){ .fd = socket(target.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), .sent = now_ms() };
	if (p->fd < 0)
		die("socket");
	setsockopt(p->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	watch(p, EPOLLOUT, EPOLL_CTL_ADD);
	if (connect(p->fd, (struct sockaddr *)&target, target_length) && errno != EINPROGRESS)
		over(p, errno);
}

static void say(struct probe *p, const char *text)
{
	if (send(p->fd, text, strlen(text), MSG_NOSIGNAL) < 0)
		over(p, errno);
}

static void became_connected(struct probe *p)
{
	int error = 0;
	socklen_t length = sizeof error;
	getsockopt(p->fd, SOL_SOCKET, SO_ERROR, &error, &length);
	if (error) {
		over(p, error);
		return;
	}
	p->connected = 1;
	watch(p, EPOLLIN, EPOLL_CTL_MOD);
	say(p, "echo\nx\n");
}

static void readable(struct probe *p)
{
	char bytes[256];
	ssize_t n = recv(p->fd, bytes, sizeof bytes, 0);
	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		over(p, n < 0 ? errno : 0);
		return;
	}
	answers++;
	waited(p);
	p->next = now_ms() + interval;
}

static void act_if_due(struct probe *p, double now)
{
	if (!p->next || p->next > now)
		return;
	p->next = 0;
	if (p->fd < 0) {
		open_probe(p);
		return;
	}
	p->sent = now;
	say(p, "x\n");
}

static void report(void)
{
	int unharmed = 0, waiting = 0;
	const char *comma = "";
	for (int i = 0; i < count; i++) {
		unharmed += probes[i].unharmed;
		waiting += probes[i].sent > 0;
		probes[i].unharmed = probes[i].fd >= 0;
	}
	printf("{\"answers\":%llu,\"ends\":%llu,\"longestWaitMs\":%.1f,\"waiting\":%d,\"unharmed\":%d,\"errors\":{", answers, ends, longest,
	       waiting, unharmed);
	for (int i = 0; i < ERRNOS; i++) {
		if (!errors[i])
			continue;
		printf("%s\"%s\":%llu", comma, strerrorname_np(i), errors[i]);
		comma = ",";
	}
	printf("}}\n");
	fflush(stdout);
}

static void command(void)
{
	char text[256];
	ssize_t n = read(0, text, sizeof text);
	if (n <= 0)
		exit(0);
	for (ssize_t i = 0; i < n; i++)
		if (text[i] == '\n')
			report();
}

int main(int argc, char **argv)
{
	struct sockaddr_in *v4 = (void *)&target;
	struct sockaddr_in6 *v6 = (void *)&target;
	struct epoll_event input = { .events = EPOLLIN }, events[EVENTS];
	if (argc != 5) {
		fprintf(stderr, "usage: prober ADDRESS PORT CONNECTIONS INTERVAL_MS\n");
		return 2;
	}
	target.ss_family = strchr(argv[1], ':') ? AF_INET6 : AF_INET;
	target_length = target.ss_family == AF_INET6 ? sizeof *v6 : sizeof *v4;
	v4->sin_port = htons((uint16_t)atoi(argv[2])); // at the same place in both
	if (inet_pton(target.ss_family, argv[1], target.ss_family == AF_INET6 ? (void *)&v6->sin6_addr : (void *)&v4->sin_addr) != 1)
		die(argv[1]);
	count = atoi(argv[3]);
	interval = atof(argv[4]);
	probes = calloc((size_t)count, sizeof *probes);
	poller = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_ctl(poller, EPOLL_CTL_ADD, 0, &input))
		die("standard input");
	for (int i = 0; i < count; i++)
		open_probe(&probes[i]);
	for (;;) {
		int n = epoll_wait(poller, events, EVENTS, 2);
		for (int i = 0; i < n; i++) {
			struct probe *p = events[i].data.ptr;
			if (!p)
				command();
			else if (p->connected)
				readable(p);
			else
				became_connected(p);
		}
		double now = now_ms();
		for (int i = 0; i < count; i++)
			act_if_due(&probes[i], now);
	}
}
