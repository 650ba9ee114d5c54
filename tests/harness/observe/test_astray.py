"""State that an exit leaves wrong is the answer, whatever else the vector asks, and one finding a kind."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness import protocol
from harness.findings.departures import Departure
from harness.findings.group import group
from harness.observe import astray, batch
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.reading import parse
from tests.harness.observe.test_batch import seen as observation

C = protocol.CONSTANTS
READ = parse("e4k.read.mbec=off")
PROGRAM = parse("prog+read.a3,write.b0")


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
