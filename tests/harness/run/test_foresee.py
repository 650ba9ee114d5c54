"""What is foreseen is what a real run found, and is never taken for it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from harness.cli import main
from harness.errors import InputError
from harness.findings import Run, finding_json, foresight
from harness.findings.foreseen import Foresight
from harness.questions import plan
from harness.questions.core import thin
from harness.report import facts
from harness.results import FORESEEN, FORESEEN_HOST, KVM_HOST, Answer, CellKey, Journal, Mark, cpus, judge
from harness.run.foresee import foresee
from kvmodel import machine, sdm
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.vector import Access, AccessVector, Mbec, Perm, Vector
from tests.golden import core_run, doors
from tests.harness.settings import OFF, ON, UNSET

FETCH = AccessVector(Mbec.OFF, leaf=Perm(True, True, True, False), access=Access.FETCH, cpl=3)
READ = AccessVector(Mbec.OFF, leaf=Perm(False, False, True, True))
PLAIN = AccessVector(Mbec.OFF)


def foreseen(journal: Journal, vectors: Iterable[Vector], levels: Iterable[int] = (18,)) -> int:
    """A foreseen run."""
    number = journal.begin(["kvmirror", "foresee"], {FORESEEN: True})
    levels = list(levels)
    named = frozenset((level, p) for level in levels for p in (OFF, ON) if level >= 3)
    foresee(plan(vectors, levels, [UNSET, OFF, ON]), journal, number, named, cpus.emulated, lambda _: None)
    journal.end(number, "complete")
    return number


def observed(journal: Journal, of: int, changed: dict[str, Outcome] | None = None, only: set[str] | None = None) -> int:
    """A run on KVM in which everything is seen as run ``of`` foresees it, but for what is changed."""
    number = journal.begin(["kvmirror", "validate"], {})
    cells: dict[CellKey, list[Answer]] = {}
    for key, a in journal.answers(of):
        if only is not None and a.vector.id not in only:
            continue
        seen = (changed or {}).get(a.vector.id, a.seen)
        answer = Answer(a.vector, seen, a.predicted, a.contract, judge(a.predicted, a.contract, seen))
        cells.setdefault(CellKey(key.level, key.param, KVM_HOST, key.machine), []).append(answer)
    for key, answers in cells.items():
        journal.record(number, key, answers, 1.0, {})
    journal.end(number, "complete")
    return number


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """A journal with one foreseen run."""
    journal = Journal(tmp_path / "j.sqlite")
    foreseen(journal, [FETCH, READ, PLAIN])
    return journal


def test_the_whole_core_is_foreseen_as_it_was_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Findings, causes, counts cell by cell, table: those of the real run that is frozen."""
    assert main.main(["foresee", "--json", "--journal", str(tmp_path / "j.sqlite")]) == 1
    body = json.loads(capsys.readouterr().out)
    assert body["foreseen"] is True
    frozen = json.loads(core_run.FROZEN.read_text(encoding="utf-8"))
    now = doors.core_run(tmp_path / "j.sqlite", 1)
    words = ("seen",)  # of a livelock or a death mirror and observer say the same in other words
    for was, found in zip(frozen["findings"], now["findings"], strict=True):
        assert {k: v for k, v in found.items() if k not in words} == {k: v for k, v in was.items() if k not in words}
        assert found["seen"].split(" (")[0] == was["seen"].split(" (")[0]
    for name in ("vectors", "agree", "findings", "changes", "not_applicable", "blocked", "collapsed"):
        assert now["totals"][name] == frozen["totals"][name], name


def test_a_foreseen_answer_is_marked_and_stands_under_a_host_of_its_own(journal: Journal) -> None:
    answers = list(journal.answers(1))
    assert answers and {key.host for key, _ in answers} == {FORESEEN_HOST}
    assert all(Mark.FORESEEN in a.verdict.marks and a.predicted is not None for _, a in answers)
    assert {a.seen.kind for _, a in answers if a.vector == FETCH} == {Kind.LIVELOCK, Kind.DONE}
    assert list(journal.answers(1, host=KVM_HOST)) == []


def test_no_reader_takes_a_foreseen_run_unless_it_is_told(journal: Journal) -> None:
    with pytest.raises(InputError, match=r"only foreseen ones.*--run 1"):
        Run.open(journal)
    number = observed(journal, 1)
    assert foreseen(journal, [FETCH]) > number
    for read in (Run.open(journal), Run.open(journal, number)):
        assert (read.number, read.host, read.foreseen) == (number, KVM_HOST, False)
        assert {d.host for f in read.findings for d in f.departures} == {KVM_HOST}
    assert facts.load(journal).number == number
    assert Run.open(journal, 1).foreseen
    with pytest.raises(InputError, match="leave out --bare"):
        Run.open(journal, 1, bare=True)


