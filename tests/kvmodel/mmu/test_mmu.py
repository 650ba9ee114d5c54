"""mmu/mmu.c and tdp_mmu.c: KVM's own EPT for L1, fast faults, MMIO."""

from __future__ import annotations

import pytest

from kvmodel.include.asm.kvm_host import (
    RET_PF_EMULATE,
    RET_PF_FIXED,
    RET_PF_INVALID,
    RET_PF_RETRY,
    RET_PF_SPURIOUS,
    RET_PF_WRITE_PROTECTED,
    Vcpu,
    kvm_memory_slot,
    kvm_mmu_page,
    kvm_page_fault,
)
from kvmodel.mmu import mmu, mmu_fault, mmu_page, tdp_mmu
from tests.kvmodel.mirror import l1_at

GPA = 0x0800_0000
READ, WRITE, FETCH, PRESENT, RSVD = 4, 2, 16, 1, 8


def fault(vcpu: Vcpu, code: int, gpa: int = GPA) -> int:
    return mmu_fault.kvm_mmu_do_page_fault(vcpu, gpa, code)


def leaf(vcpu: Vcpu) -> tuple[kvm_mmu_page, int, int]:
    return list(mmu.shadow_walk(vcpu, GPA))[-1]


@pytest.mark.parametrize(
    ("k", "param", "leaf_bits", "table_bits"),
    [
        (0, None, 7, 7),
        (6, True, 7, 7),
        (11, True, 7, 7),
        (12, True, 7, 0x407),
        (14, True, 7, 0x407),
        (15, True, 0x407, 0x407),
    ],
)
def test_l1_entries(k: int, param: bool | None, leaf_bits: int, table_bits: int) -> None:
    vcpu = l1_at(k, param)
    assert fault(vcpu, FETCH) == RET_PF_FIXED
    entries = mmu.hardware_entries(vcpu, GPA)
    assert entries[-1][1] & 0x407 == leaf_bits
    assert all(e & 0x407 == table_bits for _, e in entries[:-1])
    # make_spte() leaves a writable leaf's dirty bit out when it makes the same leaf again, once
    assert fault(vcpu, FETCH | PRESENT) == RET_PF_FIXED
    assert mmu.hardware_entries(vcpu, GPA)[-1][1] == entries[-1][1] & ~0x200
    assert fault(vcpu, FETCH | PRESENT) == RET_PF_SPURIOUS


def test_huge_pages_and_their_split() -> None:
    vcpu = l1_at(18, nx_huge_pages=True)
    vcpu.slot = kvm_memory_slot(2)
    assert fault(vcpu, READ) == RET_PF_FIXED
    assert leaf(vcpu)[0].level == 2
    assert leaf(vcpu)[2] & 0x404 == 0
    assert fault(vcpu, FETCH) == RET_PF_FIXED
    sp, index, entry = leaf(vcpu)
    assert sp.level == 1
    assert len(sp.spt) == 512
    assert entry & 0x404 == 0x404
    assert sp.spt[index ^ 1] & 0x404 == 0x404
    assert fault(vcpu, READ) == RET_PF_SPURIOUS


def test_page_size_limits() -> None:
    vcpu = l1_at(0)
    slot = kvm_memory_slot(3)
    assert mmu.kvm_mmu_max_mapping_level(vcpu, slot, 0, 3) == 3
    assert mmu.kvm_mmu_max_mapping_level(vcpu, slot, 0, 1) == 1
    vcpu.kvm.max_huge_page_level = 2
    assert mmu.kvm_mmu_max_mapping_level(vcpu, slot, 0, 3) == 2
    vcpu.kvm.max_huge_page_level = 3
    vcpu.indirect[0x15] = []
    assert mmu.kvm_mmu_max_mapping_level(vcpu, slot, 0x16, 3) == 1
    assert mmu.kvm_mmu_max_mapping_level(vcpu, slot, 0x200, 3) == 2
    assert mmu.kvm_mmu_max_mapping_level(vcpu, slot, 1 << 18, 3) == 3


def test_prefetch_leaves_logged_memory_alone() -> None:
    vcpu = l1_at(0)
    vcpu.slot = kvm_memory_slot(dirty_track=True)
    assert mmu.gfn_to_memslot_dirty_bitmap(vcpu, 5, True) is None
    assert mmu.gfn_to_memslot_dirty_bitmap(vcpu, 5, False) is vcpu.slot
    assert mmu.gfn_to_memslot_dirty_bitmap(vcpu, vcpu.ram_gfns, False) is None


