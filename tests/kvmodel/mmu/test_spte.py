"""mmu/spte.c and spte.h: masks, the making of entries, access tracking."""

from __future__ import annotations

import pytest

from kvmodel.include.asm.kvm_host import Vcpu, kvm_memory_slot, kvm_mmu_page
from kvmodel.mmu import spte, spte_h
from kvmodel.series import Level
from tests.kvmodel.mirror import CPU, kvm_at, l1_at, l2_at

VE = 1 << 63
PRESENT = 1 << 11
SLOT = kvm_memory_slot()


def page(vcpu: Vcpu, level: int = 1, *, ad_disabled: bool = False, direct: bool = True) -> kvm_mmu_page:
    roles = vcpu.kvm.roles
    role = roles.make(level=level, direct=direct, ad_disabled=ad_disabled, access=vcpu.kvm.s.ACC_ALL)
    return kvm_mmu_page(1 << 36, 0, role, roles)


def make(vcpu: Vcpu, access: int, level: int = 1, **kw: bool) -> int:
    return spte.make_spte(vcpu, page(vcpu, level), SLOT, access, 0x200, 0x200, VE, False, True, True)[1]


@pytest.mark.parametrize("k", range(19))
def test_ept_masks(k: int) -> None:
    kvm = kvm_at(k, True)
    assert kvm.shadow_user_mask == 1
    assert kvm.shadow_x_mask == 4
    assert kvm.shadow_present_mask == VE
    assert kvm.shadow_acc_track_mask == (0x407 if k >= 13 else 7)
    assert kvm.shadow_mmio_value == (0x406 if k >= 13 else 6)
    assert kvm.shadow_mmio_mask == VE | (0x407 if k >= 13 else 7)
    assert kvm.shadow_ux_mask == (0x400 if k >= 12 else 0)
    assert kvm.warns == []


def test_masks_follow_the_cpu() -> None:
    from dataclasses import replace

    no_xo = kvm_at(18, cpu=replace(CPU, execonly=False, ept_ad=False))
    assert no_xo.shadow_present_mask == VE | 1
    assert no_xo.shadow_accessed_mask == 0
    assert kvm_at(18, cpu=replace(CPU, mbec=False)).shadow_ux_mask == 0


def test_shadow_paging_masks() -> None:
    kvm = kvm_at(18, ept=False)
    assert kvm.shadow_nx_mask == VE
    assert kvm.shadow_x_mask == 0
    assert kvm.shadow_ux_mask == 0
    assert kvm.shadow_mmio_mask == 1 << 51 | 1


def test_l1tf_takes_five_address_bits() -> None:
    kvm = kvm_at(0)
    kvm.boot_cpu_has_bug_l1tf = True
    kvm.x86_cache_bits = 44
    spte.kvm_mmu_reset_all_pte_masks(kvm)
    assert kvm.shadow_nonpresent_or_rsvd_mask == 0x1F << 39
    assert kvm.shadow_nonpresent_or_rsvd_lower_gfn_mask == (1 << 39) - (1 << 12)
    kvm.x86_cache_bits = 47
    spte.kvm_mmu_reset_all_pte_masks(kvm)
    assert kvm.warns == ["mmu/spte.c kvm_mmu_reset_all_pte_masks"]


@pytest.mark.parametrize(
    ("value", "mask", "what"),
    [(6, 7 | 1 << 3, "generation bits"), (8 | 4, 7, "value outside the mask"), (0x1000, 0x1000, "a legal gfn")],
)
def test_bad_mmio_masks_warn(value: int, mask: int, what: str) -> None:
    kvm = kvm_at(0)
    spte.kvm_mmu_set_mmio_spte_mask(kvm, value, mask, 0)
    assert kvm.warns, what


def test_mmio_caching_is_off_when_the_user_says_so_or_the_value_is_refused() -> None:
    kvm = kvm_at(0)
    kvm.allow_mmio_caching = False
    spte.kvm_mmu_set_mmio_spte_mask(kvm, 6, 7, 0)
    assert not kvm.enable_mmio_caching
    kvm.allow_mmio_caching = True
    kvm.shadow_nonpresent_or_rsvd_mask = 1 << 40
    spte.kvm_mmu_set_mmio_spte_mask(kvm, 1 << 45, 1 << 45, 0)
    assert kvm.warns
    assert not kvm.enable_mmio_caching


