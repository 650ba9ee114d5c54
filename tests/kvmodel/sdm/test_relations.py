"""MSRs judged together: a sound CPU's break no relation, and each relation sees what breaks it and nothing else."""

from __future__ import annotations

import pytest

from kvmodel import machine, sdm
from kvmodel.bits import BIT, GENMASK
from kvmodel.cpu import Cpu
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.reading import parse
from kvmodel.question.relations import EXISTENCE, RELATIONS
from kvmodel.question.vector import CapsVector, UserCapsVector, VectorError
from kvmodel.sdm.relations import SDM, judged
from kvmodel.sdm.rules import RULES

# Made up: a CPU with everything that a relation is about.
SOUND: dict[int, int | None] = {
    0x480: 1 << 55 | 1 << 54 | 6 << 50 | 0x1000 << 32 | 4,
    0x481: 0xFF << 32 | 0x16,
    0x482: 0xFFFBFFFE << 32 | 0x0401E172,
    0x483: 0x83FFFFFF << 32 | 0x36DFF,
    0x484: 0x0007FFFF << 32 | 0x11FF,
    0x485: 1 << 29 | 4 << 16 | 1 << 5,
    0x486: 0x80000021,
    0x487: 0xFFFFFFFF,
    0x488: 0x2000,
    0x489: 0x772FFF,
    0x48A: 25 << 1,
    0x48B: 0x03F7FFFF << 32,
    0x48C: 0xF01_0673_4141,
    0x48D: 0xFF << 32 | 0x16,
    0x48E: 0xFFFBFFFE << 32 | 0x04006172,
    0x48F: 0x83FFFFFF << 32 | 0x36DFB,
    0x490: 0x0007FFFF << 32 | 0x11FB,
    0x491: 1,
    0x492: 1,
    0x493: 1,
}


def without(msr: int, *bits: int) -> dict[int, int | None]:
    value = SOUND[msr]
    assert value is not None
    for bit in bits:
        assert value >> bit & 1
        value &= ~BIT(bit)
    return {msr: value}


def both(msr: int, bit: int) -> dict[int, int | None]:
    """Neither the plain nor the TRUE form allows the control."""
    return without(msr, 32 + bit) | without(msr + 12, 32 + bit)


def put(msr: int, value: int) -> dict[int, int | None]:
    return {msr: value}


BROKEN: list[tuple[str, dict[int, int | None], int]] = [
    ("basic", put(0x480, (SOUND[0x480] or 0) | BIT(31) | BIT(48)), BIT(31) | BIT(48)),
    ("basic", put(0x480, 6 << 50 | 4), GENMASK(44, 32)),
    ("basic", put(0x480, 6 << 50 | 0x1001 << 32), GENMASK(44, 32)),
    ("basic", put(0x480, 5 << 50 | 0x1000 << 32), GENMASK(53, 50)),
    ("misc", put(0x485, BIT(31) | BIT(13) | BIT(5)), BIT(31) | BIT(13)),
    ("misc", put(0x485, 257 << 16 | BIT(5)), GENMASK(24, 16)),
    ("misc", put(0x485, 4 << 16), BIT(5)),
    ("fixed", put(0x486, 0x80000021 | BIT(40)), BIT(40)),
    ("fixed", put(0x489, 0x770FFF), BIT(13)),
    ("enum", put(0x48A, 24 << 1), GENMASK(9, 1)),
    ("enum", put(0x48A, 25 << 1 | BIT(0) | BIT(10)), BIT(0) | BIT(10)),
    ("allowed-481", put(0x481, 0xEF << 32 | 0x16), BIT(4)),
    ("allowed-48b", put(0x48B, 1), 1),
    ("allowed-490", without(0x490, 32), BIT(0)),
    ("default1-483", without(0x483, 2, 32 + 16), BIT(2) | BIT(48)),
    ("true-48d", without(0x48D, 32 + 7), BIT(39)),
    ("true-48e", put(0x48E, (SOUND[0x48E] or 0) | BIT(7)), BIT(7)),
    ("true-exist", {0x48E: None, 0x490: None}, 0b1010),
    ("true-exist", without(0x480, 55), 0b1111),
    ("secondary-exist", {0x48B: None}, 1),
    ("secondary-exist", both(0x482, 31), 1),
    ("ept-vpid-exist", without(0x48B, 33, 37), 1),
    ("ept-vpid-exist", {0x48C: None}, 1),
    ("vmfunc-exist", without(0x48B, 45), 1),
    ("vmfunc-exist", {0x491: None}, 1),
    ("tertiary-exist", both(0x482, 17), 1),
    ("tertiary-exist", {0x492: None}, 1),
    ("secondary-exit-exist", both(0x483, 31), 1),
    ("secondary-exit-exist", {0x493: None}, 1),
    ("ept-usable", without(0x48C, 6), GENMASK(7, 6)),
    ("ept-usable", without(0x48C, 8, 14), BIT(8) | BIT(14)),
    ("invept-types", without(0x48C, 20), GENMASK(26, 25)),
    ("invvpid-types", without(0x48C, 32), GENMASK(43, 40)),
    ("unrestricted-needs-ept", without(0x48B, 33), BIT(39)),
    ("mbec-needs-ept", without(0x48B, 33), BIT(54)),
    ("pml-needs-ept", without(0x48B, 33), BIT(49)),
    ("spp-needs-ept", without(0x48B, 33), BIT(55)),
    ("pt-needs-ept", without(0x48B, 33), BIT(56)),
    ("pt-needs-ept", both(0x483, 25), BIT(56)),
    ("pt-needs-ept", both(0x484, 18), BIT(56)),
    ("eptp-switching-needs-ept", without(0x48B, 33), BIT(0)),
    ("x2apic-needs-tpr-shadow", both(0x482, 21), BIT(36)),
    ("apic-registers-need-tpr-shadow", both(0x482, 21), BIT(40)),
    ("vid-needs-tpr-shadow", both(0x482, 21), BIT(41)),
    ("vid-needs-extint-exiting", both(0x481, 0), BIT(41)),
    ("posted-need-vid", without(0x48B, 41), BIT(39)),
    ("posted-need-ack", both(0x483, 15), BIT(39)),
    ("virtual-nmis-need-nmi-exiting", both(0x481, 3), BIT(37)),
    ("nmi-window-needs-virtual-nmis", both(0x481, 5), BIT(54)),
    ("save-timer-needs-timer", both(0x481, 6), BIT(54)),
]


