// SPDX-License-Identifier: GPL-2.0-only
/*
 * The surroundings of the functions under test: data that other parts of the kernel own, and the calls
 * whose answer is an input of a case. A symbol that is neither here nor in a KVM file of the image is
 * left to the builder, which puts it where any use traps.
 */
#include "vmcs_table.h"
#include <linux/kvm_host.h>
#include <asm/e820/api.h>
#include <asm/memtype.h>
#include "mmu.h"
#include "mmu/mmu_internal.h"
#include "x86.h"
#include "cpuid.h"
#include "vmx/vmx.h"
#include "vmx/nested.h"
#include "vmx/x86_ops.h"
#include "oracle.h"
#include "trap.h"

struct kvm_memory_slot oracle_slot;
struct kvm_memslots oracle_memslots;
struct oracle_surroundings oracle_world;
u64 oracle_vmcs[ORACLE_VMCS_FIELDS];
u64 oracle_tables[ORACLE_TABLES][512] __aligned(PAGE_SIZE);

/* arch/x86/kernel, arch/x86/mm, mm, lib */
struct cpuinfo_x86 boot_cpu_data;
unsigned long phys_base;
struct mem_section **mem_section;
unsigned long zero_pfn = ~0ul;
unsigned long volatile __cacheline_aligned_in_smp jiffies;
struct pglist_data contig_page_data;
atomic_long_t vm_node_stat[NR_VM_NODE_STAT_ITEMS];

/* arch/x86/kvm/x86.c and cpuid.c */
struct kvm_host_values kvm_host;
struct kvm_x86_ops kvm_x86_ops;
struct kvm_caps kvm_caps;
u32 kvm_cpu_caps[NR_KVM_CPU_CAPS];
bool enable_apicv;
bool allow_smaller_maxphyaddr;
DEFINE_STATIC_KEY_FALSE(kvm_has_noapic_vcpu);

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
	if (slot && slot->flags & KVM_MEM_LOG_DIRTY_PAGES)
		oracle_world.logged = gfn + 1;
}

int kernel_mmu_try_to_unsync_pages(struct kvm *kvm, const struct kvm_memory_slot *slot, gfn_t gfn,
				   bool can_unsync, bool prefetch);
int mmu_try_to_unsync_pages(struct kvm *kvm, const struct kvm_memory_slot *slot, gfn_t gfn, bool can_unsync,
			    bool prefetch)
{
	if (oracle_world.flow)
		return kernel_mmu_try_to_unsync_pages(kvm, slot, gfn, can_unsync, prefetch);
	return oracle_world.unsync_fails ? -EPERM : 0;
}

int kvm_mmu_page_fault(struct kvm_vcpu *vcpu, gpa_t cr2_or_gpa, u64 error_code, void *insn, int insn_len)
{
	oracle_world.fault_calls++;
	oracle_world.fault_gpa = cr2_or_gpa;
	oracle_world.fault_error = error_code;
	return 1;
}

