"""mmu/paging_tmpl.h for EPT: the walk of EPT12, its qualification, shadowing, syncing."""

from __future__ import annotations

import pytest

from kvmodel.include.asm.kvm_host import RET_PF_FIXED, RET_PF_RETRY, RET_PF_SPURIOUS, Vcpu, kvm_memory_slot
from kvmodel.mmu import mmu_fault, mmu_sync, paging_tmpl
from kvmodel.mmu.mmu import hardware_entries
from kvmodel.mmu.mmu_page import get_spte
from kvmodel.mmu.mmu_sync import kvm_unsync_page
from tests.kvmodel.mirror import GPA, PT, l2_at, map_gpa

READ, WRITE, FETCH, PRESENT = 4, 2, 16, 1
LEAF = 0x23456000 | 6 << 3


def walk(vcpu: Vcpu, access: int) -> paging_tmpl.guest_walker | None:
    walker = paging_tmpl.guest_walker()
    return walker if paging_tmpl.walk_addr_generic(walker, vcpu, vcpu.mmu, GPA, access) else None


def qualification(vcpu: Vcpu, access: int) -> int:
    walker = paging_tmpl.guest_walker()
    assert not paging_tmpl.walk_addr_generic(walker, vcpu, vcpu.mmu, GPA, access)
    assert walker.fault.address == GPA
    return walker.fault.exit_qualification


def leaf_of(vcpu: Vcpu) -> int:
    return hardware_entries(vcpu, GPA)[-1][1]


@pytest.mark.parametrize("k", [0, 1, 2, 9, 10, 11, 18])
def test_qualification_by_level(k: int) -> None:
    """Bits 5:3 are the AND of the entries; bit 6 comes with patch 11 and the flag."""
    vcpu = l2_at(k)
    map_gpa(vcpu, LEAF | 1)
    assert qualification(vcpu, WRITE) == 0xA
    assert qualification(vcpu, FETCH) == 0xC
    map_gpa(vcpu, LEAF | 5, upper=0x703)
    assert qualification(vcpu, WRITE | READ) == 0xB
    map_gpa(vcpu, LEAF | 0x400)
    vcpu.pt_guest_exec_control = False
    assert qualification(vcpu, READ) == 1
    vcpu.pt_guest_exec_control = True
    assert qualification(vcpu, READ) == (0x41 if k >= 11 else 1)


@pytest.mark.parametrize("k", [0, 10, 11, 18])
def test_patch_11_lets_bit_10_past_the_permission_check(k: int) -> None:
    vcpu = l2_at(k)
    map_gpa(vcpu, LEAF | 0x401)
    walker = walk(vcpu, FETCH)
    assert (walker is not None) == (k >= 11)
    if walker is not None:
        assert walker.pte_access == 4 | 8
        assert walker.gfn == 0x23456


def test_not_present_is_judged_by_bits_2_to_0() -> None:
    vcpu = l2_at(18)
    map_gpa(vcpu, LEAF | 7, upper=0x700)
    assert qualification(vcpu, READ) == 0x41
    assert paging_tmpl.is_present_gpte(4)
    assert not paging_tmpl.is_present_gpte(0x400)


@pytest.mark.parametrize(
    ("leaf", "level"),
    [(LEAF | 2, 1), (LEAF | 6, 1), (2 << 3 | 1, 1), (LEAF | 7 | 1 << 45, 1), (6 << 3 | 0x87 | 1 << 12, 2)],
)
def test_misconfigured_entries(leaf: int, level: int) -> None:
    vcpu = l2_at(0)
    map_gpa(vcpu, leaf, level=level)
    walker = paging_tmpl.guest_walker()
    assert not paging_tmpl.walk_addr_generic(walker, vcpu, vcpu.mmu, GPA, READ)
    assert walker.fault.error_code & 9 == 9


def test_execute_only_where_l1_is_not_offered_it() -> None:
    vcpu = l2_at(0)
    map_gpa(vcpu, LEAF | 4)
    assert walk(vcpu, FETCH) is not None
    mmu_fault.kvm_init_shadow_ept_mmu(vcpu, False, 3, False, vcpu.vmcs12.ept_pointer)
    assert walk(vcpu, FETCH) is None
    assert paging_tmpl.is_bad_mt_xwr(vcpu.mmu, LEAF & 0x38 | 4)
    assert paging_tmpl.is_rsvd_bits_set(vcpu.mmu, LEAF | 4, 1)