def test_memory_encryption_mask() -> None:
    kvm = kvm_at(0)
    spte.kvm_mmu_set_me_spte_mask(kvm, 1 << 40, 3 << 40)
    assert (kvm.shadow_me_value, kvm.shadow_me_mask) == (1 << 40, 3 << 40)
    spte.kvm_mmu_set_me_spte_mask(kvm, 1 << 42, 3 << 40)
    assert (kvm.shadow_me_value, kvm.shadow_me_mask) == (0, 0)
    assert kvm.warns


# (level, flag) -> X and bit 10 of an entry with EXEC, with USER_EXEC, with both, with neither
EXEC_BITS = [
    (0, False, (4, 0, 4, 0)),
    (14, True, (4, 0, 4, 0)),
    (15, False, (4, 0, 4, 0)),
    (15, True, (4, 0x400, 0x404, 0)),
    (18, True, (4, 0x400, 0x404, 0)),
]


@pytest.mark.parametrize(("k", "flag", "bits"), EXEC_BITS)
def test_executability_of_an_entry(k: int, flag: bool, bits: tuple[int, ...]) -> None:
    vcpu = l2_at(k, True) if k >= 15 else l2_at(k)
    vcpu.pt_guest_exec_control = flag
    vcpu.kvm.shadow_ux_mask = 0x400 if k >= 12 else 0
    for access, want in zip((4 | 1, 4 | 8, 4 | 9, 4), bits, strict=True):
        assert make(vcpu, access) & 0x404 == want


def test_an_entry_bit_by_bit() -> None:
    vcpu = l1_at(0)
    entry = make(vcpu, 7)
    assert entry == PRESENT | VE | 0x7 | 6 << 3 | 1 << 6 | 0x300 | 3 << 57 | 0x200 << 12


@pytest.mark.parametrize(
    ("k", "access", "left"), [(0, 7, 0), (14, 0xF, 0), (15, 0xF, 0), (15, 0xE, 0x400), (15, 0x7, 0)]
)
def test_nx_huge_pages(k: int, access: int, left: int) -> None:
    """The rule is entered by EXEC alone: USER_EXEC without it stays on a huge page."""
    vcpu = l1_at(k, nx_huge_pages=True)
    vcpu.pt_guest_exec_control = k >= 15
    vcpu.kvm.shadow_ux_mask = 0x400 if k >= 12 else 0
    entry = make(vcpu, access, level=2)
    assert entry & 0x404 == left
    assert entry & 0x80


def test_prefetch_without_ad_bits_tracks_access() -> None:
    vcpu = l2_at(18)
    sp = page(vcpu, ad_disabled=True, direct=False)
    _, entry = spte.make_spte(vcpu, sp, SLOT, 0xF, 0x200, 0x200, VE, True, True, True)
    assert entry & 0x407 == 0
    assert entry >> 54 & 7 == 5
    restored = spte_h.restore_acc_track_spte(vcpu.kvm, entry)
    assert restored & 0x407 == 5


def test_patch_13_adds_bit_10_to_what_tracking_clears() -> None:
    tracked = PRESENT | 1 << 52 | 0x404
    assert spte_h.is_access_track_spte(kvm_at(12), PRESENT | 1 << 52 | 0x400)
    assert not spte_h.is_access_track_spte(kvm_at(13), PRESENT | 1 << 52 | 0x400)
    assert spte.mark_spte_for_access_track(kvm_at(12), tracked) & 0x407 == 0x400
    assert spte.mark_spte_for_access_track(kvm_at(13), tracked) & 0x407 == 0


def test_mark_with_ad_bits_clears_accessed() -> None:
    kvm = kvm_at(0)
    assert spte.mark_spte_for_access_track(kvm, PRESENT | 0x307) == PRESENT | 0x207
    already = PRESENT | 1 << 52
    assert spte.mark_spte_for_access_track(kvm, already) == already


def test_mark_warns_of_impossible_entries() -> None:
    kvm = kvm_at(0)
    spte.mark_spte_for_access_track(kvm, PRESENT | 1 << 52 | 2)
    spte.mark_spte_for_access_track(kvm, PRESENT | 1 << 52 | 4 | 1 << 54)
    assert kvm.warns == [
        "mmu/spte.h check_spte_writable_invariants",
        "mmu/spte.c mark_spte_for_access_track",
    ]


@pytest.mark.parametrize(("k", "extra"), [(11, 0), (12, 0x400), (18, 0x400)])
def test_a_table_entry_permits_everything(k: int, extra: int) -> None:
    kvm = kvm_at(k, True)
    assert spte.make_nonleaf_spte(kvm, 0x5000, False) == 0x5000 | PRESENT | VE | 7 | 0x100 | extra
    assert spte.make_nonleaf_spte(kvm, 0x5000, True) == 0x5000 | PRESENT | VE | 7 | 1 << 52 | extra