void nested_vmx_vmexit(struct kvm_vcpu *vcpu, u32 vm_exit_reason, u32 exit_intr_info,
		       unsigned long exit_qualification)
{
	oracle_world.exit_reason = vm_exit_reason;
	oracle_world.exit_qualification = exit_qualification;
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

/* Guest memory. */
struct kvm_memory_slot *kvm_vcpu_gfn_to_memslot(struct kvm_vcpu *vcpu, gfn_t gfn)
{
	if (oracle_world.flow)
		return gfn < oracle_slot.npages ? &oracle_slot : NULL;
	return oracle_world.invisible & BIT(oracle_world.next_table) ? NULL : &oracle_slot;
}

unsigned long gfn_to_hva_memslot_prot(struct kvm_memory_slot *slot, gfn_t gfn, bool *writable)
{
	u64 n;

	if (oracle_world.flow) {
		*writable = true;
		return (unsigned long)oracle_flow_table(gfn);
	}
	n = oracle_world.next_table++;
	*writable = oracle_world.writable & BIT(n);
	return (unsigned long)oracle_tables[n];
}

void kvm_vcpu_mark_page_dirty(struct kvm_vcpu *vcpu, gfn_t gfn)
{
	oracle_world.marked_dirty++;
}

bool kvm_vcpu_is_visible_gfn(struct kvm_vcpu *vcpu, gfn_t gfn)
{
	return gfn < oracle_slot.npages;
}

int kvm_vcpu_read_guest_atomic(struct kvm_vcpu *vcpu, gpa_t gpa, void *data, unsigned long len)
{
	memcpy(data, (char *)oracle_flow_table(gpa >> PAGE_SHIFT) + offset_in_page(gpa), len);
	return 0;
}

kvm_pfn_t __gfn_to_pfn_memslot(const struct kvm_memory_slot *slot, gfn_t gfn, bool atomic, bool interruptible,
			       bool *async, bool write_fault, bool *writable, hva_t *hva)
{
	bool readonly = slot->flags & KVM_MEM_READONLY;

	if (write_fault && readonly)
		return KVM_PFN_ERR_RO_FAULT;
	if (writable)
		*writable = !readonly;
	return gfn + oracle_world.pfn_base;
}

kvm_pfn_t gfn_to_pfn_memslot_atomic(const struct kvm_memory_slot *slot, gfn_t gfn)
{
	return gfn + oracle_world.pfn_base;
}

struct page *kvm_pfn_to_refcounted_page(kvm_pfn_t pfn)
{
	return NULL;
}

void kvm_release_pfn_clean(kvm_pfn_t pfn)
{
}

void kvm_set_pfn_accessed(kvm_pfn_t pfn)
{
}

void kvm_set_pfn_dirty(kvm_pfn_t pfn)
{
}

void kvm_flush_remote_tlbs(struct kvm *kvm)
{
}

void kvm_flush_remote_tlbs_range(struct kvm *kvm, gfn_t gfn, u64 nr_pages)
{
}

int x86_emulate_instruction(struct kvm_vcpu *vcpu, gpa_t cr2_or_gpa, int emulation_type, void *insn, int insn_len)
{
	oracle_world.emulated++;
	return ORACLE_EMULATED;
}

/* Asked of a vCPU in long mode only. */
void __SCT__kvm_x86_get_cs_db_l_bits(struct kvm_vcpu *vcpu, int *db, int *l);
void __SCT__kvm_x86_get_cs_db_l_bits(struct kvm_vcpu *vcpu, int *db, int *l)
{
	*db = 0;
	*l = 1;
}

/* An operand of a VMX instruction: that it is asked for is what counts. */
int kvm_read_guest_virt(struct kvm_vcpu *vcpu, gva_t addr, void *val, unsigned int bytes,
			struct x86_exception *exception)
{
	oracle_world.operands++;
	return X86EMUL_PROPAGATE_FAULT;
}

int kvm_handle_memory_failure(struct kvm_vcpu *vcpu, int r, struct x86_exception *e)
{
	return 1;
}

int kvm_write_guest_page(struct kvm *kvm, gfn_t gfn, const void *data, int offset, int len)
{
	return 0;
}

/* arch/x86/lib */
#undef memset
#undef memcpy
void *memset(void *to, int value, size_t count)
{
	void *at = to;

	asm volatile("rep stosb" : "+D"(at), "+c"(count) : "a"(value) : "memory");
	return to;
}

void *memcpy(void *to, const void *from, size_t count)
{
	void *at = to;

	asm volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(count) : : "memory");
	return to;
}

#undef memmove
void *memmove(void *to, const void *from, size_t count)
{
	char *at = to;
	const char *source = from;

	if (at <= source)
		for (size_t n = 0; n < count; n++)
			at[n] = source[n];
	else
		for (size_t n = count; n > 0; n--)
			at[n - 1] = source[n - 1];
	return to;
}

/* lib/getuser.S: address in rax; value in rdx, error in rax, nothing else touched. */
asm(".text\n"
    ".globl __get_user_nocheck_8\n"
    "__get_user_nocheck_8:\n"
    "	movq (%rax), %rdx\n"
    "	xorl %eax, %eax\n"
    "	ret\n");

