/* SPDX-License-Identifier: GPL-2.0-only */
/* One vector: its memory, its entry into L2, and what came of it. */
#include "probe.h"

#define MMIO_TIMES	4		/* the first access faults the mapping in, the others use it */
#define ROUNDS		3		/* deadlines in a row that an L2 without progress outlasts */
#define EARLY_LIMIT	4		/* timer interrupts left over from before, per vector */
#define VMCALL_BYTES	0x00c1010full	/* what lies at the start of the page accessed: VMCALL, and room for a mark */
#define ADDEND		0x01000000u	/* changes the mark, not the VMCALL */
#define MOVS_BYTES	0xc1010fa5u	/* what lies there when the access is a MOVS in the page: MOVS, VMCALL */

static struct setting setting;
static uint32_t mark;

/* the page's first four bytes for this vector: VMCALL and a mark that changes */
static uint32_t planted(uint8_t access)
{
	if (access == ACCESS_EMUFETCH)
		return MOVS_BYTES;
	return (uint32_t)VMCALL_BYTES | mark << 24;
}

static uint32_t code_offset(uint8_t access)
{
	switch (access) {
	case ACCESS_WRITE:
	case ACCESS_WALKD:
		return CODE_WRITE;
	case ACCESS_RMW:
		return CODE_RMW;
	case ACCESS_FETCH:
		return CODE_FETCH;
	case ACCESS_EMUREAD:
	case ACCESS_EMUWRITE:
		return CODE_MOVS;
	case ACCESS_EMUFETCH:
		return CODE_JUMP;
	default:
		return CODE_READ;
	}
}

static uint32_t entry_offset(const struct kvm_vector *v)
{
	return v->kind == KIND_ENTRY ? CODE_IDLE : v->kind == KIND_SPIN ? CODE_SPIN : code_offset(v->access);
}

static uint32_t code_length(uint32_t offset)
{
	return offset == CODE_RMW ? 3 : offset == CODE_MOVS ? 1 : 2;
}

/* Whether L2 has left the probe's code for the page accessed. */
static int in_page_itself(uint8_t access)
{
	return access == ACCESS_FETCH || access == ACCESS_EMUFETCH;
}

static uint64_t code_gla(const struct kvm_vector *v)
{
	if (v->paging == PAGING_OFF)
		return L2_CODE;
	return v->cpl ? GLA_CODE_USER : GLA_CODE;
}

static int in_page(uint64_t a, uint64_t page)
{
	return (a ^ page) < PAGE;
}

/*
 * Enters L2 until it exits for a reason of its own or makes no progress. Returns the result of vmx_enter().
 *
 * One deadline missed is not enough: the host may have given its CPU to someone else. Each round resumes L2 where it
 * was, with a deadline of its own; an L2 that can go on ends in one of them.
 */
int l2_enter(struct l2_registers *r, struct kvm_observation *o)
{
	unsigned int rounds = 0, early = 0;
	uint64_t first = rdtsc(), begin;
	int failed;

	for (;;) {
		timer_arm();
		begin = rdtsc();
		failed = vmx_enter(r);
		o->tsc = rdtsc() - first;
		if (!failed) {
			o->exits++;
			o->reason = (uint32_t)vmread(EXIT_REASON);
		}
		if (failed || o->reason != REASON_EXTINT) {
			o->astray = vmx_astray(failed, o->reason);
			return failed;
		}
		timer_acknowledge();
		vmx_goes_on();
		if (timer_early(begin) && early < EARLY_LIMIT)
			early++;
		else if (++rounds == ROUNDS) {
			o->verdict = VERDICT_TIMEOUT;
			o->rip = vmread(GUEST_RIP);
			return 0;
		}
	}
}

/* The access ended with VMCALL at `rip`: did it do what it says? */
static void judge_done(const struct kvm_vector *v, const struct setting *s, const struct l2_registers *r,
		       struct kvm_observation *o, uint64_t access_rip)
{
	uint32_t offset = code_offset(v->access);
	uint32_t was = planted(v->access), want_now = was, want_read = was;
	uint32_t now = *(volatile uint32_t *)s->data;
	uint64_t want_rip = access_rip + code_length(offset);

