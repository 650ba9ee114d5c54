"""Journals to report on: real vectors, the real contract's answers, and departures planted by rule.

The planted answers are no claim about any kernel; they are there so that every kind of mark shows up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from harness.questions import core
from harness.results import Answer, CellKey, Journal, judge
from harness.series import folder
from kvmodel import sdm
from kvmodel.cpu import Cpu
from kvmodel.question.outcome import Allowed, Kind, NotApplicable, Outcome
from kvmodel.question.vector import Access, AccessVector, Mbec, Vector

LOOP = Outcome(Kind.LIVELOCK, note="the same exit 16 times")
BLOCKED = Outcome(Kind.BLOCKED, note="L1 did not come up")
PATCHES = [
    {
        "number": patch.number,
        "sha256": sha256(patch.path.read_bytes()).hexdigest(),
        "applies": "yes, offset 3",
        "builds": "yes, 12.3 s",
        "identity": "identical" if patch.number in (1, 2, 10) else "vmx.o, mmu.o differ",
    }
    for patch in folder.read().patches
]
PROVENANCE: dict[str, Any] = {
    "kernel": {"version": "6.12.8", "sha256": "3f258de1f486f02871255d100e8cdf0b9daec4d14994b9fe46184d984120f254"},
    "config": "images/kernel/needs.toml",
    "patches": PATCHES,
    "qemu": "11.1.3",
    "bochs": {"version": "3.0", "mends": ["bit6", "bit12"]},
    "cpu": {"model": "corei7_icelake_u", "stepping": 2, "microcode": 0},
    "commit": "0000000000000000000000000000000000000000",
    "seed": 1,
}

Plant = Callable[[int, str, Vector, Outcome], tuple[Outcome, Outcome]]


@cache
def contract(vector: Vector, mbec: bool) -> tuple[Allowed, ...] | NotApplicable:
    """The manual's answers to ``vector`` on a virtual CPU with or without the control."""
    return sdm.allowed(Cpu(mbec=mbec), vector)


def honest(level: int, param: str, vector: Vector, right: Outcome) -> tuple[Outcome, Outcome]:
    """Mirror and observation say what the manual says."""
    return right, right


def planted(level: int, param: str, vector: Vector, right: Outcome) -> tuple[Outcome, Outcome]:
    """Livelocks from level 13 on, a wrong qualification bit from 11 on, one drift, blocked vectors."""
    if not isinstance(vector, AccessVector):
        return right, right
    if level >= 13 and param == "1" and vector.mbec is Mbec.ON and vector.access is Access.FETCH:
        if not vector.leaf.x and vector.leaf.u and vector.leaf.r:
            return LOOP, LOOP
        if vector.env == "hugenx":
            return right, BLOCKED
    if level >= 11 and right.kind is Kind.VIOLATION and vector.leaf.u and vector.access is Access.READ:
        wrong = Outcome(Kind.VIOLATION, right.code ^ 0x8, gpa=right.gpa, gla=right.gla)
        return wrong, wrong
    if level == 15 and vector.access is Access.WALKD and vector.leaf.w and vector.ad:
        return Outcome(Kind.DONE), Outcome(Kind.VIOLATION, 0x83)
    return right, right


def record(
    journal: Journal,
    asked: Iterable[Vector],
    cells: Iterable[tuple[int, str]],
    plant: Plant = planted,
    provenance: dict[str, Any] | None = None,
    status: str = "complete",
) -> int:
    """A run of ``asked`` in every cell."""
    run = journal.begin(["validate"], PROVENANCE if provenance is None else provenance)
    asked = list(asked)
    for level, param in cells:
        by_machine: dict[str, list[Answer]] = {}
        for vector in asked:
            manual = contract(vector, level >= 16 and param != "0")
            right = Outcome(Kind.VALUE, 1) if isinstance(manual, NotApplicable) else manual[0].outcome
            predicted, seen = plant(level, param, vector, right)
            answer = Answer(vector, seen, predicted, manual, judge(predicted, manual, seen))
            by_machine.setdefault(vector.machine.env.name, []).append(answer)
        for machine, answers in by_machine.items():
            loops = [a.vector.id for a in answers if a.seen.kind is Kind.LIVELOCK]
            facts = {
                "collapsed": {"never-offered": 7},
                "counters": {"exits": 3 * len(answers) + level, "pf_spurious": 17 * len(loops)},
                "livelocks": dict.fromkeys(loops[:1], "16 equal exits at RIP 0x1000"),
                "warnings": ["WARNING: CPU: 0 PID: 1 at mmu.c:1"] if level == 17 else [],
                "qemu": "11.1.3",
                "properties": {"vmx-mbec": True},
            }
            journal.record(run, CellKey(level, param, "kvm", machine), answers, 0.5 + level, facts)
    journal.end(run, status)
    return run


def full_cells() -> list[tuple[int, str]]:
    """Every level with every value its parameter can have."""
    return [(level, param) for level in range(19) for param in (("unset", "0", "1") if level >= 3 else ("unset",))]


def sample(step: int = 37) -> list[Vector]:
    """Every 37th core vector."""
    return core.core()[::step]


def make(path: Path, **how: Any) -> Path:
    """A journal file with one run."""
    with Journal(path) as journal:
        record(journal, how.pop("asked", sample()), how.pop("cells", full_cells()), **how)
    return path
