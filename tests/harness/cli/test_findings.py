"""How a finding is printed."""

from __future__ import annotations

import pytest

from harness.cli.findings import explanation
from harness.findings.departures import Departure
from harness.findings.group import group
from harness.results import cpus
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.sequence import sequence
from kvmodel.question.vector import AccessVector, ClientSequence, Mbec, UserMsrVector, Vector

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
