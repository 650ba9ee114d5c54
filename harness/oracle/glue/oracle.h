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
extern struct kvm oracle_kvm;
extern struct kvm_vcpu *const oracle_vcpu;
extern struct kvm_memory_slot oracle_slot;
extern struct kvm_memslots oracle_memslots;
extern struct kvm_mmu oracle_mmu;

/* What the surroundings of a case answer, and what they were asked. */
struct oracle_surroundings {
	u64 unsync_fails;	/* mmu_try_to_unsync_pages() */
	u64 pfn_is_mmio;	/* e820: the page is not RAM */
	u64 noncoherent_dma;	/* kvm_arch_has_noncoherent_dma() */
	u64 marked_dirty;	/* calls of mark_page_dirty_in_slot() */
	u64 requests;		/* kvm_make_all_cpus_request(): the last request + 1 (KVM_BUG_ON) */
};

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
