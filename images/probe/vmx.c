/* SPDX-License-Identifier: GPL-2.0-only */
/* VMX operation and the vmcs12: everything set once, then only what differs from the vector before. */
#include "probe.h"

#define CR0_PE		(1ull << 0)
#define CR0_ET		(1ull << 4)
#define CR0_NE		(1ull << 5)
#define CR0_WP_BIT	(1ull << 16)
#define CR0_AM		(1ull << 18)
#define CR0_PG		(1ull << 31)
#define CR4_MCE		(1ull << 6)
#define CR4_PSE		(1ull << 4)
#define CR4_PAE		(1ull << 5)
#define CR4_PGE		(1ull << 7)
#define CR4_VMXE	(1ull << 13)
#define CR4_SMEP_BIT	(1ull << 20)
#define CR4_SMAP_BIT	(1ull << 21)
#define EFER_LME	(1ull << 8)
#define EFER_LMA	(1ull << 10)
#define EFER_NXE	(1ull << 11)
#define FEATURE_LOCKED	1ull
#define FEATURE_VMXON	4ull
#define BASIC_TRUE	(1ull << 55)
#define CAP_INVEPT	(1ull << 20)
#define CAP_INVEPT_ALL	(1ull << 26)
#define EPTP_WB		6ull
#define EPTP_WALK4	(3ull << 3)
#define EPTP_AD		(1ull << 6)
#define AR_UNUSABLE	0x10000u
/*
 * IF is set. External interrupts exit whatever IF is; but an emulator that evaluates interrupt masks when IF changes
 * would leave L1's timer masked over an entry from IF=0 to IF=0.
 */
#define L2_FLAGS	0x202ull
#define RFLAGS_ONE	2ull		/* all that a VM exit leaves */
#define INFO_VALID	(1u << 31)
#define VMCALL_LENGTH	3
#define ERROR_VMLAUNCH	4		/* of a VMCS that is launched */
#define ERROR_VMRESUME	5		/* of one that is not */

enum slot {
	S_EPTP, S_PROC2, S_ENTRY, S_CR0, S_CR3, S_CR4, S_EFER, S_CS_AR, S_SS_AR, S_DS_AR, S_CS, S_SS, S_DS, S_ES,
	S_ES_AR, S_PROC, S_EXIT, S_COUNT
};

static const uint16_t field_of[S_COUNT] = {
	[S_EPTP] = VMCS_EPTP, [S_PROC2] = VMCS_PROC2, [S_ENTRY] = VMCS_ENTRY, [S_CR0] = GUEST_CR0,
	[S_CR3] = GUEST_CR3, [S_CR4] = GUEST_CR4, [S_EFER] = GUEST_EFER,
	[S_ES] = GUEST_ES_SELECTOR, [S_CS] = GUEST_ES_SELECTOR + 2, [S_SS] = GUEST_ES_SELECTOR + 4,
	[S_DS] = GUEST_ES_SELECTOR + 6, [S_ES_AR] = GUEST_ES_AR, [S_CS_AR] = GUEST_ES_AR + 2,
	[S_SS_AR] = GUEST_ES_AR + 4, [S_DS_AR] = GUEST_ES_AR + 6, [S_PROC] = VMCS_PROC,
	[S_EXIT] = VMCS_EXIT,
};

/* one vmcs12 with what was last written to it */
struct vmcs {
	uint64_t region;	/* 0: not prepared yet */
	int enlightened;
	uint64_t written[S_COUNT];
	int launched;
};

uint64_t vmx_msrs[MSR_COUNT];
static struct vmcs vmcs[4];	/* A and B, then A and B enlightened */
static struct vmcs asked[2];	/* those of VM entries with changed fields, plain and enlightened: made anew each time */
static struct vmcs *current;
/* as every vmcs12 of ours has them for L1, which itself begins with the same */
static struct l1_registers host = { .selectors = { 0x10, 0x08, 0x10, 0x10, 0, 0, 0x18 } };
uint64_t exit_rsp, exit_flags;	/* as the last VM exit left them (switch.S) */
static char exit_stack[256] __attribute__((aligned(16)));
extern char gdt[], tss[];

