/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * L1's memory seen from the host that runs QEMU.
 *
 *   memio read FILE OFFSET LENGTH           LENGTH bytes to standard output
 *   memio write FILE OFFSET                 standard input into the file
 *   memio watch FILE OFFSET COUNT PERIOD    COUNT 32-bit words whenever one changes, one line each time
 *
 * The file is mapped, not read or written: hugetlbfs has no write(2), and QEMU has the same pages mapped
 * shared. Numbers are decimal or 0x-hexadecimal, in bytes; PERIOD is in milliseconds. Watch also prints a
 * line of "." once a second when nothing changed, so that its reader can tell a silent guest from a dead
 * host. Exit status 1, with the reason on standard error, on any failure.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what)
{
	fprintf(stderr, "memio: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void put(const unsigned char *at, size_t left)
{
	while (left) {
		ssize_t n = write(1, at, left);

		if (n <= 0)
			die("standard output");
		at += n;
		left -= n;
	}
}

static void take(unsigned char *at, size_t room)
{
	for (;;) {
		ssize_t n = read(0, at, room);

		if (n < 0)
			die("standard input");
		if (n == 0)
			return;
		at += n;
		room -= n;
		if (!room) {
			unsigned char more;

			if (read(0, &more, 1) > 0) {
				errno = EFBIG;
				die("standard input is longer than the memory file");
			}
			return;
		}
	}
}

static void watch(const volatile uint32_t *word, size_t count, long period_ms)
{
	struct timespec period = { period_ms / 1000, period_ms % 1000 * 1000000L };
	uint32_t last[16];
	long quiet = 0;

	for (size_t i = 0; i < count; i++)
		last[i] = ~word[i];
	for (;;) {
		int changed = 0;

		for (size_t i = 0; i < count; i++) {
			uint32_t now = word[i];

			changed |= now != last[i];
			last[i] = now;
		}
		if (changed) {
			quiet = 0;
			for (size_t i = 0; i < count; i++)
				printf("%u%c", last[i], i + 1 < count ? ' ' : '\n');
		} else if ((quiet += period_ms) >= 1000) {
			quiet = 0;
			puts(".");
		}
		/* A reader that has gone ends the watch. */
		if (fflush(stdout))
			exit(0);
		nanosleep(&period, NULL);
	}
}

int main(int argc, char **argv)
{
	struct stat st;
	unsigned char *map;
	size_t offset, length;
	int fd, writes;

	if (argc < 4 || (!strcmp(argv[1], "read") && argc != 5) ||
	    (!strcmp(argv[1], "watch") && argc != 6)) {
		fputs("usage: memio read FILE OFFSET LENGTH | write FILE OFFSET | watch FILE OFFSET COUNT PERIOD\n",
		      stderr);
		return 1;
	}
	writes = !strcmp(argv[1], "write");
	fd = open(argv[2], writes ? O_RDWR : O_RDONLY);
	if (fd < 0 || fstat(fd, &st))
		die(argv[2]);
	offset = strtoull(argv[3], NULL, 0);
	length = writes ? (size_t)st.st_size - offset :
		 !strcmp(argv[1], "read") ? strtoull(argv[4], NULL, 0) : 4 * strtoull(argv[4], NULL, 0);
	if (offset > (size_t)st.st_size || length > (size_t)st.st_size - offset || length == 0) {
		errno = ERANGE;
		die(argv[2]);
	}
	/* The whole file: hugetlbfs wants offsets and lengths of whole huge pages. */
	map = mmap(NULL, st.st_size, writes ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED | MAP_NORESERVE,
		   fd, 0);
	if (map == MAP_FAILED)
		die(argv[2]);
	if (writes)
		take(map + offset, length);
	else if (!strcmp(argv[1], "read"))
		put(map + offset, length);
	else if (!strcmp(argv[1], "watch") && length <= 64)
		watch((const volatile uint32_t *)(map + offset), length / 4, strtol(argv[5], NULL, 0));
	else
		return 1;
	return 0;
}
