"""Small journals to compare: real vectors, the real mirror's and contract's answers, and what a test plants."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.compare import gather, opened, parse
from harness.compare.comparison import Comparison, Entry
from harness.questions import PARAM_VALUES
from harness.results import Answer, Cell, CellKey, Journal, judge
from kvmodel import machine, sdm
from kvmodel.cpu import Cpu
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.vector import Access, AccessVector, Mbec, Perm, Vector

LOOP = Outcome(Kind.LIVELOCK)
BLOCKED = Outcome(Kind.BLOCKED, note="L1 did not come up")
READ = AccessVector(mbec=Mbec.OFF)
FETCH = AccessVector(mbec=Mbec.OFF, access=Access.FETCH)
# Patch 11 makes L2 loop on it.
LOOPS = AccessVector(mbec=Mbec.OFF, leaf=Perm(r=False, w=False, x=True, u=True))

Seen = Mapping[Vector, Outcome]


def answer(cell: Cell, vector: Vector, seen: Outcome | None = None, *, mirror: bool = True) -> Answer:
    """What the mirror shows at a cell, or ``seen``, beside what the manual allows there."""
    level, param = cell[0], PARAM_VALUES[cell[1]]
    predicted = machine.predict(level, param, Cpu(), vector).outcome
    contract = sdm.allowed(machine.virtual_cpu(level, param, Cpu(), vector.machine), vector)
    shown = predicted if seen is None else seen
    return Answer(vector, shown, predicted if mirror else None, contract, judge(predicted, contract, shown))


def run(
    path: Path,
    asked: Iterable[Vector],
    cells: Iterable[Cell] = ((11, "0"),),
    seen: Seen | None = None,
    *,
    mirror: bool = True,
    facts: dict[str, Any] | None = None,
    change: Callable[[Answer], Answer] = lambda a: a,
) -> int:
    """One run more in a journal: ``seen`` of these vectors, of the others what the mirror shows."""
    planted = seen or {}
    asked = list(asked)
    with Journal(path) as journal:
        number = journal.begin(["validate"], {"kernel": {"release": "6.12.8"}})
        for cell in cells:
            answers = [change(answer(cell, vector, planted.get(vector), mirror=mirror)) for vector in asked]
            journal.record(number, CellKey(*cell, "kvm", "std"), answers, 1.0, facts or {})
        journal.end(number, "complete")
    return number


def compared(a: str, b: str, own: Path | None = None) -> Comparison:
    """Two runs by their names."""
    with opened(parse(a), parse(b), own) as sides:
        return gather(*sides)


def entries(comparison: Comparison) -> dict[str, list[Entry]]:
    """The sections that have any, by their keys."""
    return {section.key: list(section.entries) for section in comparison.sections}
