"""arch/x86/kvm/mmu/spte.c: how shadow page table entries are made. All entries and masks are 64 bits wide."""

from __future__ import annotations

from kvmodel.bits import BIT, GENMASK, u64
from kvmodel.include.asm.kvm_host import (
    KVM_PAGES_PER_HPAGE,
    PAGE_SHIFT,
    PG_LEVEL_4K,
    PT64_NX_MASK,
    PT_ACCESSED_MASK,
    PT_DIRTY_MASK,
    PT_PAGE_SIZE_MASK,
    PT_PRESENT_MASK,
    PT_USER_MASK,
    PT_WRITABLE_MASK,
    Kvm,
    Vcpu,
    kvm_memory_slot,
    kvm_mmu_page,
    rsvd_bits,
)
from kvmodel.include.asm.vmx_h import (
    VMX_EPT_ACCESS_BIT,
    VMX_EPT_DIRTY_BIT,
    VMX_EPT_EXECUTABLE_MASK,
    VMX_EPT_IPAT_BIT,
    VMX_EPT_MT_MASK,
    VMX_EPT_READABLE_MASK,
    VMX_EPT_SUPPRESS_VE_BIT,
)
from kvmodel.mmu.mmu_sync import mmu_try_to_unsync_pages
from kvmodel.mmu.spte_h import (
    ACC_EXEC_MASK,
    ACC_USER_MASK,
    ACC_WRITE_MASK,
    DEFAULT_SPTE_HOST_WRITABLE,
    DEFAULT_SPTE_MMU_WRITABLE,
    EPT_SPTE_HOST_WRITABLE,
    EPT_SPTE_MMU_WRITABLE,
    FROZEN_SPTE,
    SHADOW_ACC_TRACK_SAVED_BITS_MASK,
    SHADOW_ACC_TRACK_SAVED_BITS_SHIFT,
    SHADOW_NONPRESENT_OR_RSVD_MASK_LEN,
    SHADOW_NONPRESENT_VALUE,
    SPTE_MMU_PRESENT_MASK,
    SPTE_TDP_AD_DISABLED,
    SPTE_TDP_AD_WRPROT_ONLY,
    check_spte_writable_invariants,
    is_access_track_spte,
    is_large_pte,
    is_last_spte,
    is_mmu_writable_spte,
    is_rsvd_spte,
    is_shadow_present_pte,
    is_writable_pte,
    restore_acc_track_spte,
    spte_ad_enabled,
    spte_shadow_accessed_mask,
    spte_shadow_dirty_mask,
)
from kvmodel.vmx.vmx_ept import vmx_get_mt_mask

_WHERE = "mmu/spte.c make_spte"


def generation_mmio_spte_mask(kvm: Kvm, gen: int) -> int:
    """mmu/spte.c generation_mmio_spte_mask: where the MMIO generation lies in an SPTE."""
    s = kvm.s
    mask = gen << s.MMIO_SPTE_GEN_LOW_SHIFT & s.MMIO_SPTE_GEN_LOW_MASK
    return mask | gen << s.MMIO_SPTE_GEN_HIGH_SHIFT & s.MMIO_SPTE_GEN_HIGH_MASK


def make_mmio_spte(kvm: Kvm, gfn: int, access: int) -> int:
    """mmu/spte.c make_mmio_spte: ``gfn`` 52 bits, ``access`` in ACC_* form."""
    gen = kvm.generation & kvm.s.MMIO_SPTE_GEN_MASK
    spte = generation_mmio_spte_mask(kvm, gen)
    gpa = u64(gfn << PAGE_SHIFT)
    if not kvm.shadow_mmio_value:
        kvm.warns.append("mmu/spte.c make_mmio_spte")
    access &= kvm.shadow_mmio_access_mask
    spte |= kvm.shadow_mmio_value | access
    spte |= gpa | kvm.shadow_nonpresent_or_rsvd_mask
    return u64(spte | (gpa & kvm.shadow_nonpresent_or_rsvd_mask) << SHADOW_NONPRESENT_OR_RSVD_MASK_LEN)