uint64_t vmx_capability(uint32_t msr)
{
	return vmx_msrs[msr - MSR_FIRST];
}

/* The control MSR that governs: 0 pin, 1 processor, 2 exit, 3 entry. */
static uint64_t control_msr(uint32_t which)
{
	if (vmx_capability(MSR_VMX_BASIC) & BASIC_TRUE)
		return vmx_capability(MSR_VMX_TRUE_PIN + which);
	return vmx_capability(MSR_VMX_PIN + which);
}

/* What is wanted, as far as allowed, and what is required. */
static uint32_t adjust(uint32_t want, uint32_t which)
{
	uint64_t msr = control_msr(which);

	return (want | (uint32_t)msr) & (uint32_t)(msr >> 32);
}

uint64_t vmread(uint64_t field)
{
	return current && current->enlightened ? evmcs_read(current->region, field) : vmread_current(field);
}

void vmwrite(uint64_t field, uint64_t v)
{
	if (current->enlightened)
		evmcs_write(current->region, field, v);
	else
		vmwrite_current(field, v);
}

/* Writes a field of the vmcs12 that is current; non-zero where a plain one has no such field. */
int vmwrite_refused(uint64_t field, uint64_t v)
{
	uint8_t failed;

	if (current->enlightened) {
		evmcs_write(current->region, field, v);
		return 0;
	}
	asm volatile("vmwrite %2, %1\n\tsetna %0" : "=qm"(failed) : "r"(field), "r"(v) : "cc");
	return failed;
}

static void put(enum slot slot, uint64_t v)
{
	if (current->written[slot] == v)
		return;
	current->written[slot] = v;
	vmwrite(field_of[slot], v);
}

static int vmptr(struct vmcs *v)
{
	uint8_t failed;

	asm volatile("vmptrld %1\n\tsetna %0" : "=qm"(failed) : "m"(v->region) : "cc", "memory");
	if (!failed)
		current = v;
	return failed;
}

static void write_host_state(void)
{
	struct { uint16_t limit; uint64_t base; } __attribute__((packed)) idtr;

	for (int i = 0; i < 7; i++)
		vmwrite(HOST_ES_SELECTOR + 2 * i, host.selectors[i]);
	asm volatile("sidt %0" : "=m"(idtr));
	host.cr[0] = READ_CR(0);
	host.cr[1] = READ_CR(3);
	host.cr[2] = READ_CR(4);
	for (int i = 0; i < 3; i++)
		vmwrite(HOST_CR0 + 2 * i, host.cr[i]);
	vmwrite(HOST_EFER, rdmsr(MSR_EFER));
	/* L1 uses none of these, and no L2 has them: an exit that does not load them shows */
	vmwrite(HOST_FS_BASE, (uint64_t)gdt);
	vmwrite(HOST_GS_BASE, (uint64_t)tss);
	vmwrite(HOST_TR_BASE, (uint64_t)tss);
	vmwrite(HOST_GDTR_BASE, (uint64_t)gdt);
	vmwrite(HOST_IDTR_BASE, idtr.base);
	vmwrite(HOST_SYSENTER_CS, host.selectors[1]);
	vmwrite(HOST_SYSENTER_ESP, (uint64_t)exit_stack);
	vmwrite(HOST_SYSENTER_EIP, (uint64_t)vm_exited);
	vmwrite(HOST_RSP, (uint64_t)exit_stack + sizeof(exit_stack));
	vmwrite(HOST_RIP, (uint64_t)vm_exited);
}

