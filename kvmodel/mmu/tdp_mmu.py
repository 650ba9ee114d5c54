"""arch/x86/kvm/mmu/tdp_mmu.c: KVM's own EPT for L1. SPTEs are 64 bits, gfns 52."""

from __future__ import annotations

from collections.abc import Iterator

from kvmodel.include.asm.kvm_host import PAGE_SIZE, PG_LEVEL_2M, Vcpu, kvm_memory_slot
from kvmodel.mirrors import mirrors
from kvmodel.mmu.mmu import (
    disallowed_hugepage_adjust,
    kvm_mmu_hugepage_adjust,
    kvm_mmu_max_mapping_level,
)
from kvmodel.mmu.mmu_internal import (
    RET_PF_EMULATE,
    RET_PF_FIXED,
    RET_PF_NAMES,
    RET_PF_SPURIOUS,
    RET_PF_WRITE_PROTECTED,
    gfn_round_for_level,
    kvm_mmu_page,
    kvm_mmu_page_ad_need_write_protect,
    kvm_page_fault,
)
from kvmodel.mmu.spte import (
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
    get_spte,
    is_accessed_spte,
    is_large_pte,
    is_last_spte,
    is_mmio_spte,
    is_shadow_present_pte,
    kvm_ad_enabled,
    spte_ad_enabled,
    spte_to_child_sp,
)
from kvmodel.mmu.tdp_iter_h import for_each_tdp_pte, iter_gfn
from kvmodel.mmu_h import PT_PAGE_SIZE_MASK, PT_WRITABLE_MASK, kvm_update_page_stats
from kvmodel.narration import narrate, trace


@mirrors("mmu/tdp_mmu.c tdp_mmu_alloc_sp", "mmu/tdp_mmu.c tdp_mmu_init_sp")
def tdp_mmu_alloc_sp(vcpu: Vcpu, gfn: int, role: int) -> kvm_mmu_page:
    """KVM makes a page of its own EPT: ``gfn_t gfn``, ``u32 role``."""
    sp = kvm_mmu_page(vcpu.next_pa, gfn, role, vcpu.kvm.roles)
    vcpu.next_pa += PAGE_SIZE
    vcpu.pages[sp.pa] = sp
    return sp


@mirrors("mmu/tdp_mmu.c tdp_mmu_init_child_sp")
def tdp_mmu_child_role(parent_role: int) -> int:
    """The child has the parent's ``u32`` role, one level down."""
    return parent_role - 1


@mirrors("mmu/tdp_mmu.c kvm_tdp_mmu_alloc_root")
def kvm_tdp_mmu_alloc_root(vcpu: Vcpu) -> None:
    """The current MMU gets its root."""
    vcpu.mmu.root = tdp_mmu_alloc_sp(vcpu, 0, vcpu.mmu.root_role)


@mirrors("mmu/tdp_mmu.c handle_removed_pt")
def handle_removed_pt(vcpu: Vcpu, sp: kvm_mmu_page) -> None:
    """The table's entries go, and what they counted for."""
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


@mirrors("mmu/tdp_mmu.c tdp_mmu_set_spte_atomic", "mmu/tdp_mmu.c handle_changed_spte")
def _set_spte(vcpu: Vcpu, sp: kvm_mmu_page, index: int, gfn: int, new_spte: int) -> None:
    """The entry is set; a table that is linked no longer is removed."""
    old_spte = get_spte(sp, index)
    trace(vcpu, "kvm_tdp_mmu_spte_changed", 0, gfn, sp.level, old_spte, new_spte)
    was_leaf = is_shadow_present_pte(old_spte) and is_last_spte(old_spte, sp.level)
    is_leaf = is_shadow_present_pte(new_spte) and is_last_spte(new_spte, sp.level)
    if was_leaf != is_leaf:
        kvm_update_page_stats(vcpu, sp.level, 1 if is_leaf else -1)
    sp.spt[index] = new_spte
    vcpu.version += 1
    if is_shadow_present_pte(old_spte) and not was_leaf and (is_leaf or not is_shadow_present_pte(new_spte)):
        handle_removed_pt(vcpu, spte_to_child_sp(vcpu, old_spte))


