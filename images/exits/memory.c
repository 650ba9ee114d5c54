/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * L2's memory, and what L1 lets it do there. A page is verified (kernel code that L1 has looked at) or not.
 *
 *                      verified     not verified
 *   kernel's view      R X          R W
 *   user's view        R            R W X
 *   one view, MBEC     R XS         R W XU
 *
 * What L2 writes can never be run by its kernel; what its kernel runs can never be written.
 */
#include "exits.h"

#define X		4ull
#define R		1ull
#define RW		3ull
#define XU		0x400ull
#define LARGE		0x80ull
#define ENTRIES		512
#define RET		0xc3
#define MOV_EAX		0xb8
#define CODE_BYTES	6

extern const char l2_user[], l2_user_end[], l2_kernel[], l2_kernel_end[];

static uint64_t arena_next, arena_end;
static uint8_t loaded[LOAD_PAGES];	/* verified */

static uint64_t new_page(void)
{
	uint64_t page = arena_next;

	if (page + PAGE > arena_end)
		return 0;
	arena_next += PAGE;
	zero_pages(page, 1);
	return page;
}

_Static_assert(FRESH_STRIDE == STRIDE && LOAD_STRIDE == STRIDE, "one stride for C and for L2's code");

void tables_init(const struct kvm_batch *batch)
{
	uint64_t *user = (uint64_t *)L2_PT_CODE;

	arena_next = (batch->arena + PAGE - 1) & ~(PAGE - 1);
	arena_end = (batch->arena + batch->arena_size) & ~(PAGE - 1);
	zero_pages(arena_next, (arena_end - arena_next) / PAGE);	/* L1 has touched all its memory before it counts */
	for (uint64_t i = 0; i < FRESH_PAGES; i++)
		zero_pages(FRESH_BASE + i * FRESH_STRIDE, 1);
	for (uint64_t i = 0; i < LOAD_PAGES; i++)
		zero_pages(LOAD_BASE + i * LOAD_STRIDE, 1);
	zero_pages(SCAFFOLD, 64);
	memcpy((void *)L2_KERNEL, l2_kernel, (size_t)(l2_kernel_end - l2_kernel));
	memcpy((void *)L2_USER, l2_user, (size_t)(l2_user_end - l2_user));

	*(uint64_t *)L2_PML4 = L2_PDPT | PTE_ALL;
	*(uint64_t *)L2_PDPT = L2_PD | PTE_ALL;
	((uint64_t *)L2_PD)[GLA_KERNEL >> 21] = L2_PT_CODE | PTE_ALL;
	user[0] = L2_KERNEL | PTE_P | PTE_A;
	user[1] = L2_KERNEL_DATA | PTE_P | PTE_W | PTE_A | PTE_D;
	user[2] = L2_USER | PTE_P | PTE_U | PTE_A;
	for (uint64_t i = 0; i < FRESH_REGIONS; i++)
		((uint64_t *)L2_PD)[(GLA_FRESH >> 21) + i] = (FRESH_BASE + i * 2 * MIB) | PTE_ALL | PTE_D | LARGE;
	for (uint64_t i = 0; i < LOAD_REGIONS; i++)
		((uint64_t *)L2_PD)[(GLA_LOAD >> 21) + i] =
			(LOAD_BASE + i * 2 * MIB) | PTE_P | PTE_W | PTE_A | PTE_D | LARGE;
}

/* Whether L1 lets L2's kernel run the page. */
int is_verified(uint64_t gpa)
{
	if ((gpa ^ L2_KERNEL) < PAGE)
		return 1;
	return gpa - LOAD_BASE < LOAD_PAGES * LOAD_STRIDE && loaded[(gpa - LOAD_BASE) / LOAD_STRIDE];
}

/* An executable entry: a hypervisor without MBEC has no reason to set bit 10, one that avoids a fault of KVM's has. */
static uint64_t executable(const struct run *run)
{
	return X | (run->w->flags & WINDOW_BIT10 ? XU : 0);
}