def test_a_foreseen_run_says_so_wherever_it_is_read(journal: Journal, capsys: pytest.CaptureFixture[str]) -> None:
    told = ["--journal", str(journal.path), "--run", "1"]
    assert main.main(["findings", *told]) == 0
    assert "foreseen" in capsys.readouterr().out.splitlines()[0]
    assert main.main(["findings", "--json", *told]) == 0
    assert all(f["foreseen"] for f in json.loads(capsys.readouterr().out))
    assert main.main(["explain", "F1", *told]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("  foreseen ") for line in lines) and not any(
        line.startswith("  seen") for line in lines
    )
    assert main.main(["changes", "--patch", "18", *told]) == 0
    assert "foreseen" in capsys.readouterr().out.splitlines()[0]
    assert main.main(["report", "--markdown", "-", *told]) == 0
    text = capsys.readouterr().out
    assert text.startswith("## kvmirror: foreseen, nothing ran") and " seen: " not in text and "no drift" not in text
    page = journal.path.with_name("page.html")
    assert main.main(["report", "--html", str(page), *told]) == 0
    assert "<h1>kvmirror: foreseen run 1</h1>" in page.read_text() and "<dt>seen</dt>" not in page.read_text()


@pytest.mark.parametrize(
    "words",
    [
        ["report", "--junit", "-"],
        ["report", "--ktap", "-"],
        ["report", "--reply"],
        ["report", "--exit-code"],
        ["report", "--write-baseline", "known.json"],
        ["bundle", "F1"],
        ["explain", "F1", "--live"],
    ],
)
def test_what_is_taken_for_what_ran_is_refused(
    words: list[str], journal: Journal, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main([*words, "--journal", str(journal.path), "--run", "1"]) == 2
    said = capsys.readouterr()
    assert "foreseen" in said.err and said.out == ""


def machine_allows(vector: Vector) -> Outcome:
    """The answer the manual has at level 18."""
    contract = sdm.allowed(machine.virtual_cpu(18, True, cpus.emulated(), vector.machine), vector)
    assert isinstance(contract, tuple)
    return contract[0].outcome


def told(journal: Journal, number: int) -> Foresight:
    found = foresight(Run.open(journal, number))
    assert found is not None
    return found


def test_what_came_true_is_told(journal: Journal) -> None:
    found = told(journal, observed(journal, 1))
    assert found.run == 1 and len(found.came_true) == len(Run.open(journal, 1).findings) >= 2
    assert (found.unseen, found.unasked, found.unforeseen) == ((), (), ())


def test_what_did_not_come_true_is_told(journal: Journal) -> None:
    found = told(journal, observed(journal, 1, {READ.id: machine_allows(READ)}))
    (missed,) = found.unseen
    assert READ in missed.vectors and found.unforeseen == ()
    assert any(line.startswith("foreseen, not seen: ") and READ.id in line for line in found.lines())


def test_what_nobody_foresaw_is_told(journal: Journal) -> None:
    found = told(journal, observed(journal, 1, {PLAIN.id: Outcome(Kind.HOST, note="KVM_RUN failed with errno 22")}))
    (new,) = found.unforeseen
    assert new.vectors == [PLAIN] and found.unseen == ()
    assert any(line.startswith(f"not foreseen: {new.name}") for line in found.lines())


def test_what_was_not_asked_is_neither_seen_nor_missed(journal: Journal) -> None:
    found = told(journal, observed(journal, 1, only={FETCH.id}))
    assert found.unseen == () and found.unasked != ()
    blocked = {READ.id: Outcome(Kind.BLOCKED, note="its host died")}
    assert told(journal, observed(journal, 1, blocked)).unseen == ()


def test_without_a_foreseen_run_nothing_is_said(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        number = foreseen(journal, [FETCH])
        journal.end(number, "interrupted")
        assert foresight(Run.open(journal, observed(journal, number))) is None


def test_the_causes_are_those_of_an_observed_run(journal: Journal) -> None:
    number = observed(journal, 1)
    assert [finding_json(f) for f in Run.open(journal, 1).findings] == [
        finding_json(f) for f in Run.open(journal, number).findings
    ]


def test_the_command_prints_table_and_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = ["--journal", str(tmp_path / "j")]
    assert main.main(["foresee", "--levels", "0,18", "--vectors", "thin", *path]) == 1
    out = capsys.readouterr().out
    assert out.startswith("Foreseen by the mirror") and "finding" in out and "explain F1 --run 1" in out
    assert main.main(["foresee", "--levels", "0", "--vectors", "thin", *path]) == 0
    out = capsys.readouterr().out
    assert "no findings foreseen" in out and f"{len(thin()):>8}" in out
