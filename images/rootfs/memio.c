/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * L1's memory seen from the host that runs QEMU.
 *
 *   memio read FILE OFFSET LENGTH           LENGTH bytes to standard output
 *   memio pack FILE OFFSET LENGTH STRIDE    the same, each byte XORed with the one STRIDE before it, as runs: how
 *                                           many zeroes, how many other bytes (16 bits each, little-endian), those
 *   memio write FILE OFFSET                 standard input into the file
 *   memio remap FILE OFFSET LENGTH          the bytes as they are, in other pages: what was there is given back first
 *   memio serve FILE                        small reads and writes until the end of standard input: for each a struct
 *                                           request, a write's bytes behind it; the answer is the bytes read, or a zero
 *
 * The file is mapped, not read or written: hugetlbfs has no write(2), and QEMU has the same pages mapped
 * shared. Numbers are decimal or 0x-hexadecimal, in bytes. Exit status 1, with the reason on standard error, on any
 * failure.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
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

/*
 * Records that follow each other differ in a few bytes: the difference is mostly zeroes, and what is sent costs far
 * more than this. Zeroes fewer than a run's head is long are not worth a run.
 */
static void pack(const unsigned char *at, size_t length, size_t stride)
{
	static unsigned char out[4 + 65535];
	size_t i = 0;

	while (i < length) {
		size_t zeroes = 0, n = 0, quiet = 0;

		for (; i < length && zeroes < 65535 && at[i] == (i < stride ? 0 : at[i - stride]); i++)
			zeroes++;
		for (; i < length && n < 65535 && quiet < 4; i++) {
			out[4 + n] = at[i] ^ (i < stride ? 0 : at[i - stride]);
			quiet = out[4 + n++] ? 0 : quiet + 1;
		}
		out[0] = zeroes & 255;
		out[1] = zeroes >> 8;
		out[2] = n & 255;
		out[3] = n >> 8;
		put(out, 4 + n);
	}
}

struct request {
	uint64_t offset;
	uint32_t length, write;
};

/* Standard input's next bytes; 0 at its end, which may not come within them. */
static int get(void *to, size_t left)
{
	unsigned char *at = to;

	while (left) {
		ssize_t n = read(0, at, left);

		if (n == 0 && at == to)
			return 0;
		if (n <= 0)
			die("standard input");
		at += n;
		left -= n;
	}
	return 1;
}

static void serve(unsigned char *map, size_t size)
{
	static const unsigned char done;
	struct request r;

	while (get(&r, sizeof(r))) {
		if (r.offset > size || r.length > size - r.offset) {
			errno = ERANGE;
			die("a request");
		}
		if (!r.write)
			put(map + r.offset, r.length);
		else if (get(map + r.offset, r.length))
			put(&done, 1);
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

/*
 * Takes the pages that were given back last, and writes something else into them: whoever is handed a page next must
 * not get the very one that was given back, and whoever still uses that one is to be seen. They are held until the end.
 */
static void absorb(size_t length)
{
	size_t taken = 64 * length;
	void *held = mmap(NULL, taken, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (held == MAP_FAILED)
		die("memory");
	memset(held, 0xcc, taken);
}

/* Other pages for the same bytes: whoever has the old ones mapped is told that they go. */
static void remap(int fd, unsigned char *map, size_t offset, size_t length)
{
	unsigned char *kept = malloc(length);

	if (!kept)
		die("memory");
	memcpy(kept, map + offset, length);
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length))
		die("giving pages back");
	absorb(length);
	memcpy(map + offset, kept, length);
	free(kept);
}

int main(int argc, char **argv)
{
	struct stat st;
	unsigned char *map;
	size_t offset, length;
	int fd, writes, serves = argc == 3 && !strcmp(argv[1], "serve");

	if ((argc < 4 && !serves) || ((!strcmp(argv[1], "read") || !strcmp(argv[1], "remap")) && argc != 5) ||
	    (!strcmp(argv[1], "pack") && (argc != 6 || !strtoull(argv[5], NULL, 0)))) {
		fputs("usage: memio read|remap FILE OFFSET LENGTH | pack FILE OFFSET LENGTH STRIDE | write FILE OFFSET | "
		      "serve FILE\n", stderr);
		return 1;
	}
	writes = serves || !strcmp(argv[1], "write") || !strcmp(argv[1], "remap");
	fd = open(argv[2], writes ? O_RDWR : O_RDONLY);
	if (fd < 0 || fstat(fd, &st))
		die(argv[2]);
	offset = serves ? 0 : strtoull(argv[3], NULL, 0);
	length = serves || !strcmp(argv[1], "write") ? (size_t)st.st_size - offset : argc > 4 ? strtoull(argv[4], NULL, 0) : 0;
	if (offset > (size_t)st.st_size || length > (size_t)st.st_size - offset || length == 0) {
		errno = ERANGE;
		die(argv[2]);
	}
	/* The whole file: hugetlbfs wants offsets and lengths of whole huge pages. */
	map = mmap(NULL, st.st_size, writes ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED | MAP_NORESERVE,
		   fd, 0);
	if (map == MAP_FAILED)
		die(argv[2]);
	if (serves)
		serve(map, st.st_size);
	else if (!strcmp(argv[1], "write"))
		take(map + offset, length);
	else if (!strcmp(argv[1], "remap"))
		remap(fd, map, offset, length);
	else if (!strcmp(argv[1], "read"))
		put(map + offset, length);
	else if (!strcmp(argv[1], "pack"))
		pack(map + offset, length, strtoull(argv[5], NULL, 0));
	else
		return 1;
	return 0;
}