static uint64_t leaf(const struct run *run, enum view view, int verified)
{
	if (run->w->flags & WINDOW_MBEC)
		return (verified ? R | X : RW | XU) | EPT_WB;
	if (view == VIEW_KERNEL)
		return (verified ? R | executable(run) : RW) | EPT_WB;
	return (verified ? R : RW | executable(run)) | EPT_WB;
}

/* The next lower table under `entry`, made when it is missing; NULL where the arena is used up. */
static uint64_t *below(const struct run *run, uint64_t *entry)
{
	uint64_t upper = run->w->flags & WINDOW_MBEC ? EPT_RWXU : RW | executable(run);

	if (!*entry) {
		uint64_t page = new_page();

		if (!page)
			return NULL;
		*entry = page | upper;
	}
	return (uint64_t *)(*entry & ~0xfffull);
}

/* The leaf entry of a page in a view; NULL where the arena is used up. */
static uint64_t *entry_of(const struct run *run, enum view view, uint64_t gpa)
{
	uint64_t *table = (uint64_t *)run->root[view];

	for (int shift = 39; shift > 12 && table; shift -= 9)
		table = below(run, &table[gpa >> shift & (ENTRIES - 1)]);
	return table ? &table[gpa >> 12 & (ENTRIES - 1)] : NULL;
}

static int map(const struct run *run, enum view view, uint64_t gpa)
{
	uint64_t *entry = entry_of(run, view, gpa);

	if (!entry)
		return 1;
	*entry = gpa | leaf(run, view, is_verified(gpa));
	return 0;
}

static int map_view(struct run *run, enum view view)
{
	static const uint64_t frame[] = {
		L2_PML4, L2_PDPT, L2_PD, L2_PT_CODE, L2_KERNEL, L2_USER, L2_KERNEL_DATA,
	};
	int failed = 0;

	run->root[view] = new_page();
	if (!run->root[view])
		return 1;
	for (unsigned int i = 0; i < sizeof(frame) / sizeof(frame[0]); i++)
		failed |= map(run, view, frame[i]);
	for (uint64_t i = 0; i < FRESH_PAGES; i++)
		failed |= map(run, view, FRESH_BASE + i * FRESH_STRIDE);
	for (uint64_t i = 0; i < LOAD_PAGES; i++)
		failed |= map(run, view, LOAD_BASE + i * LOAD_STRIDE);
	return failed;
}

/* EPT12 of a window, in memory that no window before used. Non-zero where there is none left. */
int memory_build(struct run *run)
{
	memset(loaded, 0, sizeof(loaded));
	memset((void *)L2_KERNEL_DATA, 0, PAGE);
	if (map_view(run, VIEW_KERNEL))
		return 1;
	return run->w->flags & WINDOW_MBEC ? 0 : map_view(run, VIEW_USER);
}

/*
 * L2's kernel wants to run a page: L1 reads all of it, and lets it be run only if it is what code of this kernel may be.
 * Non-zero where it is not.
 */
int verify(struct run *run, uint64_t gla)
{
	uint64_t at = gla - GLA_LOAD;
	const uint8_t *code = (const uint8_t *)(LOAD_BASE + at);
	uint8_t rest = 0;

	if (at >= LOAD_PAGES * LOAD_STRIDE || at % LOAD_STRIDE)
		return 1;
	for (unsigned int i = CODE_BYTES; i < PAGE; i++)
		rest |= code[i];
	if (code[0] != MOV_EAX || code[CODE_BYTES - 1] != RET || rest)
		return 1;
	loaded[at / LOAD_STRIDE] = 1;
	for (enum view view = 0; view < VIEWS && run->root[view]; view++)
		*(volatile uint64_t *)entry_of(run, view, LOAD_BASE + at) = (LOAD_BASE + at) | leaf(run, view, 1);
	vmx_invept(run->root[run->view], 0);
	return 0;
}
