"""Which vectors are traced, and what the mirror's warnings are held against."""

from __future__ import annotations

import pytest

from harness.observe import cut
from harness.observe.cut import Traced
from harness.questions import core
from harness.questions.loads import Load
from harness.run import sample
from kvmodel import machine
from kvmodel.cpu import Cpu
from kvmodel.question.outcome import Kind
from kvmodel.question.vector import ENVIRONMENTS, Access, AccessVector, Mbec, MsrVector, NxVector, Perm
from tests.harness.settings import ON, UNSET

CPU = Cpu()
BASE = Load(0, UNSET, ENVIRONMENTS["std"])
LAST = Load(18, ON, ENVIRONMENTS["std"])


def as_told(load: Load, vector: AccessVector, warns: tuple[str, ...] = ()) -> Traced:
    told = cut.predicted(machine.events(load.level, load.param, CPU, vector))
    return Traced(vector, tuple(told), warns)


def test_one_of_each_kind_is_taken_and_no_more_than_the_limit() -> None:
    asked = [v for v in core.permissions_4k() if isinstance(v, AccessVector) and v.mbec is Mbec.OFF]
    chosen = sample.select(BASE, CPU, asked)
    assert 10 < len(chosen) <= sample.LIMIT
    kinds = {machine.predict(0, None, CPU, v).outcome.kind for v in chosen}
    assert {Kind.DONE, Kind.VIOLATION, Kind.MISCONFIG} <= kinds
    assert sample.select(BASE, CPU, [asked[0], asked[0]]) == [asked[0]]
    assert sample.select(BASE, CPU, [MsrVector()]) == []


def test_livelocks_are_few_and_what_kills_l1_is_left_out() -> None:
    asked = [v for v in core.permissions_4k() if isinstance(v, AccessVector) and v.mbec is not Mbec.NA]
    kinds = [machine.predict(18, True, CPU, v).outcome.kind for v in sample.select(LAST, CPU, asked)]
    assert kinds.count(Kind.LIVELOCK) == sample.LIVELOCKS
    assert Kind.HOST not in kinds


def test_every_question_about_huge_pages_is_traced_unless_l1_dies_of_it() -> None:
    asked = list(core.nx_huge_pages())
    load = Load(0, UNSET, ENVIRONMENTS["hugenx"])
    off = [v for v in asked if isinstance(v, NxVector) and v.asked.mbec is Mbec.OFF]
    assert sample.select(load, CPU, off) == off


def test_a_difference_is_told_with_both_texts() -> None:
    vector = AccessVector(Mbec.OFF, access=Access.WRITE)
    good = as_told(BASE, vector)
    entry, one = good.exits
    spoilt = Traced(vector, (entry, one[:-1]))
    first, second = sample.judge_traces(BASE, CPU, [good, spoilt], set(), now={vector})
    assert (first.difference, first.exits, first.events) == ("", 1, good.events)
    assert "kvm_mmu_set_spte" in second.difference
    assert second.as_json()["vector"] == vector.id


@pytest.fixture
def warning() -> AccessVector:
    """A vector of which the mirror says that KVM warns at level 18."""
    for v in core.permissions_4k():
        if isinstance(v, AccessVector) and machine.warns(18, True, CPU, v):
            return v
    pytest.fail("the mirror predicts no WARN at level 18")


def test_a_warn_is_expected_once(warning: AccessVector) -> None:
    expected = machine.warns(18, True, CPU, warning)
    loud, silent = (
        as_told(LAST, warning, tuple(f"{one.split()[0]} somewhere" for one in expected)),
        as_told(LAST, warning),
    )
    assert [one.difference for one in sample.judge_traces(LAST, CPU, [loud, silent], set(), now={warning})] == ["", ""]
    (missed,) = sample.judge_traces(LAST, CPU, [silent], set(), now={warning})
    assert "WARN" in missed.difference
    unexpected = as_told(BASE, AccessVector(Mbec.OFF, leaf=Perm.parse("rwx-")), ("mmu/mmu.c f",))
    (found,) = sample.judge_traces(BASE, CPU, [unexpected], set(), now={unexpected.vector})
    assert "mirror 'none'" in found.difference


def test_of_an_earlier_loads_trace_a_warn_is_due_only_where_no_trace_shows_it(warning: AccessVector) -> None:
    expected = tuple(f"{one.split()[0]} somewhere" for one in machine.warns(18, True, CPU, warning))
    loud, silent = as_told(LAST, warning, expected), as_told(LAST, warning)
    shown: tuple[str, ...]
    for traced, shown, right in (
        (silent, expected, True),
        (silent, (), False),
        (silent, ("vmx/other.c f",), False),
        (loud, expected, True),
        (silent, ("no_file_is_named",), True),
    ):
        (told,) = sample.judge_traces(LAST, CPU, [traced], set(), now=(), shown=shown)
        assert (told.difference == "") is right, shown
