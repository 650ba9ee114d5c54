"""What the checks of whole faults tell of the mirror's side: counts, tables that were removed, what happens between."""

from __future__ import annotations

from harness.oracle.specs.flow import MadePages, begin, counts, happens, left, page_counts, walked
from harness.oracle.specs.spec import Side, State
from harness.oracle.specs.tdp import _aged
from kvmodel.mmu import mmu_fault, tdp_mmu
from kvmodel.mmu.mmu_internal import kvm_mmu_page
from kvmodel.mmu.spte_h import FROZEN_SPTE, SHADOW_NONPRESENT_VALUE
from kvmodel.series import Level

ADDRESS = 0x4020_3000
READ = 4


def mapped(*, ad: bool = True) -> Side:
    """L1 on KVM's own EPT, with one page mapped by a fault."""
    side = State(ad=ad, maxphyaddr=48, huge=1).side(Level.of(18))
    begin(side.vcpu, 1, 0, False)
    tdp_mmu.kvm_tdp_mmu_alloc_root(side.vcpu)
    assert mmu_fault.kvm_mmu_page_fault(side.vcpu, ADDRESS, READ) == 1
    return side


def test_counts_are_packed_in_the_order_of_the_image() -> None:
    vcpu = mapped().vcpu
    assert counts(vcpu) == 0x0101  # taken, fixed
    assert page_counts(vcpu) == 1  # of 4 KiB
    vcpu.stat = {"pages_2m": -1, "nx_lpage_splits": 2}
    assert page_counts(vcpu) == 0xFFFF << 16 | 2 << 48


def test_entries_that_a_removed_table_still_holds_are_counted() -> None:
    side = mapped()
    vcpu, table = side.vcpu, kvm_mmu_page(1 << 20, 0, 1, side.kvm.roles)
    table.spt = {0: FROZEN_SPTE, 1: SHADOW_NONPRESENT_VALUE, 2: 0x1234}
    vcpu.pages[table.pa] = table
    assert left(vcpu) == 0
    del vcpu.pages[table.pa]
    assert isinstance(vcpu.pages, MadePages)
    assert vcpu.pages.removed() == [table]
    assert left(vcpu) == 1


def test_a_page_is_young_once() -> None:
    for ad in (False, True):
        side = mapped(ad=ad)
        assert [_aged(side.vcpu, address) for address in (ADDRESS, ADDRESS, 1 << 40)] == [True, False, False]


def test_what_happens_between_two_faults() -> None:
    side = mapped()
    before = walked(side.vcpu, ADDRESS)
    happens(side.vcpu, ADDRESS, 2)
    assert (side.kvm.generation, walked(side.vcpu, ADDRESS)) == (2, before)
    happens(side.vcpu, ADDRESS, 1)
    assert [now ^ was for now, was in zip(walked(side.vcpu, ADDRESS), before, strict=True)] == [8] * 4
