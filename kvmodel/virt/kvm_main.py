"""virt/kvm/kvm_main.c: memory slots as the MMU asks for them.

The other part of the file: ``kvm_main_slots`` (a slot as user space changes it).
"""

from __future__ import annotations

from typing import Final

from kvmodel.include.asm.kvm_host import Vcpu, kvm_memory_slot
from kvmodel.mirrors import mirrors

KVM_MAX_NR_ADDRESS_SPACES: Final = 2  # asm/kvm_host.h, with SMM


@mirrors("virt/kvm/kvm_main.c kvm_swap_active_memslots")
def kvm_swap_active_memslots(vcpu: Vcpu) -> None:
    """Each change of a slot moves the generation on."""
    vcpu.kvm.generation += KVM_MAX_NR_ADDRESS_SPACES


@mirrors("virt/kvm/kvm_main.c kvm_vcpu_gfn_to_memslot")
def kvm_vcpu_gfn_to_memslot(vcpu: Vcpu, gfn: int) -> kvm_memory_slot | None:
    """L1's RAM and the further slots are looked through for ``gfn_t gfn``; None where none has it."""
    if gfn < vcpu.ram_gfns:
        return vcpu.slot
    for slot in vcpu.further_slots:
        if slot.base_gfn <= gfn < slot.base_gfn + slot.npages:
            return slot
    return None


@mirrors("virt/kvm/kvm_main.c mark_page_dirty_in_slot")
def mark_page_dirty_in_slot(slot: kvm_memory_slot, gfn: int) -> None:
    """A write goes into the slot's bitmap, where it is logged. ``gfn_t gfn``."""
    if slot.dirty_track:
        slot.dirty_bitmap.add(gfn)
