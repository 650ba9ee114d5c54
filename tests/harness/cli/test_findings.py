"""How a finding is printed, and how often it is computed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from harness.cli import validate
from harness.cli.findings import explanation
from harness.findings import Finding, Run, kept
from harness.findings.departures import Departure
from harness.findings.group import group
from harness.report import facts
from harness.results import Journal, cpus
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.sequence import sequence
from kvmodel.question.vector import AccessVector, ClientSequence, Mbec, UserMsrVector, Vector
from tests.harness.report import synthetic

FIRST = AccessVector(Mbec.OFF)


@pytest.mark.parametrize(
    ("vector", "turn"),
    [
        (sequence(FIRST, "l1=r---"), " (turn 2)"),
        (FIRST, ""),
        (ClientSequence(steps=("read", "age", "write")), ""),  # steps are joined by "+", and are no turns
        (UserMsrVector(steps=("c54", "s54")), ""),
    ],
)
def test_only_a_sequence_says_which_turn_departs(vector: Vector, turn: str) -> None:
    departs = Departure(
        vector, (18, "1"), "kvm", Outcome(Kind.LIVELOCK), (Outcome(Kind.DONE),), "own-access", "-", turn=bool(turn)
    )
    (found,) = group([departs])
    assert f"  seen        livelock{turn}" in explanation(found, cpus.emulated)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The runs whose findings were computed, once each time."""
    found: list[int] = []
    compute = kept.findings

    def findings(journal: Journal, run: int, *rest: Any) -> list[Finding]:
        found.append(run)
        return compute(journal, run, *rest)

    monkeypatch.setattr(kept, "findings", findings)
    return found


@pytest.mark.parametrize("as_json", [False, True])
def test_the_end_of_a_run_computes_its_findings_once(
    as_json: bool, counted: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Table, claims, list and exit code share them."""
    with Journal(synthetic.make(tmp_path / "j", cells=[(13, "1"), (14, "1")])) as journal:
        code = validate._close(Run.open(journal), argparse.Namespace(json=as_json, new=False), 1.0)
    assert (code, counted) == (3, [1]) and capsys.readouterr().out  # the planted run drifts, too


def test_a_report_computes_them_once(counted: list[int], tmp_path: Path) -> None:
    with Journal(synthetic.make(tmp_path / "j", cells=[(14, "1")])) as journal:
        assert facts.load(journal).findings
    assert counted == [1]