static void write_fixed_state(void)
{
	static const uint16_t zero[] = {
		PF_MASK, PF_MATCH, CR3_TARGET_COUNT, EXIT_MSR_STORE, EXIT_MSR_LOAD, ENTRY_MSR_LOAD, ENTRY_INTR_INFO,
		GUEST_DEBUGCTL, GUEST_GDTR_LIMIT, GUEST_IDTR_LIMIT, GUEST_INTERRUPTIBILITY, GUEST_ACTIVITY,
		GUEST_SYSENTER_CS, CR0_MASK, CR4_MASK, CR0_SHADOW, CR4_SHADOW, GUEST_GDTR_BASE, GUEST_IDTR_BASE,
		GUEST_RSP, GUEST_PENDING_DEBUG, GUEST_SYSENTER_ESP, GUEST_SYSENTER_EIP,
	};

	for (unsigned int i = 0; i < sizeof(zero) / sizeof(zero[0]); i++)
		vmwrite(zero[i], 0);
	vmwrite(VMCS_PIN, adjust(PIN_EXTINT, 0));
	vmwrite(EXCEPTION_BITMAP, 0xffffffffu);	/* L2 has no IDT: each exception is an exit */
	vmwrite(VMCS_LINK, ~0ull);
	vmwrite(GUEST_DR7, 0x400);
	for (int i = 0; i < 8; i++) {
		vmwrite(GUEST_ES_BASE + 2 * i, 0);
		vmwrite(GUEST_ES_LIMIT + 2 * i, i == 7 ? 0x67 : 0xffffffffu);
	}
	for (int i = 4; i < 7; i++) {		/* FS, GS, LDTR */
		vmwrite(GUEST_ES_SELECTOR + 2 * i, 0);
		vmwrite(GUEST_ES_AR + 2 * i, AR_UNUSABLE);
	}
	vmwrite(GUEST_ES_SELECTOR + 14, 0x18);
	vmwrite(GUEST_ES_AR + 14, 0x8b);	/* busy TSS */
}

static int vmclear(struct vmcs *v)
{
	uint8_t failed;

	asm volatile("vmclear %1\n\tsetna %0" : "=qm"(failed) : "m"(v->region) : "cc", "memory");
	v->launched = 0;
	return failed;
}

/*
 * Makes `v` the vmcs12 that VM entries go by; non-zero where it cannot be.
 *
 * An enlightened VMCS becomes active by the next VM entry and inactive by VMCLEAR; while one is active VMPTRLD is of
 * no use. Once it is, the VMCS that was current is current no more: VMCLEAR saves it first.
 */
static int make_current(struct vmcs *v)
{
	int from = current && current->enlightened;

	if (v->enlightened) {
		if (evmcs_enable() || (current && !from && vmclear(current)))
			return 1;
		evmcs_use(v->region);
		v->launched = 0;
		current = v;
		return 0;
	}
	if (from) {
		if (vmclear(current))
			return 1;
		evmcs_leave();
	}
	return vmptr(v);
}

static int prepare(struct vmcs *v, uint64_t region)
{
	v->region = region;
	for (int i = 0; i < S_COUNT; i++)
		v->written[i] = 0xdeadbeefdeadbeefull;	/* no field holds it */
	if (v->enlightened) {
		evmcs_clear(region);
	} else {
		zero_pages(region, 1);
		*(uint32_t *)region = (uint32_t)vmx_capability(MSR_VMX_BASIC) & 0x7fffffffu;
		if (vmclear(v))
			return 1;
	}
	if (make_current(v))
		return 1;
	write_host_state();
	write_fixed_state();
	return 0;
}

/* The vmcs12 for changed fields, current and as every one begins; non-zero where it cannot be. Both are one page. */
int vmx_renew(int enlightened)
{
	struct vmcs *v = &asked[enlightened];

	if (v->region && vmclear(v))
		return 1;
	v->enlightened = enlightened;
	return prepare(v, VMCS_ASKED);
}

