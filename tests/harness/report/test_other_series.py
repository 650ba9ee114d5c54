"""A run of another maintainer's sixty patches, without a mirror: every format lays it out and says what it was."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from harness.cli import main
from harness.findings import Run, foresight
from harness.report import facts
from harness.results import FORESEEN, CellKey, Journal, RunSeries, of_series
from harness.results.journal import Answer
from harness.results.verdict import judge
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.vector import Access, AccessVector, Mbec, Perm
from tests.harness.report.synthetic import contract

ROOT = Path(__file__).resolve().parents[3]
DENIED = AccessVector(Mbec.OFF, leaf=Perm(False, False, True, False), access=Access.READ)
CELLS = ((0, "unset"), (45, "unset"), (45, "kvm_intel.mbec=0"), (45, "kvm.mode=safe,kvm_intel.mbec=1"))
PATCHES = [{"number": n, "subject": f"KVM: patch {n}", "author": "A <a@example.org>"} for n in range(1, 61)]
MADE = {"patches": PATCHES, of_series.PROVENANCE: RunSeries(60, False, " --series /tmp/own").as_json()}


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One vector in four cells, wrong from level 45 on; no mirror."""
    path = tmp_path_factory.mktemp("other") / "j.sqlite"
    with Journal(path) as journal:
        run = journal.begin(["validate"], MADE)
        for level, param in CELLS:
            manual = contract(DENIED, False)
            assert isinstance(manual, tuple)
            right = manual[0].outcome
            seen = Outcome(Kind.VIOLATION, right.code ^ (0x20 * (level == 45)), gpa=right.gpa, gla=right.gla)
            answer = Answer(DENIED, seen, None, manual, judge(None, manual, seen))
            journal.record(run, CellKey(level, param, "kvm", "std"), [answer], 1.0, {"counters": {"exits": 3}})
        journal.end(run, "complete")
    return path


def test_the_finding_is_told_in_the_series_own_words(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["findings", "--journal", str(journal)]) == 0
    said = capsys.readouterr().out
    assert "first at level 45, with no parameter set or kvm.mode=safe,kvm_intel.mbec=1 or kvm_intel.mbec=0" in said
    assert main.main(["explain", "F1", "--journal", str(journal)]) == 0
    assert f"kvmirror run --series /tmp/own --level 45 --param kvm.mode=safe,kvm_intel.mbec=1 {DENIED.id}" in (
        capsys.readouterr().out
    )


def test_no_format_claims_a_mirror(journal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [word for name in ("html", "junit", "ktap", "json") for word in (f"--{name}", str(tmp_path / name))]
    assert main.main(["report", "--journal", str(journal), *files, "--markdown", "-"]) == 0
    assert "No mirror was asked, 1 finding" in capsys.readouterr().out
    page = (tmp_path / "html").read_text()
    assert "no mirror asked" in page and "a kvm.mode=safe,kvm_intel.mbec=1, b kvm_intel.mbec=0" in page
    assert "kvmirror run --series /tmp/own" in page
    body = json.loads((tmp_path / "json").read_text())
    jsonschema.validate(body, json.loads((ROOT / "docs" / "schema.json").read_text()))
    assert [(row["level"], row["param"]) for row in body["levels"]] == [
        (0, "unset"), (45, "unset"), (45, "kvm.mode=safe,kvm_intel.mbec=1"), (45, "kvm_intel.mbec=0"),
    ]  # fmt: skip


def test_the_run_has_sixty_patches_and_each_cell_something_to_compare_with(journal: Path) -> None:
    with Journal(journal) as j:
        report = facts.load(j)
    assert len(report.patches) == 60 and not report.mirror_asked
    assert report.patches[44].first_seen == ["F1"] and report.patches[44].compared_with == 0
    assert [row.changes for row in report.rows] == [0, 1, 1, 1]


def test_two_cells_of_it_are_compared(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["compare", f"{journal}@0", f"{journal}@45/kvm_intel.mbec=0"]) == 1
    said = capsys.readouterr().out
    assert "0/unset against 45/kvm_intel.mbec=0" in said and "kvm.mode" not in said


def test_nothing_was_foreseen_of_it(journal: Path) -> None:
    """What the mirror foresees is the mirrored series' own, whatever the journal holds."""
    with Journal(journal) as j:
        number = j.begin(["foresee"], {FORESEEN: True})
        j.end(number, "complete")
        assert j.foreseen() is not None and foresight(Run.open(j, 1)) is None
