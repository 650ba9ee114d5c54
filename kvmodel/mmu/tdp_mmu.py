"""arch/x86/kvm/mmu/tdp_mmu.c: KVM's own EPT for L1. SPTEs are 64 bits, gfns 52."""

from __future__ import annotations

from collections.abc import Iterator

from kvmodel.include.asm.kvm_host import (
    PAGE_SIZE,
    PG_LEVEL_2M,
    PT_PAGE_SIZE_MASK,
    PT_WRITABLE_MASK,
    RET_PF_CONTINUE,
    RET_PF_EMULATE,
    RET_PF_FIXED,
    RET_PF_INVALID,
    RET_PF_NAMES,
    RET_PF_SPURIOUS,
    RET_PF_WRITE_PROTECTED,
    Vcpu,
    gfn_round_for_level,
    kvm_memory_slot,
    kvm_mmu_page,
    kvm_page_fault,
)
from kvmodel.mmu.mmu import (
    disallowed_hugepage_adjust,
    fast_page_fault,
    kvm_faultin_pfn,
    kvm_mmu_hugepage_adjust,
    kvm_mmu_max_mapping_level,
    page_fault_handle_page_track,
)
from kvmodel.mmu.mmu_sync import get_spte, spte_to_child_sp
from kvmodel.mmu.spte import (
    kvm_mmu_page_ad_need_write_protect,
    make_huge_page_split_spte,
    make_mmio_spte,
    make_nonleaf_spte,
    make_spte,
    mark_spte_for_access_track,
)
from kvmodel.mmu.spte_h import (
    FROZEN_SPTE,
    SHADOW_NONPRESENT_VALUE,
    SPTE_MMU_PRESENT_MASK,
    is_accessed_spte,
    is_large_pte,
    is_last_spte,
    is_mmio_spte,
    is_shadow_present_pte,
    kvm_ad_enabled,
    spte_ad_enabled,
)


def tdp_mmu_alloc_sp(vcpu: Vcpu, gfn: int, role: int) -> kvm_mmu_page:
    """mmu/tdp_mmu.c tdp_mmu_alloc_sp and tdp_mmu_init_sp."""
    sp = kvm_mmu_page(vcpu.next_pa, gfn, role, vcpu.kvm.roles)
    vcpu.next_pa += PAGE_SIZE
    vcpu.pages[sp.pa] = sp
    return sp


def tdp_mmu_child_role(parent_role: int) -> int:
    """mmu/tdp_mmu.c tdp_mmu_init_child_sp: the parent's role, one level down."""
    return parent_role - 1


def kvm_tdp_mmu_alloc_root(vcpu: Vcpu) -> None:
    """mmu/tdp_mmu.c kvm_tdp_mmu_alloc_root for the current MMU."""
    vcpu.mmu.root = tdp_mmu_alloc_sp(vcpu, 0, vcpu.mmu.root_role)


def kvm_update_page_stats(vcpu: Vcpu, level: int, count: int) -> None:
    """mmu.h kvm_update_page_stats: pages_4k, pages_2m or pages_1g of struct kvm_vm_stat."""
    vcpu.count(("pages_4k", "pages_2m", "pages_1g")[level - 1], count)


def handle_removed_pt(vcpu: Vcpu, sp: kvm_mmu_page) -> None:
    """mmu/tdp_mmu.c handle_removed_pt: the table's entries go, and what they counted for."""
    if sp.possible_nx_huge_page:
        vcpu.count("nx_lpage_splits", -1)
    for index, spte in sp.spt.items():
        if is_shadow_present_pte(spte):
            if is_last_spte(spte, sp.level):
                kvm_update_page_stats(vcpu, sp.level, -1)
            else:
                handle_removed_pt(vcpu, spte_to_child_sp(vcpu, spte))
        sp.spt[index] = FROZEN_SPTE
    del vcpu.pages[sp.pa]