/* VMX operation and both plain vmcs12; non-zero where this CPU or its firmware does not let us. */
int vmx_init(void)
{
	uint64_t feature = 0, region = VMXON_REGION;
	uint8_t failed;

	if (rdmsr_safe(MSR_FEATURE_CONTROL, &feature))
		return 1;
	if (!(feature & FEATURE_LOCKED))
		wrmsr_safe(MSR_FEATURE_CONTROL, feature | FEATURE_LOCKED | FEATURE_VMXON);
	else if (!(feature & FEATURE_VMXON))
		return 2;
	/* AM and MCE do nothing here, and no L2 has them: an exit that leaves L2's CR0 or CR4 shows */
	WRITE_CR(0, (READ_CR(0) | CR0_AM | vmx_capability(MSR_VMX_CR0_FIXED0)) & vmx_capability(MSR_VMX_CR0_FIXED1));
	WRITE_CR(4, (READ_CR(4) | CR4_MCE | CR4_VMXE | vmx_capability(MSR_VMX_CR4_FIXED0)) & vmx_capability(MSR_VMX_CR4_FIXED1));
	zero_pages(region, 1);
	*(uint32_t *)region = (uint32_t)vmx_capability(MSR_VMX_BASIC) & 0x7fffffffu;
	asm volatile("vmxon %1\n\tsetna %0" : "=qm"(failed) : "m"(region) : "cc", "memory");
	if (failed)
		return 3;
	if (prepare(&vmcs[1], VMCS_REGION + PAGE) || prepare(&vmcs[0], VMCS_REGION))
		return 4;
	return 0;
}

void l1_registers(struct l1_registers *r)
{
	uint16_t *s = r->selectors;

	r->cr[0] = READ_CR(0);
	r->cr[1] = READ_CR(3);
	r->cr[2] = READ_CR(4);
	asm volatile("mov %%es, %0\n\tmov %%cs, %1\n\tmov %%ss, %2\n\tmov %%ds, %3" :
		     "=m"(s[0]), "=m"(s[1]), "=m"(s[2]), "=m"(s[3]));
	asm volatile("mov %%fs, %0\n\tmov %%gs, %1\n\tstr %2" : "=m"(s[4]), "=m"(s[5]), "=m"(s[6]));
}

/* L1's registers held against what they must be (SDM 28.5), as ASTRAY_*. */
uint32_t l1_astray(const struct l1_registers *now, const struct l1_registers *want)
{
	uint32_t astray = 0;

	for (int i = 0; i < 3; i++)
		astray |= now->cr[i] != want->cr[i] ? ASTRAY_CR0 << i : 0;
	for (int i = 0; i < 7; i++)
		astray |= now->selectors[i] != want->selectors[i] ? ASTRAY_SELECTOR : 0;
	return astray;
}

/*
 * RSP and RFLAGS as an exit must leave them, and the fields of the exit that are not its reason's (SDM 28.5, 28.2.2 to
 * 28.2.5). `event`: an event was to be delivered, so that vectoring information may be valid.
 */
uint32_t exit_astray(uint32_t reason, int event)
{
	uint32_t astray = exit_flags != RFLAGS_ONE ? ASTRAY_RFLAGS : 0;

	if (exit_rsp != (uint64_t)exit_stack + sizeof(exit_stack))
		astray |= ASTRAY_RSP;
	if (reason & REASON_ENTRY_FAILED)
		return astray;		/* such an exit leaves the other fields as they were */
	if (reason != REASON_EXCEPTION && reason != REASON_EXTINT && vmread(EXIT_INTR_INFO) & INFO_VALID)
		astray |= ASTRAY_INTERRUPTION;
	if (!event && vmread(IDT_VECTORING_INFO) & INFO_VALID)
		astray |= ASTRAY_VECTORING;
	if (reason == REASON_VMCALL && vmread(EXIT_INSTRUCTION_LENGTH) != VMCALL_LENGTH)
		astray |= ASTRAY_LENGTH;
	return astray;
}

/* What a failed VM entry or a VM exit left otherwise than the manual has it. `failed` is what vmx_enter() gave. */
uint32_t vmx_astray(int failed, uint32_t reason)
{
	struct l1_registers now;
	uint32_t astray;

	l1_registers(&now);
	astray = l1_astray(&now, &host);
	return failed ? astray : astray | exit_astray(reason, 0);
}

