"""arch/x86/kvm/mmu/tdp_iter.h: walking KVM's own EPT."""

from __future__ import annotations

from collections.abc import Iterator

from kvmodel.include.asm.kvm_host import Vcpu, kvm_memory_slot
from kvmodel.mirrors import mirrors
from kvmodel.mmu.mmu_internal import kvm_mmu_page
from kvmodel.mmu.spte_h import get_spte, is_last_spte, is_shadow_present_pte, spte_to_child_sp


def iter_gfn(sp: kvm_mmu_page, index: int) -> int:
    return sp.gfn + (index << (sp.level - 1) * 9)


@mirrors("mmu/tdp_iter.h for_each_tdp_pte_min_level")
def for_each_tdp_pte(vcpu: Vcpu, slot: kvm_memory_slot, min_level: int = 1) -> Iterator[tuple[kvm_mmu_page, int]]:
    """The walk over the slot gives, in pre-order, (page, index) of each entry ever set."""
    root = vcpu.mmu.root
    assert root is not None
    todo = [root]
    while todo:
        sp = todo.pop()
        for index in sorted(sp.spt):
            gfn = iter_gfn(sp, index)
            if gfn + (1 << (sp.level - 1) * 9) <= slot.base_gfn or gfn >= slot.base_gfn + slot.npages:
                continue
            yield sp, index
            spte = get_spte(sp, index)
            if sp.level > min_level and is_shadow_present_pte(spte) and not is_last_spte(spte, sp.level):
                todo.append(spte_to_child_sp(vcpu, spte))
