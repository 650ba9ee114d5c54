"""arch/x86/kvm/mmu/mmu.c: what becomes of shadow pages when L1 writes to a table that they shadow."""

from __future__ import annotations

from kvmodel.kvm_host import PAGE_SHIFT, PG_LEVEL_4K, Vcpu, kvm_mmu_page
from kvmodel.mmu_sync import kvm_mmu_prepare_zap_page, mmu_page_zap_pte
from kvmodel.mmu_unsync import kvm_gfn_is_write_tracked, mmu_try_to_unsync_pages


def detect_write_flooding(sp: kvm_mmu_page) -> bool:
    """mmu/mmu.c detect_write_flooding: the third write to an upper table without a walk through it in between."""
    if sp.level == PG_LEVEL_4K:
        return False
    sp.write_flooding_count += 1
    return sp.write_flooding_count >= 3


def kvm_mmu_track_write(vcpu: Vcpu, gpa: int) -> None:
    """mmu/mmu.c kvm_mmu_track_write for an aligned write of 8 bytes: the entry is zapped, or the whole page."""
    gfn, index = gpa >> PAGE_SHIFT, (gpa & 0xFFF) >> 3
    for sp in list(vcpu.indirect.get(gfn, ())):
        if detect_write_flooding(sp):
            if vcpu.steps is not None:
                vcpu.step("mmu/mmu.c detect_write_flooding", f"level {sp.level}: the shadow page is zapped")
            kvm_mmu_prepare_zap_page(vcpu, sp)
            continue
        mmu_page_zap_pte(vcpu, sp, index)
        if vcpu.steps is not None:
            vcpu.step("mmu/mmu.c kvm_mmu_track_write", f"level {sp.level}: shadow entry {index} is zapped")


def write_guest_table(vcpu: Vcpu, gpa: int, entry: int) -> None:
    """L1 writes ``entry``, 64 bits, to a table of its own.

    A shadowed upper table is write-tracked: the write is emulated, and KVM sees it. A last-level table becomes
    writable, its shadow pages unsync, and KVM learns nothing of this write or the next.
    """
    if kvm_gfn_is_write_tracked(vcpu, gpa >> PAGE_SHIFT):
        vcpu.memory[gpa] = entry
        kvm_mmu_track_write(vcpu, gpa)
        return
    mmu_try_to_unsync_pages(vcpu, gpa >> PAGE_SHIFT, True, False)
    vcpu.memory[gpa] = entry