def _set_spte(vcpu: Vcpu, sp: kvm_mmu_page, index: int, gfn: int, new_spte: int) -> None:
    """mmu/tdp_mmu.c tdp_mmu_set_spte_atomic and handle_changed_spte: a table that is linked no longer is removed."""
    old_spte = get_spte(sp, index)
    if vcpu.trace is not None:
        vcpu.trace.append(("kvm_tdp_mmu_spte_changed", (0, gfn, sp.level, old_spte, new_spte)))
    was_leaf = is_shadow_present_pte(old_spte) and is_last_spte(old_spte, sp.level)
    is_leaf = is_shadow_present_pte(new_spte) and is_last_spte(new_spte, sp.level)
    if was_leaf != is_leaf:
        kvm_update_page_stats(vcpu, sp.level, 1 if is_leaf else -1)
    sp.spt[index] = new_spte
    vcpu.version += 1
    if is_shadow_present_pte(old_spte) and not was_leaf and (is_leaf or not is_shadow_present_pte(new_spte)):
        handle_removed_pt(vcpu, spte_to_child_sp(vcpu, old_spte))


def tdp_mmu_map_handle_target_level(vcpu: Vcpu, fault: kvm_page_fault, sp: kvm_mmu_page, index: int, gfn: int) -> int:
    """mmu/tdp_mmu.c tdp_mmu_map_handle_target_level: RET_PF_FIXED, _SPURIOUS, _EMULATE or _WRITE_PROTECTED."""
    kvm = vcpu.kvm
    old_spte = get_spte(sp, index)
    ret = RET_PF_FIXED
    wrprot = False
    if fault.slot is None:
        new_spte = make_mmio_spte(kvm, gfn, kvm.s.ACC_ALL)
    else:
        wrprot, new_spte = make_spte(
            vcpu, sp, fault.slot, kvm.s.ACC_ALL, gfn, fault.pfn, old_spte, fault.prefetch, True, fault.map_writable
        )
    if new_spte == old_spte:
        ret = RET_PF_SPURIOUS
    else:
        _set_spte(vcpu, sp, index, gfn, new_spte)
    if wrprot and fault.write:
        ret = RET_PF_WRITE_PROTECTED
    if is_mmio_spte(kvm, new_spte):
        vcpu.count("pf_mmio_spte_created")
        if vcpu.trace is not None:
            vcpu.trace.append(("mark_mmio_spte", (sp.pa + index * 8, gfn, new_spte)))
        ret = RET_PF_EMULATE
    elif vcpu.trace is not None:
        vcpu.trace.append(("kvm_mmu_set_spte", (sp.level, gfn, new_spte, sp.pa + index * 8)))
    if vcpu.steps is not None:
        vcpu.step("mmu/tdp_mmu.c tdp_mmu_map_handle_target_level", f"RET_PF_{RET_PF_NAMES[ret]}")
    return ret


def tdp_mmu_link_sp(vcpu: Vcpu, sp: kvm_mmu_page, index: int, gfn: int, child: kvm_mmu_page) -> None:
    """mmu/tdp_mmu.c tdp_mmu_link_sp."""
    spte = make_nonleaf_spte(vcpu.kvm, child.pa, not kvm_ad_enabled(vcpu.kvm))
    _set_spte(vcpu, sp, index, gfn, spte)


def tdp_mmu_split_huge_page(vcpu: Vcpu, sp: kvm_mmu_page, index: int, gfn: int, child: kvm_mmu_page) -> None:
    """mmu/tdp_mmu.c tdp_mmu_split_huge_page: 512 smaller entries with the huge one's permissions."""
    huge_spte = get_spte(sp, index)
    for i in range(512):
        child.spt[i] = make_huge_page_split_spte(vcpu.kvm, huge_spte, child.role, i)
    if vcpu.steps is not None:
        told = f"level {sp.level}: spte {huge_spte:#x} is split, its first child {child.spt[0]:#x}"
        by = 12 if child.spt[0] & ~huge_spte & vcpu.kvm.shadow_ux_mask else 0
        vcpu.step("mmu/spte.c make_huge_page_split_spte", told, by)
    tdp_mmu_link_sp(vcpu, sp, index, gfn, child)
    kvm_update_page_stats(vcpu, sp.level - 1, 512)


