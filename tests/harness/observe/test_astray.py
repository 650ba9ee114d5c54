"""State that an exit leaves wrong is the answer, whatever else the vector asks, and one finding a kind."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness import protocol
from harness.findings.departures import Departure
from harness.findings.group import group
from harness.observe import astray, batch
from kvmodel.question.left import ASTRAY
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.reading import parse
from kvmodel.sdm import rule_left
from kvmodel.sdm.leaves import LEFT
from kvmodel.sdm.rules import RULES
from tests.harness.observe.test_batch import seen as observation

C = protocol.CONSTANTS
READ = parse("e4k.read.mbec=off")
PROGRAM = parse("prog+read.a3,write.b0")
ENTRY = parse("vmentry.guest_rflags:c1.mbec=off")


def test_each_bit_of_the_probe_has_words() -> None:
    assert set(astray.WORDS) == {name for name in C if name.startswith("ASTRAY_")}


@pytest.mark.parametrize("verdict", astray.ENDED)
def test_it_comes_before_what_the_vector_asks(verdict: int) -> None:
    seen = batch.outcome(READ, observation(verdict=verdict, reason=18, astray=C["ASTRAY_CR4"] | C["ASTRAY_RSP"]))
    assert (seen.kind, seen.number, seen.note) == (Kind.ASTRAY, 18, "CR4 of L1, RSP of L1")


def test_a_livelock_left_nothing_to_look_at() -> None:
    assert batch.outcome(READ, observation(verdict=6, astray=1)).kind is Kind.LIVELOCK


def test_a_program_ends_with_it() -> None:
    rows = [observation(verdict=1, astray=bits) for bits in [0] * (batch.count_records(PROGRAM) - 1) + [1]]
    seen = batch.outcome_of(PROGRAM, rows)
    assert [turn.kind for turn in seen.turns] == [Kind.ASTRAY, Kind.UNREACHED]


def test_one_kind_is_one_finding_whatever_the_manual_has() -> None:
    seen = astray.outcome(C["ASTRAY_CR4"], 48)
    one = Departure(READ, (2, "unset"), "kvm", seen, (Outcome(Kind.DONE),), "ept-permission", "29.3.3.2")
    other = replace(one, legal=(Outcome(Kind.VIOLATION, 0x181),), section="28.2.1")
    third = replace(one, seen=astray.outcome(C["ASTRAY_CR4"] | C["ASTRAY_RSP"], 18))
    (found,) = group([one, other, third])
    assert "CR4 of L1" in found.title


def test_a_misconfiguration_s_qualification_is_compared() -> None:
    seen = batch.outcome(READ, observation(verdict=2, reason=49, qualification=5))
    assert (seen.kind, seen.code) == (Kind.MISCONFIG, 5)
    assert not Outcome(Kind.MISCONFIG).matches(replace(seen, gpa=None))


def test_each_bit_has_a_rule_of_the_manual() -> None:
    assert set(LEFT) == set(ASTRAY)
    assert {rule_left(bit) for bit in ASTRAY.values()} <= {(name, rule.section) for name, rule in RULES.items()}
    assert rule_left(C["ASTRAY_LAUNCH"] | C["ASTRAY_CR0"]) == ("astray-launch", "31.3")
    with pytest.raises(KeyError):
        rule_left(1 << 31)


def test_a_vm_entry_names_the_field_and_both_values() -> None:
    looked = {"gpa": 0x681A, "gla": 0x455, "value": 0x700, "gpt_gpa": 0x640A, "target_gla": 1, "target_gpa": 2}
    bits = C["ASTRAY_GUEST"] | C["ASTRAY_INFORMATION"] | C["ASTRAY_LAUNCH"]
    seen = batch.outcome(ENTRY, observation(verdict=5, reason=1 << 31 | 33, astray=bits, **looked))
    assert (seen.kind, seen.number, seen.code) == (Kind.ASTRAY, 33, bits)
    assert seen.note.split(", ") == [
        "guest state that a failed entry changed: guest_dr7 (0x700 for 0x455)",
        "an exit field that a failed entry wrote: guest_linear_address (0x2 for 0x1)",
        "the launch state",
    ]
    # an access has addresses in these places, and no field
    assert batch.outcome(READ, observation(verdict=2, reason=48, astray=C["ASTRAY_SAVED"], gpa=0x681A)).note == (
        "the saved state of L2"
    )


def test_a_field_is_a_finding_whatever_it_holds_and_another_field_is_another() -> None:
    def entry(field: int, value: int) -> Departure:
        looked = {"gpa": field, "gla": 1, "value": value}
        seen = batch.outcome(ENTRY, observation(verdict=5, astray=C["ASTRAY_GUEST"], reason=33, **looked))
        rule, section = rule_left(seen.code)
        legal = (Outcome(Kind.ENTRY_EXIT, number=33),)
        return Departure(
            replace(ENTRY, env="no_pml" if value == 2 else "no_mtf"), (0, "unset"), "kvm", seen, legal, rule, section
        )

    found = group([entry(0x681A, 2), entry(0x681A, 3), entry(0x2806, 2)])
    assert [f.title for f in found] == [
        "state astray after an exit: guest state that a failed entry changed: guest_dr7",
        "state astray after an exit: guest state that a failed entry changed: guest_ia32_efer",
    ]
    assert found[0].rules == [("astray-guest", "27.8")]


def test_a_program_s_own_entry_is_looked_at() -> None:
    program = parse("prog+read.a0+vmlaunch")
    rows = [observation(verdict=1) for _ in range(batch.count_records(program))]
    rows[-1] = replace(rows[-1], verdict=4, error=4, astray=C["ASTRAY_INJECTION"], gpa=0x4016, gla=0, value=1 << 31)
    seen = batch.outcome_of(program, rows).turns[-1]
    assert (seen.kind, seen.note) == (
        Kind.ASTRAY,
        "VM-entry interruption information: vm_entry_intr_info_field (0x80000000 for 0x0)",
    )