def kvm_is_mmio_pfn(vcpu: Vcpu, pfn: int) -> bool:
    """mmu/spte.c kvm_is_mmio_pfn: host memory that is no RAM; the vCPU says which."""
    return pfn in vcpu.mmio_pfns


def spte_has_volatile_bits(kvm: Kvm, spte: int) -> bool:
    """mmu/spte.c spte_has_volatile_bits (for a shadow-present SPTE)."""
    if not is_writable_pte(spte) and is_mmu_writable_spte(kvm, spte):
        return True
    if is_access_track_spte(kvm, spte):
        return True
    return spte_ad_enabled(spte) and (
        not spte & kvm.shadow_accessed_mask or (is_writable_pte(spte) and not spte & kvm.shadow_dirty_mask)
    )


def kvm_mmu_page_ad_need_write_protect(kvm: Kvm, sp: kvm_mmu_page) -> bool:
    """mmu/mmu_internal.h kvm_mmu_page_ad_need_write_protect: PML exists and the page is L2's."""
    return kvm.cpu_dirty_log_size != 0 and sp.guest_mode


def mark_page_dirty_in_slot(slot: kvm_memory_slot, gfn: int) -> None:
    """virt/kvm/kvm_main.c mark_page_dirty_in_slot: into the slot's bitmap, where it is logged."""
    if slot.dirty_track:
        slot.dirty_bitmap.add(gfn)


