"""The journal gives back what was put in, replaces a cell whole, and refuses what it cannot read."""

import sqlite3
from pathlib import Path

import pytest

from harness.errors import InputError
from harness.results import Answer, CellKey, Journal, Mark, Recorded, judge, outcome_json, outcome_of
from kvmodel.question.outcome import Allowed, Kind, NotApplicable, Outcome, Place
from kvmodel.question.vector import AccessVector, HostVector, Vector

DONE = Outcome(Kind.DONE)
LOOP = Outcome(Kind.LIVELOCK, note="the same exit")
KEY = CellKey(3, "unset", "bochs", "std")


def answer(vector: Vector, seen: Outcome, predicted: Outcome = DONE, allowed: Outcome = DONE) -> Answer:
    contract = (Allowed(allowed, "a-rule", "29.3"),)
    return Answer(vector, seen, predicted, contract, judge(predicted, contract, seen))


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "j.sqlite")


@pytest.mark.parametrize(
    "outcome",
    [
        DONE,
        Outcome(Kind.VIOLATION, 0x184, gpa=Place("target", 8), gla=Place("gpt"), defined=0x1FBF),
        Outcome(Kind.HOST, note="WARN in make_spte"),
        Outcome(Kind.EXCEPTION, 5, 14),
    ],
)
def test_outcomes_round_trip(outcome: Outcome) -> None:
    assert outcome_of(outcome_json(outcome)) == outcome


def test_rows_come_back_with_every_voice(journal: Journal) -> None:
    run = journal.begin(["validate"], {"kernel": "6.12.8"})
    journal.record(run, KEY, [answer(AccessVector(), LOOP)], 1.5, {"qemu": "x"})
    assert list(journal.answers(run)) == [(KEY, answer(AccessVector(), LOOP))]
    assert answer(AccessVector(), LOOP).verdict.marks == Mark.DRIFT | Mark.FINDING
    assert journal.cells(run) == {KEY: Recorded(1, 1.5, {"qemu": "x"})}


def test_a_cell_recorded_again_replaces_what_was_left(journal: Journal) -> None:
    run = journal.begin([], {})
    journal.record(run, KEY, [answer(AccessVector(), LOOP), answer(AccessVector(cpl=3), LOOP)], 1, {})
    journal.record(run, KEY, [answer(AccessVector(), DONE)], 2, {})
    assert [a.seen for _, a in journal.answers(run)] == [DONE]
    assert len(journal.cells(run)) == 1


def test_only_marked_rows_where_asked(journal: Journal) -> None:
    run = journal.begin([], {})
    rows = [answer(AccessVector(), DONE), answer(AccessVector(cpl=3), LOOP, predicted=LOOP)]
    journal.record(run, KEY, rows, 1, {})
    assert [a.vector for _, a in journal.answers(run, having=Mark.FINDING)] == [AccessVector(cpl=3)]
    (cell,) = journal.cells(run).values()
    assert journal.counts(cell.number) == {Mark.AGREE: 1, Mark.FINDING: 1}


def test_changes_between_levels(journal: Journal) -> None:
    run = journal.begin([], {})
    journal.record(run, CellKey(2, "unset", "bochs", "std"), [answer(AccessVector(), DONE)], 1, {})
    journal.record(run, KEY, [answer(AccessVector(), LOOP)], 1, {})
    assert list(journal.changes(run, 3, "unset", 2, "unset")) == [(AccessVector(), DONE, LOOP)]
    assert list(journal.changes(run, 3, "unset", 1, "unset")) == []


def test_a_contract_that_does_not_apply_keeps_its_reason(journal: Journal) -> None:
    run = journal.begin([], {})
    contract = NotApplicable("kvm-only", "the manual knows no module parameter")
    verdict = judge(None, contract, DONE)
    journal.record(run, KEY, [Answer(HostVector(), DONE, None, contract, verdict)], 1, {})
    assert list(journal.answers(run)) == [(KEY, Answer(HostVector(), DONE, None, contract, verdict))]


def test_the_latest_run_is_read_and_none_is_said(journal: Journal) -> None:
    with pytest.raises(InputError, match="holds no run yet"):
        journal.latest()
    first = journal.begin([], {})
    second = journal.begin([], {"a": 1})
    journal.amend(second, {"b": 2})
    journal.end(second, "complete")
    assert journal.latest() == second > first
    assert journal.run_info(second).status == "complete"
    assert journal.provenance(second) == {"a": 1, "b": 2}
    with pytest.raises(InputError, match="no run 99"):
        journal.run_info(99)


def test_a_foreign_version_and_a_file_that_is_no_journal_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as db:
        db.execute("PRAGMA user_version=99")
    with pytest.raises(InputError, match="has version 99"):
        Journal(other)
    text = tmp_path / "text"
    text.write_text("this is no database, and it is long enough to be read as a header" * 9)
    with pytest.raises(InputError, match="--journal"):
        Journal(text)
