/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the glue's files share. Each is compiled with the kernel's own flags and includes one KVM source
 * file whole, so that its static functions can be called; the structures those functions work on are
 * owned here.
 *
 * An entry is a function that takes one case as 64-bit words and gives its result as 64-bit words. Its
 * name and the two counts are recorded in the image, where the Python side finds them.
 */
#ifndef KVMIRROR_ORACLE_H
#define KVMIRROR_ORACLE_H

#include <linux/kvm_host.h>

struct oracle_entry {
	char name[48];
	u64 fn;
	u32 words_in;
	u32 words_out;
};

#define ENTRY(entry, n_in, n_out)						\
	void o_##entry(const u64 *in, u64 *out);				\
	static const struct oracle_entry oracle_entry_##entry			\
		__used __section("oracle_entries") __aligned(8) = {		\
		#entry, (u64)o_##entry, n_in, n_out };				\
	void o_##entry(const u64 *in, u64 *out)

/* The vCPU under test lives in vmx.c's glue, where its whole type is known. */
extern struct kvm *const oracle_kvm;
extern struct kvm_vcpu *const oracle_vcpu;
extern struct kvm_memory_slot oracle_slot;
extern struct kvm_memslots oracle_memslots;

/* What the surroundings of a case answer, and what they were asked. */
struct oracle_surroundings {
	u64 unsync_fails;	/* mmu_try_to_unsync_pages() */
	u64 pfn_is_mmio;	/* e820: the page is not RAM */
	u64 noncoherent_dma;	/* kvm_arch_has_noncoherent_dma() */
	u64 marked_dirty;	/* calls of mark_page_dirty_in_slot() */
	u64 logged;		/* the last page of a slot that logs which that was called for, + 1 */
	u64 requests;		/* kvm_make_all_cpus_request(): the last request + 1 (KVM_BUG_ON) */
	u64 rflags;		/* RFLAGS of the vCPU */
	u64 next_table;		/* guest tables read so far in this walk */
	u64 invisible;		/* bit n: the walk's n-th guest table is in no memslot */
	u64 writable;		/* bit n: the host lets KVM write that table */
	u64 log_dirty_fails;	/* nested write_log_dirty() */
	u64 fault_calls, fault_gpa, fault_error;	/* kvm_mmu_page_fault() */
	u64 exit_reason, exit_qualification;		/* nested_vmx_vmexit() */
	u64 cpuid;		/* every word of the guest's CPUID */
	u64 fast_mmio;		/* an eventfd sits at the address */
	u64 skipped;		/* kvm_skip_emulated_instruction() */
	u64 msr_procbased, msr_procbased2, msr_ept_vpid;	/* the CPU's MSRs 0x482, 0x48B, 0x48C */
	u64 sgx;		/* the CPU has SGX */
	u64 flow;		/* whole faults are run: guest memory by its address, no captures */
	u64 pfn_base;		/* the host's page of gfn 0, in whole faults */
	u64 emulated;		/* x86_emulate_instruction() */
	u64 operands;		/* kvm_read_guest_virt(): a VMX instruction's operand */
	u64 here;		/* an address that a text shows as 0: it depends on where the image lies */
};

/* What x86_emulate_instruction() gives: 100 more than RET_PF_EMULATE. */
#define ORACLE_EMULATED 102

/* What kvm_configure_mmu() left: tdp_mmu_enabled, max_tdp_level, max_huge_page_level. */
void oracle_configured(u64 *out);

/* What a tracepoint prints (text.c). */
#define ORACLE_TEXT 1024
extern char oracle_text[ORACLE_TEXT];
struct trace_iterator;
struct trace_iterator *oracle_iterator(void);

/* The guest table at a gfn in whole faults (flow.h). */
u64 *oracle_flow_table(gfn_t gfn);

/* Guest memory as a walk sees it: the n-th table read is the n-th page here, whatever its address. */
#define ORACLE_TABLES 5
extern u64 oracle_tables[ORACLE_TABLES][512];

extern struct oracle_surroundings oracle_world;

/* Where the series' flag is absent, setting it is without effect and reading it gives false. */
static inline void oracle_set_flag(struct kvm_vcpu *vcpu, bool on)
{
#ifdef ORACLE_HAS_GUEST_EXEC_FLAG
	vcpu->arch.pt_guest_exec_control = on;
#endif
}

static inline bool oracle_get_flag(struct kvm_vcpu *vcpu)
{
#ifdef ORACLE_HAS_GUEST_EXEC_FLAG
	return vcpu->arch.pt_guest_exec_control;
#else
	return false;
#endif
}

#endif
