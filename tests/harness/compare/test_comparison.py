"""What two runs are to one another: every sort of difference, and none that is not there."""

from __future__ import annotations

import dataclasses
import shutil
import sqlite3
from pathlib import Path

import pytest

from harness.compare.answers import Sort
from harness.compare.comparison import as_json
from harness.errors import InputError
from harness.questions import selection
from harness.results import BARE_HOST, Answer, CellKey, Journal, Mark, Verdict, judge
from kvmodel import machine, sdm
from kvmodel.cpu import Cpu
from kvmodel.question.outcome import Allowed, Kind, Outcome
from kvmodel.question.vector import Access, AccessVector, MsrVector, Perm
from tests.harness.compare import made
from tests.harness.compare.made import BLOCKED, FETCH, LOOP, LOOPS, READ, compared, entries, run
from tests.harness.report import synthetic

DONE = Outcome(Kind.DONE)


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "a.sqlite", tmp_path / "b.sqlite"


def keys(a: Path, b: Path) -> list[str]:
    return list(entries(compared(str(a), str(b))))


def test_a_run_is_equal_to_itself_and_to_its_copy(two: tuple[Path, Path]) -> None:
    a, b = two
    synthetic.make(a, asked=synthetic.sample(211), cells=[(13, "1"), (16, "1")])
    shutil.copy(a, b)
    for other in (a, b):
        found = compared(str(a), str(other))
        assert found.equal and set(entries(found)) == {"stayed"}
        with Journal(a) as journal:
            asked = sum(sum(journal.counts(c.number).values()) for c in journal.cells(1).values())
        assert found.total.both == asked > 0
        assert found.total.sorts[Sort.ALIKE] + found.total.sorts[Sort.SILENT] == asked


def test_what_a_patch_brings_is_new_and_what_it_takes_is_gone(two: tuple[Path, Path]) -> None:
    """By the real mirror: level 11 livelocks where level 10 exits."""
    a, _ = two
    run(a, [READ, LOOPS], [(10, "0"), (11, "0")])
    found = compared(f"{a}@10", f"{a}@11")
    (new,) = entries(found)["new"]
    assert "livelock" in new.title and new.vector == LOOPS.id
    assert "caused by patch 11" in new.facts[0]
    assert new.before is not None and new.after is not None
    assert new.before.seen.startswith("violation") and new.before.manual.startswith("allowed")
    assert new.after.seen.startswith("livelock") and new.after.manual.startswith("departs: the manual has violation")
    (differ,) = entries(found)["departs"]
    assert differ.again and "B's F1 (1)" in differ.facts[0]
    assert not found.equal
    back = entries(compared(f"{a}@11", f"{a}@10"))
    assert set(back) == {"gone", "departs"} and back["gone"][0].title == new.title


def test_one_cause_is_one_finding_whatever_its_vectors(two: tuple[Path, Path]) -> None:
    a, b = two
    other = dataclasses.replace(LOOPS, wp=False)
    run(a, [LOOPS, FETCH], [(11, "0")])
    run(b, [other, LOOPS, FETCH], [(11, "0")])
    (stayed,) = entries(compared(str(a), str(b)))["stayed"]
    assert "A's F1: 1 vector;" in stayed.facts[0] and "B's F1: 2 vectors;" in stayed.facts[1]
    assert "1 more were not asked" in stayed.facts[2]


def test_two_causes_that_look_alike_are_two_findings(two: tuple[Path, Path]) -> None:
    """Both livelock where the manual has an EPT violation, by the same rule: patch 11 and patch 16."""
    a, b = two
    mbec = AccessVector(access=Access.FETCH, leaf=Perm(r=False, w=False, x=True, u=False))
    right = made.answer((10, "0"), LOOPS).seen
    run(a, [LOOPS], [(11, "0")])
    run(b, [LOOPS, mbec], [(18, "1")], {LOOPS: right})
    found = entries(compared(str(a), str(b)))
    assert set(found) == {"gone", "unknown", "departs", "alone"}
    assert "patch 11" in found["gone"][0].facts[0] and "patch 16" in found["unknown"][0].facts[0]


