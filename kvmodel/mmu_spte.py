"""arch/x86/kvm/mmu/mmu.c: single shadow entries, the walk over them, and who links whom.

A ``u64 *sptep`` of the C is a (page, index) pair here.
"""

from __future__ import annotations

from collections.abc import Iterator

from kvmodel.kvm_host import PAGE_SHIFT, Vcpu, kvm_mmu_page
from kvmodel.spte_h import SHADOW_NONPRESENT_VALUE, SPTE_BASE_ADDR_MASK, SPTE_MMU_PRESENT_MASK, is_last_spte


def get_spte(sp: kvm_mmu_page, index: int) -> int:
    """``*sptep``."""
    return sp.spt.get(index, SHADOW_NONPRESENT_VALUE)


def __set_spte(vcpu: Vcpu, sp: kvm_mmu_page, index: int, spte: int) -> None:
    """mmu/mmu.c __set_spte, and the count by which a change is noticed."""
    sp.spt[index] = spte
    vcpu.version += 1


def spte_to_child_sp(vcpu: Vcpu, spte: int) -> kvm_mmu_page:
    """mmu/spte.h spte_to_child_sp."""
    return vcpu.pages[spte & SPTE_BASE_ADDR_MASK]


def drop_spte(vcpu: Vcpu, sp: kvm_mmu_page, index: int) -> None:
    """mmu/mmu.c drop_spte."""
    __set_spte(vcpu, sp, index, SHADOW_NONPRESENT_VALUE)


def drop_parent_pte(vcpu: Vcpu, sp: kvm_mmu_page, index: int) -> None:
    """mmu/mmu.c drop_parent_pte: entry ``index`` of ``sp`` no longer links the table it links."""
    spte_to_child_sp(vcpu, get_spte(sp, index)).parent_ptes.remove((sp, index))
    __set_spte(vcpu, sp, index, SHADOW_NONPRESENT_VALUE)


def shadow_walk(vcpu: Vcpu, addr: int, root: kvm_mmu_page | None = None) -> Iterator[tuple[kvm_mmu_page, int, int]]:
    """mmu/mmu.c for_each_shadow_entry_using_root: (page, index, SPTE) down to the entry that ends the walk.

    ``root`` None is the current one.
    """
    sp = root or vcpu.mmu.root
    while sp is not None:
        index = addr >> PAGE_SHIFT + (sp.level - 1) * 9 & 511
        spte = get_spte(sp, index)
        yield sp, index, spte
        if not spte & SPTE_MMU_PRESENT_MASK or is_last_spte(spte, sp.level):
            return
        sp = spte_to_child_sp(vcpu, spte)
