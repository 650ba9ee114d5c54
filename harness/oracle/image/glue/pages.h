/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Included before every file of the image.
 *
 * What would trap in a user's process, and costs a signal each: a WARN or BUG calls the runner, and interrupts, of which
 * there are none, are neither disabled nor enabled.
 *
 * Where struct page lies: the page tables of whole faults (flow.h) have
 * physical addresses that no memory section covers, so they are looked up in the pool first.
 */
#ifndef KVMIRROR_PAGES_H
#define KVMIRROR_PAGES_H

#include <linux/bug.h>

#undef ASM_UD2
#define ASM_UD2 "call oracle_ud2"
asm(".macro cli\n\tnop\n.endm\n.macro sti\n\tnop\n.endm\n");

#include <linux/kvm_host.h>

#define ORACLE_POOL 24
extern u64 oracle_pool[ORACLE_POOL][512];
extern struct page oracle_pool_page[ORACLE_POOL];

/* What gfn_to_page_many_atomic() gave last: pages of consecutive frames. */
extern struct page oracle_prefetched[8];
extern unsigned long oracle_prefetched_pfn;

static __always_inline struct page *oracle_pfn_to_page(unsigned long pfn)
{
	unsigned long n = pfn - (__pa(oracle_pool) >> PAGE_SHIFT);

	return n < ORACLE_POOL ? &oracle_pool_page[n] : __pfn_to_page(pfn);
}

static __always_inline unsigned long oracle_page_to_pfn(const struct page *page)
{
	unsigned long n = page - oracle_prefetched;

	return n < 8 ? oracle_prefetched_pfn + n : __page_to_pfn(page);
}

#undef pfn_to_page
#define pfn_to_page oracle_pfn_to_page
#undef page_to_pfn
#define page_to_pfn oracle_page_to_pfn

#endif
