/* SPDX-License-Identifier: GPL-2.0-only */
/* Instructions, MSRs and VMCS field encodings (SDM vol. 3, appendix B; vol. 4). */
#ifndef PROBE_CPU_H
#define PROBE_CPU_H

#include <stdint.h>

static inline void outb(uint16_t port, uint8_t v) { asm volatile("outb %0, %1" : : "a"(v), "Nd"(port)); }
static inline void outw(uint16_t port, uint16_t v) { asm volatile("outw %0, %1" : : "a"(v), "Nd"(port)); }
static inline uint8_t inb(uint16_t port) { uint8_t v; asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port)); return v; }

#define HYPERVISOR	(1u << 31)	/* CPUID 1 ECX */

static inline void cpuid(uint32_t leaf, uint32_t sub, uint32_t r[4])
{
	asm volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(sub));
}

static inline uint64_t rdtsc(void)
{
	uint32_t lo, hi;

	asm volatile("rdtsc" : "=a"(lo), "=d"(hi) : : "memory");
	return (uint64_t)hi << 32 | lo;
}

static inline uint64_t rdmsr(uint32_t msr)
{
	uint32_t lo, hi;

	asm volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr));
	return (uint64_t)hi << 32 | lo;
}

static inline void wrmsr(uint32_t msr, uint64_t v)
{
	asm volatile("wrmsr" : : "c"(msr), "a"((uint32_t)v), "d"((uint32_t)(v >> 32)) : "memory");
}

int rdmsr_safe(uint32_t msr, uint64_t *value);
int wrmsr_safe(uint32_t msr, uint64_t value);

#define READ_CR(n) ({ uint64_t v_; asm volatile("mov %%cr" #n ", %0" : "=r"(v_)); v_; })
#define WRITE_CR(n, v) asm volatile("mov %0, %%cr" #n : : "r"((uint64_t)(v)) : "memory")

/* of the VMCS that VMPTRLD made current; the probe's own vmread() and vmwrite() (vmx.c) know the enlightened one */
static inline uint64_t vmread_current(uint64_t field)
{
	uint64_t v = 0;		/* of a field that is not there */

	asm volatile("vmread %1, %0" : "+r"(v) : "r"(field) : "cc");
	return v;
}

static inline void vmwrite_current(uint64_t field, uint64_t v)
{
	asm volatile("vmwrite %1, %0" : : "r"(field), "r"(v) : "cc");
}

#define MSR_APIC_BASE		0x1b
#define MSR_FEATURE_CONTROL	0x3a
#define MSR_PAT			0x277
#define MSR_TSC_DEADLINE	0x6e0
#define MSR_X2APIC		0x800
#define MSR_EFER		0xc0000080

#define MSR_VMX_BASIC		0x480
#define MSR_VMX_PIN		0x481
#define MSR_VMX_PROC		0x482
#define MSR_VMX_EXIT		0x483
#define MSR_VMX_ENTRY		0x484
#define MSR_VMX_CR0_FIXED0	0x486
#define MSR_VMX_CR0_FIXED1	0x487
#define MSR_VMX_CR4_FIXED0	0x488
#define MSR_VMX_CR4_FIXED1	0x489
#define MSR_VMX_PROC2		0x48b
#define MSR_VMX_EPT_VPID	0x48c
#define MSR_VMX_TRUE_PIN	0x48d	/* then proc, exit, entry */

#define PIN_EXTINT		(1u << 0)
#define PROC_SECONDARY		(1u << 31)
#define PROC2_EPT		(1u << 1)
#define PROC2_VPID		(1u << 5)
#define PROC2_UNRESTRICTED	(1u << 7)
#define PROC2_MBEC		(1u << 22)
#define EXIT_HOST64		(1u << 9)
#define EXIT_ACK		(1u << 15)
#define EXIT_SAVE_EFER		(1u << 20)
#define EXIT_LOAD_EFER		(1u << 21)
#define ENTRY_IA32E		(1u << 9)
#define ENTRY_LOAD_EFER		(1u << 15)