@pytest.mark.parametrize(("mirror_a", "mirror_b"), [(True, False), (False, True), (False, False)])
def test_without_a_mirror_symptom_and_rule_make_a_finding_one(
    two: tuple[Path, Path], mirror_a: bool, mirror_b: bool
) -> None:
    a, b = two
    run(a, [LOOPS, READ], [(11, "0")], mirror=mirror_a)
    run(b, [LOOPS, READ], [(11, "0")], mirror=mirror_b)
    assert keys(a, b) == ["stayed"]
    run(b, [LOOPS, READ], [(11, "0")], {LOOPS: DONE}, mirror=mirror_b)
    assert keys(a, b) == ["new", "gone", "departs"]  # another symptom is another finding


@pytest.mark.parametrize(
    ("asked", "seen", "more"), [([READ], {}, "alone"), ([READ, LOOPS], {LOOPS: BLOCKED}, "blocked")]
)
def test_a_finding_is_not_gone_where_nobody_could_see_it(
    two: tuple[Path, Path], asked: list[AccessVector], seen: made.Seen, more: str
) -> None:
    a, b = two
    run(a, [READ, LOOPS])
    run(b, asked, seen=seen)
    found = entries(compared(str(a), str(b)))
    assert set(found) == {"unknown", more}
    (lost,) = found["unknown"]
    assert lost.before is not None and lost.before.seen.startswith("livelock") and "departs" in lost.before.manual
    assert lost.after is not None and lost.after.seen.startswith("not asked" if more == "alone" else "blocked")
    assert set(entries(compared(str(b), str(a)))) == {"unknown", more}


def _either(answer: Answer) -> Answer:
    """A manual that leaves bit 6 of an exit's qualification open."""
    if answer.seen.kind is not Kind.VIOLATION:
        return answer
    contract = (Allowed(dataclasses.replace(answer.seen, defined=~0x40 & 0xFFFF), "rule", "1.2"),)
    return dataclasses.replace(answer, contract=contract, verdict=judge(answer.predicted, contract, answer.seen))


def test_answers_that_the_manual_leaves_open_are_told_beside_the_contract(two: tuple[Path, Path]) -> None:
    a, b = two
    closed = dataclasses.replace(READ, leaf=Perm(r=False, w=False, x=False, u=False))
    seen = made.answer((10, "0"), closed).seen
    run(a, [READ, closed], seen={closed: seen}, change=_either)
    run(b, [READ, closed], seen={closed: dataclasses.replace(seen, code=seen.code ^ 0x40)}, change=_either)
    found = compared(str(a), str(b))
    (group,) = entries(found)["allowed"]
    assert list(entries(found)) == ["allowed"] and not found.equal
    assert group.title.startswith("an EPT violation, other bits 0x40 of the exit qualification (read, MBEC off")
    assert group.vector == closed.id and group.before != group.after


def test_bits_that_neither_or_one_vouches_for_are_no_difference(two: tuple[Path, Path]) -> None:
    a, b = two
    one = Outcome(Kind.VIOLATION, 0x1C1, defined=0xFFFF & ~0x40)
    run(a, [READ], seen={READ: one})
    run(b, [READ], seen={READ: Outcome(Kind.VIOLATION, 0x181)})
    assert keys(a, b) == ["stayed"]
    run(a, [READ], seen={READ: Outcome(Kind.HOST, note="died")})
    run(b, [READ], seen={READ: Outcome(Kind.HOST, note="died otherwise")})
    assert keys(a, b) == ["stayed"]


def test_an_address_on_one_side_alone_differs_in_both_directions(two: tuple[Path, Path]) -> None:
    a, b = two
    place = made.answer((10, "0"), LOOPS).seen
    run(a, [LOOPS], seen={LOOPS: place}, change=_either)
    run(b, [LOOPS], seen={LOOPS: dataclasses.replace(place, gla=None)}, change=_either)
    for first, second in ((a, b), (b, a)):
        (group,) = entries(compared(str(first), str(second)))["allowed"]
        assert "other the guest-linear address" in group.title


def _undecided(answer: Answer) -> Answer:
    return dataclasses.replace(answer, contract=None, verdict=Verdict(Mark.AGREE))


def test_answers_on_which_the_manual_is_silent_are_apart(two: tuple[Path, Path]) -> None:
    a, b = two
    run(a, [READ], change=_undecided)
    run(b, [READ], seen={READ: LOOP}, change=_undecided)
    (group,) = entries(compared(str(a), str(b)))["undecided"]
    assert group.title.startswith("an access that completes becomes the same exit for ever: both not decided")
    assert group.before is not None and group.before.manual == "the manual was not asked"


