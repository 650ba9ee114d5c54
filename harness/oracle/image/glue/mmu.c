// SPDX-License-Identifier: GPL-2.0-only
/* Entries for mmu/mmu.c, mmu.h and the EPT flavour of mmu/paging_tmpl.h. */

#include <linux/kvm_host.h>
#include "mmu/mmu_internal.h"

/*
 * These two are captured: whether a shadow page may become unsync is an input of make_spte()'s cases, and
 * what the exit handlers ask of kvm_mmu_page_fault() is their result. world.c has them, and passes on to the
 * kernel's own where whole faults are run.
 */
#define mmu_try_to_unsync_pages kernel_mmu_try_to_unsync_pages
#define kvm_mmu_page_fault kernel_kvm_mmu_page_fault
int kernel_mmu_try_to_unsync_pages(struct kvm *kvm, const struct kvm_memory_slot *slot, gfn_t gfn,
				   bool can_unsync, bool prefetch);
int kernel_kvm_mmu_page_fault(struct kvm_vcpu *vcpu, gpa_t cr2_or_gpa, u64 error_code, void *insn, int insn_len);
#include "mmu/mmu.c"
#include "oracle.h"

static void dump_rsvd(struct rsvd_bits_validate *check, u64 *out)
{
	memcpy(out, check->rsvd_bits_mask, 10 * sizeof(u64));
	out[10] = check->bad_mt_xwr;
}

/*
 * The layout of the role words, as the word with one field's bits all set.
 * out: level, has_4_byte_gpte, quadrant, direct, access, invalid, efer_nx, cr0_wp, smep_andnot_wp,
 *      smap_andnot_wp, ad_disabled, guest_mode, passthrough, smm; extended: valid, execonly, cr4_pse,
 *      cr4_pke, cr4_smap, cr4_smep, cr4_la57, efer_lma
 */
ENTRY(role_layout, 1, 22)
{
	union kvm_mmu_page_role role;
	union kvm_mmu_extended_role ext;
	int n = 0;

#define BASE(field) role.word = 0, role.field = ~0u, out[n++] = role.word
	BASE(level), BASE(has_4_byte_gpte), BASE(quadrant), BASE(direct), BASE(access), BASE(invalid);
	BASE(efer_nx), BASE(cr0_wp), BASE(smep_andnot_wp), BASE(smap_andnot_wp), BASE(ad_disabled);
	BASE(guest_mode), BASE(passthrough), BASE(smm);
#undef BASE
#define EXT(field) ext.word = 0, ext.field = ~0u, out[n++] = ext.word
	EXT(valid), EXT(execonly), EXT(cr4_pse), EXT(cr4_pke), EXT(cr4_smap), EXT(cr4_smep);
	EXT(cr4_la57), EXT(efer_lma);
#undef EXT
}

void oracle_configured(u64 *out)
{
	out[0] = tdp_mmu_enabled;
	out[1] = max_tdp_level;
	out[2] = max_huge_page_level;
}

/* in: tdp_enabled, forced root level, max TDP level, max huge page level, host has 1 GiB pages */
ENTRY(kvm_configure_mmu, 5, 3)
{
	__assign_bit(X86_FEATURE_GBPAGES, (unsigned long *)boot_cpu_data.x86_capability, in[4]);
	tdp_mmu_allowed = true;
	kvm_configure_mmu(in[0], in[1], in[2], in[3]);
	oracle_configured(out);
}

static void forget_roots(struct kvm_mmu *mmu)
{
	mmu->root.hpa = INVALID_PAGE;
	mmu->root.pgd = 0;
	for (int i = 0; i < KVM_MMU_NUM_PREV_ROOTS; i++)
		mmu->prev_roots[i] = KVM_MMU_ROOT_INFO_INVALID;
	mmu->cpu_role.as_u64 = 0;
	mmu->root_role.word = 0;
}

static u64 oracle_pgd;
static u64 l1_ept[4];	/* execonly, huge_page_level, accessed_dirty, EPTP of the nested guest */

static unsigned long oracle_get_guest_pgd(struct kvm_vcpu *vcpu)
{
	return oracle_pgd;
}

static int oracle_write_log_dirty(struct kvm_vcpu *vcpu, gpa_t l2_gpa)
{
	return oracle_world.log_dirty_fails ? 1 : 0;
}