def kvm_tdp_mmu_map(vcpu: Vcpu, fault: kvm_page_fault) -> int:
    """mmu/tdp_mmu.c kvm_tdp_mmu_map. RET_PF_*."""
    kvm_mmu_hugepage_adjust(vcpu, fault)
    if vcpu.trace is not None:
        vcpu.trace.append(("kvm_mmu_spte_requested", (fault.gfn, fault.pfn, fault.goal_level)))
    sp = vcpu.mmu.root
    assert sp is not None
    while True:
        index = fault.gfn >> (sp.level - 1) * 9 & 511
        gfn = gfn_round_for_level(fault.gfn, sp.level)
        old_spte = get_spte(sp, index)
        if fault.nx_huge_page_workaround_enabled:
            disallowed_hugepage_adjust(vcpu, fault, old_spte, sp.level)
        if sp.level == fault.goal_level:
            return tdp_mmu_map_handle_target_level(vcpu, fault, sp, index, gfn)
        present = old_spte & SPTE_MMU_PRESENT_MASK
        if present and not old_spte & PT_PAGE_SIZE_MASK:
            sp = spte_to_child_sp(vcpu, old_spte)
            continue
        child = tdp_mmu_alloc_sp(vcpu, gfn, tdp_mmu_child_role(sp.role))
        child.nx_huge_page_disallowed = fault.huge_page_disallowed
        if present:
            tdp_mmu_split_huge_page(vcpu, sp, index, gfn, child)
        else:
            tdp_mmu_link_sp(vcpu, sp, index, gfn, child)
        if fault.huge_page_disallowed and fault.req_level >= sp.level:
            child.possible_nx_huge_page = True
            vcpu.count("nx_lpage_splits")
        sp = child


def kvm_tdp_mmu_page_fault(vcpu: Vcpu, fault: kvm_page_fault) -> int:
    """mmu/mmu.c kvm_tdp_mmu_page_fault (by way of kvm_tdp_page_fault). RET_PF_*."""
    if page_fault_handle_page_track(vcpu, fault):
        return RET_PF_WRITE_PROTECTED
    r = fast_page_fault(vcpu, fault)
    if r != RET_PF_INVALID:
        return r
    r = kvm_faultin_pfn(vcpu, fault)
    if r != RET_PF_CONTINUE:
        return r
    return kvm_tdp_mmu_map(vcpu, fault)


def age_gfn(vcpu: Vcpu, sp: kvm_mmu_page, index: int) -> bool:
    """mmu/tdp_mmu.c age_gfn_range for one entry: whether it was young; without A/D bits access tracking begins."""
    kvm = vcpu.kvm
    old_spte = get_spte(sp, index)
    if not is_accessed_spte(kvm, old_spte):
        return False
    if spte_ad_enabled(old_spte):
        new_spte = old_spte & ~kvm.shadow_accessed_mask
    else:
        new_spte = mark_spte_for_access_track(kvm, old_spte)
        if vcpu.steps is not None:
            by = 13 if old_spte & ~new_spte & kvm.shadow_ux_mask else 0
            vcpu.step("mmu/spte.c mark_spte_for_access_track", f"spte {old_spte:#x} becomes {new_spte:#x}", by)
    _set_spte(vcpu, sp, index, gfn_round_for_level(sp.gfn + (index << (sp.level - 1) * 9), sp.level), new_spte)
    return True


def _gfn(sp: kvm_mmu_page, index: int) -> int:
    return sp.gfn + (index << (sp.level - 1) * 9)


def for_each_tdp_pte(vcpu: Vcpu, slot: kvm_memory_slot, min_level: int = 1) -> Iterator[tuple[kvm_mmu_page, int]]:
    """mmu/tdp_iter.h for_each_tdp_pte_min_level over the slot: pre-order, (page, index) of each entry ever set."""
    root = vcpu.mmu.root
    assert root is not None
    todo = [root]
    while todo:
        sp = todo.pop()
        for index in sorted(sp.spt):
            gfn = _gfn(sp, index)
            if gfn + (1 << (sp.level - 1) * 9) <= slot.base_gfn or gfn >= slot.base_gfn + slot.npages:
                continue
            yield sp, index
            spte = get_spte(sp, index)
            if sp.level > min_level and is_shadow_present_pte(spte) and not is_last_spte(spte, sp.level):
                todo.append(spte_to_child_sp(vcpu, spte))


def _leaves(vcpu: Vcpu, slot: kvm_memory_slot, min_level: int = 1) -> Iterator[tuple[kvm_mmu_page, int, int]]:
    """mmu/tdp_mmu.c tdp_root_for_each_leaf_pte."""
    for sp, index in for_each_tdp_pte(vcpu, slot, min_level):
        spte = get_spte(sp, index)
        if is_shadow_present_pte(spte) and is_last_spte(spte, sp.level):
            yield sp, index, spte