def test_an_equal_answer_with_another_verdict_is_told(two: tuple[Path, Path]) -> None:
    a, b = two
    run(a, [READ])
    run(b, [READ], change=_undecided)
    found = compared(str(a), str(b))
    (group,) = entries(found)["verdict"]
    assert group.title.startswith("an access that completes: allowed in A, not decided in B")
    assert not found.equal and found.total.differ == 0


def test_both_may_depart_in_other_ways(two: tuple[Path, Path]) -> None:
    a, b = two
    run(a, [LOOPS], seen={LOOPS: DONE})
    run(b, [LOOPS])
    found = entries(compared(str(a), str(b)))
    assert set(found) == {"new", "gone", "departs"}
    assert "an access that completes becomes the same exit for ever: both depart" in found["departs"][0].title


def test_blocked_is_counted_apart_and_is_no_agreement(two: tuple[Path, Path]) -> None:
    a, b = two
    run(a, [READ, FETCH, LOOPS], seen={READ: BLOCKED, FETCH: BLOCKED}, cells=[(10, "0")])
    run(b, [READ, FETCH, LOOPS], seen={READ: BLOCKED}, cells=[(10, "0")])
    found = compared(str(a), str(b))
    assert list(entries(found)) == ["blocked"] and not found.equal
    (group,) = entries(found)["blocked"]
    assert group.title == "never ran in A: L1 did not come up" and group.vector == FETCH.id
    sorts = found.total.sorts
    assert (sorts[Sort.SILENT], sorts[Sort.BLOCKED], sorts[Sort.ALIKE]) == (1, 1, 1)
    assert "1 blocked on both" in found.verdict


def test_other_spaces_are_compared_where_they_meet_and_counted_where_not(two: tuple[Path, Path]) -> None:
    a, b = two
    run(a, [READ, FETCH], [(10, "0"), (10, "1")], facts={"collapsed": {"twin": 3}})
    run(b, [READ, LOOPS, MsrVector(msr=0x48B)], [(10, "0"), (12, "0")])
    found = compared(str(a), str(b))
    assert found.equal and list(entries(found)) == ["alone"]
    assert [str(pair) for pair in found.pairs] == ["10/0"]
    in_a, in_b = entries(found)["alone"]
    assert (in_a.title, in_a.count) == ("asked in A only: e4k 1", "1 question")
    assert (in_b.title, in_b.count) == ("asked in B only: e4k 1, msr 1", "2 questions")
    assert in_b.facts == ("rules left 3 vectors out of A there",)
    assert (found.total.both, found.total.only) == (1, (1, 2))
    run(b, [LOOPS], [(10, "0")])
    with pytest.raises(InputError, match=r"no question in common at level 10 \(parameter 0\): A alone was asked 2, B"):
        compared(str(a), str(b))


def test_a_sequence_is_told_by_the_turn_that_differs(two: tuple[Path, Path]) -> None:
    a, b = two
    (sequence, *_) = selection.vector_list(["sequences"])
    seen = made.answer((10, "0"), sequence).seen
    other = dataclasses.replace(seen, turns=(*seen.turns[:-1], LOOP))
    run(a, [sequence], [(10, "0")], {sequence: seen}, change=_undecided)
    run(b, [sequence], [(10, "0")], {sequence: other}, change=_undecided)
    (group,) = entries(compared(str(a), str(b)))["undecided"]
    assert "becomes the same exit for ever" in group.title and group.vector == sequence.id


def test_the_smallest_question_of_a_group_is_the_plainest(two: tuple[Path, Path]) -> None:
    a, b = two
    far = dataclasses.replace(READ, cpl=3, smep=True)
    run(a, [far, READ])
    run(b, [far, READ], seen=dict.fromkeys((far, READ), LOOP))
    (new,) = entries(compared(str(a), str(b)))["new"]
    (differ,) = entries(compared(str(a), str(b)))["departs"]
    assert new.vector == differ.vector == READ.id and new.count == differ.count == "2 vectors"