def test_a_present_entry_that_becomes_mmio_warns() -> None:
    vcpu = l1_at(0)
    fault(vcpu, READ)
    sp, index, _ = leaf(vcpu)
    mmu_page.mark_mmio_spte(vcpu, sp, index, 5, 7)
    assert vcpu.warns == ["mmu/mmu.c mmu_spte_set"]
    mmu_page.mark_mmio_spte(vcpu, sp, index, 5, 7)
    assert len(vcpu.warns) == 1


def test_dirty_logging_keeps_pages_small() -> None:
    vcpu = l1_at(0)
    vcpu.slot = kvm_memory_slot(2, dirty_track=True)
    fault(vcpu, READ)
    assert leaf(vcpu)[0].level == 1


def test_mmio() -> None:
    vcpu = l1_at(18)
    vcpu.ram_gfns = GPA >> 12
    assert mmu_fault.kvm_mmu_page_fault(vcpu, GPA, READ) == mmu_fault.EMULATE
    assert leaf(vcpu)[2] & 0x407 == 0x406
    assert mmu_fault.kvm_mmu_page_fault(vcpu, GPA, RSVD) == mmu_fault.EMULATE
    vcpu.kvm.generation += 1
    assert mmu.handle_mmio_page_fault(vcpu, GPA) == RET_PF_INVALID
    assert mmu_fault.kvm_mmu_page_fault(vcpu, GPA, RSVD) == mmu_fault.EMULATE
    assert mmu.handle_mmio_page_fault(vcpu, GPA) == RET_PF_EMULATE
    vcpu.kvm.generation = 1 << 63
    assert not mmu.check_mmio_spte(vcpu.kvm, leaf(vcpu)[2])
    assert mmu.get_mmio_spte_gfn(vcpu.kvm, leaf(vcpu)[2]) == GPA >> 12
    assert mmu.get_mmio_spte_access(vcpu.kvm, 7) == 0


def test_mmio_without_caching_or_beyond_the_host() -> None:
    vcpu = l1_at(0)
    vcpu.ram_gfns = 0
    vcpu.kvm.enable_mmio_caching = False
    assert fault(vcpu, READ) == RET_PF_EMULATE
    vcpu.kvm.enable_mmio_caching = True
    assert fault(vcpu, READ, 1 << 45) == RET_PF_EMULATE
    vcpu.kvm.tdp_enabled = False
    assert mmu.kvm_mmu_max_gfn(vcpu.kvm) == (1 << 40) - 1


def test_a_fault_on_a_sound_entry_is_retried() -> None:
    vcpu = l1_at(0)
    fault(vcpu, READ)
    assert mmu.handle_mmio_page_fault(vcpu, GPA) == RET_PF_RETRY
    assert mmu_fault.kvm_mmu_page_fault(vcpu, GPA, RSVD) == 1


def test_reserved_bits_end_kvm_run() -> None:
    vcpu = l1_at(0)
    vcpu.steps = []
    fault(vcpu, READ)
    sp, index, entry = leaf(vcpu)
    sp.spt[index] = entry & ~1
    assert mmu_fault.kvm_mmu_page_fault(vcpu, GPA, RSVD) == -22
    assert vcpu.warns == ["mmu/mmu.c handle_mmio_page_fault"]
    assert "WARN" in vcpu.steps[-1].what


def test_read_only_memory() -> None:
    vcpu = l1_at(0)
    vcpu.slot = kvm_memory_slot(readonly=True)
    assert fault(vcpu, WRITE) == RET_PF_EMULATE
    assert fault(vcpu, READ) == RET_PF_FIXED
    assert leaf(vcpu)[2] & 2 == 0


def test_writes_to_shadowed_tables() -> None:
    vcpu = l1_at(0)
    roles = vcpu.kvm.roles
    vcpu.indirect[GPA >> 12] = [kvm_mmu_page(1 << 40, GPA >> 12, roles.make(level=2), roles)]
    assert fault(vcpu, WRITE | PRESENT) == RET_PF_WRITE_PROTECTED
    assert mmu_fault.kvm_mmu_page_fault(vcpu, GPA, WRITE | PRESENT) == mmu_fault.EMULATE
    assert fault(vcpu, WRITE) == RET_PF_WRITE_PROTECTED
    assert leaf(vcpu)[2] & 2 == 0
    assert not mmu.page_fault_handle_page_track(vcpu, kvm_page_fault(GPA, RSVD | WRITE | PRESENT, False, True, False))


