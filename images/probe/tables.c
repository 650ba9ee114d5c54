/* SPDX-License-Identifier: GPL-2.0-only */
/* L2's memory: its scaffold, and fresh EPT12 tables with the entries under test for each vector. */
#include "probe.h"

#define ENTRIES		512
#define TOUCHED		8	/* pages of tables that a vector takes at most, and some */
#define BIT40		40	/* MAXPHYADDR from which the second PML4 entry has addresses L2 can name */

static uint64_t arena, arena_end, arena_next;
static uint64_t sequence;

static uint64_t *table(uint64_t address)
{
	return (uint64_t *)address;
}

/* A zeroed page at an address not used before, until the arena is used up; then round again. */
static uint64_t fresh_page(void)
{
	uint64_t page;

	if (arena_next + PAGE > arena_end)
		arena_next = arena;
	page = arena_next;
	arena_next += PAGE;
	zero_pages(page, 1);
	return page;
}

static void place(uint32_t offset, const uint8_t *code, unsigned int n)
{
	uint8_t *to = (uint8_t *)(L2_CODE + offset);

	for (unsigned int i = 0; i < n; i++)
		to[i] = code[i];
	to[n] = 0x0f;		/* VMCALL */
	to[n + 1] = 0x01;
	to[n + 2] = 0xc1;
}

/* The same bytes do in 32-bit and 64-bit mode: the operand is 32 bits at (R|E)DI. */
static void write_code(void)
{
	static const uint8_t read[] = { 0x8b, 0x07 };		/* mov (%rdi), %eax */
	static const uint8_t write[] = { 0x89, 0x07 };		/* mov %eax, (%rdi) */
	static const uint8_t rmw[] = { 0xf0, 0x01, 0x07 };	/* lock add %eax, (%rdi) */
	static const uint8_t fetch[] = { 0xff, 0xe7 };		/* jmp *%rdi */
	static const uint8_t spin[] = { 0xeb, 0xfe };		/* jmp . */
	static const uint8_t movs[] = { MOVSD };		/* movsl (%rsi), (%rdi) */
	static const uint8_t jump[] = { 0xff, 0xe0 };		/* jmp *%rax */

	place(CODE_READ, read, sizeof(read));
	place(CODE_WRITE, write, sizeof(write));
	place(CODE_RMW, rmw, sizeof(rmw));
	place(CODE_FETCH, fetch, sizeof(fetch));
	place(CODE_IDLE, NULL, 0);
	place(CODE_SPIN, spin, sizeof(spin));
	place(CODE_MOVS, movs, sizeof(movs));
	place(CODE_JUMP, jump, sizeof(jump));
}

void tables_init(const struct kvm_batch *batch)
{
	arena = (batch->arena + PAGE - 1) & ~(PAGE - 1);
	arena_end = (batch->arena + batch->arena_size) & ~(PAGE - 1);
	arena_next = arena;
	zero_pages(SCAFFOLD, SCAFFOLD_PAGES);
	write_code();

	table(L2_PML4)[0] = L2_PDPT | PTE_ALL;
	table(L2_PDPT)[0] = L2_PD | PTE_ALL;
	table(L2_PAE_PDPT)[0] = L2_PD | PTE_P;
	table(L2_PD)[GLA_CODE >> 21] = L2_PT_CODE | PTE_ALL;
	table(L2_PT_CODE)[0] = L2_CODE | PTE_P | PTE_W | PTE_A | PTE_D;
	table(L2_PT_CODE)[1] = L2_CODE | PTE_ALL | PTE_D;
	table(L2_PT_CODE)[2] = L2_MMIO | PTE_ALL | PTE_D;
	((uint32_t *)L2_PD32)[GLA_CODE >> 22] = (uint32_t)(L2_PT32_CODE | PTE_ALL);
	((uint32_t *)L2_PT32_CODE)[0] = (uint32_t)(L2_CODE | PTE_P | PTE_W | PTE_A | PTE_D);
	((uint32_t *)L2_PT32_CODE)[1] = (uint32_t)(L2_CODE | PTE_ALL | PTE_D);

	table(EPT_PD)[SCAFFOLD >> 21 & 511] = EPT_PT | EPT_NONLEAF;
	for (uint64_t i = 0; i < ENTRIES; i++)
		table(EPT_PT)[i] = (SCAFFOLD + i * PAGE) | EPT_LEAF;
}

