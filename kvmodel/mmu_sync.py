"""arch/x86/kvm/mmu/mmu.c: bringing shadow pages back in step with the guest tables they shadow, and zapping them."""

from __future__ import annotations

from collections.abc import Sequence

from kvmodel.kvm_host import PG_LEVEL_4K, Vcpu, kvm_mmu_page
from kvmodel.mmu_role import kvm_sync_page_check
from kvmodel.mmu_spte import drop_parent_pte, drop_spte, get_spte, shadow_walk, spte_to_child_sp
from kvmodel.mmu_unsync import kvm_mmu_slot_gfn_write_protect, unaccount_shadowed
from kvmodel.spte_h import SHADOW_NONPRESENT_VALUE, is_large_pte, is_last_spte, is_mmio_spte, is_shadow_present_pte

_Path = tuple[tuple[kvm_mmu_page, int], ...]  # the entries that lead to a page, from the top


def kvm_sync_spte(vcpu: Vcpu, sp: kvm_mmu_page, i: int) -> int:
    """mmu/mmu.c kvm_sync_spte: -1 failed, 0 kept, 1 changed."""
    if get_spte(sp, i) == SHADOW_NONPRESENT_VALUE or vcpu.mmu.sync_spte is None:
        return 0
    return vcpu.mmu.sync_spte(vcpu, sp, i)


def __kvm_sync_page(vcpu: Vcpu, sp: kvm_mmu_page) -> int:
    """mmu/mmu.c __kvm_sync_page: every entry of ``sp``; -1 where the role forbids it, else whether to flush."""
    if not kvm_sync_page_check(vcpu, sp):
        return -1
    flush = 0
    for i in sorted(sp.spt):
        ret = kvm_sync_spte(vcpu, sp, i)
        if ret < -1:
            return -1
        flush |= ret
    return flush


def kvm_sync_page(vcpu: Vcpu, sp: kvm_mmu_page) -> int:
    """mmu/mmu.c kvm_sync_page: as ``__kvm_sync_page``; a page that cannot be synced is zapped."""
    ret = __kvm_sync_page(vcpu, sp)
    if ret < 0:
        kvm_mmu_prepare_zap_page(vcpu, sp)
    if vcpu.steps is not None:
        vcpu.step("mmu/mmu.c kvm_sync_page", f"table {sp.gfn:#x}, role.access {sp.access:#x}: {ret}")
    return ret


def mmu_unsync_walk(vcpu: Vcpu, sp: kvm_mmu_page, path: _Path = ()) -> list[tuple[kvm_mmu_page, _Path]]:
    """mmu/mmu.c mmu_unsync_walk: the unsync pages below ``sp`` with their paths; marks that lead to none go."""
    found = []
    for i in sorted(sp.unsync_child_bitmap):
        ent = get_spte(sp, i)
        below: list[tuple[kvm_mmu_page, _Path]] = []
        if is_shadow_present_pte(ent) and not is_large_pte(ent):
            child = spte_to_child_sp(vcpu, ent)
            here = (*path, (sp, i))
            if child.unsync_child_bitmap:
                below = mmu_unsync_walk(vcpu, child, here)
            elif child.unsync:
                below = [(child, here)]
        if not below:
            sp.unsync_child_bitmap.discard(i)
        found += below
    return found


def mmu_pages_clear_parents(path: _Path) -> None:
    """mmu/mmu.c mmu_pages_clear_parents: the marks that led to a page that is in step again."""
    for sp, i in reversed(path):
        sp.unsync_child_bitmap.discard(i)
        if sp.unsync_child_bitmap:
            return


def mmu_sync_children(vcpu: Vcpu, parent: kvm_mmu_page) -> None:
    """mmu/mmu.c mmu_sync_children: every unsync page below ``parent`` is write-protected again and synced."""
    while found := mmu_unsync_walk(vcpu, parent):
        for sp, _ in found:
            kvm_mmu_slot_gfn_write_protect(vcpu, sp.gfn)
        for sp, path in found:
            sp.unsync = False
            kvm_sync_page(vcpu, sp)
            mmu_pages_clear_parents(path)


def mmu_page_zap_pte(vcpu: Vcpu, sp: kvm_mmu_page, index: int, zap_children: bool = False) -> None:
    """mmu/mmu.c mmu_page_zap_pte; ``zap_children``: an invalid_list is given, tables that nothing links go too."""
    pte = get_spte(sp, index)
    if is_shadow_present_pte(pte):
        if is_last_spte(pte, sp.level):
            drop_spte(vcpu, sp, index)
            return
        child = spte_to_child_sp(vcpu, pte)
        drop_parent_pte(vcpu, sp, index)
        if zap_children and vcpu.kvm.tdp_enabled and child.guest_mode and not child.parent_ptes:
            kvm_mmu_prepare_zap_page(vcpu, child)
    elif is_mmio_spte(vcpu.kvm, pte):
        drop_spte(vcpu, sp, index)


def kvm_mmu_prepare_zap_page(vcpu: Vcpu, sp: kvm_mmu_page) -> None:
    """mmu/mmu.c __kvm_mmu_prepare_zap_page: ``sp`` is emptied, unlinked and no longer found; a root is unloaded."""
    if sp.level > PG_LEVEL_4K:
        while found := mmu_unsync_walk(vcpu, sp):
            for child, path in found:
                kvm_mmu_prepare_zap_page(vcpu, child)
                mmu_pages_clear_parents(path)
    for i in list(sp.spt):
        mmu_page_zap_pte(vcpu, sp, i, True)
    for parent, index in list(sp.parent_ptes):
        drop_parent_pte(vcpu, parent, index)
    del vcpu.hash[sp.gfn, sp.role]
    if not sp.direct:
        unaccount_shadowed(vcpu, sp)
    sp.unsync = False
    # KVM_REQ_MMU_FREE_OBSOLETE_ROOTS, served before the next VM entry
    mmu = vcpu.guest_mmu
    if mmu.root is sp:
        mmu.root = None
    mmu.prev_roots = [None if root is not None and root[1] is sp else root for root in mmu.prev_roots]


def kvm_mmu_invalidate_addr(vcpu: Vcpu, addr: int, roots: Sequence[kvm_mmu_page] | None = None) -> None:
    """mmu/mmu.c kvm_mmu_invalidate_addr: unsync entries on the way to ``addr`` are synced.

    ``roots`` None is the current one alone.
    """
    if vcpu.mmu.sync_spte is None:
        return
    for root in roots if roots is not None else (vcpu.mmu.root,):
        for sp, index, _ in shadow_walk(vcpu, addr, root):
            if sp.unsync and kvm_sync_spte(vcpu, sp, index) < 0:
                mmu_page_zap_pte(vcpu, sp, index)
            if not sp.unsync_child_bitmap:
                break
