/* SPDX-License-Identifier: GPL-2.0-only */
/* L1's side of a window: VM entries, and what it does at each VM exit. */
#include "exits.h"

#define EFER_SCE	1ull
#define MSR_STAR	0xc0000081u
#define MSR_LSTAR	0xc0000082u
#define MSR_FMASK	0xc0000084u
#define STAR_KERNEL	0x08ull		/* CS, the next SS */
#define STAR_USER	0x1bull		/* SYSRET: CS 16 above, SS 8 */
#define VMCALL_BYTES	3
#define QUALIFICATION_FETCH	4u
#define AR_USER		(3u << 5)	/* access rights: DPL 3 */
#define AR_CODE		0xa09bu
#define AR_DATA		0xc093u
#define EPTP_WALK4_WB	(3ull << 3 | 6)
#define GUEST_SS_AR	(GUEST_ES_AR + 4)
#define GUEST_CS_AR	(GUEST_ES_AR + 2)

static char exit_stack[64] __attribute__((aligned(16)));

/* What a hypervisor looks at at each exit beside what it needs for it; the window says how many of them. */
static const uint16_t looked_at[LOOKED_AT_MOST] = {
	GUEST_LINEAR, GUEST_RSP, GUEST_RFLAGS, GUEST_INTERRUPTIBILITY, GUEST_CS_AR, EXIT_INTR_INFO, GUEST_CR3, GUEST_CR0,
};

/* The vmcs12 of a window, from scratch. */
void handler_load(struct run *run)
{
	struct kvm_vector v = {
		.paging = PAGING_64, .cpl = 3, .cr = CR_WP | CR_SMEP | CR_NXE,
		.ept = EPT_ENABLE | (run->w->flags & WINDOW_MBEC ? EPT_MBEC : 0) |
		       (run->w->flags & WINDOW_EVMCS ? EPT_EVMCS : 0),
	};
	struct setting s = { .root = run->root[VIEW_KERNEL] };

	run->view = VIEW_KERNEL;
	run->enlightened = v.ept & EPT_EVMCS ? VMCS_REGION + 2 * PAGE : 0;
	vmx_load(&v, &s, GLA_USER);
	/* vmx_load() knows what it wrote, not that L2's kernel was here since. */
	vmwrite(GUEST_ES_SELECTOR + 2, STAR_USER + 16);
	vmwrite(GUEST_ES_SELECTOR + 4, STAR_USER + 8);
	vmwrite(GUEST_CS_AR, AR_CODE | AR_USER);
	vmwrite(GUEST_SS_AR, AR_DATA | AR_USER);
	vmwrite(GUEST_EFER, vmread(GUEST_EFER) | EFER_SCE);
	vmwrite(GUEST_RSP, GLA_KERNEL_DATA + DATA_STACK);
	vmwrite(HOST_RSP, (uint64_t)exit_stack + sizeof(exit_stack));
	vmwrite(HOST_RIP, (uint64_t)l2_exited);
	wrmsr(MSR_STAR, STAR_USER << 48 | STAR_KERNEL << 32);
	wrmsr(MSR_LSTAR, GLA_KERNEL);
	wrmsr(MSR_FMASK, 0);
	/* The vmcs12 may have been entered by the window before. */
	vmx_invept(s.root, 0);
}

static void use_view(struct run *run, enum view view)
{
	run->view = view;
	vmwrite(VMCS_EPTP, run->root[view] | EPTP_WALK4_WB);
}

static int stop(struct run *run, uint8_t verdict)
{
	run->o->verdict = verdict;
	run->o->rip = vmread(GUEST_RIP);
	return 1;
}

/*
 * Software MBEC: L2 has gone from user to kernel code or back, and the view has to go with it. Anything else is code
 * that may not be run, and is what all this is for. Non-zero then.
 */
static int handle_violation(struct run *run)
{
	uint64_t qualification = vmread(EXIT_QUALIFICATION), gpa = vmread(GUEST_PHYSICAL);
	int user = (vmread(GUEST_SS_AR) & AR_USER) == AR_USER, verified = is_verified(gpa);

	if (qualification & QUALIFICATION_FETCH && !(run->w->flags & WINDOW_MBEC)) {
		if (run->view == VIEW_USER && !user && verified) {
			use_view(run, VIEW_KERNEL);
			return 0;
		}
		if (run->view == VIEW_KERNEL && user && !verified) {
			use_view(run, VIEW_USER);
			return 0;
		}
	}
	run->o->qualification = qualification;
	run->o->gpa = gpa;
	return stop(run, VERDICT_EXIT);
}

/* Non-zero when L2 is through, or is not to go on. */
static int handle_vmcall(struct run *run)
{
	uint64_t rip = vmread(GUEST_RIP);

	vmwrite(GUEST_RIP, rip + VMCALL_BYTES);
	switch (run->r.rax) {
	case CALL_SERVICE:
		return 0;
	case CALL_LOAD:
		return verify(run, run->r.rdi) ? stop(run, VERDICT_EXIT) : 0;
	case CALL_DONE:
		run->o->verdict = VERDICT_DONE;
		return 1;
	default:
		return stop(run, VERDICT_SCAFFOLD);
	}
}

/* Runs L2 until it says that it is through. Non-zero where it came to another end: the observation has it. */
int handler_run(struct run *run)
{
	struct kvm_observation *o = run->o;
	uint32_t reason;
	int failed, end = 0;

	while (!end) {
		if (run->enlightened)
			evmcs_dirty(run->enlightened);
		failed = enter_l2(&run->r, run->launched);
		if (failed) {
			o->verdict = VERDICT_ENTRY_FAIL;
			o->error = failed == 1 ? (uint32_t)vmread(INSTRUCTION_ERROR) : 0;
			return 1;
		}
		run->launched = 1;
		o->exits += o->exits != UINT16_MAX;
		reason = (uint32_t)vmread(EXIT_REASON);
		for (uint32_t i = 0; i < run->w->looks; i++)
			vmread(looked_at[i]);
		switch (reason) {
		case REASON_EPT_VIOLATION:
			end = handle_violation(run);
			break;
		case REASON_VMCALL:
			end = handle_vmcall(run);
			break;
		default:
			o->qualification = vmread(EXIT_QUALIFICATION);
			end = stop(run, reason & REASON_ENTRY_FAILED ? VERDICT_ENTRY_EXIT : VERDICT_EXIT);
		}
		o->reason = reason;
	}
	return o->verdict != VERDICT_DONE;
}
