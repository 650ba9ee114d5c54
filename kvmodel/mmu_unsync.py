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
        sp.unsync = True
    return 0