unsigned long __SCT__kvm_x86_get_rflags(struct kvm_vcpu *vcpu);
unsigned long __SCT__kvm_x86_get_rflags(struct kvm_vcpu *vcpu)
{
	return oracle_world.rflags;
}

/* What loading the module asks of the rest of the kernel and of kvm.ko. */
struct kvm_x86_ops vt_x86_ops;
struct kvm_x86_init_ops vt_init_ops;
unsigned int tsc_khz = 2000000;
u32 kvm_nr_uret_msrs;
bool enable_pmu;

int kvm_add_user_return_msr(u32 msr)
{
	return -1;
}

int kvm_find_user_return_msr(u32 msr)
{
	return -1;
}

void kvm_enable_efer_bits(u64 mask)
{
}

void kvm_set_cpu_caps(void)
{
}

void kvm_set_posted_intr_wakeup_handler(void (*handler)(void))
{
}

struct page *__alloc_pages_noprof(gfp_t gfp, unsigned int order, int preferred_nid, nodemask_t *nodemask)
{
	return NULL;
}

/* The next set bit of a bitmap from start on, size for none. */
unsigned long _find_next_bit(const unsigned long *map, unsigned long size, unsigned long start)
{
	while (start < size && !(map[start / BITS_PER_LONG] >> start % BITS_PER_LONG & 1))
		start++;
	return min(start, size);
}

/* "current", of which need_resched() is asked: a task without flags. */
u64 oracle_task[2048];
asm(".pushsection .data\n"
    ".globl const_pcpu_hot\n"
    "const_pcpu_hot:\n"
    "	.quad oracle_task\n"
    "	.fill 32, 8, 0\n"
    ".popsection");

void free_pages(unsigned long addr, unsigned int order)
{
}

void vmx_set_constant_host_state(struct vcpu_vmx *vmx)
{
}

/* The guest's CPUID: each word of each leaf has the same bits. */
struct kvm_cpuid_entry2 *kvm_find_cpuid_entry_index(struct kvm_vcpu *vcpu, u32 function, u32 index)
{
	static struct kvm_cpuid_entry2 entry;

	entry.eax = entry.ebx = entry.ecx = entry.edx = oracle_world.cpuid;
	return &entry;
}

struct kvm_cpuid_entry2 *kvm_find_cpuid_entry(struct kvm_vcpu *vcpu, u32 function)
{
	return kvm_find_cpuid_entry_index(vcpu, function, 0);
}

/* Bus of KVM's fast MMIO: whether somebody sits at the address is the case's choice. */
int kvm_io_bus_write(struct kvm_vcpu *vcpu, enum kvm_bus bus_idx, gpa_t addr, int len, const void *val)
{
	return oracle_world.fast_mmio ? 0 : -EOPNOTSUPP;
}

/* A VP assist page of Hyper-V's is what the case put into the vCPU. */
int kvm_hv_get_assist_page(struct kvm_vcpu *vcpu)
{
	return 0;
}

int kvm_skip_emulated_instruction(struct kvm_vcpu *vcpu)
{
	oracle_world.skipped++;
	return 1;
}

/* Tracepoints are off. */
#define OFF(name) struct tracepoint __tracepoint_##name
OFF(kvm_async_pf_repeated_fault);
OFF(kvm_page_fault);
OFF(kvm_try_async_get_page);
OFF(kvm_nested_vmenter);
OFF(kvm_nested_vmenter_failed);
OFF(kvm_nested_vmexit);
OFF(kvm_nested_vmexit_inject);
OFF(read_msr);
OFF(write_msr);
OFF(kvm_apicv_accept_irq);
OFF(kvm_cr);
OFF(kvm_entry);
OFF(kvm_exit);
OFF(kvm_fast_mmio);
OFF(kvm_inj_virq);
OFF(kvm_ple_window_update);
OFF(kvm_pml_full);