static struct kvm_x86_nested_ops oracle_nested_ops = { .write_log_dirty = oracle_write_log_dirty };

/*
 * From here on the MMU in use is that of a nested guest with EPT.
 * in: execonly, huge_page_level, accessed_dirty, EPTP, reserved_gpa_bits
 * out: cpu_role base, cpu_role ext, root_role, pkru_mask, 16 permission bytes in 2 words, the guest's
 *      reserved bits in 11 words, those of shadow entries in 11 words, whether it is direct
 */
ENTRY(kvm_init_shadow_ept_mmu, 5, 29)
{
	struct kvm_mmu *mmu = &oracle_vcpu->arch.guest_mmu;

	forget_roots(mmu);
	kvm_x86_ops.nested_ops = &oracle_nested_ops;
	oracle_vcpu->arch.mmu = mmu;
	oracle_vcpu->arch.walk_mmu = &oracle_vcpu->arch.nested_mmu;
	oracle_vcpu->arch.reserved_gpa_bits = in[4];
	mmu->get_guest_pgd = oracle_get_guest_pgd;
	mmu->pkru_mask = ~0u;
	mmu->root_role.direct = 1;
	oracle_pgd = in[3];
	memcpy(l1_ept, in, sizeof(l1_ept));
	kvm_init_shadow_ept_mmu(oracle_vcpu, in[0], in[1], in[2], in[3]);
	out[0] = mmu->cpu_role.base.word;
	out[1] = mmu->cpu_role.ext.word;
	out[2] = mmu->root_role.word;
	out[3] = mmu->pkru_mask;
	memcpy(out + 4, mmu->permissions, 16);
	dump_rsvd(&mmu->guest_rsvd_check, out + 6);
	dump_rsvd(&mmu->shadow_zero_check, out + 17);
	out[28] = mmu->root_role.direct;
}

/*
 * From here on the MMU in use is that of L1, paging off, on top of TDP.
 * in: smm, guest_mode, vCPU's MAXPHYADDR
 * out: cpu_role base, root_role, reserved bits of SPTEs in 11 words, whether there is a function that syncs entries
 */
ENTRY(init_kvm_tdp_mmu, 3, 14)
{
	const struct kvm_mmu_role_regs regs = { 0 };
	struct kvm_mmu *mmu = &oracle_vcpu->arch.root_mmu;

	forget_roots(mmu);
	oracle_vcpu->arch.mmu = mmu;
	oracle_vcpu->arch.walk_mmu = mmu;
	oracle_vcpu->arch.maxphyaddr = in[2];
	oracle_vcpu->arch.hflags = (in[0] ? HF_SMM_MASK : 0) | (in[1] ? HF_GUEST_MASK : 0);
	mmu->sync_spte = ept_sync_spte;
	init_kvm_tdp_mmu(oracle_vcpu, kvm_calc_cpu_role(oracle_vcpu, &regs));
	out[13] = !!mmu->sync_spte;
	oracle_vcpu->arch.hflags = 0;
	out[0] = mmu->cpu_role.base.word;
	out[1] = mmu->root_role.word;
	dump_rsvd(&mmu->shadow_zero_check, out + 2);
}

/* in: CR0, CR4, EFER, smm, guest_mode; out: base, ext */
ENTRY(kvm_calc_cpu_role, 5, 2)
{
	const struct kvm_mmu_role_regs regs = { .cr0 = in[0], .cr4 = in[1], .efer = in[2] };
	union kvm_cpu_role role;

	oracle_vcpu->arch.hflags = (in[3] ? HF_SMM_MASK : 0) | (in[4] ? HF_GUEST_MASK : 0);
	role = kvm_calc_cpu_role(oracle_vcpu, &regs);
	oracle_vcpu->arch.hflags = 0;
	out[0] = role.base.word;
	out[1] = role.ext.word;
}

