"""arch/x86/kvm/mmu/mmu.c: bringing shadow pages back in step with the guest tables they shadow."""

from __future__ import annotations

from kvmodel.kvm_host import Vcpu, kvm_mmu_page
from kvmodel.mmu import shadow_walk
from kvmodel.mmu_role import kvm_sync_page_check
from kvmodel.mmu_sp import drop_spte, get_spte
from kvmodel.spte_h import SHADOW_NONPRESENT_VALUE


def kvm_sync_spte(vcpu: Vcpu, sp: kvm_mmu_page, i: int) -> int:
    """mmu/mmu.c kvm_sync_spte: -1 failed, 0 kept, 1 changed."""
    if get_spte(sp, i) == SHADOW_NONPRESENT_VALUE or vcpu.mmu.sync_spte is None:
        return 0
    return vcpu.mmu.sync_spte(vcpu, sp, i)


def kvm_sync_page(vcpu: Vcpu, sp: kvm_mmu_page) -> int:
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


def kvm_mmu_invalidate_addr(vcpu: Vcpu, addr: int) -> None:
    """mmu/mmu.c __kvm_mmu_invalidate_addr for the current root: unsynced entries on the way are synced."""
    if vcpu.mmu.sync_spte is None:
        return
    for sp, index, _ in shadow_walk(vcpu, addr):
        if sp.unsync and kvm_sync_spte(vcpu, sp, index) < 0:
            drop_spte(vcpu, sp, index)
