// Pods that start at once: `pod-start CGROUP.PROCS NETNS [CGROUP.PROCS NETNS ...]`. One process a pod enters its cgroup, then its namespace, and from
// that instant on connects until it is let: prints, a line a pod, the microseconds that took; on stderr the microseconds of CPU that all pods had.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define GIVE_UP_US 30000000
#define PAUSE_US 1000

static int64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static int must_open(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC);

	if (fd >= 0)
		return fd;
	perror(path);
	exit(1);
}

/* 192.0.2.1 is nobody: whoever is captured is connected to the agent, whoever is not known yet gets EPERM. */
static int is_let(int fd)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(80) };

	inet_pton(AF_INET, "192.0.2.1", &to.sin_addr);
	return connect(fd, (struct sockaddr *)&to, sizeof to) == 0 || errno != EPERM;
}

static void be_pod(const char *procs, const char *netns, int gate)
{
	int cgroup = must_open(procs, O_WRONLY);
	int namespace = must_open(netns, O_RDONLY);
	char byte, line[64];
	int64_t begin, took;
	int fd;

	if (read(gate, &byte, 1) < 0)
		exit(1);
	if (write(cgroup, "0", 1) != 1 || setns(namespace, CLONE_NEWNET) < 0) {
		perror("enter");
		exit(1);
	}
	begin = now_us();
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	while (!is_let(fd) && now_us() - begin < GIVE_UP_US)
		usleep(PAUSE_US);
	took = now_us() - begin;
	close(fd);
	/* One write a line: the pods share the pipe. */
	if (write(1, line, snprintf(line, sizeof line, "%lld\n", (long long)took)) < 0)
		exit(1);
	/* A pod's first process stays. */
	sleep(2);
	exit(0);
}

int main(int count, char **words)
{
	struct rusage usage;
	int gate[2];

	if (pipe(gate) < 0)
		return 1;
	for (int i = 1; i + 1 < count; i += 2) {
		if (fork() == 0) {
			close(gate[1]);
			be_pod(words[i], words[i + 1], gate[0]);
		}
	}
	usleep(300000);
	close(gate[1]); /* all at once */
	while (wait(NULL) > 0)
		;
	getrusage(RUSAGE_CHILDREN, &usage);
	fprintf(stderr, "%lld\n",
		(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000LL + usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
	return 0;
}