/* VMCS fields */
#define VMCS_VPID		0x0000
#define GUEST_ES_SELECTOR	0x0800	/* then CS, SS, DS, FS, GS, LDTR, TR in steps of 2 */
#define HOST_ES_SELECTOR	0x0c00	/* then CS, SS, DS, FS, GS, TR */
#define VMCS_EPTP		0x201a
#define GUEST_PHYSICAL		0x2400
#define VMCS_LINK		0x2800
#define GUEST_DEBUGCTL		0x2802
#define GUEST_EFER		0x2806
#define GUEST_PDPTE0		0x280a	/* then 1, 2, 3 in steps of 2 */
#define HOST_EFER		0x2c02
#define VMCS_PIN		0x4000
#define VMCS_PROC		0x4002
#define EXCEPTION_BITMAP	0x4004
#define PF_MASK			0x4006
#define PF_MATCH		0x4008
#define CR3_TARGET_COUNT	0x400a
#define VMCS_EXIT		0x400c
#define EXIT_MSR_STORE		0x400e
#define EXIT_MSR_LOAD		0x4010
#define VMCS_ENTRY		0x4012
#define ENTRY_MSR_LOAD		0x4014
#define ENTRY_INTR_INFO		0x4016
#define VMCS_PROC2		0x401e
#define INSTRUCTION_ERROR	0x4400
#define EXIT_REASON		0x4402
#define EXIT_INTR_INFO		0x4404
#define EXIT_INTR_ERROR		0x4406
#define IDT_VECTORING_INFO	0x4408
#define IDT_VECTORING_ERROR	0x440a
#define EXIT_INSTRUCTION_LENGTH	0x440c
#define GUEST_ES_LIMIT		0x4800
#define GUEST_GDTR_LIMIT	0x4810
#define GUEST_IDTR_LIMIT	0x4812
#define GUEST_ES_AR		0x4814
#define GUEST_INTERRUPTIBILITY	0x4824
#define GUEST_ACTIVITY		0x4826
#define GUEST_SYSENTER_CS	0x482a
#define HOST_SYSENTER_CS	0x4c00
#define CR0_MASK		0x6000
#define CR4_MASK		0x6002
#define CR0_SHADOW		0x6004
#define CR4_SHADOW		0x6006
#define EXIT_QUALIFICATION	0x6400
#define GUEST_LINEAR		0x640a
#define GUEST_CR0		0x6800
#define GUEST_CR3		0x6802
#define GUEST_CR4		0x6804
#define GUEST_ES_BASE		0x6806
#define GUEST_GDTR_BASE		0x6816
#define GUEST_IDTR_BASE		0x6818
#define GUEST_DR7		0x681a
#define GUEST_RSP		0x681c
#define GUEST_RIP		0x681e
#define GUEST_RFLAGS		0x6820
#define GUEST_PENDING_DEBUG	0x6822
#define GUEST_SYSENTER_ESP	0x6824
#define GUEST_SYSENTER_EIP	0x6826
#define HOST_CR0		0x6c00
#define HOST_CR3		0x6c02
#define HOST_CR4		0x6c04
#define HOST_FS_BASE		0x6c06
#define HOST_GS_BASE		0x6c08
#define HOST_TR_BASE		0x6c0a
#define HOST_GDTR_BASE		0x6c0c
#define HOST_IDTR_BASE		0x6c0e
#define HOST_SYSENTER_ESP	0x6c10
#define HOST_SYSENTER_EIP	0x6c12
#define HOST_RSP		0x6c14
#define HOST_RIP		0x6c16

#define REASON_EXCEPTION	0
#define REASON_EXTINT		1
#define REASON_VMCALL		18
#define REASON_EPT_VIOLATION	48
#define REASON_EPT_MISCONFIG	49
#define REASON_ENTRY_FAILED	(1u << 31)

/* VMCS fields of VM entries that are to be checked (vm_entry.c), whose VMCS is never an enlightened one */
#define POSTED_NOTIFICATION	0x0002
#define GUEST_INTERRUPT_STATUS	0x0810
#define PML_INDEX		0x0812
#define IO_BITMAP_A		0x2000
#define IO_BITMAP_B		0x2002
#define MSR_BITMAP		0x2004
#define EXIT_MSR_STORE_ADDRESS	0x2006
#define EXIT_MSR_LOAD_ADDRESS	0x2008
#define ENTRY_MSR_LOAD_ADDRESS	0x200a
#define PML_ADDRESS		0x200e
#define TSC_OFFSET		0x2010
#define VIRTUAL_APIC_PAGE	0x2012
#define APIC_ACCESS_PAGE	0x2014
#define POSTED_DESCRIPTOR	0x2016
#define VM_FUNCTION_CONTROLS	0x2018
#define EPTP_LIST		0x2024
#define VMREAD_BITMAP		0x2026
#define VMWRITE_BITMAP		0x2028
#define VE_INFORMATION		0x202a
#define XSS_BITMAP		0x202c
#define TSC_MULTIPLIER		0x2032
#define GUEST_PAT		0x2804
#define GUEST_PERF_GLOBAL	0x2808
#define GUEST_BNDCFGS		0x2812
#define HOST_PAT		0x2c00
#define HOST_PERF_GLOBAL	0x2c04
#define ENTRY_ERROR_CODE	0x4018
#define ENTRY_INSTRUCTION_LENGTH	0x401a
#define TPR_THRESHOLD		0x401c
#define PLE_GAP			0x4020
#define PLE_WINDOW		0x4022
#define GUEST_TIMER_VALUE	0x482e

#endif
