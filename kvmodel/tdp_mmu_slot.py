"""arch/x86/kvm/mmu/tdp_mmu.c: what is done to a whole memory slot: aging, dirty logging, splitting, zapping."""

from __future__ import annotations

from collections.abc import Iterator

from kvmodel.kvm_host import (
    PG_LEVEL_2M,
    PT_PAGE_SIZE_MASK,
    PT_WRITABLE_MASK,
    Vcpu,
    kvm_memory_slot,
    kvm_mmu_page,
)
from kvmodel.mmu import kvm_mmu_max_mapping_level
from kvmodel.mmu_spte import get_spte, spte_to_child_sp
from kvmodel.spte import kvm_mmu_page_ad_need_write_protect
from kvmodel.spte_h import (
    SHADOW_NONPRESENT_VALUE,
    is_large_pte,
    is_last_spte,
    is_shadow_present_pte,
    kvm_ad_enabled,
)
from kvmodel.tdp_mmu import (
    _set_spte,
    age_gfn,
    tdp_mmu_alloc_sp,
    tdp_mmu_child_role,
    tdp_mmu_split_huge_page,
)


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