def make_spte(
    vcpu: Vcpu,
    sp: kvm_mmu_page,
    slot: kvm_memory_slot,
    pte_access: int,
    gfn: int,
    pfn: int,
    old_spte: int,
    prefetch: bool,
    can_unsync: bool,
    host_writable: bool,
) -> tuple[bool, int]:
    """mmu/spte.c make_spte: (wrprot, the new SPTE). ``pte_access`` in ACC_* form; gfn and pfn in 4 KiB pages."""
    kvm = vcpu.kvm
    steps = vcpu.steps
    level = sp.level
    spte = SPTE_MMU_PRESENT_MASK
    wrprot = False

    if pte_access | kvm.shadow_present_mask == SHADOW_NONPRESENT_VALUE:
        vcpu.warns.append(f"{_WHERE}: no permission at all")

    if sp.ad_disabled:
        spte |= SPTE_TDP_AD_DISABLED
    elif kvm_mmu_page_ad_need_write_protect(kvm, sp):
        spte |= SPTE_TDP_AD_WRPROT_ONLY

    spte |= kvm.shadow_present_mask
    if not prefetch:
        spte |= spte_shadow_accessed_mask(kvm, spte)

    if level > PG_LEVEL_4K and pte_access & ACC_EXEC_MASK and kvm.is_nx_huge_page_enabled():
        pte_access &= ~ACC_EXEC_MASK
        if steps is not None:
            vcpu.step(_WHERE, "NX huge pages: EXEC dropped from a huge page")
        if kvm.has(15) and vcpu.pt_guest_exec_control:
            pte_access &= ~kvm.s.ACC_USER_EXEC_MASK
            if steps is not None:
                vcpu.step(_WHERE, "NX huge pages: USER_EXEC dropped as well", 15)

    if not kvm.has(15) or not vcpu.pt_guest_exec_control:
        if pte_access & ACC_EXEC_MASK:
            spte |= kvm.shadow_x_mask
        else:
            spte |= kvm.shadow_nx_mask
    elif pte_access & ACC_EXEC_MASK:
        if pte_access & kvm.s.ACC_USER_EXEC_MASK:
            spte |= kvm.shadow_x_mask | kvm.shadow_ux_mask
        else:
            spte |= kvm.shadow_x_mask
    elif pte_access & kvm.s.ACC_USER_EXEC_MASK:
        spte |= kvm.shadow_ux_mask
    else:
        spte |= kvm.shadow_nx_mask
    if steps is not None:
        by = 15 if kvm.has(15) and vcpu.pt_guest_exec_control else 0
        vcpu.step(_WHERE, f"access {pte_access:#x} gives X {spte >> 2 & 1} and bit 10 {spte >> 10 & 1}", by)

    if pte_access & ACC_USER_MASK:
        spte |= kvm.shadow_user_mask

    if level > PG_LEVEL_4K:
        spte |= PT_PAGE_SIZE_MASK

    if kvm.shadow_memtype_mask:
        spte |= vmx_get_mt_mask(kvm, kvm_is_mmio_pfn(vcpu, pfn))
    if host_writable:
        spte |= kvm.shadow_host_writable_mask
    else:
        pte_access &= ~ACC_WRITE_MASK

    if kvm.shadow_me_value and not kvm_is_mmio_pfn(vcpu, pfn):
        spte |= kvm.shadow_me_value
    spte |= u64(pfn << PAGE_SHIFT)

    done = False
    if pte_access & ACC_WRITE_MASK:
        spte |= PT_WRITABLE_MASK | kvm.shadow_mmu_writable_mask
        if is_last_spte(old_spte, level) and is_writable_pte(old_spte):
            done = True
        elif mmu_try_to_unsync_pages(vcpu, gfn, can_unsync, prefetch):
            wrprot = True
            pte_access &= ~ACC_WRITE_MASK
            spte &= ~(PT_WRITABLE_MASK | kvm.shadow_mmu_writable_mask)

    if not done and pte_access & ACC_WRITE_MASK:
        spte |= spte_shadow_dirty_mask(kvm, spte)

    if prefetch:
        spte = mark_spte_for_access_track(kvm, spte)

    if is_rsvd_spte(vcpu.mmu.shadow_zero_check, spte, level):
        vcpu.warns.append(f"{_WHERE}: reserved bits set")
        if steps is not None:
            vcpu.step(_WHERE, f"WARN: spte {spte:#x} at level {level} has reserved bits")
    if spte & PT_WRITABLE_MASK and slot.dirty_track:
        if level > PG_LEVEL_4K:
            vcpu.warns.append(f"{_WHERE}: a huge page in a dirty-tracked slot")
        vcpu.count("mark_page_dirty")
        mark_page_dirty_in_slot(slot, gfn)
    if steps is not None:
        vcpu.step(_WHERE, f"gfn {gfn:#x} level {level}: spte {spte:#x}")
    return wrprot, spte


def make_spte_executable(kvm: Kvm, spte: int) -> int:
    """mmu/spte.c make_spte_executable."""
    is_access_track = is_access_track_spte(kvm, spte)
    if is_access_track:
        spte = restore_acc_track_spte(kvm, spte)
    spte &= ~kvm.shadow_nx_mask
    spte |= kvm.shadow_x_mask
    if is_access_track:
        spte = mark_spte_for_access_track(kvm, spte)
    return spte


def make_huge_page_split_spte(kvm: Kvm, huge_spte: int, role: int, index: int) -> int:
    """mmu/spte.c make_huge_page_split_spte: ``role`` is the child page's 32-bit role word, ``index`` 0 to 511."""
    if not is_shadow_present_pte(huge_spte) or not is_large_pte(huge_spte):
        kvm.warns.append("mmu/spte.c make_huge_page_split_spte")  # KVM_BUG_ON
    level = role & 0xF
    access = kvm.roles.get(role, "access")
    child_spte = huge_spte | index * KVM_PAGES_PER_HPAGE(level) << PAGE_SHIFT
    if level == PG_LEVEL_4K:
        child_spte &= ~PT_PAGE_SIZE_MASK
        if access & ACC_EXEC_MASK and kvm.is_nx_huge_page_enabled():
            child_spte = make_spte_executable(kvm, child_spte)
            if kvm.has(12) and kvm.enable_pt_guest_exec_control and access & kvm.s.ACC_USER_EXEC_MASK:
                child_spte |= kvm.shadow_ux_mask
    return child_spte