def test_large_pages() -> None:
    vcpu = l2_at(0)
    map_gpa(vcpu, 6 << 3 | 0x87 | 0x40000000, level=3)
    walker = walk(vcpu, READ)
    assert walker is not None
    assert walker.level == 3
    assert walker.gfn == 0x40000 + (GPA >> 12 & 0x3FFFF)
    assert [paging_tmpl.is_last_gpte(n, e) for n, e in ((1, 0), (2, 0), (2, 0x80), (4, 0x80))] == [
        True,
        False,
        True,
        True,
    ]


def test_a_table_outside_memory() -> None:
    vcpu = l2_at(0)
    map_gpa(vcpu, LEAF | 7, upper=1 << 39 | 0x703)
    assert qualification(vcpu, READ) == 0x19
    map_gpa(vcpu, LEAF | 7)
    vcpu.invisible = frozenset({PT >> 12})
    assert qualification(vcpu, READ) == 0x39


def test_accessed_and_dirty() -> None:
    vcpu = l2_at(0, ad=True)
    map_gpa(vcpu, LEAF | 7, upper=0x407)
    walker = walk(vcpu, READ)
    assert walker is not None
    assert walker.pte_access == 5  # clean: WRITE waits
    pte = PT + (GPA >> 12 & 511) * 8
    assert vcpu.memory[pte] == LEAF | 0x107
    walker = walk(vcpu, WRITE)
    assert walker is not None
    assert walker.pte_access == 7
    assert vcpu.memory[pte] == LEAF | 0x307
    again = vcpu.version
    assert walk(vcpu, WRITE) is not None
    assert vcpu.version == again


def test_read_only_tables_keep_their_bits_and_a_full_log_stops_a_write() -> None:
    vcpu = l2_at(0, ad=True)
    map_gpa(vcpu, LEAF | 7)
    vcpu.unwritable = frozenset({PT >> 12})
    assert walk(vcpu, WRITE) is not None
    assert vcpu.memory[PT + (GPA >> 12 & 511) * 8] == LEAF | 7
    vcpu.vmcs12.secondary_vm_exec_control |= 1 << 17
    vcpu.vmcs12.guest_pml_index = 0
    assert walk(vcpu, WRITE) is not None
    assert vcpu.vmcs12.guest_pml_index == 0xFFFF
    assert walk(vcpu, WRITE) is None
    assert vcpu.pml_full
    assert walk(vcpu, WRITE) is None
    assert vcpu.warns == ["vmx/nested.c nested_vmx_write_pml_buffer"]


def fault(vcpu: Vcpu, code: int) -> int:
    return mmu_fault.kvm_mmu_do_page_fault(vcpu, GPA, code)


def test_shadowing_follows_the_guest() -> None:
    vcpu = l2_at(18, control=2 | 1 << 22)
    map_gpa(vcpu, LEAF | 0x403, upper=0x405 | 0x300)
    assert fault(vcpu, READ) == RET_PF_FIXED
    entries = hardware_entries(vcpu, GPA)
    assert [n for n, _ in entries] == [4, 3, 2, 1]
    assert all(e & 0x407 == 0x407 for _, e in entries[:-1])
    assert entries[-1][1] & 0x407 == 0x401
    assert fault(vcpu, READ | PRESENT) == RET_PF_SPURIOUS
    accesses = [sp.access for sp in vcpu.pages.values() if not sp.direct]
    assert accesses == [0xF, 0xF, 0xF, 0xD]


def test_injection_happens_once_and_prefetch_injects_nothing() -> None:
    vcpu = l2_at(0)
    map_gpa(vcpu, LEAF | 1)
    vcpu.exit_qualification = 0x182
    assert mmu_fault.kvm_mmu_do_page_fault(vcpu, GPA, WRITE, prefetch=True) == RET_PF_RETRY
    assert vcpu.injected is None
    assert fault(vcpu, WRITE) == RET_PF_RETRY
    assert vcpu.injected == (48, 0x18A, GPA)


