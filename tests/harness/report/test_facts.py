"""The facts of a run, and what they add up to."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import InputError
from harness.report import facts
from harness.report.series import patch_rows
from harness.results import LEFT_OUT, Answer, CellKey, Journal, Mark, cpus, judge
from kvmodel import series
from kvmodel.cpu import Cpu
from kvmodel.question.outcome import Allowed, Kind, Outcome
from kvmodel.question.vector import Access, AccessVector, Mbec, Perm, Vector
from tests.harness.report import synthetic


def test_counts_are_the_journals(report: facts.Report, journal_path: Path) -> None:
    with Journal(journal_path) as journal:
        answers = [answer for _, answer in journal.answers(1)]
    assert report.totals.vectors == len(answers)
    assert report.totals.drift == sum(Mark.DRIFT in a.verdict.marks for a in answers)
    assert report.totals.blocked == sum(a.seen.kind is Kind.BLOCKED for a in answers) > 0
    assert report.levels == list(range(19))
    assert "drift" in report.verdict
    assert f"{len(report.findings)} findings" in report.verdict


def test_rules_that_put_vectors_aside_are_named(report: facts.Report) -> None:
    assert report.rules
    assert report.rules[0].text
    assert sum(r.vectors for r in report.rules) == report.totals.not_applicable
    assert report.collapsed[0].name == "never-offered"
    assert report.collapsed[0].text
    assert report.blocked == [("L1 did not come up", report.totals.blocked)]


def test_patches_carry_what_their_level_showed(report: facts.Report) -> None:
    by_number = {p.number: p for p in report.patches}
    assert list(by_number) == list(range(1, 19))
    assert by_number[11].subject == series.patch(11).subject
    assert by_number[10].changes == 0
    assert by_number[11].changes
    assert by_number[11].first_seen
    assert by_number[15].drift
    assert by_number[1].claims_no_change and not by_number[1].broken_claim
    assert str(by_number[1].applies) == "yes, offset 3"


def test_what_a_patch_changes_is_found_by_its_hash() -> None:
    told = {"a1": ["vector v: EXIT; without the patch DONE"], "other": ["of another series"]}
    rows = patch_rows({"patches": [{"sha256": "a1"}, {"sha256": "b2"}], LEFT_OUT: told}, 2)
    assert [row.left_out for row in rows] == [told["a1"], []]
    assert [row.left_out for row in patch_rows({"patches": [{"sha256": "a1"}]}, 1)] == [[]]


def test_a_claim_is_broken_only_by_the_patchs_own_change() -> None:
    (row,) = patch_rows({"patches": [{"subject": "x", "claim": "stated"}]}, 1)
    row.changes, row.compared_with = 3, 0
    assert row.broken_claim and row.state == "fail"
    row.number, row.compared_with = 5, 0
    assert not row.broken_claim


def test_another_series_takes_nothing_from_ours() -> None:
    (row,) = patch_rows({"patches": [{"subject": "mm: something else", "sha256": "00"}]}, 1)
    assert (row.subject, row.author, row.claims_no_change) == ("mm: something else", "", False)


def test_patches_by_number_are_in_the_series_order() -> None:
    rows = patch_rows({"patches": {str(n): f"{n:064x}" for n in (10, 2, 1, *range(3, 10))}}, 10)
    assert [r.sha256 for r in rows] == [f"{n:064x}" for n in range(1, 11)]
    assert rows[9].subject == series.patch(10).subject


def test_a_run_of_few_levels_says_what_it_compared_with(tmp_path: Path) -> None:
    path = synthetic.make(tmp_path / "j", cells=[(0, "unset"), (11, "unset"), (11, "1")])
    with Journal(path) as journal:
        found = facts.load(journal)
    by_number = {p.number: p for p in found.patches}
    assert (by_number[11].ran, by_number[11].compared_with) == (True, 0)
    assert not by_number[10].ran and by_number[10].changes is None
    assert "levels 1-10, 12-18 did not run" in found.tested_by_hurdles(18)


def test_a_tested_by_needs_a_complete_run_without_drift_and_findings(tmp_path: Path, report: facts.Report) -> None:
    path = synthetic.make(tmp_path / "j", plant=synthetic.honest)
    with Journal(path) as journal:
        good = facts.load(journal)
    assert good.tested_by_hurdles(18) == []
    text = "; ".join(report.tested_by_hurdles(18))
    assert "differ from the mirror" in text and "findings" in text and "blocked" in text
    interrupted = synthetic.make(tmp_path / "i", plant=synthetic.honest, status="interrupted")
    with Journal(interrupted) as journal:
        assert facts.load(journal).tested_by_hurdles(18) == ["the run is interrupted"]


def test_a_run_without_a_cell_is_refused_with_a_mend(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        with pytest.raises(InputError, match="no run yet"):
            facts.load(journal)
        run = journal.begin([], {})
        with pytest.raises(InputError, match="--run"):
            facts.load(journal)
        journal.record(run, CellKey(0, "unset", "bare", "std"), [], 0, {})
        with pytest.raises(InputError, match="findings --bare"):
            facts.load(journal, run)


def test_errata_come_from_the_newest_run_on_the_bare_cpu(tmp_path: Path) -> None:
    with Journal(synthetic.make(tmp_path / "j", plant=synthetic.honest)) as journal:
        assert facts.load(journal).errata == []
        seen = Outcome(Kind.VIOLATION, 0x1)
        manual = (Allowed(Outcome(Kind.DONE), "ept-permitted", "29.3.3"),)
        wrong = Answer(AccessVector(), seen, None, manual, judge(None, manual, seen))
        journal.record(journal.begin([], {}), CellKey(0, "unset", "bare", "bare"), [wrong], 1, {})
        found = facts.load(journal)
    assert (found.number, [f.smallest.vector for f in found.errata]) == (1, [AccessVector()])
    assert found.findings == []


def test_errata_are_those_of_the_runs_own_model(tmp_path: Path) -> None:
    seen, manual = Outcome(Kind.VIOLATION, 0x1), (Allowed(Outcome(Kind.DONE), "ept-permitted", "29.3.3"),)
    wrong = Answer(AccessVector(), seen, None, manual, judge(None, manual, seen))
    bare = CellKey(0, "unset", "bare", "bare")
    with Journal(synthetic.make(tmp_path / "j", plant=synthetic.honest)) as journal:
        journal.record(journal.begin([], {}), bare, [wrong], 1, {"model": "skylake-x"})
        assert facts.load(journal, 1).errata == []  # the run is of the usual model
        both = {cpus.WITH: cpus.as_json(Cpu()) | {"model": "skylake-x"}, cpus.WITHOUT: cpus.as_json(Cpu(mbec=False))}
        journal.amend(1, {cpus.EMULATED: both})
        assert len(facts.load(journal, 1).errata) == 1
        assert facts.load(journal, 1).run_again == "kvmirror run --cpu skylake-x"
        journal.record(journal.begin([], {}), bare, [], 1, {"model": "skylake-x"})
        assert facts.load(journal, 1).errata == []  # the newest of that model
        journal.record(journal.begin([], {}), bare, [wrong], 1, {"model": "skylake-x"})
        journal.amend(1, {cpus.PROVENANCE: cpus.as_json(Cpu())})
        assert facts.load(journal, 1).errata == []  # a lab machine is no emulator


@pytest.mark.parametrize(("numbers", "shown"), [([], ""), ([3], "3"), ([18, 0, 11, 16, 17], "0, 11, 16-18")])
def test_ranges(numbers: list[int], shown: str) -> None:
    assert facts.ranges(numbers) == shown


def test_what_the_hosts_told_is_kept(report: facts.Report) -> None:
    assert set(report.counters) == {"exits", "pf_spurious"}
    rows = {(r.level, r.param): r for r in report.rows}
    assert report.counters["exits"][0, "unset"] >= 3 * rows[0, "unset"].vectors
    assert report.warnings == [
        ("WARNING: CPU: 0 PID: 1 at mmu.c:1", [(17, "0"), (17, "1"), (17, "unset")]),
    ]
    assert ("properties vmx-mbec", ["True"]) in report.machines
    loops = [v for v in report.findings if v.finding.symptom.seen == "livelock"]
    assert any(v.traces == ["16 equal exits at RIP 0x1000"] for v in loops)
    assert all(not v.traces for v in report.findings if v not in loops)


def test_a_patch_that_claims_no_change_and_shows_one_is_told(tmp_path: Path) -> None:
    def plant(level: int, param: str, vector: Vector, right: Outcome) -> tuple[Outcome, Outcome]:
        # Whether a read-modify-write reports a read too (bit 0) is the CPU's choice: a change, and no finding.
        answer = Outcome(right.kind, right.code ^ (level >= 2 and right.kind is Kind.VIOLATION), right.number)
        answer = replace(answer, gpa=right.gpa, gla=right.gla, note=f"level {level}")
        return answer, answer

    asked = [AccessVector(Mbec.OFF, leaf=Perm(False, False, False, False), access=Access.RMW), AccessVector(Mbec.OFF)]
    with Journal(synthetic.make(tmp_path / "j", asked=asked, plant=plant)) as journal:
        found = facts.load(journal)
    assert found.broken_claims == [2]
    assert "patch 2 claims no change and shows one" in found.verdict
    assert found.tested_by_hurdles(18) == ["patch 2 claims no change and shows one"]
