/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * VM entries with VMCS fields changed; and those behind which L2 does something and all that its exit tells is wanted.
 * Each has a vmcs12 made anew, so that no other vector meets what it wrote; what an
 * exit leaves in L1's own registers is put back.
 */
#include "probe.h"

#define L2_IDLE		(GLA_CODE + CODE_IDLE)

struct change {
	uint64_t kept, put;
	uint32_t field;
};

/* Beyond what every vmcs12 of ours has: fields that a change makes matter, and that may hold anything on a CPU. */
static const uint16_t cleared[] = {
	VMCS_VPID, POSTED_NOTIFICATION, IO_BITMAP_A, IO_BITMAP_B, MSR_BITMAP, EXIT_MSR_STORE_ADDRESS, EXIT_MSR_LOAD_ADDRESS,
	ENTRY_MSR_LOAD_ADDRESS, PML_ADDRESS, TSC_OFFSET, VIRTUAL_APIC_PAGE, APIC_ACCESS_PAGE, POSTED_DESCRIPTOR,
	VM_FUNCTION_CONTROLS, EPTP_LIST, VMREAD_BITMAP, VMWRITE_BITMAP, VE_INFORMATION, XSS_BITMAP, TSC_MULTIPLIER,
	GUEST_PERF_GLOBAL, GUEST_PDPTE0, GUEST_PDPTE0 + 2, GUEST_PDPTE0 + 4, GUEST_PDPTE0 + 6, GUEST_BNDCFGS,
	HOST_PERF_GLOBAL, ENTRY_ERROR_CODE, ENTRY_INSTRUCTION_LENGTH, TPR_THRESHOLD, PLE_GAP, PLE_WINDOW,
	GUEST_TIMER_VALUE, GUEST_INTERRUPT_STATUS, PML_INDEX,
};

#define ROUNDS		3		/* deadlines in a row that an L2 outlasts which was not given the CPU */

static struct change changes[CHANGES];
static unsigned int count;
static int too_many;
static struct setting setting;

/* A change for the VM entry that follows. */
void vm_entry_change(const struct kvm_vector *v, struct kvm_observation *o)
{
	if (count == CHANGES)
		too_many = 1;
	else
		changes[count++] = (struct change){ v->leaf, v->upper, v->msr };
	o->verdict = VERDICT_DONE;
}

void vm_entry_forget(void)
{
	count = 0;
	too_many = 0;
}

static int make(const struct change *c)
{
	uint64_t *word = (uint64_t *)SCRATCH_PAGE + (c->field - CHANGE_MEMORY);

	if (c->field < CHANGE_MEMORY)
		return vmwrite_refused(c->field, (vmread(c->field) & c->kept) | c->put);
	if (c->field >= CHANGE_MEMORY + CHANGE_WORDS)
		return 1;
	*word = (*word & c->kept) | c->put;
	return 0;
}

/* The vmcs12 with all that is asked; 0, or why it cannot be. */
static int fill(const struct kvm_vector *v, uint64_t rip)
{
	int enlightened = v->ept & EPT_EVMCS ? 1 : 0;

	leaves_given(0);
	if (vmx_renew(enlightened))
		return enlightened ? REFUSED_EVMCS : REFUSED_KIND;
	zero_pages(SCRATCH_PAGE, 1);
	for (unsigned int i = 0; !enlightened && i < sizeof(cleared) / sizeof(cleared[0]); i++)
		vmwrite(cleared[i], 0);		/* an enlightened one is all 0 */
	vmwrite(GUEST_PAT, rdmsr(MSR_PAT));
	vmwrite(HOST_PAT, rdmsr(MSR_PAT));
	vmx_load(v, &setting, rip);
	for (unsigned int i = 0; i < count; i++)
		if (make(&changes[i]))
			return REFUSED_FIELD;
		else
			leaves_given(changes[i].field);
	return 0;
}

static void restore(uint64_t cr0, uint64_t cr4, uint64_t efer, uint64_t pat)
{
	if (READ_CR(0) != cr0)
		WRITE_CR(0, cr0);
	if (READ_CR(4) != cr4)
		WRITE_CR(4, cr4);
	if (rdmsr(MSR_EFER) != efer)
		wrmsr(MSR_EFER, efer);
	if (rdmsr(MSR_PAT) != pat)
		wrmsr(MSR_PAT, pat);
	/* an interrupt that L2 took, or that its exit acknowledged, is in service */
	timer_acknowledge();
}

static void enter(struct kvm_observation *o)
{
	uint64_t cr0 = READ_CR(0), cr4 = READ_CR(4), efer = rdmsr(MSR_EFER), pat = rdmsr(MSR_PAT), begin;
	struct l2_registers r;
	int failed;

	memset(&r, 0, sizeof(r));
	leaves_before(1);
	timer_arm();
	begin = rdtsc();
	failed = vmx_enter(&r);
	o->tsc = rdtsc() - begin;
	timer_disarm();
	o->astray = leaves_after(o, failed);
	restore(cr0, cr4, efer, pat);
	if (failed) {
		o->verdict = VERDICT_ENTRY_FAIL;
		o->error = failed == 1 ? (uint32_t)vmread(INSTRUCTION_ERROR) : 0;
	} else {
		o->exits = 1;
		o->reason = (uint32_t)vmread(EXIT_REASON);
		o->qualification = vmread(EXIT_QUALIFICATION);
		o->verdict = o->reason & REASON_ENTRY_FAILED ? VERDICT_ENTRY_EXIT : VERDICT_DONE;
	}
	if (failed != 2)
		o->astray |= vmx_launch_astray(o->verdict == VERDICT_DONE);
}