def kvm_tdp_mmu_age_gfn_range(vcpu: Vcpu, slot: kvm_memory_slot) -> bool:
    """mmu/tdp_mmu.c kvm_tdp_mmu_age_gfn_range for the whole slot: whether any entry was young."""
    return any([age_gfn(vcpu, sp, index) for sp, index, _ in _leaves(vcpu, slot)])


def kvm_tdp_mmu_wrprot_slot(vcpu: Vcpu, slot: kvm_memory_slot, min_level: int) -> bool:
    """mmu/tdp_mmu.c kvm_tdp_mmu_wrprot_slot (wrprot_gfn_range): whether an entry changed."""
    changed = False
    for sp, index, spte in _leaves(vcpu, slot, min_level):
        if spte & PT_WRITABLE_MASK:
            _set_spte(vcpu, sp, index, _gfn(sp, index), spte & ~PT_WRITABLE_MASK)
            changed = True
    return changed


def tdp_mmu_need_write_protect(vcpu: Vcpu, sp: kvm_mmu_page) -> bool:
    """mmu/tdp_mmu.c tdp_mmu_need_write_protect."""
    return kvm_mmu_page_ad_need_write_protect(vcpu.kvm, sp) or not kvm_ad_enabled(vcpu.kvm)


def kvm_tdp_mmu_clear_dirty_slot(vcpu: Vcpu, slot: kvm_memory_slot) -> bool:
    """mmu/tdp_mmu.c kvm_tdp_mmu_clear_dirty_slot (clear_dirty_gfn_range): whether an entry changed."""
    assert vcpu.mmu.root is not None
    dbit = PT_WRITABLE_MASK if tdp_mmu_need_write_protect(vcpu, vcpu.mmu.root) else vcpu.kvm.shadow_dirty_mask
    changed = False
    for sp, index, spte in _leaves(vcpu, slot):
        if spte & dbit:
            _set_spte(vcpu, sp, index, _gfn(sp, index), spte & ~dbit)
            changed = True
    return changed


def kvm_tdp_mmu_clear_dirty_pt_masked(vcpu: Vcpu, slot: kvm_memory_slot, gfns: set[int], wrprot: bool) -> None:
    """mmu/tdp_mmu.c kvm_tdp_mmu_clear_dirty_pt_masked for the 4 KiB entries of ``gfns``."""
    assert vcpu.mmu.root is not None
    wrprot = wrprot or tdp_mmu_need_write_protect(vcpu, vcpu.mmu.root)
    dbit = PT_WRITABLE_MASK if wrprot else vcpu.kvm.shadow_dirty_mask
    for sp, index, spte in _leaves(vcpu, slot):
        if sp.level == 1 and _gfn(sp, index) in gfns and spte & dbit:
            _set_spte(vcpu, sp, index, _gfn(sp, index), spte & ~dbit)


def kvm_tdp_mmu_try_split_huge_pages(vcpu: Vcpu, slot: kvm_memory_slot, target_level: int) -> None:
    """mmu/tdp_mmu.c kvm_tdp_mmu_try_split_huge_pages (tdp_mmu_split_huge_pages_root)."""
    for sp, index in for_each_tdp_pte(vcpu, slot, target_level + 1):
        spte = get_spte(sp, index)
        if is_shadow_present_pte(spte) and is_large_pte(spte):
            gfn = _gfn(sp, index)
            child = tdp_mmu_alloc_sp(vcpu, gfn, tdp_mmu_child_role(sp.role))
            tdp_mmu_split_huge_page(vcpu, sp, index, gfn, child)


def kvm_tdp_mmu_zap_collapsible_sptes(vcpu: Vcpu, slot: kvm_memory_slot) -> None:
    """mmu/tdp_mmu.c kvm_tdp_mmu_zap_collapsible_sptes: tables go that a huge page may replace."""
    for sp, index in for_each_tdp_pte(vcpu, slot, PG_LEVEL_2M):
        spte = get_spte(sp, index)
        gfn = _gfn(sp, index)
        if sp.level > 3 or not is_shadow_present_pte(spte) or spte & PT_PAGE_SIZE_MASK:
            continue
        if not slot.base_gfn <= gfn < slot.base_gfn + slot.npages:
            continue
        if kvm_mmu_max_mapping_level(vcpu, slot, gfn, 5) < sp.level:
            continue
        _set_spte(vcpu, sp, index, gfn, SHADOW_NONPRESENT_VALUE)
