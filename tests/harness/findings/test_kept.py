"""Causes are kept with a run, and are found out anew as soon as anything they rest on is another."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from harness.findings import Run, kept
from harness.findings.causes import find_cause
from harness.findings.minimise import PROVENANCE, Minimal
from harness.results import KVM_HOST, Answer, CellKey, Journal, Mark, Verdict, cpus, judge
from kvmodel import machine, sdm
from kvmodel.cpu import Cpu
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.vector import Access, AccessVector, Mbec, Perm, Vector

CPU = Cpu()
KEY = CellKey(18, "0", KVM_HOST, "std")
BROKEN = AccessVector(Mbec.OFF, leaf=Perm(False, False, True, True))
OTHER = AccessVector(
    Mbec.OFF, leaf=Perm(True, False, False, True), upper=Perm(True, False, False, True), access=Access.RMW
)


def answer(vector: Vector, seen: Outcome | None = None) -> Answer:
    """What the mirror shows at level 18, or something else."""
    predicted = machine.predict(18, False, CPU, vector).outcome
    contract = sdm.allowed(machine.virtual_cpu(18, False, CPU, vector.machine), vector)
    told = seen or predicted
    return Answer(vector, told, predicted, contract, judge(predicted, contract, told))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Vector]:
    """The vectors whose causes are found out, as they are."""
    found: list[Vector] = []

    def counted(d, under):  # type: ignore[no-untyped-def]
        found.append(d.vector)
        return find_cause(d, under)

    monkeypatch.setattr(kept, "find_cause", counted)
    return found


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """A journal with one run of one departure."""
    journal = Journal(tmp_path / "j.sqlite")
    journal.begin([], {})
    journal.record(1, KEY, [answer(BROKEN)], 1.0, {})
    return journal


def test_what_was_found_out_is_not_found_out_again(journal: Journal, asked: list[Vector]) -> None:
    before = Run.open(journal).findings
    assert asked == [BROKEN]
    with Journal(journal.path) as again:
        after = Run.open(again).findings
    assert asked == [BROKEN]
    assert after == before and after[0].origin.patches == before[0].origin.patches != ()


def test_another_run_of_the_same_departures_finds_nothing_out_anew(journal: Journal, asked: list[Vector]) -> None:
    before = Run.open(journal).findings
    number = journal.begin([], {})
    taken = answer(BROKEN)
    taken = replace(taken, verdict=Verdict(taken.verdict.marks | Mark.EARLIER, taken.verdict.rule))
    journal.record(number, KEY, [taken], 1.0, {})
    assert Run.open(journal, number).findings == before
    assert asked == [BROKEN]


def test_another_answer_is_found_out_anew(journal: Journal, asked: list[Vector]) -> None:
    before = Run.open(journal).findings
    journal.record(1, KEY, [answer(BROKEN, Outcome(Kind.DONE))], 1.0, {})
    after = Run.open(journal).findings
    assert asked == [BROKEN, BROKEN]
    assert after[0].cause != before[0].cause and after[0].smallest.seen == Outcome(Kind.DONE)


def test_one_answer_more_is_found_out_and_none_is_lost(journal: Journal, asked: list[Vector]) -> None:
    assert len(Run.open(journal).findings) == 1
    journal.record(1, KEY, [answer(BROKEN), answer(OTHER)], 1.0, {})
    assert len(Run.open(journal).findings) == 2
    assert OTHER in asked
    journal.record(1, KEY, [], 1.0, {})
    assert Run.open(journal).findings == []


def test_other_code_finds_out_anew(journal: Journal, asked: list[Vector], monkeypatch: pytest.MonkeyPatch) -> None:
    Run.open(journal).findings  # noqa: B018
    monkeypatch.setattr(kept, "code_version", lambda: "of tomorrow")
    Run.open(journal).findings  # noqa: B018
    assert asked == [BROKEN, BROKEN]


def test_the_code_is_every_file_that_a_cause_rests_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "a.py").write_text("A = 1\n")
    monkeypatch.setattr(kept, "CODE", (folder,))

    def version() -> str:
        kept.code_version.cache_clear()
        return kept.code_version()

    first = version()
    assert version() == first
    (folder / "a.py").write_text("A = 2\n")
    second = version()
    (folder / "b.py").write_text("")
    third = version()
    kept.code_version.cache_clear()
    assert len({first, second, third}) == 3


def test_another_cpu_under_kvm_finds_out_anew(journal: Journal, asked: list[Vector]) -> None:
    Run.open(journal).findings  # noqa: B018
    journal.amend(1, {cpus.PROVENANCE: cpus.as_json(Cpu(execonly=False))})
    Run.open(journal).findings  # noqa: B018
    assert asked == [BROKEN, BROKEN]


def test_what_was_confirmed_since_is_there_though_the_causes_are_kept(journal: Journal) -> None:
    (before,) = Run.open(journal).findings
    journal.amend(1, {PROVENANCE: {before.cause: Minimal(KEY, answer(BROKEN), 3, 3).as_json()}})
    (after,) = Run.open(journal).findings
    assert (before.confirmed, after.confirmed) == ("", "confirmed 3/3 alone")


def test_a_journal_that_cannot_be_written_is_read(journal: Journal, asked: list[Vector]) -> None:
    writer = sqlite3.connect(journal.path)
    writer.execute("BEGIN IMMEDIATE")
    try:
        assert len(Run.open(journal).findings) == 1
    finally:
        writer.rollback()
        writer.close()
    assert len(Run.open(journal).findings) == 1
    assert asked == [BROKEN, BROKEN]


def test_only_answers_that_depart_are_part_of_the_digest(journal: Journal) -> None:
    before = journal.digest(1, KVM_HOST, Mark.FINDING)
    journal.record(1, CellKey(17, "0", KVM_HOST, "std"), [answer(AccessVector(Mbec.OFF))], 1.0, {})
    assert journal.digest(1, KVM_HOST, Mark.FINDING) == before
    assert journal.digest(1, "bare", Mark.FINDING) != before