void run_vm_entry(const struct kvm_batch *batch, const struct kvm_vector *v, struct kvm_observation *o)
{
	int refused = too_many ? REFUSED_CHANGES : tables_prepare(&setting, v, batch->maxphyaddr);

	if (!refused)
		refused = fill(v, v->paging == PAGING_OFF ? L2_CODE + CODE_IDLE : L2_IDLE);
	vm_entry_forget();
	if (refused) {
		o->verdict = VERDICT_SCAFFOLD;
		o->error = (uint32_t)refused;
		return;
	}
	vmx_invept(setting.root, 0);
	enter(o);
}

static uint64_t both(uint64_t low, uint64_t high)
{
	return vmread(low) | vmread(high) << 32;
}

/* All that an exit told, and what L2 had read last. */
static void tell_all(struct kvm_observation *o, const struct l2_registers *r)
{
	int walked = o->reason == REASON_EPT_VIOLATION || o->reason == REASON_EPT_MISCONFIG;

	o->qualification = vmread(EXIT_QUALIFICATION);
	o->gpa = walked ? vmread(GUEST_PHYSICAL) : 0;
	o->gla = walked ? vmread(GUEST_LINEAR) : ((volatile uint64_t *)SCRATCH_PAGE)[1];
	o->rip = vmread(GUEST_RIP);
	o->value = r->rax;
	o->leaf_after = vmread(GUEST_CR0);
	o->upper_after = vmread(GUEST_CR4);
	o->gpte_after = vmread(GUEST_CR3);
	o->target_gpa = both(EXIT_INTR_INFO, EXIT_INTR_ERROR);
	o->target_gla = both(IDT_VECTORING_INFO, IDT_VECTORING_ERROR);
	o->gpt_gpa = vmread(GUEST_EFER);
	o->error = (uint32_t)vmread(GUEST_TIMER_VALUE);
	o->leaf_address = both(EXIT_INSTRUCTION_LENGTH, GUEST_INTERRUPTIBILITY);
}

/*
 * L2's code lies at the same linear address and physical one, and so does the scratch page, which L2 may only read; the
 * page behind the code is one that EPT12 lacks.
 */
static void map_code(void)
{
	uint64_t *entries = (uint64_t *)PROGRAM_GPT;

	((uint64_t *)L2_PD)[L2_PROGRAM >> 21] = PROGRAM_GPT | PTE_ALL;
	entries[L2_PROGRAM >> 12 & 511] = L2_PROGRAM | PTE_P | PTE_W | PTE_A | PTE_D;
	entries[(L2_PROGRAM >> 12 & 511) + 1] = VM_EXIT_ABSENT | PTE_ALL | PTE_D;
	entries[SCRATCH_PAGE >> 12 & 511] = SCRATCH_PAGE | PTE_P | PTE_A | PTE_D;
}

/* One VM entry and its exit; non-zero where L1's timer was the exit. */
static int enter_and_tell(struct kvm_observation *o)
{
	uint64_t cr0 = READ_CR(0), cr4 = READ_CR(4), efer = rdmsr(MSR_EFER), pat = rdmsr(MSR_PAT), begin;
	struct l2_registers r;
	int failed;

	memset(&r, 0, sizeof(r));
	vmx_invept(setting.root, 0);
	timer_arm();
	begin = rdtsc();
	failed = vmx_enter(&r);
	o->tsc = rdtsc() - begin;
	timer_disarm();
	restore(cr0, cr4, efer, pat);
	if (failed) {
		o->verdict = VERDICT_ENTRY_FAIL;
		o->error = failed == 1 ? (uint32_t)vmread(INSTRUCTION_ERROR) : 0;
		return 0;
	}
	o->exits++;
	o->reason = (uint32_t)vmread(EXIT_REASON);
	o->verdict = o->reason & REASON_ENTRY_FAILED ? VERDICT_ENTRY_EXIT : VERDICT_EXIT;
	tell_all(o, &r);
	return o->reason == REASON_EXTINT;
}

void run_vm_exit(const struct kvm_batch *batch, const struct kvm_vector *v, struct kvm_observation *o)
{
	int refused = too_many ? REFUSED_CHANGES : tables_prepare(&setting, v, batch->maxphyaddr), late = 1;

	map_code();
	for (int round = 0; !refused && late && round < ROUNDS; round++) {
		refused = fill(v, L2_PROGRAM);
		late = refused ? 1 : enter_and_tell(o);
	}
	vm_entry_forget();
	if (refused) {
		o->verdict = VERDICT_SCAFFOLD;
		o->error = (uint32_t)refused;
	} else if (late) {
		o->verdict = VERDICT_TIMEOUT;
	}
}
