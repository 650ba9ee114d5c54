"""``--new`` shows, counts and exits by what the series brings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.cli import main
from harness.results import KVM_HOST, Answer, CellKey, Journal, judge
from kvmodel.question.outcome import Allowed, Kind, Outcome
from kvmodel.question.vector import AccessVector

KNOWN, BROUGHT = AccessVector(), AccessVector(cpl=3)
CONTRACT = (Allowed(Outcome(Kind.DONE), "ept-permitted", "29.3.3.2"),)
Make = Callable[..., Path]


@pytest.fixture
def made(tmp_path: Path) -> Make:
    def make(*departing: tuple[int, AccessVector]) -> Path:
        """A journal with a run of these vectors at these levels, all of which loop; no mirror was asked."""
        path = tmp_path / "journal.sqlite"
        loop = Outcome(Kind.LIVELOCK)
        with Journal(path) as journal:
            run = journal.begin([], {})
            for level in sorted({level for level, _ in departing}):
                answers = [
                    Answer(vector, loop, None, CONTRACT, judge(None, CONTRACT, loop))
                    for at, vector in departing
                    if at == level
                ]
                journal.record(run, CellKey(level, "unset", KVM_HOST, "std"), answers, 1.0, {})
            journal.end(run, "complete")
        return path

    return make


def listed(path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, list[str], str]:
    code = main.main(["findings", "--journal", str(path), "--json", *options])
    out, err = capsys.readouterr()
    return code, [one["smallest"] for one in json.loads(out)], err


def test_what_the_base_has_is_not_new(made: Make, capsys: pytest.CaptureFixture[str]) -> None:
    path = made((0, KNOWN), (1, KNOWN))
    assert listed(path, capsys) == (0, [KNOWN.id], "")
    assert listed(path, capsys, "--new") == (0, [], "")


def test_what_the_series_brings_is_told_apart_though_it_looks_the_same(
    made: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    path = made((0, KNOWN), (1, KNOWN), (1, BROUGHT))
    assert listed(path, capsys) == (0, [KNOWN.id, BROUGHT.id], "")
    assert listed(path, capsys, "--new") == (1, [BROUGHT.id], "")


def test_a_run_without_the_base_says_so(made: Make, capsys: pytest.CaptureFixture[str]) -> None:
    code, found, err = listed(made((1, KNOWN)), capsys, "--new")
    assert (code, found) == (1, [KNOWN.id])
    assert "did not ask level 0" in err


def test_a_bare_cpu_has_no_series(made: Make, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["findings", "--new", "--bare", "--journal", str(made((0, KNOWN)))]) == 2
    assert "leave out --bare" in capsys.readouterr().err
