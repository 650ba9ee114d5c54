"""asm/vmx.h by level: what each patch adds, widens and moves."""

from __future__ import annotations

import pytest

from kvmodel.include.asm.vmx_h import fixed_bits_valid, vmx_control_msr, vmx_eptp_page_walk_level, vmx_h
from kvmodel.series import Level


def at(k: int):  # type: ignore[no-untyped-def]
    return vmx_h(Level.of(k))


@pytest.mark.parametrize("k", range(19))
def test_masks_widen_with_patch_13(k: int) -> None:
    assert (0x407 if k >= 13 else 7) == at(k).VMX_EPT_RWX_MASK
    assert (0x406 if k >= 13 else 6) == at(k).VMX_EPT_MISCONFIG_WX_VALUE


def test_names_appear_with_their_patches() -> None:
    assert not hasattr(at(6), "VMX_EPT_USER_EXECUTABLE_MASK")
    assert at(7).VMX_EPT_USER_EXECUTABLE_MASK == 1 << 10
    assert at(1).EPT_VIOLATION_RWX_MASK == 0x38
    assert not hasattr(at(2), "EPT_VIOLATION_RWX_MASK")
    assert at(2).EPT_VIOLATION_PROT_MASK == 0x38
    assert not hasattr(at(10), "EPT_VIOLATION_PROT_USER_EXEC")
    assert at(11).EPT_VIOLATION_PROT_USER_EXEC == 0x40


@pytest.mark.parametrize("epte", [0, 1, 2, 4, 7, 0x400, 0x407, 0xFFFF_FFFF_FFFF_FFFF])
def test_entry_bits_become_qualification_bits(epte: int) -> None:
    h = at(11)
    assert h.EPT_VIOLATION_READ_TO_PROT(epte) == (8 if epte & 1 else 0)
    assert h.EPT_VIOLATION_WRITE_TO_PROT(epte) == (16 if epte & 2 else 0)
    assert h.EPT_VIOLATION_EXEC_TO_PROT(epte) == (32 if epte & 4 else 0)
    assert h.EPT_VIOLATION_USER_EXEC_TO_PROT(epte) == (64 if epte & 0x400 else 0)
    assert at(2).EPT_VIOLATION_RWX_TO_PROT(epte) == (epte & 7) * 8


def test_helpers() -> None:
    assert vmx_eptp_page_walk_level(0x1E) == 4
    assert vmx_eptp_page_walk_level(0x26) == 5
    assert vmx_control_msr(0x1, 0x8000_0000) == 0x8000_0000_0000_0001
    assert fixed_bits_valid(0b101, 0b001, 0b111)
    assert not fixed_bits_valid(0b100, 0b001, 0b111)
    assert not fixed_bits_valid(0b1001, 0b001, 0b111)
