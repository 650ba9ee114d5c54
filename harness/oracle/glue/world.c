// SPDX-License-Identifier: GPL-2.0-only
/*
 * The surroundings of the functions under test: data that other parts of the kernel own, and the calls
 * whose answer is an input of a case. A symbol that is neither here nor in a KVM file of the image is
 * left to the builder, which puts it where any use traps.
 */
#include <linux/kvm_host.h>
#include <asm/e820/api.h>
#include <asm/memtype.h>
#include "mmu.h"
#include "mmu/mmu_internal.h"
#include "x86.h"
#include "cpuid.h"
#include "vmcs_table.h"
#include "oracle.h"

struct kvm oracle_kvm = {
	.memslots = { &oracle_memslots, &oracle_memslots },
};
struct kvm_memory_slot oracle_slot;
struct kvm_memslots oracle_memslots;
struct kvm_mmu oracle_mmu;
struct oracle_surroundings oracle_world;
u64 oracle_vmcs[ORACLE_VMCS_FIELDS];

/* arch/x86/kernel, arch/x86/mm, mm, lib */
struct cpuinfo_x86 boot_cpu_data;
unsigned long phys_base;
struct mem_section **mem_section;
unsigned long zero_pfn = ~0ul;
unsigned long volatile __cacheline_aligned_in_smp jiffies;

/* arch/x86/kvm/x86.c and cpuid.c */
struct kvm_host_values kvm_host;
struct kvm_x86_ops kvm_x86_ops;
struct kvm_caps kvm_caps;
u32 kvm_cpu_caps[NR_KVM_CPU_CAPS];
bool enable_apicv;
#ifdef ORACLE_HAS_PARAM
bool enable_pt_guest_exec_control;
#endif

bool pat_enabled(void)
{
	return true;
}

bool pat_pfn_immune_to_uc_mtrr(unsigned long pfn)
{
	return oracle_world.pfn_is_mmio;
}

bool e820__mapped_raw_any(u64 start, u64 end, enum e820_type type)
{
	return !oracle_world.pfn_is_mmio;
}

void mark_page_dirty_in_slot(struct kvm *kvm, const struct kvm_memory_slot *slot, gfn_t gfn)
{
	oracle_world.marked_dirty++;
}

bool kvm_make_all_cpus_request(struct kvm *kvm, unsigned int req)
{
	oracle_world.requests = req + 1;
	return true;
}

bool kvm_arch_has_noncoherent_dma(struct kvm *kvm)
{
	return oracle_world.noncoherent_dma;
}

/* The format of a WARN says nothing more than its place in the bug table. */
void __warn_printk(const char *fmt, ...)
{
}

int _printk(const char *fmt, ...)
{
	return 0;
}
