/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The steps of programs. Whoever wrote the batch knows where everything lies and has L2's code ready; what is here
 * only carries out: it builds the tables that every program finds, writes, invalidates, enters L2, and tells which
 * page each access of L2 came to.
 */
#include "probe.h"

enum table { R0, R1, D0, D1, D2, M0, M1, M2, T0, T1, T2 };	/* in a program's area, a page each */

static uint64_t area;

static uint64_t *table(enum table n)
{
	return (uint64_t *)(area + n * PAGE);
}

static void lead(enum table from, uint64_t index, enum table to)
{
	table(from)[index] = (uint64_t)table(to) | EPT_NONLEAF;
}

static uint8_t *page(unsigned int n)
{
	uint64_t base = n < PROGRAM_PAGES / 2 ? PROGRAM_P : PROGRAM_Q;

	return (uint8_t *)(base + (PROGRAM_SLOT + n % (PROGRAM_PAGES / 2)) * PAGE);
}

/*
 * A page begins with code that puts its number into EAX and exits; the number is also what a read of it finds. It ends
 * with code that puts its number into EAX and the page behind it, of which it takes eight bytes, into RDX. What is
 * read or written over two pages begins at that number.
 */
static void write_pages(void)
{
	for (unsigned int n = 0; n < PROGRAM_PAGES; n++) {
		uint8_t known = (uint8_t)(PROGRAM_KNOWN | n);
		uint8_t head[] = { 0xb8, known, 0, 0, 0, 0x0f, 0x01, 0xc1, 0x0f, 0x01, 0xc1 };
		uint8_t tail[] = { 0xb8, known, 0, 0, 0, 0x48, 0xba };

		memcpy(page(n), head, sizeof(head));
		memcpy(page(n) + PROGRAM_OVER - 1, tail, sizeof(tail));
	}
}

/* Of an access over two pages: the page whose byte at `offset` is its own no longer, and that byte; 0 for none. */
static uint64_t overwritten(uint64_t offset)
{
	for (unsigned int n = 0; n < PROGRAM_PAGES; n++) {
		uint8_t now = *(volatile uint8_t *)(page(n) + offset);

		if (now != (PROGRAM_KNOWN | n))
			return PROGRAM_KNOWN | n | (uint64_t)now << 8;
	}
	return 0;
}

/* Window `w` (0 to 2): its guest-physical address of page `k`, and the guest's entries for it. */
static void write_guest(unsigned int w, int flat)
{
	static const uint64_t base[] = { 1 * GIB, 2 * GIB, (512 + 1) * GIB };
	uint64_t *entries = (uint64_t *)(PROGRAM_GPT + w * PAGE);

	for (unsigned int k = 0; k < PROGRAM_PAGES / 2; k++) {
		uint64_t at = base[w] + PROGRAM_PDE * 2 * MIB + (PROGRAM_SLOT + k) * PAGE;

		entries[PROGRAM_SLOT + k] = (flat ? (uint64_t)page(k) : at) | PTE_ALL | PTE_D;
	}
	((uint64_t *)L2_PD)[PROGRAM_PDE + w] = (uint64_t)entries | PTE_ALL;
}

/*
 * Where CR3 may lead beside the probe's own tables: page directories in which each window has the next one's table
 * or the next but one's, a second PML4 and two page-directory-pointer tables of PAE paging.
 */
static void write_roots(void)
{
	uint64_t *pml4 = (uint64_t *)PROGRAM_PML4, *pdpt = (uint64_t *)(PROGRAM_PML4 + PAGE);
	uint64_t *pae = (uint64_t *)PROGRAM_PDPTS;

	for (uint64_t n = 0; n < 2; n++) {
		uint64_t *directory = (uint64_t *)(PROGRAM_PDS + n * PAGE);

		directory[GLA_CODE >> 21] = L2_PT_CODE | PTE_ALL;
		for (uint64_t w = 0; w < 3; w++)
			directory[PROGRAM_PDE + w] = (PROGRAM_GPT + (w + n + 1) % 3 * PAGE) | PTE_ALL;
	}
	pml4[0] = (uint64_t)pdpt | PTE_ALL;
	pdpt[0] = PROGRAM_PDS | PTE_ALL;
	for (unsigned int n = 0; n < 4; n++) {
		pae[n] = L2_PD | PTE_P;
		pae[4 + n] = PROGRAM_PDS | PTE_P;
	}
}