@pytest.mark.parametrize(("k", "low", "bits"), [(12, 10, 19), (13, 9, 18)])
def test_mmio_generation(k: int, low: int, bits: int) -> None:
    kvm = kvm_at(k)
    assert low == kvm.s.MMIO_SPTE_GEN_LOW_END
    assert (1 << bits) - 1 == kvm.s.MMIO_SPTE_GEN_MASK
    for gen in (0, 1, 0x7F, 0x80, 0xFF, 0x100, kvm.s.MMIO_SPTE_GEN_MASK):
        kvm.generation = gen
        entry = spte.make_mmio_spte(kvm, 0xFEE00, 0xF)
        assert spte_h.get_mmio_spte_generation(kvm, entry) == gen
        assert spte_h.is_mmio_spte(kvm, entry)
        assert not spte_h.is_shadow_present_pte(entry)
        assert entry & 0xFEE00000 == 0xFEE00000


def test_mmio_entry_without_value_warns() -> None:
    kvm = kvm_at(0)
    kvm.shadow_mmio_value = 0
    spte.make_mmio_spte(kvm, 1, 0)
    assert kvm.warns == ["mmu/spte.c make_mmio_spte"]


@pytest.mark.parametrize(
    ("k", "param", "access", "left"),
    [(11, True, 0xF, 4), (12, True, 0xF, 0x404), (12, True, 0x7, 4), (12, True, 0xE, 0), (18, False, 0xF, 4)],
)
def test_splitting_makes_small_pages_executable(k: int, param: bool, access: int, left: int) -> None:
    kvm = kvm_at(k, param, nx_huge_pages=True)
    huge = PRESENT | VE | 3 | 0x80 | 0x200 << 12
    role = kvm.roles.make(level=1, access=access)
    child = spte.make_huge_page_split_spte(kvm, huge, role, 5)
    assert child & 0x484 == left
    assert child >> 12 & 0xFFFFF == 0x205
    huge = PRESENT | VE | 3 | 0x80 | 0x40000 << 12
    larger = spte.make_huge_page_split_spte(kvm, huge, kvm.roles.make(level=2, access=access), 1)
    assert larger & 0x84 == 0x80
    assert larger >> 12 & 0xFFFFF == 0x40200


def test_splitting_what_is_not_huge_is_a_bug() -> None:
    kvm = kvm_at(0)
    spte.make_huge_page_split_spte(kvm, PRESENT, kvm.roles.make(level=1), 0)
    assert kvm.warns == ["mmu/spte.c make_huge_page_split_spte"]


def test_making_a_tracked_entry_executable_saves_x() -> None:
    kvm = kvm_at(0)
    tracked = PRESENT | 1 << 52 | 1 << 54
    assert spte.make_spte_executable(kvm, tracked) == tracked | 1 << 56
    assert spte.make_spte_executable(kvm, PRESENT | 1) == PRESENT | 5


@pytest.mark.parametrize("k", [13, 14])
def test_is_executable_by_mode_from_patch_14(k: int) -> None:
    vcpu = l1_at(18)
    kvm = vcpu.kvm
    kvm.has = Level.of(k).has
    for x, ux in ((0, 0), (4, 0), (0, 0x400), (4, 0x400)):
        kernel = spte_h.is_executable_pte(kvm, x | ux, True, vcpu)
        user = spte_h.is_executable_pte(kvm, x | ux, False, vcpu)
        assert kernel == bool(x)
        assert user == (bool(ux) if k == 14 else bool(x))
    vcpu.pt_guest_exec_control = False
    assert spte_h.is_executable_pte(kvm, 4, False, vcpu)


def test_write_protection() -> None:
    vcpu = l1_at(0)
    sp = page(vcpu)
    assert spte.make_spte(vcpu, sp, SLOT, 7, 0x200, 0x200, VE, False, True, False)[1] & 3 << 57 == 0
    shadowed = kvm_mmu_page(2 << 36, 0x200, vcpu.kvm.roles.make(level=2), vcpu.kvm.roles)
    vcpu.indirect[0x200] = [shadowed]
    wrprot, entry = spte.make_spte(vcpu, sp, SLOT, 7, 0x200, 0x200, VE, False, True, True)
    assert wrprot
    assert entry & 2 == 0
    old = PRESENT | 2
    assert spte.make_spte(vcpu, sp, SLOT, 7, 0x200, 0x200, old, False, True, True)[0] is False


