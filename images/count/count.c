/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Counts tracepoints on the host while L1 is between two passages of the gate (windows.h).
 *
 *     kvmirror-count MEMORY WINDOWS TRACED SYSTEM:EVENT[:FILTER]...
 *
 * MEMORY is the file that is L1's memory, WINDOWS how many windows its batch has, TRACED the window during which tracing
 * is on (-1: none). A line of JSON a window: the counts in the order asked, KVM's own counters of the virtual machine
 * over the same time, and whether L1 came to the second gate.
 *
 * SIGUSR1 says that L1 is overdue. This program cannot know: while exits chase each other an emulated host's clock
 * nearly stands. It then traces for a moment where it was to trace, and ends with status 3.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/perf_event.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "windows.h"

#define TRACING		"/sys/kernel/tracing"
#define STATISTICS	"/sys/kernel/debug/kvm"
#define COUNTERS	256
#define NAMES		64
#define POLL_US		2000
#define STUCK_US	5000		/* of tracing, where L1 does not come: what it does instead goes round and round */

struct statistic {
	char name[NAMES];
	uint64_t before;
};

static int counters[COUNTERS];
static unsigned int counting;
static struct statistic statistics[COUNTERS];
static unsigned int keeping;
static char folder[512];		/* of the one virtual machine, under STATISTICS */
static volatile struct kvm_gate *gate;
static volatile sig_atomic_t overdue;

static void die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

static void die(const char *format, ...)
{
	va_list list;

	va_start(list, format);
	fputs("kvmirror-count: ", stderr);
	vfprintf(stderr, format, list);
	fputc('\n', stderr);
	va_end(list);
	exit(1);
}

static long long number(const char *path)
{
	FILE *f = fopen(path, "r");
	long long v;
	int got;

	if (!f)
		return -1;
	got = fscanf(f, "%lld", &v);
	fclose(f);
	return got == 1 ? v : -1;
}

static void write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		die("%s: %s", path, strerror(errno));
	close(fd);
}

/*
 * A counter of one event on the one CPU, of what passes the filter. All are in the group of the first: they begin and
 * end at one moment with it, or an exit between two of them would be in one count and not in the other.
 */
static void add(char *spec)
{
	char *event = strchr(spec, ':'), *filter, path[512];
	struct perf_event_attr attr = { .type = PERF_TYPE_TRACEPOINT, .size = sizeof(attr), .disabled = !counting };
	long long id;
	int fd;

	if (!event || counting == COUNTERS)
		die("%s: SYSTEM:EVENT[:FILTER], at most %d of them", spec, COUNTERS);
	*event++ = '\0';
	filter = strchr(event, ':');
	if (filter)
		*filter++ = '\0';
	snprintf(path, sizeof(path), TRACING "/events/%s/%s/id", spec, event);
	id = number(path);
	if (id < 0)
		die("the kernel has no event %s:%s", spec, event);
	attr.config = (uint64_t)id;
	fd = (int)syscall(SYS_perf_event_open, &attr, -1, 0, counting ? counters[0] : -1, 0);
	if (fd < 0)
		die("perf_event_open of %s:%s: %s", spec, event, strerror(errno));
	if (filter && ioctl(fd, PERF_EVENT_IOC_SET_FILTER, filter))
		die("%s:%s: the kernel does not take the filter %s: %s", spec, event, filter, strerror(errno));
	counters[counting++] = fd;
}

static uint64_t count(int fd)
{
	uint64_t v;

	if (read(fd, &v, sizeof(v)) != sizeof(v))
		die("a counter cannot be read: %s", strerror(errno));
	return v;
}

static void leader(unsigned long request, unsigned long flags)
{
	if (ioctl(counters[0], request, flags))
		die("the counters cannot be switched: %s", strerror(errno));
}

