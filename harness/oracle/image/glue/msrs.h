/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The CPU that KVM's set-up code asks is the case's: MSRs and CPUID come from oracle_world. Included after
 * the headers that define these accessors and before the file that uses them.
 */
#ifndef KVMIRROR_MSRS_H
#define KVMIRROR_MSRS_H

#include <asm/msr.h>
#include <asm/processor.h>
#include "oracle.h"

static inline u64 oracle_msr(u32 msr)
{
	switch (msr) {
	case MSR_IA32_VMX_PROCBASED_CTLS:
	case MSR_IA32_VMX_TRUE_PROCBASED_CTLS:
		return oracle_world.msr_procbased;
	case MSR_IA32_VMX_PROCBASED_CTLS2:
		return oracle_world.msr_procbased2;
	case MSR_IA32_VMX_EPT_VPID_CAP:
		return oracle_world.msr_ept_vpid;
	case MSR_IA32_VMX_BASIC:
		return (u64)X86_MEMTYPE_WB << 50 | (u64)0x400 << 32;
	case MSR_IA32_VMX_PINBASED_CTLS:
	case MSR_IA32_VMX_ENTRY_CTLS:
	case MSR_IA32_VMX_EXIT_CTLS:
		return 0xffffffffull << 32;
	default:
		return 0;
	}
}

#undef rdmsr
#undef rdmsrl
#undef rdmsr_safe
#define rdmsr(msr, low, high) ((low) = (u32)oracle_msr(msr), (high) = (u32)(oracle_msr(msr) >> 32))
#define rdmsrl(msr, val) ((val) = oracle_msr(msr))
#define rdmsr_safe(msr, low, high) (*(low) = (u32)oracle_msr(msr), *(high) = (u32)(oracle_msr(msr) >> 32), 0)
#define rdmsrl_safe(msr, val) (*(val) = oracle_msr(msr), 0)
#define cpuid_eax(leaf) (oracle_world.sgx ? 0x12u | 1u : 0u)

#endif