@pytest.mark.parametrize("relation", RELATIONS)
def test_a_sound_cpu_breaks_nothing(relation: str) -> None:
    seen = judged(relation, SOUND)
    assert (seen.kind, seen.code) == (Kind.VALUE, 0)
    assert all(f"{msr:#x} {SOUND[msr]:#x}" in seen.note for msr in RELATIONS[relation])


@pytest.mark.parametrize(("relation", "changes", "offenders"), BROKEN)
def test_what_breaks_a_relation_is_told_by_its_bits(
    relation: str, changes: dict[int, int | None], offenders: int
) -> None:
    assert changes.keys() <= set(RELATIONS[relation])
    assert judged(relation, SOUND | changes).code == offenders


def test_every_relation_is_known_to_both_sides_and_is_broken_by_something() -> None:
    assert SDM.keys() == RELATIONS.keys()
    families = {name.partition("-")[0] for name in RELATIONS if name.startswith(("allowed-", "default1-", "true-"))}
    tried = {name for name, _, _ in BROKEN}
    assert all(name in tried or name.partition("-")[0] in families for name in RELATIONS)
    assert all(f"caps-{name}" in RULES for name in RELATIONS)


def test_plain_forms_decide_where_there_are_no_true_ones() -> None:
    plain = SOUND | without(0x480, 55) | {msr: None for msr in range(0x48D, 0x491)}
    assert not any(judged(relation, plain).code for relation in RELATIONS)
    gone = plain | without(0x481, 35)
    assert judged("virtual-nmis-need-nmi-exiting", gone).code == BIT(37)
    assert judged("virtual-nmis-need-nmi-exiting", SOUND | without(0x481, 35)).code == 0  # the TRUE form allows it


def test_ids_are_read_back_and_refused_by_name() -> None:
    for vector in (
        CapsVector(relation="posted-need-vid"),
        UserCapsVector("basic", "kvm", "eptad0"),
    ):
        assert parse(vector.id) == vector
    assert parse("ucaps.basic") == UserCapsVector("basic")
    with pytest.raises(VectorError, match="relation 'no-such' is not known: use one of basic"):
        parse("caps.no-such.mbec=on")
    for name in EXISTENCE:
        with pytest.raises(VectorError, match="ask it of L1"):
            parse(f"ucaps.{name}")


def test_the_contract_allows_no_offender() -> None:
    (only,) = sdm.allowed(Cpu(), CapsVector(relation="mbec-needs-ept"))  # type: ignore[misc]
    assert only.rule == "caps-mbec-needs-ept" and only.section == "27.2.1.1"
    assert only.outcome.matches(Outcome(Kind.VALUE, 0, note="0x48b 0x0"))
    assert not only.outcome.matches(Outcome(Kind.VALUE, BIT(54)))


@pytest.mark.parametrize("vector", [CapsVector(), UserCapsVector()])
def test_the_mirror_speaks_of_the_control_that_the_series_adds(vector: CapsVector | UserCapsVector) -> None:
    for level in (0, 16, 18):
        assert machine.predict(level, None, Cpu(), vector).outcome == Outcome(Kind.VALUE, 0)
    other = CapsVector(relation="basic")
    assert machine.predict(18, None, Cpu(), other).outcome.kind is Kind.NOT_MIRRORED
