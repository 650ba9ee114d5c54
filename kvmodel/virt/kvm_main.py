"""virt/kvm/kvm_main.c and arch/x86/kvm/x86.c: memory slots as user space changes them, and their dirty log."""

from __future__ import annotations

from typing import Final

from kvmodel.include.asm.kvm_host import PG_LEVEL_2M, PG_LEVEL_4K, Vcpu, kvm_memory_slot
from kvmodel.mmu.tdp_mmu import (
    kvm_tdp_mmu_clear_dirty_pt_masked,
    kvm_tdp_mmu_clear_dirty_slot,
    kvm_tdp_mmu_try_split_huge_pages,
    kvm_tdp_mmu_wrprot_slot,
    kvm_tdp_mmu_zap_collapsible_sptes,
)

KVM_MAX_NR_ADDRESS_SPACES: Final = 2  # asm/kvm_host.h, with SMM


def kvm_swap_active_memslots(vcpu: Vcpu) -> None:
    """virt/kvm/kvm_main.c kvm_swap_active_memslots: each change of a slot moves the generation on."""
    vcpu.kvm.generation += KVM_MAX_NR_ADDRESS_SPACES


def kvm_mmu_slot_apply_flags(vcpu: Vcpu, slot: kvm_memory_slot, log_dirty_pages: bool) -> None:
    """x86.c kvm_mmu_slot_apply_flags for a slot whose logging is switched, with eager_page_split as by default."""
    if not log_dirty_pages:
        kvm_tdp_mmu_zap_collapsible_sptes(vcpu, slot)
        return
    kvm_tdp_mmu_try_split_huge_pages(vcpu, slot, PG_LEVEL_4K)
    if vcpu.kvm.cpu_dirty_log_size:
        kvm_tdp_mmu_clear_dirty_slot(vcpu, slot)
        kvm_tdp_mmu_wrprot_slot(vcpu, slot, PG_LEVEL_2M)
    else:
        kvm_tdp_mmu_wrprot_slot(vcpu, slot, PG_LEVEL_4K)


def kvm_set_memory_region(vcpu: Vcpu, slot: kvm_memory_slot, log_dirty_pages: bool) -> None:
    """virt/kvm/kvm_main.c __kvm_set_memory_region: dirty logging of ``slot`` on or off; as it is, nothing changes."""
    if slot.dirty_track == log_dirty_pages:
        return
    slot.dirty_track = log_dirty_pages
    slot.dirty_bitmap = set()
    kvm_swap_active_memslots(vcpu)
    kvm_mmu_slot_apply_flags(vcpu, slot, log_dirty_pages)


def kvm_get_dirty_log_protect(vcpu: Vcpu, slot: kvm_memory_slot) -> set[int]:
    """virt/kvm/kvm_main.c kvm_get_dirty_log_protect: the gfns written; from now on they are watched anew."""
    dirty, slot.dirty_bitmap = slot.dirty_bitmap, set()
    wrprot = not vcpu.kvm.cpu_dirty_log_size
    kvm_tdp_mmu_clear_dirty_pt_masked(vcpu, slot, dirty, wrprot)
    return dirty
