"""arch/x86/kvm/x86.c: what a changed memory slot means for the MMU."""

from __future__ import annotations

from kvmodel.include.asm.kvm_host import PG_LEVEL_2M, PG_LEVEL_4K, Vcpu, kvm_memory_slot
from kvmodel.mirrors import mirrors
from kvmodel.mmu.tdp_mmu import (
    kvm_tdp_mmu_clear_dirty_slot,
    kvm_tdp_mmu_try_split_huge_pages,
    kvm_tdp_mmu_wrprot_slot,
    kvm_tdp_mmu_zap_collapsible_sptes,
)


@mirrors("x86.c kvm_mmu_slot_apply_flags")
def kvm_mmu_slot_apply_flags(vcpu: Vcpu, slot: kvm_memory_slot, log_dirty_pages: bool) -> None:
    """A slot's logging is switched, with eager_page_split as by default."""
    if not log_dirty_pages:
        kvm_tdp_mmu_zap_collapsible_sptes(vcpu, slot)
        return
    kvm_tdp_mmu_try_split_huge_pages(vcpu, slot, PG_LEVEL_4K)
    if vcpu.kvm.cpu_dirty_log_size:
        kvm_tdp_mmu_clear_dirty_slot(vcpu, slot)
        kvm_tdp_mmu_wrprot_slot(vcpu, slot, PG_LEVEL_2M)
    else:
        kvm_tdp_mmu_wrprot_slot(vcpu, slot, PG_LEVEL_4K)