	o->verdict = VERDICT_DONE;
	o->value = (uint32_t)r->rax;
	switch (offset) {
	case CODE_WRITE:
		want_now = want_read = was + ADDEND;
		break;
	case CODE_RMW:
		want_now = was + ADDEND;
		want_read = ADDEND;
		break;
	case CODE_FETCH:
		want_read = was + ADDEND;
		want_rip = s->target_gla;
		break;
	case CODE_MOVS:
		want_now = v->access == ACCESS_EMUWRITE ? s->mmio : was;
		want_read = (uint32_t)r->rax;
		break;
	case CODE_JUMP:
		want_read = (uint32_t)r->rax;
		want_rip = s->target_gla + 1;
		break;
	default:
		break;
	}
	if (o->rip != want_rip) {
		o->verdict = VERDICT_SCAFFOLD;
		o->error = BROKEN_RIP;
	} else if (now != want_now || (uint32_t)r->rax != want_read) {
		o->astray |= ASTRAY_DATA;
	}
}

static void judge(const struct kvm_vector *v, const struct setting *s, const struct l2_registers *r,
		  struct kvm_observation *o, uint64_t access_rip)
{
	uint32_t info;
	int at_access, in_test;

	if (o->verdict == VERDICT_TIMEOUT)
		return;
	if (o->reason & REASON_ENTRY_FAILED) {
		o->verdict = VERDICT_ENTRY_EXIT;
		o->qualification = vmread(EXIT_QUALIFICATION);
		return;
	}
	o->rip = vmread(GUEST_RIP);
	if (o->reason == REASON_VMCALL) {
		if (v->kind == KIND_ENTRY)
			o->verdict = o->rip == access_rip ? VERDICT_DONE : VERDICT_SCAFFOLD;
		else
			judge_done(v, s, r, o, access_rip);
		return;
	}
	o->verdict = VERDICT_EXIT;
	o->qualification = vmread(EXIT_QUALIFICATION);
	at_access = o->rip == (in_page_itself(v->access) ? s->target_gla : access_rip);
	in_test = 0;
	if (o->reason == REASON_EXCEPTION) {
		info = (uint32_t)vmread(EXIT_INTR_INFO);
		o->verdict = VERDICT_EXCEPTION;
		o->vector = (uint8_t)info;
		o->error = info & 1u << 11 ? (uint32_t)vmread(EXIT_INTR_ERROR) : 0;
	} else if (o->reason == REASON_EPT_VIOLATION || o->reason == REASON_EPT_MISCONFIG) {
		o->gpa = vmread(GUEST_PHYSICAL);
		o->gla = vmread(GUEST_LINEAR);
		in_test = o->gpa - s->test_base < s->test_size || in_page(o->gpa, s->target_gpa) ||
			  (s->gpt_gpa && in_page(o->gpa, s->gpt_gpa));
	}
	if (!at_access && !in_test)
		o->verdict = VERDICT_SCAFFOLD;
}

/* What each piece of code in tables.c works on. */
static void set_registers(struct l2_registers *r, const struct setting *s, uint8_t access)
{
	r->rax = access == ACCESS_RMW ? ADDEND : (uint32_t)(planted(access) + ADDEND);
	r->rdi = s->target_gla;
	r->rsi = r->rdx = r->rcx = 0;
	if (access < ACCESS_EMUREAD)
		return;
	r->rsi = GLA_MMIO;
	if (access == ACCESS_EMUREAD) {
		r->rsi = s->target_gla;
		r->rdi = GLA_MMIO;
	} else if (access == ACCESS_EMUFETCH) {
		r->rax = s->target_gla;
		r->rdi = GLA_MMIO;
	}
}