def test_the_virtual_cpus_are_compared_bit_by_bit(two: tuple[Path, Path]) -> None:
    a, b = two
    msrs = [0] * 18
    run(a, [READ], facts={"msrs": [f"{m:#x}" for m in msrs]})
    msrs[0xB], msrs[0xC] = 1 << 54, 1 << 6
    run(b, [READ], facts={"msrs": [f"{m:#x}" for m in msrs]})
    found = compared(str(a), str(b))
    assert [e.title for e in entries(found)["msrs"]] == [
        "MSR 0x48b: secondary control 22 (mode-based execute control for EPT) may be 1 in B only",
        "MSR 0x48c: bit 6 in B only",
    ]
    assert not found.equal
    asked = MsrVector(msr=0x48B)
    run(a, [asked], [(10, "0")], {asked: Outcome(Kind.VALUE, 2)}, change=_undecided)
    run(b, [asked], [(10, "0")], {asked: Outcome(Kind.VALUE, 1 << 33)}, change=_undecided)
    (value,) = entries(compared(str(a), str(b)))["undecided"]
    assert value.title.startswith(
        "MSR 0x48b as L1 reads it: secondary control 1 (enable EPT) must be 1 in A only; secondary control 1"
    )


def test_bare_cpus_are_compared_with_bare_cpus(two: tuple[Path, Path]) -> None:
    a, _ = two
    for seen in (DONE, LOOP):
        with Journal(a) as journal:
            number = journal.begin([], {})
            contract = sdm.allowed(Cpu(), READ)
            bare = Answer(READ, seen, None, contract, judge(None, contract, seen))
            journal.record(number, CellKey(0, "unset", BARE_HOST, "bare"), [bare], 1.0, {})
            journal.end(number, "complete")
    with pytest.raises(InputError, match=r"run 1 .*has no finished cell on KVM"):
        compared("1", "2", a)
    from harness.compare import gather, opened, parse

    with opened(parse("1"), parse("2"), a, bare=True) as sides:
        assert set(entries(gather(*sides))) == {"new", "departs"}


def test_json_says_the_same(two: tuple[Path, Path]) -> None:
    a, _ = two
    run(a, [READ, LOOPS], [(10, "0"), (11, "0")])
    found = compared(f"{a}@10", f"{a}@11")
    body = as_json(found)
    assert body["schema"] == "kvmirror-compare-1" and body["equal"] is False
    assert body["pairs"] == [{"a": "10/0", "b": "11/0", **{k: v for k, v in body["totals"].items()}}]
    assert body["totals"]["both"] == 2 and body["totals"]["alike"] == body["totals"]["departs"] == 1
    (new,) = body["sections"]["new"]
    assert new["smallest"] == LOOPS.id and new["after"]["seen"].startswith("livelock") and new["b"][0]["name"] == "F1"
    (differ,) = body["sections"]["departs"]
    assert differ["findings"] == {"B's F1": 1} and differ["smallest"] == LOOPS.id


def test_counts_are_those_of_the_journal(two: tuple[Path, Path]) -> None:
    """Beside ``changes``, which counts in its own way."""
    a, _ = two
    synthetic.make(a, asked=synthetic.sample(101), cells=[(10, "1"), (11, "1"), (12, "1"), (13, "1")])
    differ = [compared(f"{a}@{below}", f"{a}@{below + 1}").total.differ for below in (10, 11, 12)]
    with Journal(a) as journal:
        assert differ == [journal.count_changes(1, below + 1, "1", below, "1") for below in (10, 11, 12)]
    assert differ[0] and differ[2] and not differ[1]


def test_an_id_of_another_kvmirror_is_refused_by_name(two: tuple[Path, Path]) -> None:
    a, b = two
    run(a, [READ])
    run(b, [READ], seen={READ: LOOP})
    for path in (a, b):
        with sqlite3.connect(path) as db:
            db.execute("UPDATE vector SET name='e9k.unheard-of'")
    with pytest.raises(InputError, match=r"e9k\.unheard-of"):
        compared(str(a), str(b))


def test_the_real_contract_differs_with_the_virtual_cpu(two: tuple[Path, Path]) -> None:
    """Level 16 offers MBEC: the same refused entry is right below and wrong above."""
    a, _ = two
    on = AccessVector()
    refused = machine.predict(15, True, Cpu(), on).outcome
    run(a, [on], [(15, "1"), (16, "1")], {on: refused})
    found = entries(compared(f"{a}@15", f"{a}@16"))
    assert set(found) == {"new", "verdict"}
    assert "allowed in A, departs in B" in found["verdict"][0].title