@mirrors("mmu/tdp_mmu.c tdp_mmu_map_handle_target_level", patches=(14,))
def tdp_mmu_map_handle_target_level(vcpu: Vcpu, fault: kvm_page_fault, sp: kvm_mmu_page, index: int, gfn: int) -> int:
    """The function answers RET_PF_FIXED, _SPURIOUS, _EMULATE or _WRITE_PROTECTED."""
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
        trace(vcpu, "mark_mmio_spte", sp.pa + index * 8, gfn, new_spte)
        ret = RET_PF_EMULATE
    else:
        trace(vcpu, "kvm_mmu_set_spte", sp.level, gfn, new_spte, sp.pa + index * 8)
    narrate(vcpu, "RET_PF_{}", RET_PF_NAMES[ret])
    return ret


@mirrors("mmu/tdp_mmu.c tdp_mmu_link_sp")
def tdp_mmu_link_sp(vcpu: Vcpu, sp: kvm_mmu_page, index: int, gfn: int, child: kvm_mmu_page) -> None:
    """The entry links ``child``."""
    spte = make_nonleaf_spte(vcpu.kvm, child.pa, not kvm_ad_enabled(vcpu.kvm))
    _set_spte(vcpu, sp, index, gfn, spte)


@mirrors("mmu/tdp_mmu.c tdp_mmu_split_huge_page")
def tdp_mmu_split_huge_page(vcpu: Vcpu, sp: kvm_mmu_page, index: int, gfn: int, child: kvm_mmu_page) -> None:
    """512 smaller entries take the huge one's place and permissions."""
    huge_spte = get_spte(sp, index)
    for i in range(512):
        child.spt[i] = make_huge_page_split_spte(vcpu.kvm, huge_spte, child.role, i)
    narrate(
        vcpu,
        "level {}: spte {:#x} is split, its first child {:#x}",
        *(sp.level, huge_spte, child.spt[0]),
        of=make_huge_page_split_spte,
        by=child.spt[0] & ~huge_spte & vcpu.kvm.shadow_ux_mask,
    )
    tdp_mmu_link_sp(vcpu, sp, index, gfn, child)
    kvm_update_page_stats(vcpu, sp.level - 1, 512)


@mirrors("mmu/tdp_mmu.c kvm_tdp_mmu_map")
def kvm_tdp_mmu_map(vcpu: Vcpu, fault: kvm_page_fault) -> int:
    """KVM maps the fault's page in its own EPT. RET_PF_*."""
    kvm_mmu_hugepage_adjust(vcpu, fault)
    trace(vcpu, "kvm_mmu_spte_requested", fault.gfn, fault.pfn, fault.goal_level)
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


@mirrors("mmu/tdp_mmu.c age_gfn_range")
def age_gfn(vcpu: Vcpu, sp: kvm_mmu_page, index: int) -> bool:
    """One entry was young (True) or not; without A/D bits access tracking begins."""
    kvm = vcpu.kvm
    old_spte = get_spte(sp, index)
    if not is_accessed_spte(kvm, old_spte):
        return False
    if spte_ad_enabled(old_spte):
        new_spte = old_spte & ~kvm.shadow_accessed_mask
    else:
        new_spte = mark_spte_for_access_track(kvm, old_spte)
        narrate(
            vcpu,
            "spte {:#x} becomes {:#x}",
            *(old_spte, new_spte),
            of=mark_spte_for_access_track,
            patch=13 if old_spte & ~new_spte & kvm.shadow_ux_mask else 0,
        )
    _set_spte(vcpu, sp, index, gfn_round_for_level(sp.gfn + (index << (sp.level - 1) * 9), sp.level), new_spte)
    return True


@mirrors("mmu/tdp_mmu.c tdp_root_for_each_leaf_pte")
def _leaves(vcpu: Vcpu, slot: kvm_memory_slot, min_level: int = 1) -> Iterator[tuple[kvm_mmu_page, int, int]]:
    """The walk over the slot gives the entries that map memory."""
    for sp, index in for_each_tdp_pte(vcpu, slot, min_level):
        spte = get_spte(sp, index)
        if is_shadow_present_pte(spte) and is_last_spte(spte, sp.level):
            yield sp, index, spte


@mirrors("mmu/tdp_mmu.c kvm_tdp_mmu_age_gfn_range")
def kvm_tdp_mmu_age_gfn_range(vcpu: Vcpu, slot: kvm_memory_slot) -> bool:
    """The whole slot is aged: True where any entry was young."""
    return any([age_gfn(vcpu, sp, index) for sp, index, _ in _leaves(vcpu, slot)])