/* Where L1's own memory is traced too: what `vectors` vectors need is faulted in before the first of them. */
void tables_touch(uint32_t vectors)
{
	uint64_t pages = (arena_end - arena) / PAGE;

	if (pages > TOUCHED * vectors)
		pages = TOUCHED * vectors;
	zero_pages(arena, pages);
	zero_pages(POOL, POOL_PAGES);
}

/* Whether an upper entry restricts nothing, so that the scaffold may share it. */
static int permissive(uint64_t entry)
{
	return (entry & ~EPT_A) == EPT_RWXU;
}

/*
 * Chooses the L2-physical address of the leaf under test: a group of eight entries of its own in its table.
 * Returns 0 where none fits.
 */
static int choose(uint64_t index[5], const struct kvm_vector *v, uint32_t maxphyaddr)
{
	uint64_t n = sequence;
	int wide = v->paging == PAGING_64;

	index[4] = 0;
	index[3] = 1 + (n & 1);
	index[2] = 8 * (1 + n % 63);
	index[1] = 8 * (1 + n / 3 % 63);
	if (v->upper_level == 4) {
		if (wide && maxphyaddr >= BIT40)
			index[4] = 1;
		else if (!permissive(v->upper))
			return 0;
	}
	if (v->leaf_level == 3 && wide)
		index[3] = 8 * (1 + n % 63);
	return 1;
}

/* The EPT12 tables of one vector. */
static int build_ept(struct setting *s, const struct kvm_vector *v, uint32_t maxphyaddr)
{
	uint64_t index[5], address, *entry, first;

	if (v->leaf_level < 1 || v->leaf_level > 3 || v->upper_level <= v->leaf_level || v->upper_level > 4 ||
	    !choose(index, v, maxphyaddr))
		return 0;

	s->root = fresh_page();
	first = fresh_page();
	table(s->root)[0] = first | EPT_NONLEAF;
	table(first)[0] = EPT_PD | EPT_NONLEAF;

	address = s->root;
	s->test_base = 0;
	for (unsigned int level = 4; level > v->leaf_level; level--) {
		entry = &table(address)[index[level]];
		s->test_base |= index[level] << (12 + 9 * (level - 1));
		if (level == v->upper_level)
			s->upper = entry;
		address = (level == 4 && !index[4]) ? first : fresh_page();
		*entry = address | EPT_NONLEAF;
	}
	s->leaf = &table(address)[index[v->leaf_level]];
	s->test_size = PAGE << (9 * (v->leaf_level - 1));
	s->test_base |= index[v->leaf_level] * s->test_size;
	s->leaf_level = v->leaf_level;
	s->upper_level = v->upper_level;
	return 1;
}

/*
 * The two entries under test, as the record gives them. In a sequence only what differs from the record before is
 * written: each write to a table is something that a hypervisor under us may see or miss.
 */
static void set_entries(struct setting *s, const struct kvm_vector *v)
{
	uint64_t next = *s->upper & 0x000ffffffffff000ull;
	uint64_t page = s->page & ~(s->test_size - 1);

	/* a sequence may have put reserved bits into the address of the entry: the next table is kept aside */
	if (!s->valid)
		s->upper_next = next;
	if (!s->valid || s->upper_given != v->upper)
		*(volatile uint64_t *)s->upper = v->upper | s->upper_next;
	if (!s->valid || s->leaf_given != v->leaf)
		*(volatile uint64_t *)s->leaf = v->leaf | page | (v->leaf_level > 1 ? EPT_PS : 0);
	s->upper_given = v->upper;
	s->leaf_given = v->leaf;
}