def test_fast_faults_give_write_back() -> None:
    vcpu = l1_at(18)
    vcpu.steps = []
    fault(vcpu, READ)
    sp, index, entry = leaf(vcpu)
    sp.spt[index] = entry & ~2
    assert fault(vcpu, WRITE | PRESENT) == RET_PF_FIXED
    assert sp.spt[index] & 2
    assert fault(vcpu, WRITE | PRESENT) == RET_PF_SPURIOUS
    assert vcpu.stat["pf_fast"] == 2
    sp.spt[index] = entry & ~2 & ~(1 << 58)
    assert mmu.fast_page_fault(vcpu, _fault(vcpu, WRITE | PRESENT)) == RET_PF_INVALID


def _fault(vcpu: Vcpu, code: int) -> kvm_page_fault:
    f = kvm_page_fault(GPA, code, False, True, False)
    f.gfn = GPA >> 12
    f.slot = vcpu.slot
    return f


def test_fast_faults_leave_the_rest() -> None:
    vcpu = l1_at(0)
    assert mmu.fast_page_fault(vcpu, _fault(vcpu, WRITE | PRESENT)) == RET_PF_INVALID
    assert not mmu.page_fault_can_be_fast(vcpu.kvm, _fault(vcpu, RSVD))
    assert not mmu.page_fault_can_be_fast(vcpu.kvm, _fault(vcpu, READ))
    assert not mmu.page_fault_can_be_fast(vcpu.kvm, _fault(vcpu, FETCH | PRESENT))
    fault(vcpu, READ)
    sp, index, entry = leaf(vcpu)
    vcpu.slot = kvm_memory_slot(2, dirty_track=True)
    huge = l1_at(0)
    huge.slot = kvm_memory_slot(2)
    fault(huge, READ)
    sp, index, entry = leaf(huge)
    sp.spt[index] = entry & ~2
    huge.slot = kvm_memory_slot(2, dirty_track=True)
    assert mmu.fast_page_fault(huge, _fault(huge, WRITE | PRESENT)) == RET_PF_INVALID


@pytest.mark.parametrize(("k", "user_may", "kernel_may"), [(0, True, True), (14, False, True), (18, False, True)])
def test_fetches_without_ad_bits(k: int, user_may: bool, kernel_may: bool) -> None:
    """Only here does patch 14's mode count; fault->user comes from a read, so every fetch is the kernel's."""
    vcpu = l1_at(k, True, eptad=False)
    vcpu.pt_guest_exec_control = k >= 14
    fault(vcpu, READ)
    sp, index, entry = leaf(vcpu)
    sp.spt[index] = entry & ~0x400
    spte = sp.spt[index]
    assert mmu.is_access_allowed(_fault(vcpu, FETCH | READ), spte, vcpu) == user_may
    assert mmu.is_access_allowed(_fault(vcpu, FETCH), spte, vcpu) == kernel_may
    assert mmu.is_access_allowed(_fault(vcpu, READ), spte, vcpu)
    assert mmu.fast_page_fault(vcpu, _fault(vcpu, FETCH)) == RET_PF_SPURIOUS


def test_access_tracking_without_ad_bits() -> None:
    vcpu = l1_at(18, eptad=False)
    fault(vcpu, READ)
    sp, index, _ = leaf(vcpu)
    assert tdp_mmu.age_gfn(vcpu, sp, index)
    assert sp.spt[index] & 0x407 == 0
    assert not tdp_mmu.age_gfn(vcpu, sp, index)
    assert fault(vcpu, READ) == RET_PF_FIXED
    # restored from what was saved: R and X, bit 10 is lost
    assert sp.spt[index] & 0x407 == 5
    assert vcpu.stat["pf_fast"] == 1


def test_aging_with_ad_bits() -> None:
    vcpu = l1_at(0)
    fault(vcpu, READ)
    sp, index, entry = leaf(vcpu)
    assert tdp_mmu.age_gfn(vcpu, sp, index)
    assert sp.spt[index] == entry & ~0x100