def test_a_leaf_table_may_become_unsync() -> None:
    vcpu = l1_at(0)
    leaf = kvm_mmu_page(2 << 36, 0x200, vcpu.kvm.roles.make(level=1), vcpu.kvm.roles)
    vcpu.indirect[0x200] = [leaf]
    args = (vcpu, page(vcpu), SLOT, 7, 0x200, 0x200, VE)
    assert spte.make_spte(*args, False, False, True)[0]
    assert spte.make_spte(*args, True, True, True)[0]
    assert not leaf.unsync
    assert not spte.make_spte(*args, False, True, True)[0]
    assert leaf.unsync
    assert not spte.make_spte(*args, True, True, True)[0]


def test_dirty_logging_marks_and_huge_pages_warn() -> None:
    vcpu = l1_at(0)
    slot = kvm_memory_slot(dirty_track=True)
    spte.make_spte(vcpu, page(vcpu), slot, 7, 0x200, 0x200, VE, False, True, True)
    assert vcpu.stat == {"mark_page_dirty": 1}
    spte.make_spte(vcpu, page(vcpu, 2), slot, 7, 0x200, 0x200, VE, False, True, True)
    assert vcpu.warns


def test_memory_types() -> None:
    vcpu = l1_at(0)
    vcpu.mmio_pfns = frozenset({0x200})
    assert make(vcpu, 7) & 0x78 == 0
    vcpu.mmio_pfns = frozenset()
    vcpu.kvm.noncoherent_dma = True
    assert make(vcpu, 7) & 0x78 == 6 << 3


def test_an_encrypted_host_marks_ram_only() -> None:
    vcpu = l1_at(0)
    vcpu.kvm.shadow_me_value = 1 << 39
    assert make(vcpu, 7) & 1 << 39
    vcpu.mmio_pfns = frozenset({0x200})
    assert not make(vcpu, 7) & 1 << 39


def test_nothing_permitted_and_nothing_present_warns() -> None:
    vcpu = l2_at(0)
    make(vcpu, 0)
    assert vcpu.warns == ["mmu/spte.c make_spte: no permission at all"]


def test_write_without_read_is_reserved() -> None:
    vcpu = l2_at(0)
    make(vcpu, 2)
    assert vcpu.warns == ["mmu/spte.c make_spte: reserved bits set"]


def test_predicates() -> None:
    kvm = kvm_at(0)
    kvm13 = kvm_at(13)
    assert spte_h.is_frozen_spte(VE | 0x5A0)
    assert spte_h.is_ept_ve_possible(kvm, PRESENT | 7)
    assert not spte_h.is_ept_ve_possible(kvm, VE | 7)
    assert not spte_h.is_ept_ve_possible(kvm, 6)
    assert spte_h.is_ept_ve_possible(kvm13, 6)
    assert not spte_h.is_ept_ve_possible(kvm13, 0x406)
    assert spte_h.spte_ad_need_write_protect(2 << 52)
    assert not spte_h.spte_ad_need_write_protect(0)
    assert spte_h.is_accessed_spte(kvm, PRESENT | 0x100)
    assert not spte_h.is_accessed_spte(kvm, PRESENT)
    assert spte_h.is_accessed_spte(kvm, PRESENT | 1 << 52 | 1)
    assert not spte_h.is_accessed_spte(kvm, PRESENT | 1 << 52)
    assert spte_h.is_dirty_spte(kvm, PRESENT | 0x200)
    assert spte_h.is_dirty_spte(kvm, PRESENT | 1 << 52 | 2)
    assert not spte_h.is_dirty_spte(kvm, PRESENT | 2)
    assert spte.spte_has_volatile_bits(kvm, PRESENT | 1 << 58)
    assert spte.spte_has_volatile_bits(kvm, PRESENT | 1 << 52)
    assert spte.spte_has_volatile_bits(kvm, PRESENT | 1)
    assert spte.spte_has_volatile_bits(kvm, PRESENT | 0x102)
    assert not spte.spte_has_volatile_bits(kvm, PRESENT | 0x303)
    assert not spte.spte_has_volatile_bits(kvm, PRESENT | 1 << 52 | 1)


def test_steps_are_told_when_asked() -> None:
    vcpu = l2_at(18, nx_huge_pages=True)
    vcpu.steps = []
    make(vcpu, 0xF, level=2)
    assert [s.patch for s in vcpu.steps if s.patch] == [15, 15]
    make(vcpu, 2)
    assert any("WARN" in s.what for s in vcpu.steps)