def make_nonleaf_spte(kvm: Kvm, child_pt: int, ad_disabled: bool) -> int:
    """mmu/spte.c make_nonleaf_spte: ``child_pt`` is the child page's host-physical address."""
    spte = (
        SPTE_MMU_PRESENT_MASK
        | child_pt
        | kvm.shadow_present_mask
        | PT_WRITABLE_MASK
        | kvm.shadow_user_mask
        | kvm.shadow_x_mask
        | kvm.shadow_me_value
    )
    if kvm.has(12):
        spte |= kvm.shadow_ux_mask
    if ad_disabled:
        spte |= SPTE_TDP_AD_DISABLED
    else:
        spte |= kvm.shadow_accessed_mask
    return spte


def mark_spte_for_access_track(kvm: Kvm, spte: int) -> int:
    """mmu/spte.c mark_spte_for_access_track: R and X are saved at bits 54 and 56; bit 10 goes from patch 13."""
    if spte_ad_enabled(spte):
        return spte & ~kvm.shadow_accessed_mask
    if is_access_track_spte(kvm, spte):
        return spte
    if not check_spte_writable_invariants(kvm, spte):
        kvm.warns.append("mmu/spte.h check_spte_writable_invariants")
    if spte & SHADOW_ACC_TRACK_SAVED_BITS_MASK << SHADOW_ACC_TRACK_SAVED_BITS_SHIFT:
        kvm.warns.append("mmu/spte.c mark_spte_for_access_track")
    spte |= (spte & SHADOW_ACC_TRACK_SAVED_BITS_MASK) << SHADOW_ACC_TRACK_SAVED_BITS_SHIFT
    return spte & ~kvm.shadow_acc_track_mask


def kvm_mmu_set_mmio_spte_mask(kvm: Kvm, mmio_value: int, mmio_mask: int, access_mask: int) -> None:
    """mmu/spte.c kvm_mmu_set_mmio_spte_mask; WARNs go to ``kvm.warns`` and switch MMIO caching off."""
    where = "mmu/spte.c kvm_mmu_set_mmio_spte_mask"
    if mmio_value & kvm.shadow_nonpresent_or_rsvd_lower_gfn_mask:
        kvm.warns.append(where)
    kvm.enable_mmio_caching = kvm.allow_mmio_caching
    if not kvm.enable_mmio_caching:
        mmio_value = 0
    if mmio_mask & ~kvm.s.SPTE_MMIO_ALLOWED_MASK:
        kvm.warns.append(where)
        mmio_value = 0
    if mmio_value & u64(kvm.shadow_nonpresent_or_rsvd_mask << SHADOW_NONPRESENT_OR_RSVD_MASK_LEN):
        kvm.warns.append(where)
        mmio_value = 0
    if mmio_value & mmio_mask != mmio_value or (mmio_value and FROZEN_SPTE & mmio_mask == mmio_value):
        kvm.warns.append(where)
        mmio_value = 0
    if not mmio_value:
        kvm.enable_mmio_caching = False
    kvm.shadow_mmio_value = mmio_value
    kvm.shadow_mmio_mask = mmio_mask
    kvm.shadow_mmio_access_mask = access_mask


def kvm_mmu_set_me_spte_mask(kvm: Kvm, me_value: int, me_mask: int) -> None:
    """mmu/spte.c kvm_mmu_set_me_spte_mask."""
    if me_value & ~me_mask:
        kvm.warns.append("mmu/spte.c kvm_mmu_set_me_spte_mask")
        me_value = me_mask = 0
    kvm.shadow_me_value = me_value
    kvm.shadow_me_mask = me_mask


