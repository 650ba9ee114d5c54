"""What the checks of whole page faults share: the state they begin with, and how all shadow pages become one word."""

from __future__ import annotations

from typing import Final

from harness.oracle.specs.spaces import MASK64
from harness.oracle.specs.spec import functions_of
from kvmodel.include.asm.kvm_host import PAGE_SHIFT, Vcpu, kvm_memory_slot
from kvmodel.mmu.mmu_sync import shadow_walk
from kvmodel.mmu.spte_h import SHADOW_NONPRESENT_VALUE

RAM_GFNS: Final = 1 << 19  # flow.h
PRIME: Final = 0x100000001B3
WIDE: Final = 48  # bits: the image's tables have physical addresses of 47
FAULT: Final = 10  # a whole fault, against a function
CODES: Final = tuple(range(32))  # error codes


mmu_c: Final = functions_of("mmu/mmu.c")
FAULTS: Final = mmu_c(
    "kvm_mmu_page_fault", "handle_mmio_page_fault", "get_mmio_spte", "for_each_shadow_entry_using_root",
    "kvm_faultin_pfn", "kvm_handle_noslot_fault", "page_fault_handle_page_track", "kvm_mmu_hugepage_adjust",
    "__kvm_mmu_max_mapping_level", "disallowed_hugepage_adjust",
)  # fmt: skip
SHARED: Final = ("mmu/mmu_internal.h kvm_mmu_do_page_fault", "mmu/spte.h spte_to_child_sp", "mmu/spte.h spte_to_pfn",
                 "virt/kvm/kvm_main.c kvm_vcpu_gfn_to_memslot", "mmu.h kvm_mmu_max_gfn")  # fmt: skip


def digest(vcpu: Vcpu, tdp: bool) -> int:
    """The digest has all shadow pages in one word, as flow.h has it."""
    h = 0
    for sp in vcpu.pages.values():
        words = [sp.gfn, sp.role, int(sp.nx_huge_page_disallowed)]
        translation = sp.shadowed_translation or {}
        for index, spte in sorted(sp.spt.items()):
            if spte != SHADOW_NONPRESENT_VALUE:
                words += (index, spte)
                if translation.get(index):
                    words.append(translation[index])
        if not tdp:
            words += int(sp.unsync), len(sp.unsync_child_bitmap), sp.write_flooding_count
        for word in words:
            h = (h ^ word) * PRIME & MASK64
    return h


def walked(vcpu: Vcpu, addr: int) -> tuple[int, ...]:
    """The function gives the SPTEs of the walk for ``addr``, four words from the root."""
    found = [spte for _, _, spte in shadow_walk(vcpu, addr)]
    return (*found, *(0,) * (4 - len(found)))


def begin(vcpu: Vcpu, host: int, slot: int, guest_mode: bool) -> None:
    """No shadow page yet; one slot on host pages of level ``host``; ``slot``: bit 0 read-only, bit 1 logged."""
    vcpu.slot = kvm_memory_slot(host, bool(slot & 2), bool(slot & 1))
    vcpu.ram_gfns = RAM_GFNS
    vcpu.pages, vcpu.hash, vcpu.indirect = {}, {}, {}
    vcpu.next_pa = 1 << PAGE_SHIFT
    vcpu.guest_mode = guest_mode
