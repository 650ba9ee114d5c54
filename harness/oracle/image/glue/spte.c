// SPDX-License-Identifier: GPL-2.0-only
/* Entries for mmu/spte.c and the inline functions of mmu/spte.h. */
#include "mmu/spte.c"
#include "oracle.h"

static struct kvm_mmu_page oracle_sp;

/*
 * A function called through a pointer with more arguments than it takes ignores the rest (System V ABI),
 * so one call serves the levels before and after a patch that appends an argument.
 */
typedef void (*set_ept_masks_fn)(bool has_ad_bits, bool has_exec_only, bool has_user_exec);
typedef bool (*is_executable_fn)(u64 spte, bool for_kernel_mode, struct kvm_vcpu *vcpu);

static void dump_masks(u64 *out)
{
	out[0] = shadow_host_writable_mask;
	out[1] = shadow_mmu_writable_mask;
	out[2] = shadow_nx_mask;
	out[3] = shadow_x_mask;
#ifdef ORACLE_HAS_UX_MASK
	out[4] = shadow_ux_mask;
#else
	out[4] = 0;
#endif
	out[5] = shadow_user_mask;
	out[6] = shadow_accessed_mask;
	out[7] = shadow_dirty_mask;
	out[8] = shadow_mmio_value;
	out[9] = shadow_mmio_mask;
	out[10] = shadow_mmio_access_mask;
	out[11] = shadow_present_mask;
	out[12] = shadow_memtype_mask;
	out[13] = shadow_me_value;
	out[14] = shadow_me_mask;
	out[15] = shadow_acc_track_mask;
	out[16] = shadow_nonpresent_or_rsvd_mask;
	out[17] = shadow_nonpresent_or_rsvd_lower_gfn_mask;
	out[18] = enable_mmio_caching;
}

/* in: allow_mmio_caching, host MAXPHYADDR, L1TF bug, x86_phys_bits, x86_cache_bits, cpu_dirty_log_size */
ENTRY(spte_host, 6, 1)
{
	allow_mmio_caching = in[0];
	kvm_host.maxphyaddr = in[1];
	if (in[2])
		boot_cpu_data.x86_capability[X86_BUG_L1TF / 32] |= BIT(X86_BUG_L1TF % 32);
	else
		boot_cpu_data.x86_capability[X86_BUG_L1TF / 32] &= ~BIT(X86_BUG_L1TF % 32);
	boot_cpu_data.x86_phys_bits = in[3];
	boot_cpu_data.x86_cache_bits = in[4];
	kvm_x86_ops.cpu_dirty_log_size = in[5];
	out[0] = 0;
}

/* in: param, flag, nx_huge_pages, disable_nx_huge_pages */
ENTRY(switches, 4, 1)
{
#ifdef ORACLE_HAS_PARAM
	extern bool enable_pt_guest_exec_control;

	enable_pt_guest_exec_control = in[0];
#endif
	oracle_set_flag(oracle_vcpu, in[1]);
	*(int *)&nx_huge_pages = in[2];
	oracle_kvm->arch.disable_nx_huge_pages = in[3];
	out[0] = 0;
}

/* What masks hold before does not count. */
static void fill_masks(u64 value)
{
	u64 *masks[] = { &shadow_host_writable_mask, &shadow_mmu_writable_mask, &shadow_nx_mask, &shadow_x_mask,
#ifdef ORACLE_HAS_UX_MASK
			 &shadow_ux_mask,
#endif
			 &shadow_user_mask, &shadow_accessed_mask, &shadow_dirty_mask, &shadow_present_mask,
			 &shadow_memtype_mask, &shadow_me_value, &shadow_me_mask, &shadow_acc_track_mask,
			 &shadow_nonpresent_or_rsvd_mask, &shadow_nonpresent_or_rsvd_lower_gfn_mask };

	for (int n = 0; n < ARRAY_SIZE(masks); n++)
		*masks[n] = value;
}

/* in: what the masks hold before, 0: as they are */
ENTRY(kvm_mmu_reset_all_pte_masks, 1, 19)
{
	if (in[0])
		fill_masks(in[0]);
	kvm_mmu_reset_all_pte_masks();
	oracle_kvm->arch.shadow_mmio_value = shadow_mmio_value;
	dump_masks(out);
}

/* in: has_ad_bits, has_exec_only, third argument */
ENTRY(kvm_mmu_set_ept_masks, 3, 19)
{
	((set_ept_masks_fn)kvm_mmu_set_ept_masks)(in[0], in[1], in[2]);
	oracle_kvm->arch.shadow_mmio_value = shadow_mmio_value;
	dump_masks(out);
}

/* in: mmio_value, mmio_mask, access_mask */
ENTRY(kvm_mmu_set_mmio_spte_mask, 3, 19)
{
	kvm_mmu_set_mmio_spte_mask(in[0], in[1], in[2]);
	oracle_kvm->arch.shadow_mmio_value = shadow_mmio_value;
	dump_masks(out);
}