@mirrors("mmu/tdp_mmu.c kvm_tdp_mmu_wrprot_slot")
def kvm_tdp_mmu_wrprot_slot(vcpu: Vcpu, slot: kvm_memory_slot, min_level: int) -> bool:
    """The whole slot is write-protected (wrprot_gfn_range): True where an entry changed."""
    changed = False
    for sp, index, spte in _leaves(vcpu, slot, min_level):
        if spte & PT_WRITABLE_MASK:
            _set_spte(vcpu, sp, index, iter_gfn(sp, index), spte & ~PT_WRITABLE_MASK)
            changed = True
    return changed


@mirrors("mmu/tdp_mmu.c tdp_mmu_need_write_protect")
def tdp_mmu_need_write_protect(vcpu: Vcpu, sp: kvm_mmu_page) -> bool:
    """Dirty pages of ``sp`` are found by write protection, not by the dirty bit: True."""
    return kvm_mmu_page_ad_need_write_protect(vcpu.kvm, sp) or not kvm_ad_enabled(vcpu.kvm)


@mirrors("mmu/tdp_mmu.c kvm_tdp_mmu_clear_dirty_slot")
def kvm_tdp_mmu_clear_dirty_slot(vcpu: Vcpu, slot: kvm_memory_slot) -> bool:
    """The whole slot becomes clean (clear_dirty_gfn_range): True where an entry changed."""
    assert vcpu.mmu.root is not None
    dbit = PT_WRITABLE_MASK if tdp_mmu_need_write_protect(vcpu, vcpu.mmu.root) else vcpu.kvm.shadow_dirty_mask
    changed = False
    for sp, index, spte in _leaves(vcpu, slot):
        if spte & dbit:
            _set_spte(vcpu, sp, index, iter_gfn(sp, index), spte & ~dbit)
            changed = True
    return changed


@mirrors("mmu/tdp_mmu.c kvm_tdp_mmu_clear_dirty_pt_masked")
def kvm_tdp_mmu_clear_dirty_pt_masked(vcpu: Vcpu, slot: kvm_memory_slot, gfns: set[int], wrprot: bool) -> None:
    """The 4 KiB entries of ``gfns`` become clean."""
    assert vcpu.mmu.root is not None
    wrprot = wrprot or tdp_mmu_need_write_protect(vcpu, vcpu.mmu.root)
    dbit = PT_WRITABLE_MASK if wrprot else vcpu.kvm.shadow_dirty_mask
    for sp, index, spte in _leaves(vcpu, slot):
        if sp.level == 1 and iter_gfn(sp, index) in gfns and spte & dbit:
            _set_spte(vcpu, sp, index, iter_gfn(sp, index), spte & ~dbit)


@mirrors("mmu/tdp_mmu.c kvm_tdp_mmu_try_split_huge_pages")
def kvm_tdp_mmu_try_split_huge_pages(vcpu: Vcpu, slot: kvm_memory_slot, target_level: int) -> None:
    """Huge pages of the slot are split down to ``target_level`` (tdp_mmu_split_huge_pages_root)."""
    for sp, index in for_each_tdp_pte(vcpu, slot, target_level + 1):
        spte = get_spte(sp, index)
        if is_shadow_present_pte(spte) and is_large_pte(spte):
            gfn = iter_gfn(sp, index)
            child = tdp_mmu_alloc_sp(vcpu, gfn, tdp_mmu_child_role(sp.role))
            tdp_mmu_split_huge_page(vcpu, sp, index, gfn, child)


@mirrors("mmu/tdp_mmu.c kvm_tdp_mmu_zap_collapsible_sptes")
def kvm_tdp_mmu_zap_collapsible_sptes(vcpu: Vcpu, slot: kvm_memory_slot) -> None:
    """Tables go that a huge page may replace."""
    for sp, index in for_each_tdp_pte(vcpu, slot, PG_LEVEL_2M):
        spte = get_spte(sp, index)
        gfn = iter_gfn(sp, index)
        if sp.level > 3 or not is_shadow_present_pte(spte) or spte & PT_PAGE_SIZE_MASK:
            continue
        if not slot.base_gfn <= gfn < slot.base_gfn + slot.npages:
            continue
        if kvm_mmu_max_mapping_level(vcpu, slot, gfn, 5) < sp.level:
            continue
        _set_spte(vcpu, sp, index, gfn, SHADOW_NONPRESENT_VALUE)
