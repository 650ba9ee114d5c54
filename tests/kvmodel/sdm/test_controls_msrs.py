"""VM-entry checks and capability MSRs."""

from __future__ import annotations

from itertools import product

from kvmodel.cpu import Cpu
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.sdm import controls, msrs
from kvmodel.sdm.rules import RULES


def test_an_entry_is_refused_for_a_reason_and_only_then() -> None:
    for flags in product((False, True), repeat=8):
        has_ept, has_mbec, has_ad, has_ug, ept, mbec, ad, ug = flags
        cpu = Cpu(ept=has_ept, mbec=has_mbec, ept_ad=has_ad, unrestricted=has_ug)
        got = controls.entry_failure(cpu, ept=ept, mbec=mbec, ad=ad, unrestricted=ug)
        not_offered = (ept > has_ept) or (mbec > has_mbec) or (ug > has_ug)
        needs_ept = (mbec or ug) and not ept
        bad_eptp = ept and ad > has_ad
        assert (got is not None) == (not_offered or needs_ept or bad_eptp), flags
        if got:
            assert RULES[got].section == "27.2.1.1"
            reasons = {
                "entry-control-not-allowed": not_offered,
                "entry-mbec-needs-ept": mbec and not ept,
                "entry-unrestricted-needs-ept": ug and not ept,
                "entry-eptp-ad": bad_eptp,
            }
            assert reasons[got], flags
    assert controls.failed() == Outcome(Kind.ENTRY_FAIL, code=7)


def consistent_48b(value: int) -> bool:
    if value & 0xFFFF_FFFF:
        return False
    ept, unrestricted, mbec = value >> 33 & 1, value >> 39 & 1, value >> 54 & 1
    return bool(ept) or not (mbec or unrestricted)


def accepts(outcomes: tuple[tuple[Outcome, str], ...], value: int) -> bool:
    return any(o.matches(Outcome(Kind.VALUE, code=value)) for o, _ in outcomes)


def test_secondary_controls() -> None:
    found = msrs.values(0x48B)
    for low, *high in product((0, 1, 1 << 31), *[(0, 1 << b) for b in (32, 33, 37, 39, 49, 54, 63)]):
        value = low + sum(high)
        assert accepts(found, value) == consistent_48b(value), hex(value)


def test_ept_capabilities_bit_by_bit() -> None:
    known = {0, 6, 7, 8, 14, 16, 17, 20, 21, 22, 23, 25, 26, 32, 40, 41, 42, 43, 48, 49, 50, 51, 52, 53}
    for bit in range(64):
        assert accepts(msrs.values(0x48C), 1 << bit) == (bit in known), bit
    assert accepts(msrs.values(0x48C), 0)


def test_readings_depend_on_what_the_cpu_has() -> None:
    fault = Outcome(Kind.EXCEPTION, number=13)
    for msr in (0x48B, 0x48C):
        assert [r for _, r in msrs.readings(Cpu(vmx=False), msr)] == ["msr-absent"]
        assert msrs.readings(Cpu(), msr) == msrs.values(msr)
        assert not any(o.matches(fault) for o, _ in msrs.readings(Cpu(), msr))
    without = msrs.readings(Cpu(ept=False), 0x48C)
    assert accepts(without, 0) and any(o.matches(fault) for o, _ in without)
    assert msrs.readings(Cpu(ept=False), 0x48B) == msrs.values(0x48B)
    assert msrs.readings(Cpu(), 0x480) == ()


def test_default1_controls_must_and_may_be_1() -> None:
    pin = 0x16
    for value, legal in (
        (pin << 32 | pin, True),
        (0xFF << 32 | pin, True),
        (pin << 32, False),
        (0x7F << 32 | 0x12, False),
        (pin, False),
    ):
        assert accepts(msrs.values(0x481), value) == legal, hex(value)
    assert accepts(msrs.values(0x48D), 0x16 << 32)  # none must be 1 there
    assert not accepts(msrs.values(0x48D), 0x14 << 32 | 0x14)
    classes = {0x481: 0x16, 0x482: 0x0401E172, 0x483: 0x00036DFF, 0x484: 0x000011FF}
    assert classes == msrs.DEFAULT_1
    for msr, default in classes.items():
        for bit in range(32):
            low = 0xFFFF_FFFF << 32 | 0xFFFF_FFFF & ~(1 << bit)
            high = 0xFFFF_FFFF & ~(1 << bit) | (0xFFFF_FFFF & ~(1 << bit)) << 32
            required = bool(default >> bit & 1)
            assert accepts(msrs.values(msr), low) != required
            assert accepts(msrs.values(msr + 12), low)
            assert accepts(msrs.values(msr + 12), high) != required


def test_vm_functions_and_true_msrs_may_be_missing() -> None:
    fault = Outcome(Kind.EXCEPTION, number=13)
    assert accepts(msrs.values(0x491), 0) and accepts(msrs.values(0x491), 1) and not accepts(msrs.values(0x491), 2)
    for msr in (0x48D, 0x48E, 0x48F, 0x490, 0x491):
        assert any(o.matches(fault) for o, _ in msrs.readings(Cpu(), msr))
    for msr in (0x481, 0x482, 0x483, 0x484):
        assert not any(o.matches(fault) for o, _ in msrs.readings(Cpu(), msr))