def test_unlinking_and_relinking() -> None:
    vcpu = l1_at(0)
    roles = vcpu.kvm.roles
    parent = mmu_page.kvm_mmu_get_shadow_page(vcpu, 0, roles.make(level=2, access=7))
    child = mmu_page.kvm_mmu_get_child_sp(vcpu, parent, 5, 0x200, True, 5)
    assert child is not None
    mmu_page.link_shadow_page(vcpu, parent, 5, child)
    assert mmu_page.kvm_mmu_get_child_sp(vcpu, parent, 5, 0x200, True, 5) is None
    mmu_page.validate_direct_spte(vcpu, parent, 5, 5)
    assert mmu_page.get_spte(parent, 5) != 1 << 63
    mmu_page.validate_direct_spte(vcpu, parent, 5, 7)
    assert mmu_page.get_spte(parent, 5) == 1 << 63
    mmu_page.validate_direct_spte(vcpu, parent, 6, 7)
    # a huge page takes the place of a table
    mmu_page.link_shadow_page(vcpu, parent, 5, child)
    f = _fault(vcpu, READ)
    f.map_writable = True
    assert mmu_page.mmu_set_spte(vcpu, vcpu.slot, parent, 5, 7, 0x200, 0x200, f) == RET_PF_FIXED
    assert mmu_page.get_spte(parent, 5) & 0x80
    # another pfn drops the entry first
    assert mmu_page.mmu_set_spte(vcpu, vcpu.slot, parent, 5, 7, 0x200, 0x400, f) == RET_PF_FIXED
    assert mmu_page.get_spte(parent, 5) >> 12 & 0xFFF == 0x400
    mmu_page.link_shadow_page(vcpu, parent, 5, child)
    assert mmu_page.kvm_mmu_find_shadow_page(vcpu, 0x200, child.role) is child


def test_updates_that_need_a_flush() -> None:
    vcpu = l1_at(0)
    fault(vcpu, WRITE)
    sp, index, entry = leaf(vcpu)

    def update(old: int, new: int) -> bool:
        sp.spt[index] = old
        return mmu_page.mmu_spte_update(vcpu, sp, index, new)

    assert update(entry, entry & ~2)
    assert update(entry, entry & ~0x100)
    assert update(entry, entry & ~0x200)
    assert not update(entry, entry)
    assert not update(1 << 63, entry)
    assert not vcpu.warns
    update(entry, entry & ~(1 << 58))
    assert vcpu.warns


def test_write_protected_mappings() -> None:
    vcpu = l1_at(0)
    roles = vcpu.kvm.roles
    sp = mmu_page.kvm_mmu_get_shadow_page(vcpu, 0x9000, roles.make(level=1, access=7, direct=1))
    shadowed = kvm_mmu_page(1 << 40, 0x9003, roles.make(level=2), roles)
    vcpu.indirect[0x9003] = [shadowed]
    f = _fault(vcpu, WRITE)
    f.map_writable = True
    assert mmu_page.mmu_set_spte(vcpu, vcpu.slot, sp, 3, 7, 0x9003, 0x9003, f) == RET_PF_WRITE_PROTECTED


def test_direct_prefetch_stops_at_the_end_of_memory() -> None:
    vcpu = l1_at(0)
    vcpu.ram_gfns = 0x9005
    roles = vcpu.kvm.roles
    sp = mmu_page.kvm_mmu_get_shadow_page(vcpu, 0x9000, roles.make(level=1, access=7, direct=1))
    mmu.__dict__["__direct_pte_prefetch"](vcpu, sp, 2)
    assert sorted(sp.spt) == [0, 1, 3, 4]
    mmu.__dict__["__direct_pte_prefetch"](vcpu, sp, 2)
    assert sorted(sp.spt) == [0, 1, 3, 4]
    far = mmu_page.kvm_mmu_get_shadow_page(vcpu, 0xA000, roles.make(level=1, access=7, direct=1))
    mmu.__dict__["__direct_pte_prefetch"](vcpu, far, 2)
    assert far.spt == {}


def test_target_level_of_mmio_and_write_protection_is_told() -> None:
    vcpu = l1_at(0)
    vcpu.steps = []
    vcpu.trace = []
    fault(vcpu, READ)
    events = [name for name, _ in vcpu.trace]
    assert events.count("kvm_tdp_mmu_spte_changed") == 4
    assert events[-1] == "kvm_mmu_set_spte"
    vcpu.ram_gfns = 0
    fault(vcpu, READ, 0x1000)
    assert vcpu.trace[-1][0] == "mark_mmio_spte"
    assert "EMULATE" in vcpu.steps[-1].what
