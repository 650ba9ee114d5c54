"""virt/kvm/kvm_main.c: a memory slot as user space changes it, and its dirty log."""

from __future__ import annotations

from kvmodel.include.asm.kvm_host import Vcpu, kvm_memory_slot
from kvmodel.mirrors import mirrors
from kvmodel.mmu.tdp_mmu import kvm_tdp_mmu_clear_dirty_pt_masked
from kvmodel.virt.kvm_main import kvm_swap_active_memslots
from kvmodel.x86_slots import kvm_mmu_slot_apply_flags


@mirrors("virt/kvm/kvm_main.c __kvm_set_memory_region")
def kvm_set_memory_region(vcpu: Vcpu, slot: kvm_memory_slot, log_dirty_pages: bool) -> None:
    """Dirty logging of ``slot`` goes on or off; as it is, nothing changes."""
    if slot.dirty_track == log_dirty_pages:
        return
    slot.dirty_track = log_dirty_pages
    slot.dirty_bitmap = set()
    kvm_swap_active_memslots(vcpu)
    kvm_mmu_slot_apply_flags(vcpu, slot, log_dirty_pages)


@mirrors("virt/kvm/kvm_main.c kvm_get_dirty_log_protect")
def kvm_get_dirty_log_protect(vcpu: Vcpu, slot: kvm_memory_slot) -> set[int]:
    """User space gets the gfns written; from now on they are watched anew."""
    dirty, slot.dirty_bitmap = slot.dirty_bitmap, set()
    wrprot = not vcpu.kvm.cpu_dirty_log_size
    kvm_tdp_mmu_clear_dirty_pt_masked(vcpu, slot, dirty, wrprot)
    return dirty