def test_the_write_fix_up_takes_read_away() -> None:
    vcpu = l2_at(11)
    vcpu.steps = []
    map_gpa(vcpu, LEAF | 0x401)
    assert fault(vcpu, WRITE) == RET_PF_FIXED
    assert leaf_of(vcpu) & 7 == 2
    assert vcpu.warns == ["mmu/spte.c make_spte: reserved bits set"]
    assert any("WRITE added" in s.what for s in vcpu.steps)
    smep = l2_at(11)
    smep.mmu.cr4_smep = True
    map_gpa(smep, LEAF | 0x405)
    fault(smep, WRITE)
    assert leaf_of(smep) & 7 == 2
    by_read = l2_at(11)
    map_gpa(by_read, LEAF | 0x401)
    fault(by_read, WRITE | READ)
    assert leaf_of(by_read) & 7 == 1


def test_neighbours_are_prefetched_until_one_is_not_there() -> None:
    vcpu = l2_at(0)
    map_gpa(vcpu, LEAF | 7)
    index = GPA >> 12 & 511
    first = index & ~7
    for i in range(first, index):
        vcpu.memory[PT + i * 8] = 0x30000000 + (i << 12) | 6 << 3 | 7
    assert fault(vcpu, READ) == RET_PF_FIXED
    sp = next(s for s in vcpu.pages.values() if s.level == 1)
    assert sorted(sp.spt) == list(range(first, index + 1))
    # no A/D bits in EPTP12: prefetched entries are tracked, not accessible
    assert get_spte(sp, first) & 7 == 0
    assert get_spte(sp, first) >> 54 & 5 == 5


def test_a_prefetch_that_finds_nothing_drops_what_was_there() -> None:
    vcpu = l2_at(0)
    map_gpa(vcpu, LEAF | 7)
    fault(vcpu, READ)
    sp = next(s for s in vcpu.pages.values() if s.level == 1)
    index = GPA >> 12 & 511
    assert paging_tmpl.prefetch_invalid_gpte(vcpu, sp, index, 0)
    assert get_spte(sp, index) == 1 << 63
    assert not paging_tmpl.prefetch_gpte(vcpu, sp, index, 1 << 39 | 6 << 3 | 7)
    vcpu.slot = kvm_memory_slot(dirty_track=True)
    assert not paging_tmpl.prefetch_gpte(vcpu, sp, index, LEAF | 7)


@pytest.mark.parametrize("nx", [False, True])
@pytest.mark.parametrize("code", [READ, FETCH])
def test_huge_pages(nx: bool, code: int) -> None:
    vcpu = l2_at(18, nx_huge_pages=nx)
    vcpu.slot = kvm_memory_slot(2)
    map_gpa(vcpu, 0x23400000 | 6 << 3 | 0x487, level=2)
    assert fault(vcpu, code) == RET_PF_FIXED
    level, entry = hardware_entries(vcpu, GPA)[-1]
    small = nx and code == FETCH
    assert level == (1 if small else 2)
    assert entry & 0x404 == (0 if nx and code == READ else 0x404)
    if small:  # the table made for a fetch keeps later data faults small
        vcpu.memory = {**vcpu.memory}
        assert fault(vcpu, READ) == RET_PF_SPURIOUS


def test_an_nx_huge_page_is_split_by_a_fetch() -> None:
    vcpu = l2_at(18, nx_huge_pages=True)
    vcpu.slot = kvm_memory_slot(2)
    map_gpa(vcpu, 0x23400000 | 6 << 3 | 0x487, level=2)
    fault(vcpu, READ)
    assert fault(vcpu, FETCH) == RET_PF_FIXED
    assert [n for n, _ in hardware_entries(vcpu, GPA)] == [4, 3, 2, 1]
    assert leaf_of(vcpu) & 0x404 == 0x404


def test_small_pages_under_a_guest_huge_page_follow_its_access() -> None:
    vcpu = l2_at(0, ad=True)
    map_gpa(vcpu, 0x23400000 | 6 << 3 | 0x187, level=2)
    fault(vcpu, READ)
    assert [sp.access for sp in vcpu.pages.values() if sp.direct and sp.level < 4] == [5]
    fault(vcpu, WRITE)
    assert leaf_of(vcpu) & 2
    assert sorted(sp.access for sp in vcpu.pages.values() if sp.direct and sp.level < 4) == [5, 7]