/* Whether a VM exit saved for L2 another state than the one it was entered with; for an L2 that changes none of it. */
uint32_t vmx_saved_astray(void)
{
	static const enum slot kept[] = { S_CR0, S_CR3, S_CR4, S_CS, S_CS_AR, S_SS_AR };
	uint32_t astray = vmread(GUEST_INTERRUPTIBILITY) ? ASTRAY_SAVED : 0;

	for (unsigned int i = 0; i < sizeof(kept) / sizeof(kept[0]); i++)
		if (vmread(field_of[kept[i]]) != current->written[kept[i]])
			astray = ASTRAY_SAVED;
	return astray;
}

void vmx_invept(uint64_t root, int ad)
{
	struct { uint64_t eptp, zero; } d = { root | EPTP_WB | EPTP_WALK4 | (ad ? EPTP_AD : 0), 0 };
	uint64_t offered = vmx_capability(MSR_VMX_EPT_VPID), type = offered & CAP_INVEPT_ALL ? 2 : 1;

	/* An L1 that is not offered EPT has nothing to invalidate, and the instruction is #UD. */
	if (!(offered & CAP_INVEPT))
		return;

	asm volatile("invept %0, %1" : : "m"(d), "r"(type) : "cc", "memory");
}

/* L2 goes on after an interrupt: with the EFER that it had then, which the exit has saved. */
void vmx_goes_on(void)
{
	put(S_ENTRY, adjust((uint32_t)current->written[S_ENTRY] | ENTRY_LOAD_EFER, 3));
}

/* The PDPTEs at `table`, L1-physical, into the vmcs12. */
void vmx_load_pdptes(uint64_t table)
{
	for (int i = 0; i < 4; i++)	/* not cached here: the CPU writes them back at each exit */
		vmwrite(GUEST_PDPTE0 + 2 * i, ((uint64_t *)table)[i]);
}

/* What L2 may have changed of its own state is in the vmcs12 now, whatever was written to it last. */
void vmx_state_changed(void)
{
	static const enum slot changed[] = { S_CR0, S_CR3, S_CR4, S_EFER };

	for (unsigned int i = 0; i < sizeof(changed) / sizeof(changed[0]); i++)
		current->written[changed[i]] = 0xdeadbeefdeadbeefull;
}

/* A program's own VMX instruction has changed what is current: the next record that is none makes the probe's current. */
void vmx_current_unknown(void)
{
	current = NULL;
}

/* The launch state of the VMCS at `region` is another now, where it is one of the probe's. */
void vmx_launch_state(uint64_t region, int launched)
{
	for (unsigned int n = 0; n < 2; n++)
		if (vmcs[n].region == region)
			vmcs[n].launched = launched;
}

/* Makes the vmcs12 that `v` names the current one; non-zero where this L1 is not offered it. */
int vmx_use(const struct kvm_vector *v)
{
	unsigned int n = (v->flags & FLAG_VMCS_B ? 1 : 0) | (v->ept & EPT_EVMCS ? 2 : 0);
	struct vmcs *want = &vmcs[n];

	if (want == current)
		return 0;
	if (want->region)
		return make_current(want);
	want->enlightened = 1;		/* the plain ones are there from the start */
	if (prepare(want, VMCS_REGION + n * PAGE)) {
		want->region = 0;
		return 1;
	}
	return 0;
}

/*
 * One vector's controls and state into the current vmcs12. EPT and MBEC are set as asked, allowed or not: what comes
 * of it is the answer. Unrestricted guest goes with EPT where the CPU offers it. A step of a program names CR3 and
 * further primary controls itself, and leaves PDPTEs as they are: OP_PDPTES and OP_FIELD write them.
 */