static void build(uint64_t where, int flat)
{
	static const enum table last[] = { T0, T1, T2 };
	uint64_t *code = (uint64_t *)L2_PT_CODE;

	timer_disarm();
	area = where;
	zero_pages(area, PROGRAM_AREA / PAGE);
	lead(R0, 0, D0);
	lead(R1, 0, D2);
	lead(R0, 1, D1);
	lead(R1, 1, D1);
	table(D0)[0] = table(D2)[0] = EPT_PD | EPT_NONLEAF;
	lead(D0, 1, M0);
	lead(D0, 2, M1);
	lead(D2, 1, M0);
	lead(D2, 2, M1);
	lead(D1, 1, M2);
	lead(M0, PROGRAM_PDE, T0);
	lead(M1, PROGRAM_PDE, T1);
	lead(M2, PROGRAM_PDE, T2);
	for (unsigned int w = 0; w < sizeof(last) / sizeof(last[0]); w++) {
		for (unsigned int k = 0; k < PROGRAM_PAGES / 2; k++)
			table(last[w])[PROGRAM_SLOT + k] = (uint64_t)page(k) | EPT_LEAF;
		write_guest(w, flat);
	}
	vmx_regions();
	write_roots();
	code[3] = L2_PROGRAM | PTE_P | PTE_W | PTE_A | PTE_D;
	code[4] = L2_PROGRAM | PTE_ALL | PTE_D;
	for (unsigned int w = 0; w < sizeof(last) / sizeof(last[0]); w++)
		code[5 + w] = (PROGRAM_GPT + w * PAGE) | PTE_P | PTE_W | PTE_A | PTE_D;
	code[8] = PROGRAM_PDPTS | PTE_P | PTE_W | PTE_A | PTE_D;
}

/* For each part of the run the page in which its mark is found, a byte each: 0 for none. */
static uint64_t where_written(void)
{
	uint64_t found = 0;

	for (unsigned int part = 0; part < PROGRAM_PARTS; part++)
		for (unsigned int n = 0; n < PROGRAM_PAGES; n++) {
			volatile uint32_t *at = (uint32_t *)(page(n) + PROGRAM_WRITTEN + 8 * part);

			if (*at == (PROGRAM_MARK | part))
				found |= (uint64_t)(PROGRAM_KNOWN | n) << 8 * part;
		}
	return found;
}

static void run(struct kvm_batch *batch, const struct kvm_vector *v, struct kvm_observation *o)
{
	volatile uint32_t *refused = &batch->refused;
	struct setting s = { .root = v->leaf };
	struct l2_registers r = { 0 };
	volatile uint64_t *results = (uint64_t *)(L2_PROGRAM + PROGRAM_RESULTS);
	int failed;

	for (unsigned int n = 0; n < PROGRAM_PAGES; n++)
		memset(page(n) + PROGRAM_WRITTEN, 0, 8 * PROGRAM_PARTS);
	results[0] = results[1] = 0;
	write_pages();
	*refused = 0;
	vmx_load(v, &s, GLA_PROGRAM + (v->cpl ? PAGE : 0));
	failed = l2_enter(&r, o);
	timer_disarm();		/* without EPT each VM entry loads PDPTEs from memory: none that nobody asked for */
	if (failed) {
		o->verdict = VERDICT_ENTRY_FAIL;
		o->error = failed == 1 ? (uint32_t)vmread(INSTRUCTION_ERROR) : 0;
		return;
	}
	vmx_state_changed();
	if (*refused) {		/* L2 called the host in the middle */
		o->verdict = VERDICT_SCAFFOLD;
		o->error = REFUSED_BY_HOST;
		return;
	}
	o->value = *results;
	o->leaf_after = where_written();
	o->upper_after = r.rax;
	o->gpte_after = overwritten(PROGRAM_OVER) | overwritten(1) << 16 | (uint64_t)(uint32_t)r.rcx << 32;
	o->target_gpa = r.rsi;
	o->target_gla = r.rdi;
	o->gpt_gpa = r.rdx;
	o->leaf_address = results[1];
	if (o->verdict == VERDICT_TIMEOUT)
		return;
	o->qualification = vmread(EXIT_QUALIFICATION);
	if (o->reason & REASON_ENTRY_FAILED) {
		o->verdict = VERDICT_ENTRY_EXIT;
		return;
	}
	o->rip = vmread(GUEST_RIP);
	o->verdict = o->reason == REASON_VMCALL ? VERDICT_DONE : VERDICT_EXIT;
	if (o->reason == REASON_EXCEPTION) {
		uint32_t info = (uint32_t)vmread(EXIT_INTR_INFO);

		o->verdict = VERDICT_EXCEPTION;
		o->vector = (uint8_t)info;
		o->error = info & 1u << 11 ? (uint32_t)vmread(EXIT_INTR_ERROR) : 0;
	} else if (o->reason == REASON_EPT_VIOLATION || o->reason == REASON_EPT_MISCONFIG) {
		o->gpa = vmread(GUEST_PHYSICAL);
		o->gla = vmread(GUEST_LINEAR);
	}
}