static void run_l2(const struct kvm_batch *batch, const struct kvm_vector *v, struct kvm_observation *o)
{
	struct setting *s = &setting;
	struct l2_registers r;
	uint64_t rip = code_gla(v) + (entry_offset(v));
	int failed, refused = tables_prepare(s, v, batch->maxphyaddr);

	if (refused) {
		o->verdict = VERDICT_SCAFFOLD;
		o->error = (uint32_t)refused;
		return;
	}
	/* before the entry: the host wants to know them of a vector that L1 dies of */
	o->target_gpa = s->target_gpa;
	o->target_gla = s->target_gla;
	o->gpt_gpa = s->gpt_gpa;
	o->leaf_address = (uint64_t)s->leaf;
	mark++;
	*(volatile uint32_t *)s->data = planted(v->access);
	set_registers(&r, s, v->access);

	vmx_load(v, s, rip);
	if (v->ept & EPT_ENABLE && !(v->flags & FLAG_NO_INVEPT))
		vmx_invept(s->root, v->ept & EPT_AD);
	failed = l2_enter(&r, o);
	if (failed) {
		o->verdict = VERDICT_ENTRY_FAIL;
		o->error = failed == 1 ? (uint32_t)vmread(INSTRUCTION_ERROR) : 0;
	} else {
		judge(v, s, &r, o, rip);
		if (o->verdict != VERDICT_TIMEOUT && !(o->reason & REASON_ENTRY_FAILED))
			o->astray |= vmx_saved_astray();
	}
	o->leaf_after = *s->leaf;
	o->upper_after = *s->upper;
	if (s->gpte)
		o->gpte_after = v->paging == PAGING_32 ? *(volatile uint32_t *)s->gpte : *(volatile uint64_t *)s->gpte;
}

static void run_msr(const struct kvm_vector *v, struct kvm_observation *o)
{
	if (rdmsr_safe(v->msr, &o->value)) {
		o->verdict = VERDICT_EXCEPTION;
		o->vector = 13;
	} else {
		o->verdict = VERDICT_VALUE;
	}
}

static void run_mmio(const struct kvm_vector *v, struct kvm_observation *o)
{
	volatile uint32_t *at = (volatile uint32_t *)(MMIO + MMIO_OFFSET);
	uint32_t value = 0;

	for (int i = 0; i < MMIO_TIMES; i++) {
		switch (v->access) {
		case ACCESS_WRITE:
			asm volatile("movl %1, %0" : "=m"(*at) : "r"(0u));
			break;
		case ACCESS_RMW:
			asm volatile("lock orl %1, %0" : "+m"(*at) : "r"(0u));
			break;
		default:
			asm volatile("movl %1, %0" : "=r"(value) : "m"(*at));
			break;
		}
	}
	o->value = value;
	o->verdict = VERDICT_DONE;
}

/* Whoever traces the host sees where this vector begins (CPUID always exits), and where the marked ones ended. */
void put_mark(const struct kvm_vector *v)
{
	static int marked;
	uint32_t r[4];

	if (v->flags & FLAG_MARK)
		cpuid(MARK_LEAF, v->index, r);
	else if (marked)
		outb(MARK_PORT, 0);
	marked = v->flags & FLAG_MARK;
}

/* Whether whatever VMCS is current stays so, none of the probe's perhaps: a program goes on with it. */
static int keeps_current(const struct kvm_vector *v)
{
	return v->kind == KIND_STEP && (v->access == OP_VMX || v->access == OP_HOST);
}

void run_vector(struct kvm_batch *batch, const struct kvm_vector *v, struct kvm_observation *o)
{
	memset(o, 0, sizeof(*o));
	o->index = v->index;
	if (v->kind == KIND_CHANGE) {
		vm_entry_change(v, o);
		return;
	}
	if (v->kind == KIND_VM_ENTRY) {
		run_vm_entry(batch, v, o);
		return;
	}
	if (v->kind == KIND_VM_EXIT) {
		run_vm_exit(batch, v, o);
		return;
	}
	vm_entry_forget();
	if (!keeps_current(v) && vmx_use(v)) {
		o->verdict = VERDICT_SCAFFOLD;
		o->error = REFUSED_EVMCS;
		return;
	}
	switch (v->kind) {
	case KIND_ACCESS:
	case KIND_ENTRY:
	case KIND_SPIN:
		run_l2(batch, v, o);
		break;
	case KIND_STEP:
		run_step(batch, v, o);
		break;
	case KIND_MSR:
		run_msr(v, o);
		break;
	case KIND_MMIO:
		run_mmio(v, o);
		break;
	default:
		o->verdict = VERDICT_SCAFFOLD;
		o->error = REFUSED_KIND;
	}
}
