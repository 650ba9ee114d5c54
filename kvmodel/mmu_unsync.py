"""arch/x86/kvm/mmu/mmu.c: which guest page tables are shadowed, and whether they may be written unshadowed."""

from __future__ import annotations

from typing import Final

from kvmodel.kvm_host import PG_LEVEL_4K, Vcpu, kvm_mmu_page

EPERM: Final = 1
EEXIST: Final = 17


def kvm_gfn_is_write_tracked(vcpu: Vcpu, gfn: int) -> bool:
    """mmu/page_track.c kvm_gfn_is_write_tracked: an upper-level guest table at ``gfn`` is shadowed."""
    return any(sp.level > PG_LEVEL_4K for sp in vcpu.indirect.get(gfn, ()))


def account_shadowed(vcpu: Vcpu, sp: kvm_mmu_page) -> None:
    """mmu/mmu.c account_shadowed: from now on ``sp.gfn`` holds a guest table that is shadowed."""
    vcpu.indirect.setdefault(sp.gfn, []).append(sp)


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