static void invalidate(const struct kvm_vector *v, struct kvm_observation *o)
{
	int error = vmx_invalidate(v->access == OP_INVVPID, v->leaf, v->upper, v->gp);

	o->verdict = error ? VERDICT_ENTRY_FAIL : VERDICT_DONE;
	o->error = (uint32_t)error;
}

static void instruction(const struct kvm_vector *v, struct kvm_observation *o)
{
	uint64_t value = v->gp;
	int error = vmx_instruction(v->leaf, v->upper, &value, o);

	o->verdict = error ? VERDICT_ENTRY_FAIL : v->leaf == VMX_VMREAD ? VERDICT_VALUE : VERDICT_DONE;
	o->error = (uint32_t)error;
	if (v->leaf == VMX_VMREAD)
		o->value = value;
}

/* The host does something behind the hypervisor's back; L1 waits. */
static void call_host(const struct kvm_batch *batch, const struct kvm_vector *v, struct kvm_observation *o)
{
	const volatile uint32_t *done = &batch->carried_out;

	if (!platform_call()) {
		o->verdict = VERDICT_SCAFFOLD;
		o->error = REFUSED_HOST;
		return;
	}
	while (*done != v->index + 1)
		asm volatile("pause");
	if (*(const volatile uint32_t *)&batch->refused) {
		o->verdict = VERDICT_SCAFFOLD;
		o->error = REFUSED_BY_HOST;
	}
}

void run_step(struct kvm_batch *batch, const struct kvm_vector *v, struct kvm_observation *o)
{
	o->verdict = VERDICT_DONE;
	switch (v->access) {
	case OP_BUILD:
		build(v->leaf, v->upper != 0);
		break;
	case OP_WRITE:
		*(volatile uint64_t *)v->leaf = v->upper;
		break;
	case OP_LOOK:
		o->value = *(volatile uint64_t *)v->leaf;
		o->verdict = VERDICT_VALUE;
		break;
	case OP_FIELD:
		vmwrite(v->leaf, v->upper);
		break;
	case OP_LOOK_FIELD:
		o->value = vmread(v->leaf);
		o->verdict = VERDICT_VALUE;
		break;
	case OP_PDPTES:
		vmx_load_pdptes(v->leaf);
		break;
	case OP_CODE:
		memcpy((void *)(L2_PROGRAM + v->msr), &v->leaf, 32);
		break;
	case OP_RUN:
		run(batch, v, o);
		break;
	case OP_INVEPT:
	case OP_INVVPID:
		invalidate(v, o);
		break;
	case OP_VMX:
		instruction(v, o);
		break;
	case OP_HOST:
		call_host(batch, v, o);
		break;
	default:
		o->verdict = VERDICT_SCAFFOLD;
		o->error = REFUSED_KIND;
	}
}
