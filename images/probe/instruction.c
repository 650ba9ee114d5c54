/* SPDX-License-Identifier: GPL-2.0-only */
/* VMX instructions as a program has them, one at a time and in whatever state; what they leave is looked at. */
#include "probe.h"

/* `name` with the descriptor `d`: whether it is #UD, else what it leaves in CF and ZF. */
#define INVALIDATE(name)										\
	asm volatile("movb $1, %0\n\tmovq $1f, fixup\n\t" name " %3, %4\n\tsetc %1\n\tsetz %2\n\tmovb $0, %0\n"	\
		     "1:\tmovq $0, fixup" : "=&q"(undefined), "+q"(invalid), "+q"(failed) :			\
		     "m"(d), "r"(type) : "cc", "memory")

/* INVVPID or INVEPT; 0, or the VM-instruction error (-1 where there is none to read, -2 where it is #UD). */
int vmx_invalidate(int vpid, uint64_t type, uint64_t low, uint64_t high)
{
	struct { uint64_t low, high; } d = { low, high };
	uint8_t undefined, invalid = 0, failed = 0;

	if (vpid)
		INVALIDATE("invvpid");
	else
		INVALIDATE("invept");
	return undefined ? -2 : invalid ? -1 : failed ? (int)vmread(INSTRUCTION_ERROR) : 0;
}

/* The regions of programs' own, never used yet, and one that VMPTRLD must refuse. */
void vmx_regions(void)
{
	uint32_t revision = (uint32_t)vmx_capability(MSR_VMX_BASIC) & 0x7fffffffu;

	zero_pages(PROGRAM_VMCS, 3);
	for (unsigned int n = 0; n < 3; n++)
		*(uint32_t *)(PROGRAM_VMCS + n * PAGE) = n < 2 ? revision : revision ^ 1;
}

static uint64_t current_pointer(void)
{
	uint64_t pointer;

	asm volatile("vmptrst %0" : "=m"(pointer) : : "memory");
	return pointer;
}

/* Whether the CPU has a current VMCS. */
static int some_current(void)
{
	return current_pointer() != ~0ull;
}

/* VMLAUNCH or VMRESUME of whatever is current: 0 when L2 ran (to its VMCALL again), else as vmx_instruction(). */
static int enter_current(int resume, struct kvm_observation *o)
{
	struct l2_registers r = { 0 };
	uint64_t region = current_pointer();
	int failed;

	timer_disarm();
	leaves_given(0);
	leaves_before(some_current());
	failed = vm_enter(&r, resume);
	if (!failed)
		o->reason = (uint32_t)vmread_current(EXIT_REASON);
	o->astray = leaves_after(o, failed);
	if (!failed)
		vmx_launch_state(region, 1);
	return failed == 2 ? -1 : failed ? (int)vmread_current(INSTRUCTION_ERROR) : 0;
}

/*
 * One instruction as a program has it, whatever state that leaves: 0, the VM-instruction error, or -1 for a failure
 * without a current VMCS. The next record that is no such instruction makes the probe's VMCS current again.
 */
int vmx_instruction(uint64_t which, uint64_t operand, uint64_t *value, struct kvm_observation *o)
{
	uint8_t invalid = 0, failed = 0;

	vmx_current_unknown();
	switch (which) {
	case VMX_VMCLEAR:
		asm volatile("vmclear %2\n\tsetc %0\n\tsetz %1" : "=qm"(invalid), "=qm"(failed) : "m"(operand) :
			     "cc", "memory");
		if (!invalid && !failed)
			vmx_launch_state(operand, 0);
		break;
	case VMX_VMPTRLD:
		asm volatile("vmptrld %2\n\tsetc %0\n\tsetz %1" : "=qm"(invalid), "=qm"(failed) : "m"(operand) :
			     "cc", "memory");
		break;
	case VMX_VMLAUNCH:
	case VMX_VMRESUME:
		return enter_current(which == VMX_VMRESUME, o);
	case VMX_VMREAD:
		asm volatile("vmread %3, %2\n\tsetc %0\n\tsetz %1" : "=qm"(invalid), "=qm"(failed), "+r"(*value) :
			     "r"(operand) : "cc", "memory");
		break;
	default:
		asm volatile("vmwrite %3, %2\n\tsetc %0\n\tsetz %1" : "=qm"(invalid), "=qm"(failed) :
			     "r"(operand), "r"(*value) : "cc", "memory");
		break;
	}
	return invalid ? -1 : failed ? (int)vmread_current(INSTRUCTION_ERROR) : 0;
}
