"""What the checks of whole page faults share: the state they begin with, and how all shadow pages become one word."""

from __future__ import annotations

from typing import Final

from harness.oracle.specs.spaces import MASK64
from harness.oracle.specs.spec import functions_of
from kvmodel.include.asm.kvm_host import PAGE_SHIFT, Vcpu, kvm_memory_slot
from kvmodel.include.asm.vmx import VMX_EPT_MT_EPTE_SHIFT
from kvmodel.mmu import mmu_fault
from kvmodel.mmu.mmu_internal import kvm_mmu_page
from kvmodel.mmu.mmu_sync import shadow_walk
from kvmodel.mmu.spte_h import FROZEN_SPTE, SHADOW_NONPRESENT_VALUE, SPTE_MMU_PRESENT_MASK

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
            words += int(sp.unsync), len(sp.unsync_child_bitmap), sp.write_flooding_count, len(sp.parent_ptes)
        for word in words:
            h = (h ^ word) * PRIME & MASK64
    return h


def walked(vcpu: Vcpu, addr: int) -> tuple[int, ...]:
    """The function gives the SPTEs of the walk for ``addr``, four words from the root."""
    found = [spte for _, _, spte in shadow_walk(vcpu, addr)]
    return (*found, *(0,) * (4 - len(found)))


class MadePages(dict[int, kvm_mmu_page]):
    """The vCPU's shadow pages by address; ``removed`` gives those that were among them once."""

    def __init__(self) -> None:
        super().__init__()
        self._made: list[kvm_mmu_page] = []

    def __setitem__(self, pa: int, sp: kvm_mmu_page) -> None:
        self._made.append(sp)
        super().__setitem__(pa, sp)

    def removed(self) -> list[kvm_mmu_page]:
        """These pages are gone."""
        return [sp for sp in self._made if self.get(sp.pa) is not sp]


def _packed(vcpu: Vcpu, width: int, names: tuple[str, ...]) -> int:
    return sum((vcpu.stat.get(name, 0) & (1 << width) - 1) << width * n for n, name in enumerate(names))


def counts(vcpu: Vcpu) -> int:
    """The vCPU's counts of faults are one word, as flow_counts() of flow.h has it."""
    return _packed(vcpu, 8, ("pf_taken", "pf_fixed", "pf_emulate", "pf_spurious", "pf_fast", "pf_mmio_spte_created"))


def page_counts(vcpu: Vcpu) -> int:
    """The VM's counts of pages are one word, as flow_page_counts() of flow.h has it."""
    return _packed(vcpu, 16, ("pages_4k", "pages_2m", "pages_1g", "nx_lpage_splits"))


def left(vcpu: Vcpu) -> int:
    """The function counts the entries that removed tables still hold, neither frozen nor without a value."""
    pages = vcpu.pages
    assert isinstance(pages, MadePages)
    return sum(spte not in (FROZEN_SPTE, SHADOW_NONPRESENT_VALUE) for sp in pages.removed() for spte in sp.spt.values())


def happens(vcpu: Vcpu, addr: int, what: int) -> None:
    """As flow.h has it: 1 the entries on the way get a bit of the memory type wrong, 2 the generation moves on."""
    if what & 2:
        vcpu.kvm.generation += 2
    if what & 1:
        for sp, index, spte in list(shadow_walk(vcpu, addr)):
            if spte & SPTE_MMU_PRESENT_MASK:
                sp.spt[index] = spte ^ 1 << VMX_EPT_MT_EPTE_SHIFT


def fault(vcpu: Vcpu, addr: int, code: int) -> int:
    """The function gives what kvm_mmu_page_fault() answers: ``u64 code``, and an ``int`` as 64 bits.

    Where it writes to L1's entries and does not count that, there is a WARN more than in C: the same exit once more
    would be called a livelock.
    """
    memory, version = dict(vcpu.memory), vcpu.version
    gave = mmu_fault.kvm_mmu_page_fault(vcpu, addr, code)
    if vcpu.version == version and vcpu.memory != memory:
        vcpu.warns.append("an entry of L1's is another, and vcpu.version is not")
    return gave & MASK64


def begin(vcpu: Vcpu, host: int, slot: int, guest_mode: bool) -> None:
    """No shadow page yet; one slot on host pages of level ``host``; ``slot``: bit 0 read-only, bit 1 logged."""
    vcpu.slot = kvm_memory_slot(host, bool(slot & 2), bool(slot & 1))
    vcpu.ram_gfns = RAM_GFNS
    vcpu.pages, vcpu.hash, vcpu.indirect = MadePages(), {}, {}
    vcpu.stat = {}
    vcpu.kvm.generation = 0
    vcpu.next_pa = 1 << PAGE_SHIFT
    vcpu.guest_mode = guest_mode