/* in: ept, CR4.SMEP, CR4.SMAP, CR0.WP, EFER.NXE; out: 16 permission bytes in 2 words */
ENTRY(update_permission_bitmask, 5, 2)
{
	static struct kvm_mmu mmu;

	mmu.cpu_role.as_u64 = 0;
	mmu.cpu_role.ext.cr4_smep = in[1];
	mmu.cpu_role.ext.cr4_smap = in[2];
	mmu.cpu_role.base.cr0_wp = in[3];
	mmu.cpu_role.base.efer_nx = in[4];
	update_permission_bitmask(&mmu, in[0]);
	memcpy(out, mmu.permissions, 16);
}

/* in: pte_access, access (PFERR_*), RFLAGS; in the nested guest's EPT MMU */
ENTRY(permission_fault, 3, 1)
{
	oracle_world.rflags = in[2];
	out[0] = permission_fault(oracle_vcpu, &oracle_vcpu->arch.guest_mmu, in[0], 0, in[1]);
}

/* in: reserved address bits, execonly, huge_page_level */
ENTRY(__reset_rsvds_bits_mask_ept, 3, 11)
{
	struct rsvd_bits_validate check = { 0 };

	__reset_rsvds_bits_mask_ept(&check, in[0], in[1], in[2]);
	dump_rsvd(&check, out);
}

/* in: parent's role fields level, has_4_byte_gpte, direct, access, ad_disabled, guest_mode, passthrough;
 *     index of the entry, direct, access */
ENTRY(kvm_mmu_child_role, 10, 1)
{
	static struct kvm_mmu_page parent;
	static struct page pages[2];
	static struct mem_section section, *row = &section;
	struct mem_section **before = mem_section;

	parent.role.word = 0;
	parent.role.level = in[0];
	parent.role.has_4_byte_gpte = in[1];
	parent.role.direct = in[2];
	parent.role.access = in[3];
	parent.role.ad_disabled = in[4];
	parent.role.guest_mode = in[5];
	parent.role.passthrough = in[6];
	set_page_private(&pages[1], (unsigned long)&parent);
	section.section_mem_map = (unsigned long)pages | SECTION_MARKED_PRESENT | SECTION_HAS_MEM_MAP;
	mem_section = &row;
	out[0] = kvm_mmu_child_role((u64 *)__va(PAGE_SIZE) + in[7], in[8], in[9]).word;
	mem_section = before;
}

/* in: SPTE, exec, write, user (as in kvm_page_fault), flag */
ENTRY(is_access_allowed, 5, 1)
{
	struct kvm_page_fault fault = { .exec = in[1], .write = in[2], .user = in[3] };

	oracle_set_flag(oracle_vcpu, in[4]);
#ifdef ORACLE_ACCESS_ALLOWED_TAKES_VCPU
	out[0] = is_access_allowed(&fault, in[0], oracle_vcpu);
#else
	out[0] = is_access_allowed(&fault, in[0]);
#endif
}

/* One guest entry. in: entry, level; out: gpte_access, is_present, is_last, is_bad_mt_xwr, is_rsvd_bits_set */
ENTRY(ept_gpte, 2, 5)
{
	struct kvm_mmu *mmu = &oracle_vcpu->arch.guest_mmu;

	out[0] = ept_gpte_access(in[0]);
	out[1] = !!ept_is_present_gpte(in[0]);
	out[2] = ept_is_last_gpte(mmu, in[1], in[0]);
	out[3] = ept_is_bad_mt_xwr(&mmu->guest_rsvd_check, in[0]);
	out[4] = ept_is_rsvd_bits_set(mmu, in[0], in[1]);
}

/* in: access, guest entry; in the nested guest's EPT MMU */
ENTRY(ept_protect_clean_gpte, 2, 1)
{
	unsigned int access = in[0];

	ept_protect_clean_gpte(&oracle_vcpu->arch.guest_mmu, &access, in[1]);
	out[0] = access;
}

static bool tables_used;	/* there are entries of an earlier case in oracle_tables */

/*
 * A walk of L1's EPT. in: L2 address, access (PFERR_*), flag, tables that are in no memslot (bit mask, the
 * first read is bit 0), tables the host lets KVM write (bit mask), write_log_dirty fails, 4 entries from
 * the top
 * out: returned value, level reached, gfn, pte_access, error code, exit qualification, address,
 *      nested_page_fault, 4 entries afterwards, pt_access by level from 1, pages marked dirty, the walker's own copies of
 *      the entries by level from 1
 */