void vmx_load(const struct kvm_vector *v, const struct setting *s, uint64_t rip)
{
	uint64_t proc2_msr = vmx_capability(MSR_VMX_PROC2);
	int paged = v->paging != PAGING_OFF, wide = v->paging == PAGING_64, step = v->kind == KIND_STEP;
	uint32_t dpl = v->cpl ? 3 : 0;
	uint32_t proc2 = (uint32_t)proc2_msr, entry;
	uint64_t cr0, cr4, cr3, efer;

	if (v->ept & EPT_ENABLE) {
		proc2 |= PROC2_EPT;
		if (proc2_msr >> 32 & PROC2_UNRESTRICTED)
			proc2 |= PROC2_UNRESTRICTED;
		put(S_EPTP, s->root | EPTP_WB | EPTP_WALK4 | (v->ept & EPT_AD ? EPTP_AD : 0));
	}
	if (v->ept & EPT_MBEC)
		proc2 |= PROC2_MBEC;
	if (v->ept & EPT_VPID) {
		proc2 |= PROC2_VPID;
		vmwrite(VMCS_VPID, v->msr);
	}

	cr0 = (vmx_capability(MSR_VMX_CR0_FIXED0) & ~(CR0_PE | CR0_PG)) | CR0_PE | CR0_ET | CR0_NE;
	cr0 |= (v->cr & CR_WP ? CR0_WP_BIT : 0) | (paged ? CR0_PG : 0);
	cr4 = vmx_capability(MSR_VMX_CR4_FIXED0) | CR4_VMXE;
	cr4 |= (v->cr & CR_SMEP ? CR4_SMEP_BIT : 0) | (v->cr & CR_SMAP ? CR4_SMAP_BIT : 0);
	cr4 |= wide || v->paging == PAGING_PAE ? CR4_PAE : 0;
	cr4 |= (v->cr & CR_PGE ? CR4_PGE : 0) | (v->cr & CR_PSE ? CR4_PSE : 0);
	efer = (wide ? EFER_LME | EFER_LMA : 0) | (v->cr & CR_NXE ? EFER_NXE : 0);
	cr3 = step ? v->gu : wide ? L2_PML4 : v->paging == PAGING_PAE ? L2_PAE_PDPT : L2_PD32;
	entry = adjust((wide ? ENTRY_IA32E : 0) | ENTRY_LOAD_EFER, 3);
	if (v->flags & FLAG_KEEP_EFER)
		entry &= ~ENTRY_LOAD_EFER;

	put(S_PROC, adjust(0, 1) | PROC_SECONDARY | (step ? (uint32_t)v->upper : 0));
	put(S_PROC2, proc2);
	put(S_EXIT, adjust(EXIT_HOST64 | EXIT_ACK | EXIT_LOAD_EFER | (step ? EXIT_SAVE_EFER : 0), 2));
	put(S_ENTRY, entry);
	put(S_CR0, cr0);
	put(S_CR3, cr3);
	put(S_CR4, cr4);
	put(S_EFER, efer);
	put(S_CS, 0x08 | dpl);
	put(S_SS, 0x10 | dpl);
	put(S_DS, 0x10 | dpl);
	put(S_ES, 0x10 | dpl);
	put(S_CS_AR, (wide ? 0xa09bu : 0xc09bu) | dpl << 5);
	put(S_SS_AR, 0xc093u | dpl << 5);
	put(S_DS_AR, 0xc093u | dpl << 5);
	put(S_ES_AR, 0xc093u | dpl << 5);
	if (v->paging == PAGING_PAE && !step)
		vmx_load_pdptes(L2_PAE_PDPT);
	vmwrite(GUEST_RIP, rip);
	vmwrite(GUEST_RFLAGS, L2_FLAGS);
}

/*
 * Whether the launch state is otherwise than it must be: launched after an entry into L2 and clear after one that failed
 * (SDM 31.3). The other instruction says so by its error, which comes before all other checks.
 */
uint32_t vmx_launch_astray(int entered)
{
	struct l2_registers r = { 0 };
	int failed, resume = !entered;

	if (current->enlightened)
		return 0;	/* it has no launch state */
	failed = vm_enter(&r, resume);
	if (failed != 1 || vmread(INSTRUCTION_ERROR) != (resume ? ERROR_VMRESUME : ERROR_VMLAUNCH))
		return ASTRAY_LAUNCH;
	return 0;
}

int vmx_enter(struct l2_registers *r)
{
	int failed;

	if (current->enlightened)
		evmcs_dirty(current->region);
	failed = vm_enter(r, current->launched);
	if (!failed)
		current->launched = 1;
	return failed;
}
