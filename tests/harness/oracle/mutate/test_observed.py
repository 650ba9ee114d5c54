"""What runs saw, as a measure: few vectors of each way, at the levels asked for, none that the mirror gets wrong."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import InputError
from harness.oracle.mutate import observed
from harness.results import KVM_HOST, Answer, CellKey, Journal, RunSeries, cpus, judge, of_series
from kvmodel import machine
from kvmodel.question.outcome import Kind, Outcome, logged, not_mirrored
from kvmodel.question.vector import Access, AccessVector, HostVector, Mbec

SIMPLE = AccessVector()


def run_of(path: Path, level: int, vectors: Iterable[AccessVector], *, wrong: bool = False) -> Path:
    """A journal with one run that saw what the mirror says, or something else."""
    rows = []
    for vector in vectors:
        said = machine.predict(level, None, cpus.emulated(vector.machine.env.cpu_mbec), vector)
        seen = Outcome(Kind.LIVELOCK) if wrong else said.outcome
        rows.append(Answer(vector, seen, said.outcome, None, judge(said.outcome, None, seen)))
    with Journal(path) as journal:
        run = journal.begin([], {})
        journal.record(run, CellKey(level, "unset", KVM_HOST, "std"), rows, 1.0, {})
    return path


def test_the_runs_of_several_journals_count_together(tmp_path: Path) -> None:
    one = run_of(tmp_path / "one", 0, [SIMPLE])
    other = run_of(tmp_path / "other", 18, [SIMPLE, replace(SIMPLE, access=Access.WRITE)])
    seen = observed.read([one, other], {0, 18})
    assert sorted(asked.level for asked in seen.asked) == [0, 18, 18]
    assert (len(seen.runs), seen.rows, seen.drift) == (2, 3, 0)


def test_other_levels_are_left_out(tmp_path: Path) -> None:
    assert not observed.read([run_of(tmp_path / "one", 0, [SIMPLE])], {18}).asked


def test_few_of_those_that_go_one_way(tmp_path: Path) -> None:
    alike = [replace(SIMPLE, cpl=cpl, wp=wp, nxe=nxe) for cpl in (0, 3) for wp in (0, 1) for nxe in (0, 1)]
    seen = observed.read([run_of(tmp_path / "one", 0, alike)], {0})
    assert seen.rows == len(alike)
    assert 0 < len(seen.asked) < len(alike)


def test_a_number_with_more_bits_goes_another_way(tmp_path: Path) -> None:
    reserved = [replace(SIMPLE, mbec=Mbec.OFF, leaf_bits=1 << bit) for bit in range(46, 52)]
    seen = observed.read([run_of(tmp_path / "one", 0, reserved)], {0})
    assert len(seen.asked) == len(reserved)


def test_what_the_kernels_log_said_beside_the_answers_is_no_answer_to_the_mirror(tmp_path: Path) -> None:
    path = run_of(tmp_path / "one", 0, [SIMPLE])
    with Journal(path) as journal:
        seen, mirror = logged(["WARN in f"]), not_mirrored("the kernel's log")
        row = Answer(HostVector("log"), seen, mirror, None, judge(mirror, None, seen))
        journal.record(1, CellKey(0, "unset", KVM_HOST, "std:log"), [row], 0.0, {})
    found = observed.read([path], {0})
    assert (found.rows, found.drift, len(found.asked)) == (1, 0, 1)


def test_what_the_mirror_gets_wrong_measures_nothing(tmp_path: Path) -> None:
    seen = observed.read([run_of(tmp_path / "one", 0, [SIMPLE], wrong=True)], {0})
    assert (seen.asked, seen.rows, seen.drift) == ((), 1, 1)


def test_a_journal_without_a_run_is_refused(tmp_path: Path) -> None:
    with Journal(tmp_path / "empty"):
        pass
    with pytest.raises(InputError):
        observed.read([tmp_path / "empty"], {0})


def test_a_run_of_another_series_is_refused(tmp_path: Path) -> None:
    with Journal(run_of(tmp_path / "one", 0, [SIMPLE])) as journal:
        journal.amend(1, {of_series.PROVENANCE: RunSeries(60, False).as_json()})
    with pytest.raises(InputError, match="another series"):
        observed.read([tmp_path / "one"], {0})