ENTRY(ept_walk_addr_generic, 10, 21)
{
	static struct guest_walkerEPT walker;
	const u64 addr = in[0];

	oracle_set_flag(oracle_vcpu, in[2]);
	oracle_world.invisible = in[3];
	oracle_world.writable = in[4];
	oracle_world.log_dirty_fails = in[5];
	oracle_world.next_table = 0;
	oracle_world.marked_dirty = 0;
	for (int n = 0; n < 4; n++)
		oracle_tables[n][(addr >> (39 - 9 * n)) & 511] = in[6 + n];
	tables_used = true;
	memset(&walker, 0, sizeof(walker));
	out[0] = ept_walk_addr_generic(&walker, oracle_vcpu, &oracle_vcpu->arch.guest_mmu, addr, in[1]);
	out[1] = walker.level;
	out[2] = walker.gfn;
	out[3] = walker.pte_access;
	out[4] = walker.fault.error_code;
	out[5] = walker.fault.exit_qualification;
	out[6] = walker.fault.address;
	out[7] = walker.fault.nested_page_fault;
	for (int n = 0; n < 4; n++)
		out[8 + n] = oracle_tables[n][(addr >> (39 - 9 * n)) & 511];
	for (int n = 0; n < 4; n++)
		out[12 + n] = walker.pt_access[n], out[17 + n] = walker.ptes[n];
	out[16] = oracle_world.marked_dirty;
}

/*
 * L1's tables as above, all of them there and writable.
 * in: L2 address, access, flag, 4 entries from the top
 * out: L1's address or ~0; of the exception error code, exit qualification, address, nested_page_fault
 */
ENTRY(ept_gva_to_gpa, 7, 5)
{
	struct x86_exception exception = { 0 };

	oracle_set_flag(oracle_vcpu, in[2]);
	oracle_world.invisible = 0;
	oracle_world.writable = ~0ull;
	oracle_world.log_dirty_fails = 0;
	oracle_world.next_table = 0;
	for (int n = 0; n < 4; n++)
		oracle_tables[n][(in[0] >> (39 - 9 * n)) & 511] = in[3 + n];
	tables_used = true;
	out[0] = ept_gva_to_gpa(oracle_vcpu, &oracle_vcpu->arch.guest_mmu, in[0], in[1], &exception);
	out[1] = exception.error_code;
	out[2] = exception.exit_qualification;
	out[3] = exception.address;
	out[4] = exception.nested_page_fault;
}

/* in: two role words; out: whether kvm_sync_page_check() takes them for the same (0 differs) */
ENTRY(kvm_sync_page_check, 2, 1)
{
	static struct kvm_mmu_page sp;
	struct kvm_mmu *mmu = oracle_vcpu->arch.mmu;
	union kvm_mmu_page_role before = mmu->root_role;

	sp.role.word = in[0];
	mmu->root_role.word = in[1];
	out[0] = kvm_sync_page_check(oracle_vcpu, &sp);
	mmu->root_role = before;
}

/* in: SPTE, memslot generation; out: get_mmio_spte_gfn, get_mmio_spte_access, check_mmio_spte */
ENTRY(mmio_spte, 2, 3)
{
	oracle_kvm->memslots[0] = oracle_kvm->memslots[1] = &oracle_memslots;
	oracle_memslots.generation = in[1];
	out[0] = get_mmio_spte_gfn(in[0]);
	out[1] = get_mmio_spte_access(in[0]);
	out[2] = check_mmio_spte(oracle_vcpu, in[0]);
}

/* in: error code */
ENTRY(page_fault_can_be_fast, 1, 1)
{
	struct kvm_page_fault fault = {
		.error_code = in[0],
		.rsvd = in[0] & PFERR_RSVD_MASK,
		.present = in[0] & PFERR_PRESENT_MASK,
		.write = in[0] & PFERR_WRITE_MASK,
	};

	out[0] = page_fault_can_be_fast(oracle_kvm, &fault);
}

/* in: entry, what it becomes; out: whether the TLB needs a flush, the entry */
ENTRY(mmu_spte_update, 2, 2)
{
	static u64 spte;

	spte = in[0];
	out[0] = mmu_spte_update(&spte, in[1]);
	out[1] = spte;
}

#include "flow.h"
#include "events.h"
