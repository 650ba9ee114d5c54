"""Findings: where what was seen departs from the manual, grouped by cause.

Two departures have one cause when they show the same symptom against the same rule and appear in the same
cells (level, parameter): the cells are what a cause leaves behind, whatever vector met it. Which patch causes
it is asked of the mirror by leaving patches out, one at a time.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from harness.compare import Mark, departing
from kvmodel import sdm
from kvmodel.cpu import Cpu
from kvmodel.outcome import Allowed, Kind, Outcome
from kvmodel.sequence import SequenceVector
from kvmodel.vector import AccessVector, ClientVector, Vector, changed_fields, parse

Cell = tuple[int, str]  # level, parameter text


@dataclass(frozen=True, slots=True)
class Departure:
    """One vector's answer that the manual does not allow, at one level."""

    vector: str
    cell: Cell
    host: str
    seen: Outcome
    allowed: Outcome  # the first answer the manual allows
    rule: str
    section: str
    turn: int = 0  # of a sequence: the turn that departs, from 0; ``seen`` and ``allowed`` are its
    stale: bool = False  # it goes by entries or controls of an earlier turn, and shows nowhere without them


@dataclass(frozen=True, slots=True)
class Symptom:
    """What a departure looks like, without the vector: answers' kinds, rule, the qualification bits that differ."""

    severity: str
    seen: str
    allowed: str
    rule: str
    wrong_bits: int

    def __str__(self) -> str:
        text = f"{self.severity}: {self.seen} where the manual has {self.allowed} ({self.rule})"
        return f"{text}, wrong bits {self.wrong_bits:#x}" if self.wrong_bits else text


@dataclass(slots=True)
class Finding:
    """One cause: its symptom, the cells it shows in, and the vectors that meet it."""

    symptom: Symptom
    cells: frozenset[Cell]
    host: str
    departures: list[Departure] = field(default_factory=list)
    name: str = ""

    @property
    def first_level(self) -> int:
        """The lowest level that shows it."""
        return min(level for level, _ in self.cells)

    @property
    def vectors(self) -> list[str]:
        """The ids that meet it, smallest first."""
        return sorted({d.vector for d in self.departures}, key=weight)

    @property
    def smallest(self) -> Departure:
        """The departure nearest to the plainest vector, at the first level."""
        return min(self.departures, key=lambda d: (weight(d.vector), d.cell))

    @property
    def cause(self) -> str:
        """A hash that stays the same from run to run while the cause does: what a baseline holds."""
        text = repr((self.symptom, sorted(self.cells), self.host))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def depends_on_parameter(self) -> str:
        """In which of the parameter's values it shows."""
        params = {param for _, param in self.cells}
        return "shows whatever the parameter" if {"0", "1"} <= params else f"parameter {', '.join(sorted(params))}"


@lru_cache(maxsize=1 << 16)  # asked of every departure again for each finding's smallest
def weight(name: str) -> tuple[int, str]:
    """How far a vector is from the plainest one: fields that differ, then its id."""
    vector = parse(name)
    if isinstance(vector, AccessVector):
        return len(changed_fields(vector, AccessVector())), name
    if isinstance(vector, SequenceVector):  # a single access that shows the same is smaller
        fields = len(changed_fields(vector.turns[0].access, AccessVector()))
        return 100 * len(vector.turns) + fields + name.count(".") + name.count("+"), name
    return 0, name


def severity(vector: Vector, seen: Outcome, allowed: Outcome) -> str:
    """The departure in the field's terms."""
    match seen.kind, allowed.kind:
        case Kind.LIVELOCK, _:
            return "L1 livelock" if isinstance(vector, ClientVector) else "L2 livelock"
        case Kind.HOST, _:
            return "host trouble"
        case Kind.VIOLATION, Kind.VIOLATION:
            return "wrong exit information"
        case Kind.DONE, Kind.EXCEPTION | Kind.VIOLATION | Kind.MISCONFIG:
            return "permission not enforced"
        case ((Kind.VIOLATION | Kind.MISCONFIG | Kind.EXIT), Kind.DONE):
            return "exit to L1 that the manual does not have"
        case ((Kind.VIOLATION | Kind.MISCONFIG | Kind.EXIT), _):
            return "wrong exit to L1"
        case _, Kind.VIOLATION | Kind.MISCONFIG:
            return "missed exit to L1"
        case ((Kind.ENTRY_FAIL | Kind.ENTRY_EXIT), _):
            return "VM entry refused"
        case _, Kind.ENTRY_FAIL | Kind.ENTRY_EXIT:
            return "VM entry accepted"
        case _:
            return "wrong answer"


def departures(rows: Iterable[dict[str, Any]], decode: Callable[[str], Outcome]) -> list[Departure]:
    """The journal's rows marked FINDING as departures."""
    found = []
    for row in rows:
        if Mark.FINDING not in row["marks"]:
            continue
        rows_allowed = [Allowed(decode(body), rule, section) for body, rule, section in row["contract"]]
        turn, allowed = departing(rows_allowed, row["seen"])
        seen = row["seen"].turn(turn)
        cell = (row["level"], row["param"])
        found.append(
            Departure(row["vector"], cell, row["host"], seen, allowed.outcome, allowed.rule, allowed.section, turn)
        )
    return _stale_told(found)


def _access(d: Departure) -> str:
    """The access that departs, without its history."""
    vector = parse(d.vector)
    return vector.turns[d.turn].access.id if isinstance(vector, SequenceVector) else d.vector


def _stale_told(found: list[Departure]) -> list[Departure]:
    """``found`` with those marked that only their history explains.

    What the same access shows as a first turn or alone is no matter of history, whatever it looks like.
    """
    fresh = {(_access(d), d.cell, d.host, d.seen) for d in found if d.turn == 0}
    told = []
    for d in found:
        vector = parse(d.vector)
        if isinstance(vector, SequenceVector) and (_access(d), d.cell, d.host, d.seen) not in fresh:
            d = replace(d, stale=sdm.stale(Cpu(), vector.turns[: d.turn + 1], d.seen))
        told.append(d)
    return told


def symptom(d: Departure) -> Symptom:
    """The departure without its vector."""
    same_kind = d.seen.kind is d.allowed.kind
    wrong = (d.seen.code ^ d.allowed.code) & d.allowed.defined if same_kind else 0
    what = "stale translation" if d.stale else severity(parse(d.vector), d.seen, d.allowed)
    return Symptom(what, d.seen.kind.value, d.allowed.kind.value, d.rule, wrong)


def group(found: Iterable[Departure]) -> list[Finding]:
    """Departures grouped by cause, the first level's first; named F1, F2... in that order."""
    per_vector: dict[tuple[str, str, Symptom], list[Departure]] = defaultdict(list)
    for d in found:
        per_vector[d.vector, d.host, symptom(d)].append(d)
    causes: dict[tuple[Symptom, frozenset[Cell], str], Finding] = {}
    for (_, host, what), members in per_vector.items():
        cells = frozenset(d.cell for d in members)
        finding = causes.setdefault((what, cells, host), Finding(what, cells, host))
        finding.departures.extend(members)
    ordered = sorted(causes.values(), key=lambda f: (f.first_level, f.symptom.severity, str(f.symptom), -len(f.cells)))
    for number, finding in enumerate(ordered, 1):
        finding.name = f"F{number}"
    return ordered