static void set_guest_entries(struct setting *s, const struct kvm_vector *v)
{
	uint64_t gpt = s->walk ? s->gpt_gpa & ~(PAGE - 1) : (v->paging == PAGING_32 ? L2_PT32 : L2_PT);

	if (v->paging == PAGING_32) {
		((uint32_t *)L2_PD32)[GLA_TARGET >> 22] = (uint32_t)(v->gu | gpt);
		*(uint32_t *)s->gpte = (uint32_t)(v->gp | s->target_gpa);
	} else if (v->paging != PAGING_OFF) {
		table(L2_PD)[GLA_TARGET >> 21] = v->gu | gpt;
		*(uint64_t *)s->gpte = v->gp | s->target_gpa;
	}
}

/*
 * The address without memory that L2 sees: another one each time. A hypervisor under us that remembers the last one
 * finds the entry changed, and takes the exit of an entry that it has not made yet.
 */
static void map_mmio(struct setting *s)
{
	uint64_t address = MMIO + (sequence & 1) * PAGE;

	table(EPT_PT)[L2_MMIO >> 12 & 511] = address | EPT_RWXU | EPT_A | EPT_D;
	s->mmio = *(volatile uint32_t *)(address + MMIO_OFFSET);
}

/*
 * L2's memory for one vector. 0, or why there is none. The page under test rotates through the pool; in it,
 * offset 0 is what L2 accesses, and a guest entry under test lies in its upper half.
 */
int tables_prepare(struct setting *s, const struct kvm_vector *v, uint32_t maxphyaddr)
{
	int walk = v->access >= ACCESS_WALK && v->access <= ACCESS_WALKD;
	uint64_t size = v->paging == PAGING_32 ? 4 : 8;
	uint64_t slot, place_of_page, gpt_page;

	if (v->access > ACCESS_EMUFETCH || v->paging > PAGING_64)
		return REFUSED_KIND;
	if (v->flags & FLAG_CONTINUE) {
		if (v->access >= ACCESS_EMUREAD || !s->valid || s->leaf_level != v->leaf_level || s->upper_level != v->upper_level ||
		    s->walk != walk || s->paging != v->paging)
			return REFUSED_SEQUENCE;
		set_entries(s, v);
		set_guest_entries(s, v);
		return 0;
	}

	s->valid = 0;
	if (walk && v->paging == PAGING_OFF)
		return REFUSED_ADDRESS;
	sequence++;
	if (!build_ept(s, v, maxphyaddr))
		return REFUSED_ADDRESS;

	if (v->access >= ACCESS_EMUREAD)
		map_mmio(s);
	s->walk = (uint8_t)walk;
	s->paging = v->paging;
	s->page = POOL + (8 + sequence % (POOL_PAGES - 8)) * PAGE;	/* not among the neighbours of a large leaf's base */
	place_of_page = s->test_base | (s->page & (s->test_size - 1));
	slot = 300 + sequence % 200;
	if (walk) {
		s->data = L2_DATA;
		s->target_gpa = L2_DATA;
		s->gpte = (void *)(s->page + slot * size);
		gpt_page = place_of_page;
	} else {
		s->data = s->page;
		s->target_gpa = place_of_page;
		gpt_page = v->paging == PAGING_32 ? L2_PT32 : L2_PT;
		s->gpte = (void *)(gpt_page + slot * size);
	}
	if (v->paging == PAGING_OFF) {
		s->target_gla = s->target_gpa;
		s->gpt_gpa = 0;
		s->gpte = NULL;
	} else {
		s->target_gla = GLA_TARGET + slot * PAGE;
		s->gpt_gpa = gpt_page + slot * size;
	}
	set_entries(s, v);
	set_guest_entries(s, v);
	s->valid = 1;
	return 0;
}