/* in: value, mask; out: shadow_me_value, shadow_me_mask (0 again afterwards: no host of ours encrypts) */
ENTRY(kvm_mmu_set_me_spte_mask, 2, 2)
{
	kvm_mmu_set_me_spte_mask(in[0], in[1]);
	out[0] = shadow_me_value;
	out[1] = shadow_me_mask;
	shadow_me_value = shadow_me_mask = 0;
}

/*
 * in: sp level, role.ad_disabled, role.guest_mode, pte_access, gfn, pfn, old_spte, prefetch, can_unsync,
 *     host_writable, unsync_fails, slot is dirty-tracked, pfn is MMIO, VM has non-coherent DMA
 * out: returned value, new SPTE, pages marked dirty
 */
ENTRY(make_spte, 14, 3)
{
	u64 spte = 0;

	oracle_sp.role.word = 0;
	oracle_sp.role.level = in[0];
	oracle_sp.role.ad_disabled = in[1];
	oracle_sp.role.guest_mode = in[2];
	oracle_world.unsync_fails = in[10];
	oracle_slot.flags = in[11] ? KVM_MEM_LOG_DIRTY_PAGES : 0;
	oracle_world.pfn_is_mmio = in[12];
	oracle_world.noncoherent_dma = in[13];
	oracle_world.marked_dirty = 0;
	out[0] = make_spte(oracle_vcpu, &oracle_sp, &oracle_slot, in[3], in[4], in[5], in[6], in[7], in[8],
			   in[9], &spte);
	out[1] = spte;
	out[2] = oracle_world.marked_dirty;
}

/* in: physical address of the child table, ad_disabled */
ENTRY(make_nonleaf_spte, 2, 1)
{
	out[0] = make_nonleaf_spte(__va(in[0]), in[1]);
}

/* in: memslot generation, gfn, access */
ENTRY(make_mmio_spte, 3, 1)
{
	oracle_kvm->memslots[0] = oracle_kvm->memslots[1] = &oracle_memslots;
	oracle_memslots.generation = in[0];
	out[0] = make_mmio_spte(oracle_vcpu, in[1], in[2]);
}

ENTRY(generation_mmio_spte_mask, 1, 1)
{
	out[0] = generation_mmio_spte_mask(in[0]);
}

ENTRY(get_mmio_spte_generation, 1, 1)
{
	out[0] = get_mmio_spte_generation(in[0]);
}

/* in: huge SPTE, role.level, role.access, index; out: child SPTE, KVM_BUG_ON hit */
ENTRY(make_huge_page_split_spte, 4, 2)
{
	union kvm_mmu_page_role role = { .word = 0 };

	role.level = in[1];
	role.access = in[2];
	oracle_kvm->vm_bugged = false;
	out[0] = make_huge_page_split_spte(oracle_kvm, in[0], role, in[3]);
	out[1] = oracle_kvm->vm_bugged;
}

ENTRY(make_spte_executable, 1, 1)
{
	out[0] = ((u64 (*)(u64, u64, u64))make_spte_executable)(in[0], 0, 0);
}

ENTRY(mark_spte_for_access_track, 1, 1)
{
	out[0] = mark_spte_for_access_track(in[0]);
}

ENTRY(restore_acc_track_spte, 1, 1)
{
	out[0] = restore_acc_track_spte(in[0]);
}

/* in: SPTE, for kernel mode, flag */
ENTRY(is_executable_pte, 3, 1)
{
	oracle_set_flag(oracle_vcpu, in[2]);
	out[0] = ((is_executable_fn)is_executable_pte)(in[0], in[1], oracle_vcpu);
}

/* in: SPTE, level; against the check of the MMU in use */
ENTRY(is_rsvd_spte, 2, 1)
{
	out[0] = is_rsvd_spte(&oracle_vcpu->arch.mmu->shadow_zero_check, in[0], in[1]);
}

/* The predicates of one SPTE, one word each. in: SPTE, level */
ENTRY(spte_predicates, 2, 16)
{
	u64 spte = in[0];

	out[0] = is_frozen_spte(spte);
	out[1] = is_mmio_spte(oracle_kvm, spte);
	out[2] = is_shadow_present_pte(spte);
	out[3] = is_ept_ve_possible(spte);
	out[4] = spte_ad_enabled(spte);
	out[5] = spte_ad_need_write_protect(spte);
	out[6] = spte_shadow_accessed_mask(spte);
	out[7] = spte_shadow_dirty_mask(spte);
	out[8] = is_access_track_spte(spte);
	out[9] = is_large_pte(spte);
	out[10] = is_last_spte(spte, in[1]);
	out[11] = is_accessed_spte(spte);
	out[12] = is_dirty_spte(spte);
	out[13] = is_writable_pte(spte);
	out[14] = is_mmu_writable_spte(spte);
	out[15] = spte_has_volatile_bits(spte);
}
