"""Which patch causes a departure: asked of the mirror by leaving patches out, one at a time."""

from __future__ import annotations

from dataclasses import dataclass

from kvmodel import machine
from kvmodel.cpu import Cpu
from kvmodel.outcome import Kind, Outcome
from kvmodel.series import Level
from kvmodel.vector import Vector


@dataclass(frozen=True, slots=True)
class Cause:
    """The patches with a rule on the way without any one of which the departure goes away."""

    patches: tuple[int, ...]
    in_base: bool
    predicted: bool

    def __str__(self) -> str:
        if not self.predicted:
            return "the mirror does not show it: cause unknown"
        if self.in_base:
            return "the base has it"
        if not self.patches:
            return "no single patch causes it: leaving any one out changes nothing"
        return f"caused by patch {' and '.join(map(str, self.patches))} (leaving one out takes it away)"


def find_cause(level: int, param: bool | None, cpu: Cpu, vector: Vector, seen: Outcome, turn: int = 0) -> Cause:
    """The cause of ``seen`` at ``level``; of a sequence it is the outcome of ``turn``, from 0."""

    def shows(outcome: Outcome) -> bool:
        there = outcome.turn(turn)
        return there is not None and there.matches(seen)

    if not shows(machine.predict(level, param, cpu, vector).outcome):
        return Cause((), False, False)
    if shows(machine.predict(0, None, cpu, vector).outcome):
        return Cause((), True, True)
    needed = []
    for left_out in range(1, level + 1):
        outcome = machine.predict(Level.without(level, left_out), param, cpu, vector).outcome
        # Where L1 cannot run without the patch, that says nothing of the departure.
        if outcome.kind is not Kind.BLOCKED and not shows(outcome):
            needed.append(left_out)
    # A patch that only makes the others reachable (the parameter, the advertisement) puts no rule on the way.
    steps = machine.predict(level, param, cpu, vector, steps=True).steps
    on_the_way = [n for n in needed if any(step.patch == n for step in steps)]
    return Cause(tuple(on_the_way or needed), False, True)