def kvm_mmu_set_ept_masks(kvm: Kvm, has_ad_bits: bool, has_exec_only: bool, has_guest_exec_ctrl: bool = False) -> None:
    """mmu/spte.c kvm_mmu_set_ept_masks; the last argument comes with patch 12."""
    kvm.shadow_user_mask = VMX_EPT_READABLE_MASK
    kvm.shadow_accessed_mask = VMX_EPT_ACCESS_BIT if has_ad_bits else 0
    kvm.shadow_dirty_mask = VMX_EPT_DIRTY_BIT if has_ad_bits else 0
    kvm.shadow_nx_mask = 0
    kvm.shadow_x_mask = VMX_EPT_EXECUTABLE_MASK
    kvm.shadow_present_mask = (0 if has_exec_only else VMX_EPT_READABLE_MASK) | VMX_EPT_SUPPRESS_VE_BIT
    if kvm.has(12):
        kvm.shadow_ux_mask = kvm.h.VMX_EPT_USER_EXECUTABLE_MASK if has_guest_exec_ctrl else 0
    kvm.shadow_memtype_mask = VMX_EPT_MT_MASK | VMX_EPT_IPAT_BIT
    kvm.shadow_acc_track_mask = kvm.h.VMX_EPT_RWX_MASK
    kvm.shadow_host_writable_mask = EPT_SPTE_HOST_WRITABLE
    kvm.shadow_mmu_writable_mask = EPT_SPTE_MMU_WRITABLE
    kvm_mmu_set_mmio_spte_mask(
        kvm, kvm.h.VMX_EPT_MISCONFIG_WX_VALUE, kvm.h.VMX_EPT_RWX_MASK | VMX_EPT_SUPPRESS_VE_BIT, 0
    )


def kvm_mmu_reset_all_pte_masks(kvm: Kvm) -> None:
    """mmu/spte.c kvm_mmu_reset_all_pte_masks: the masks of shadow paging, and the L1TF guard's address bits."""
    low_phys_bits = kvm.x86_phys_bits or kvm.host_maxphyaddr
    kvm.shadow_nonpresent_or_rsvd_mask = 0
    if kvm.boot_cpu_has_bug_l1tf:
        if kvm.x86_cache_bits >= 52 - SHADOW_NONPRESENT_OR_RSVD_MASK_LEN:
            kvm.warns.append("mmu/spte.c kvm_mmu_reset_all_pte_masks")
        else:
            low_phys_bits = kvm.x86_cache_bits - SHADOW_NONPRESENT_OR_RSVD_MASK_LEN
            kvm.shadow_nonpresent_or_rsvd_mask = rsvd_bits(low_phys_bits, kvm.x86_cache_bits - 1)
    kvm.shadow_nonpresent_or_rsvd_lower_gfn_mask = GENMASK(low_phys_bits - 1, PAGE_SHIFT)
    kvm.shadow_user_mask = PT_USER_MASK
    kvm.shadow_accessed_mask = PT_ACCESSED_MASK
    kvm.shadow_dirty_mask = PT_DIRTY_MASK
    kvm.shadow_nx_mask = PT64_NX_MASK
    kvm.shadow_x_mask = 0
    if kvm.has(12):
        kvm.shadow_ux_mask = 0
    kvm.shadow_present_mask = PT_PRESENT_MASK
    kvm.shadow_memtype_mask = 0
    kvm.shadow_acc_track_mask = 0
    kvm.shadow_me_mask = 0
    kvm.shadow_me_value = 0
    kvm.shadow_host_writable_mask = DEFAULT_SPTE_HOST_WRITABLE
    kvm.shadow_mmu_writable_mask = DEFAULT_SPTE_MMU_WRITABLE
    mask = BIT(51) | PT_PRESENT_MASK if kvm.host_maxphyaddr < 52 else 0
    kvm_mmu_set_mmio_spte_mask(kvm, mask, mask, ACC_WRITE_MASK | ACC_USER_MASK)
