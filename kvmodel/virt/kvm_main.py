"""virt/kvm/kvm_main.c and arch/x86/kvm/x86.c: memory slots as user space changes them, and their dirty log."""

from __future__ import annotations

from typing import Final

from kvmodel.include.asm.kvm_host import Vcpu, kvm_memory_slot

KVM_MAX_NR_ADDRESS_SPACES: Final = 2  # asm/kvm_host.h, with SMM


def kvm_swap_active_memslots(vcpu: Vcpu) -> None:
    """virt/kvm/kvm_main.c kvm_swap_active_memslots: each change of a slot moves the generation on."""
    vcpu.kvm.generation += KVM_MAX_NR_ADDRESS_SPACES


def kvm_vcpu_gfn_to_memslot(vcpu: Vcpu, gfn: int) -> kvm_memory_slot | None:
    """virt/kvm/kvm_main.c kvm_vcpu_gfn_to_memslot: L1's RAM, or None."""
    if gfn < vcpu.ram_gfns:
        return vcpu.slot
    for slot in vcpu.further_slots:
        if slot.base_gfn <= gfn < slot.base_gfn + slot.npages:
            return slot
    return None


def mark_page_dirty_in_slot(slot: kvm_memory_slot, gfn: int) -> None:
    """virt/kvm/kvm_main.c mark_page_dirty_in_slot: into the slot's bitmap, where it is logged."""
    if slot.dirty_track:
        slot.dirty_bitmap.add(gfn)
