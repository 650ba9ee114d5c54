// SPDX-License-Identifier: GPL-2.0-only
/* Host memory under the guest's page, and how the host ages it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "client.h"

#define IDLE_BITMAP	"/sys/kernel/mm/page_idle/bitmap"
#define PAGEMAP		"/proc/self/pagemap"
#define PAGEMAP_PFN	((1ull << 55) - 1)
#define PAGES		(HUGE / PAGE)
#define CHUNK		64			/* pages a word of the bitmap stands for */

static struct { unsigned char *start; uint64_t pfn; } regions[2];
static int bitmap = -1;

/* KiB of memory in transparent huge pages, of all processes. */
static unsigned long huge_memory(void)
{
	char line[128];
	unsigned long kib = 0;
	FILE *f = fopen("/proc/meminfo", "r");

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "AnonHugePages: %lu", &kib) == 1)
			break;
	if (f)
		fclose(f);
	return kib;
}

unsigned char *region(int size)
{
	unsigned char *start;
	unsigned long before;

	if (regions[size].start)
		return regions[size].start;
	start = mmap(NULL, 2 * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (start == MAP_FAILED)
		die("guest memory");
	start = (unsigned char *)(((uintptr_t)start + HUGE - 1) & -HUGE);
	before = huge_memory();
	if (madvise(start, HUGE, MADV_HUGEPAGE))
		die("transparent huge pages");
	memset(start, 0, HUGE);
	if (huge_memory() <= before) {
		errno = ENOMEM;
		die("the host gives no transparent huge page");
	}
	/* Two kinds of memory within 2 MiB: the host can no longer map it by one entry; where it lies does not change. */
	if (size == SMALL && madvise(start + HUGE / 2, HUGE / 2, MADV_NOHUGEPAGE))
		die("splitting a huge page");
	return regions[size].start = start;
}

static void set_idle(uint64_t pfn)
{
	uint64_t word = 1ull << pfn % CHUNK;

	if (pwrite(bitmap, &word, sizeof(word), (off_t)(pfn / CHUNK * sizeof(word))) != sizeof(word))
		die("writing " IDLE_BITMAP);
}

/* Whether the page is still idle: 1 or 0, -1 behind the last page. */
static int is_idle(uint64_t pfn)
{
	uint64_t word;

	if (pread(bitmap, &word, sizeof(word), (off_t)(pfn / CHUNK * sizeof(word))) != sizeof(word))
		return -1;
	return word >> pfn % CHUNK & 1;
}

/* Used again as the host's page tables see it: the protection is changed and back, so that no TLB hides the access. */
static void use(unsigned char *start)
{
	if (mprotect(start, HUGE, PROT_READ) || mprotect(start, HUGE, PROT_READ | PROT_WRITE))
		die("mprotect");
	*(volatile unsigned char *)start;
}

/*
 * The region's first page frame. A kernel without /proc/self/pagemap is asked through the idle bits: of all frames
 * where a huge page may begin, only ours stays idle until it is used, and then is idle no more.
 */
static uint64_t frame(unsigned char *start)
{
	int pagemap = open(PAGEMAP, O_RDONLY), idle;
	uint64_t entry = 0, pfn;

	if (pagemap >= 0) {
		if (pread(pagemap, &entry, sizeof(entry), (off_t)((uintptr_t)start / PAGE * 8)) != sizeof(entry))
			die("reading " PAGEMAP);
		close(pagemap);
		if (entry & PAGEMAP_PFN)
			return entry & PAGEMAP_PFN;
	}
	for (pfn = 0;; pfn += PAGES) {
		idle = is_idle(pfn);
		if (idle < 0)
			break;
		set_idle(pfn);
		if (is_idle(pfn) != 1)
			continue;
		use(start);
		if (is_idle(pfn))
			continue;
		set_idle(pfn);
		if (is_idle(pfn) == 1)
			return pfn;
	}
	errno = ENOENT;
	die("finding the guest's memory by its idle bit");
}

void prepare_age(int size)
{
	if (bitmap < 0)
		bitmap = open(IDLE_BITMAP, O_RDWR | O_CLOEXEC);
	if (bitmap < 0)
		die(IDLE_BITMAP);
	if (!regions[size].pfn)
		regions[size].pfn = frame(region(size));
}

/* By way of the mmu notifier clear_young: KVM's kvm_age_gfn() for every page of the region. */
void age(int size)
{
	set_idle(regions[size].pfn);
}