def test_sync_follows_a_changed_entry() -> None:
    vcpu = l2_at(18, control=2 | 1 << 22)
    map_gpa(vcpu, LEAF | 0x407)
    fault(vcpu, READ)
    sp = next(s for s in vcpu.pages.values() if s.level == 1)
    index = GPA >> 12 & 511
    pte = PT + index * 8
    assert paging_tmpl.sync_spte(vcpu, sp, index) == 0
    vcpu.memory[pte] = LEAF | 0x401
    assert paging_tmpl.sync_spte(vcpu, sp, index) == 1
    # tracked again: R saved, bit 10 lost
    assert get_spte(sp, index) & 0x407 == 0
    vcpu.memory[pte] = 0x23457000 | 6 << 3 | 7
    assert paging_tmpl.sync_spte(vcpu, sp, index) == 1
    assert get_spte(sp, index) == 1 << 63


def test_sync_drops_what_is_gone_and_what_permits_nothing() -> None:
    vcpu = l2_at(0)
    map_gpa(vcpu, LEAF | 7, upper=0x701)
    fault(vcpu, READ)
    sp = next(s for s in vcpu.pages.values() if s.level == 1)
    index = GPA >> 12 & 511
    pte = PT + index * 8
    vcpu.memory[pte] = LEAF | 4
    assert paging_tmpl.sync_spte(vcpu, sp, index) == 1
    fault(vcpu, READ)
    vcpu.memory[pte] = 0
    assert paging_tmpl.sync_spte(vcpu, sp, index) == 1


def test_an_unsynced_entry_is_synced_before_the_exit() -> None:
    vcpu = l2_at(0)
    map_gpa(vcpu, LEAF | 7)
    fault(vcpu, READ)
    sp = next(s for s in vcpu.pages.values() if s.level == 1)
    kvm_unsync_page(vcpu, sp)
    vcpu.memory[PT + (GPA >> 12 & 511) * 8] = LEAF | 1
    fault(vcpu, WRITE | PRESENT)
    assert vcpu.injected is not None
    assert leaf_of(vcpu) & 2 == 0
    assert mmu_sync.kvm_sync_page(vcpu, sp) == 0
    root = vcpu.mmu.root
    assert root is not None
    assert mmu_sync.kvm_sync_spte(vcpu, root, 300) == 0


def test_syncing_under_another_role_is_refused() -> None:
    vcpu = l2_at(0)
    map_gpa(vcpu, LEAF | 7)
    fault(vcpu, READ)
    sp = next(s for s in vcpu.pages.values() if s.level == 1)
    vcpu.mmu.root_role ^= 1 << 20
    assert mmu_sync.kvm_sync_page(vcpu, sp) == -1
    vcpu.mmu = vcpu.root_mmu
    mmu_sync.kvm_mmu_invalidate_addr(vcpu, GPA)


def test_mmio_under_l2() -> None:
    vcpu = l2_at(0)
    vcpu.ram_gfns = 0x20000
    map_gpa(vcpu, 0xFEB00000 | 7)
    assert mmu_fault.kvm_mmu_page_fault(vcpu, GPA, READ) == mmu_fault.EMULATE
    sp = next(s for s in vcpu.pages.values() if s.level == 1)
    index = GPA >> 12 & 511
    assert get_spte(sp, index) & 7 == 6
    assert mmu_fault.kvm_mmu_page_fault(vcpu, GPA, 8) == mmu_fault.EMULATE
    vcpu.memory[PT + index * 8] = 0xFEB00000 | 5
    assert paging_tmpl.sync_spte(vcpu, sp, index) == 0
    vcpu.memory[PT + index * 8] = 0xFEB01000 | 5
    assert paging_tmpl.sync_spte(vcpu, sp, index) == 0
    assert get_spte(sp, index) == 1 << 63


def test_writing_the_table_that_translates_the_write() -> None:
    vcpu = l2_at(0)
    map_gpa(vcpu, PT | 6 << 3 | 7)
    assert fault(vcpu, WRITE) == RET_PF_FIXED
    assert any(sp.unsync for sp in vcpu.pages.values() if sp.level == 1)
