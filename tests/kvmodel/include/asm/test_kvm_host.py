"""Roles and small helpers of kvm_host.h, mmu.h and mmu_internal.h."""

from __future__ import annotations

import pytest

from kvmodel.include.asm.kvm_host import (
    KVM_PAGES_PER_HPAGE,
    gfn_round_for_level,
    kvm_mmu_extended_role,
    kvm_page_fault,
    rsvd_bits,
)
from kvmodel.include.asm.kvm_role import role_layout
from kvmodel.series import Level


def test_role_word_at_the_base() -> None:
    roles = role_layout(Level.of(8))
    assert roles.make(level=15) == 0xF
    assert roles.make(direct=1) == 1 << 7
    assert roles.make(access=7) == 7 << 8
    assert roles.make(invalid=1) == 1 << 11
    assert roles.make(ad_disabled=1) == 1 << 16
    assert roles.make(guest_mode=1) == 1 << 17
    assert roles.make(smm=0xFF) == 0xFF << 24


def test_patch_9_moves_what_is_above_access_and_keeps_smm() -> None:
    roles = role_layout(Level.of(9))
    assert roles.make(access=15) == 15 << 8
    assert roles.make(invalid=1) == 1 << 12
    assert roles.make(ad_disabled=1) == 1 << 17
    assert roles.make(smm=0xFF) == 0xFF << 24


@pytest.mark.parametrize(("level", "kept"), [(8, 7), (9, 15)])
def test_a_bit_field_cuts_what_does_not_fit(level: int, kept: int) -> None:
    roles = role_layout(Level.of(level))
    word = roles.make(access=15, level=4)
    assert roles.get(word, "access") == kept
    assert roles.get(roles.set(word, access=1, level=3), "access") == 1
    assert roles.get(roles.set(word, level=3), "level") == 3


def test_extended_role_word() -> None:
    assert kvm_mmu_extended_role(valid=True, execonly=True).word == 3
    assert kvm_mmu_extended_role(efer_lma=True).word == 0x80


def test_reserved_bits() -> None:
    assert rsvd_bits(3, 7) == 0xF8
    assert rsvd_bits(63, 63) == 1 << 63
    assert rsvd_bits(40, 63) == 0xFFFF_FF00_0000_0000
    assert rsvd_bits(5, 4) == 0


def test_page_sizes() -> None:
    assert [KVM_PAGES_PER_HPAGE(n) for n in (1, 2, 3)] == [1, 512, 512 * 512]
    assert gfn_round_for_level(0x12345, 2) == 0x12200


def test_a_fault_is_read_from_its_error_code() -> None:
    fault = kvm_page_fault(0x1000, 0b10110, False, False, True)
    assert (fault.present, fault.write, fault.user, fault.rsvd, fault.exec) == (False, True, True, False, True)