/* KVM's own counters, of the only virtual machine there is. */
static void find_statistics(void)
{
	DIR *all = opendir(STATISTICS);
	struct dirent *e;

	while (all && (e = readdir(all)))
		if (e->d_type == DT_DIR && e->d_name[0] != '.')
			snprintf(folder, sizeof(folder), STATISTICS "/%s", e->d_name);
	if (all)
		closedir(all);
	all = folder[0] ? opendir(folder) : NULL;
	while (all && (e = readdir(all)) && keeping < COUNTERS)
		if (e->d_type == DT_REG && strlen(e->d_name) < NAMES)
			strcpy(statistics[keeping++].name, e->d_name);
	if (all)
		closedir(all);
}

static long long statistic(const char *name)
{
	char path[1024];

	snprintf(path, sizeof(path), "%s/%.*s", folder, NAMES, name);
	return number(path);
}

static void be_overdue(int signal)
{
	(void)signal;
	overdue = 1;
}

/* Whether L1 comes to the gate for the nth time. */
static int arrives(uint64_t n)
{
	while (gate->arrived < n && !overdue)
		usleep(POLL_US);
	return gate->arrived >= n;
}

static void show(int window, int arrived)
{
	const char *between = "";

	printf("{\"window\": %d, \"through\": %s, \"counts\": [", window, arrived ? "true" : "false");
	for (unsigned int i = 0; i < counting; i++)
		printf("%s%" PRIu64, i ? ", " : "", count(counters[i]));
	printf("], \"statistics\": {");
	for (unsigned int i = 0; i < keeping; i++) {
		long long v = statistic(statistics[i].name);

		if (v < 0 || (uint64_t)v == statistics[i].before)
			continue;
		printf("%s\"%s\": %lld", between, statistics[i].name, v - (long long)statistics[i].before);
		between = ", ";
	}
	printf("}}\n");
	fflush(stdout);
}

/* Counts one window; 0 where L1 did not come to its end. */
static int window(int n, int traced)
{
	int arrived;

	if (!arrives(2 * (uint64_t)n + 1)) {
		if (traced) {
			write_text(TRACING "/tracing_on", "1");
			usleep(STUCK_US);
			write_text(TRACING "/tracing_on", "0");
		}
		printf("{\"window\": %d, \"absent\": true}\n", n);
		return 0;
	}
	for (unsigned int i = 0; i < keeping; i++)
		statistics[i].before = (uint64_t)statistic(statistics[i].name);
	leader(PERF_EVENT_IOC_RESET, PERF_IOC_FLAG_GROUP);
	if (traced)
		write_text(TRACING "/tracing_on", "1");
	leader(PERF_EVENT_IOC_ENABLE, 0);
	gate->opened = 2 * (uint64_t)n + 1;
	arrived = arrives(2 * (uint64_t)n + 2);
	leader(PERF_EVENT_IOC_DISABLE, 0);
	if (traced)
		write_text(TRACING "/tracing_on", "0");
	show(n, arrived);
	if (arrived)
		gate->opened = 2 * (uint64_t)n + 2;
	return arrived;
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = be_overdue };
	int fd, windows, traced, through = 1;
	void *map;

	if (argc < 5)
		die("usage: MEMORY WINDOWS TRACED SYSTEM:EVENT[:FILTER]...");
	windows = atoi(argv[2]);
	traced = atoi(argv[3]);
	sigaction(SIGUSR1, &action, NULL);
	fd = open(argv[1], O_RDWR);
	if (fd < 0)
		die("%s: %s", argv[1], strerror(errno));
	map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, GATE_BASE);
	if (map == MAP_FAILED)
		die("%s: %s", argv[1], strerror(errno));
	gate = map;
	gate->arrived = gate->opened = 0;
	for (int i = 4; i < argc; i++)
		add(argv[i]);
	find_statistics();
	printf("{\"ready\": %u, \"pid\": %d, \"statistics\": \"%s\"}\n", counting, (int)getpid(), folder);
	fflush(stdout);
	for (int n = 0; n < windows && through; n++)
		through = window(n, n == traced);
	return through ? 0 : 3;
}
