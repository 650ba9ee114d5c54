"""arch/x86/kvm/mmu/mmu.c: which guest page tables are shadowed, and whether they may be written unshadowed."""

from __future__ import annotations

from typing import Final

from kvmodel.kvm_host import PG_LEVEL_4K, PT_PAGE_SIZE_MASK, PT_WRITABLE_MASK, Vcpu, kvm_mmu_page
from kvmodel.mmu_role import kvm_mmu_page_get_gfn
from kvmodel.mmu_spte import __set_spte, get_spte
from kvmodel.spte_h import is_shadow_present_pte

EPERM: Final = 1
EEXIST: Final = 17


def kvm_gfn_is_write_tracked(vcpu: Vcpu, gfn: int) -> bool:
    """mmu/page_track.c kvm_gfn_is_write_tracked: an upper-level guest table at ``gfn`` is shadowed."""
    return any(sp.level > PG_LEVEL_4K for sp in vcpu.indirect.get(gfn, ()))


def spte_write_protect(vcpu: Vcpu, sp: kvm_mmu_page, index: int) -> None:
    """mmu/mmu.c spte_write_protect where it protects a page table."""
    spte = get_spte(sp, index)
    writable = PT_WRITABLE_MASK | vcpu.kvm.shadow_mmu_writable_mask
    if spte & writable:
        __set_spte(vcpu, sp, index, spte & ~writable)


def kvm_mmu_slot_gfn_write_protect(vcpu: Vcpu, gfn: int) -> None:
    """mmu/mmu.c kvm_mmu_slot_gfn_write_protect: every shadow entry that maps ``gfn``, which KVM finds by its rmaps.

    Only where L2 is given one of the tables that it runs on. L1's own mapping is not followed here
    (``write_guest_table``).
    """
    leaves = [
        (sp, index)
        for sp in vcpu.pages.values()
        for index, spte in sp.spt.items()
        if (sp.level == PG_LEVEL_4K or spte & PT_PAGE_SIZE_MASK) and is_shadow_present_pte(spte)
    ]
    for sp, index in leaves:
        shift = (sp.level - 1) * 9
        if kvm_mmu_page_get_gfn(sp, index) >> shift == gfn >> shift:
            spte_write_protect(vcpu, sp, index)


def account_shadowed(vcpu: Vcpu, sp: kvm_mmu_page) -> None:
    """mmu/mmu.c account_shadowed: from now on ``sp.gfn`` holds a guest table that is shadowed."""
    vcpu.indirect.setdefault(sp.gfn, []).append(sp)
    kvm_mmu_slot_gfn_write_protect(vcpu, sp.gfn)


def unaccount_shadowed(vcpu: Vcpu, sp: kvm_mmu_page) -> None:
    """mmu/mmu.c unaccount_shadowed."""
    vcpu.indirect[sp.gfn].remove(sp)


def mark_unsync(sp: kvm_mmu_page, index: int) -> None:
    """mmu/mmu.c mark_unsync: below entry ``index`` of ``sp`` a page is out of step; told on upwards once."""
    if index in sp.unsync_child_bitmap:
        return
    sp.unsync_child_bitmap.add(index)
    if len(sp.unsync_child_bitmap) == 1:
        kvm_mmu_mark_parents_unsync(sp)


def kvm_mmu_mark_parents_unsync(sp: kvm_mmu_page) -> None:
    """mmu/mmu.c kvm_mmu_mark_parents_unsync."""
    for parent, index in sp.parent_ptes:
        mark_unsync(parent, index)


def kvm_unsync_page(vcpu: Vcpu, sp: kvm_mmu_page) -> None:
    """mmu/mmu.c kvm_unsync_page: the guest table may be written, and ``sp`` no longer follows it."""
    sp.unsync = True
    kvm_mmu_mark_parents_unsync(sp)
    if vcpu.steps is not None:
        vcpu.step(
            "mmu/mmu.c kvm_unsync_page", f"the table at gfn {sp.gfn:#x} may be written, its shadow page is unsync"
        )


def mmu_try_to_unsync_pages(vcpu: Vcpu, gfn: int, can_unsync: bool, prefetch: bool) -> int:
    """mmu/mmu.c mmu_try_to_unsync_pages: 0, or a negative errno where the SPTE must be write-protected."""
    pages = vcpu.indirect.get(gfn)
    if not pages:
        return 0
    if kvm_gfn_is_write_tracked(vcpu, gfn):
        return -EPERM
    for sp in pages:
        if not can_unsync:
            return -EPERM
        if sp.unsync:
            continue
        if prefetch:
            return -EEXIST
        kvm_unsync_page(vcpu, sp)
    return 0
