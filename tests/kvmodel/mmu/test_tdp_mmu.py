"""What is done to all of a slot's entries."""

from kvmodel.include.asm.kvm_host import PFERR_FETCH_MASK, PFERR_WRITE_MASK, Vcpu, kvm_memory_slot
from kvmodel.mmu import tdp_mmu
from kvmodel.mmu.mmu import kvm_vcpu_gfn_to_memslot
from kvmodel.mmu.mmu_fault import kvm_mmu_page_fault
from kvmodel.mmu.mmu_sync import get_spte
from kvmodel.mmu.spte_h import SHADOW_NONPRESENT_VALUE
from kvmodel.virt import kvm_main
from tests.kvmodel.mirror import l1_at


def vcpu_on(size: int, gfns: int = 512, base: int = 0, **load: bool) -> tuple[Vcpu, kvm_memory_slot]:
    vcpu = l1_at(18, True, **load)
    slot = vcpu.slot = kvm_memory_slot(size)
    slot.base_gfn, slot.npages = base, gfns
    return vcpu, slot


def test_write_protection_comes_once_and_only_within_the_slot() -> None:
    vcpu, slot = vcpu_on(1, gfns=16, base=16)
    for gfn in (3, 17, 18, 40):
        kvm_mmu_page_fault(vcpu, gfn << 12, PFERR_WRITE_MASK)
    assert tdp_mmu.kvm_tdp_mmu_wrprot_slot(vcpu, slot, 1)
    assert not tdp_mmu.kvm_tdp_mmu_wrprot_slot(vcpu, slot, 1)
    leaf = {i: spte for sp in vcpu.pages.values() if sp.level == 1 for i, spte in sp.spt.items()}
    assert {i: bool(spte & 2) for i, spte in leaf.items()} == {3: True, 17: False, 18: False, 40: True}


def test_dirty_bits_are_cleared_or_without_them_the_entry_is_protected() -> None:
    for eptad, bit in ((True, 1 << 9), (False, 2)):
        vcpu, slot = vcpu_on(1, eptad=eptad)
        kvm_mmu_page_fault(vcpu, 5 << 12, PFERR_WRITE_MASK)
        assert tdp_mmu.kvm_tdp_mmu_clear_dirty_slot(vcpu, slot)
        assert not tdp_mmu.kvm_tdp_mmu_clear_dirty_slot(vcpu, slot)
        (leaf,) = (sp for sp in vcpu.pages.values() if sp.level == 1)
        assert not get_spte(leaf, 5) & bit


def test_reading_the_log_watches_only_what_it_reported() -> None:
    vcpu, slot = vcpu_on(1)
    kvm_main.kvm_set_memory_region(vcpu, slot, True)
    for gfn in (5, 6):
        kvm_mmu_page_fault(vcpu, gfn << 12, PFERR_WRITE_MASK)
    slot.dirty_bitmap.discard(6)
    assert kvm_main.kvm_get_dirty_log_protect(vcpu, slot) == {5}
    (leaf,) = (sp for sp in vcpu.pages.values() if sp.level == 1)
    assert [bool(get_spte(leaf, i) & 1 << 9) for i in (5, 6)] == [False, True]
    assert kvm_main.kvm_get_dirty_log_protect(vcpu, slot) == set()


def test_a_gigabyte_is_split_level_by_level_and_zapped_as_a_whole() -> None:
    vcpu, slot = vcpu_on(3, gfns=1 << 18)
    kvm_mmu_page_fault(vcpu, 0, PFERR_FETCH_MASK)
    assert vcpu.stat["pages_1g"] == 1
    tdp_mmu.kvm_tdp_mmu_try_split_huge_pages(vcpu, slot, 2)
    assert (vcpu.stat["pages_1g"], vcpu.stat["pages_2m"]) == (0, 512)
    slot.npages = 512
    tdp_mmu.kvm_tdp_mmu_try_split_huge_pages(vcpu, slot, 1)
    assert (vcpu.stat["pages_2m"], vcpu.stat["pages_4k"]) == (511, 512)
    slot.npages = 1 << 18
    (table,) = (sp for sp in vcpu.pages.values() if sp.level == 2)
    table.spt[7] = SHADOW_NONPRESENT_VALUE
    vcpu.stat["pages_2m"] -= 1
    kvm_main.kvm_mmu_slot_apply_flags(vcpu, slot, False)
    assert (vcpu.stat["pages_1g"], vcpu.stat["pages_2m"], vcpu.stat["pages_4k"]) == (0, 0, 0)


def test_a_huge_page_mapped_over_a_table_removes_it() -> None:
    vcpu, slot = vcpu_on(2)
    slot.dirty_track = True
    kvm_mmu_page_fault(vcpu, 5 << 12, PFERR_WRITE_MASK)
    assert vcpu.stat["pages_4k"] == 1
    slot.dirty_track = False
    kvm_mmu_page_fault(vcpu, 6 << 12, PFERR_WRITE_MASK)
    assert (vcpu.stat["pages_2m"], vcpu.stat["pages_4k"]) == (1, 0)
    assert not [sp for sp in vcpu.pages.values() if sp.level == 1]


def test_tables_that_only_overlap_the_slot_stay() -> None:
    vcpu, slot = vcpu_on(2, gfns=512, base=512)
    for gfn in (0, 512):
        kvm_mmu_page_fault(vcpu, gfn << 12, PFERR_WRITE_MASK)
    vcpu.kvm.max_huge_page_level = 3
    slot.host_level = 3
    tdp_mmu.kvm_tdp_mmu_zap_collapsible_sptes(vcpu, slot)
    assert vcpu.stat["pages_2m"] == 2


def test_slots_beyond_ram() -> None:
    vcpu, _ = vcpu_on(1)
    vcpu.ram_gfns = 512
    further = kvm_memory_slot()
    further.base_gfn, further.npages = 1024, 2
    vcpu.further_slots = (further,)
    found = [kvm_vcpu_gfn_to_memslot(vcpu, gfn) for gfn in (511, 512, 1023, 1024, 1025, 1026)]
    assert found == [vcpu.slot, None, None, further, further, None]
