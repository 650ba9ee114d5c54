"""A run as test cases: the vectors of a cell in groups of one kind, so that a CI's page stays readable.

A group is a leaf size, an access and what L1 does with MBEC (``e4k fetch mbec=on``; of a sequence its first turn's,
``seq e4k read mbec=on``), or a kind of vector (``msr``); names are the same from level to level and from run to run.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from harness.report.facts import FindingView, Report
from harness.results import Cell, Journal, Mark
from kvmodel.question.program import ProgramVector
from kvmodel.question.reading import parse
from kvmodel.question.sequence import SequenceVector
from kvmodel.question.vector import AccessVector, Vector

FEW = 5  # examples a message carries
SIZES = {1: "e4k", 2: "e2m", 3: "e1g"}  # a leaf's level as an id has it


@dataclass(slots=True)
class CaseGroup:
    """The group is one test case of a cell."""

    vectors: int = 0
    agree: int = 0
    blocked: int = 0
    not_applicable: int = 0
    drift: list[str] = field(default_factory=list)  # vectors
    findings: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # name: vectors
    new: bool = False  # a finding that the baseline does not hold

    @property
    def skipped(self) -> str:
        """Why the group says nothing: no vector of it was compared; empty where one was."""
        if self.drift or self.findings or self.vectors > self.blocked + self.not_applicable:
            return ""
        return f"{self.blocked} blocked, {self.not_applicable} not applicable"


def name_of(vector: Vector) -> str:
    """The function gives the group of a vector."""
    match vector:
        case AccessVector():
            return f"{SIZES[vector.leaf_level]} {vector.access.value} mbec={vector.mbec.value}"
        case ProgramVector():
            return (
                f"prog {'EPT' if vector.ept else 'no EPT'} mbec={'on' if vector.wants_mbec else 'off'} {_host(vector)}"
            )
        case SequenceVector():  # named by its first turn
            return f"seq {name_of(vector.turns[0].access)}"
        case _:
            return vector.id.partition(".")[0]


def _host(vector: ProgramVector) -> str:
    """The environment; those of one kind, of which each has few vectors, are one."""
    env = vector.machine.env
    return "no_..." if env.taken is not None else "a parameter" if env.parameters else env.name


def gather(journal: Journal, report: Report) -> dict[Cell, dict[str, CaseGroup]]:
    """The function gives every cell's groups, sorted by name."""
    cells = {
        recorded.number: key.cell for key, recorded in journal.cells(report.number).items() if key.host == report.host
    }
    names = journal.texts("vector")
    group_names: dict[int, str] = {}
    meets: dict[tuple[Cell, str], list[FindingView]] = defaultdict(list)
    for view in report.findings:
        for departure in view.finding.departures:
            meets[departure.cell, departure.vector.id].append(view)
    out: dict[Cell, dict[str, CaseGroup]] = {cell: {} for cell in report.cells}
    for number, vector, _, _, _, bits, _ in journal.numbers(report.number, report.host):
        cell, marks = cells[number], Mark(bits)
        groups = out[cell]
        if (name := group_names.get(vector)) is None:
            name = group_names[vector] = name_of(parse(names[vector]))
        if name not in groups:
            groups[name] = CaseGroup()
        group = groups[name]
        group.vectors += 1
        group.agree += Mark.AGREE in marks
        group.blocked += Mark.BLOCKED in marks
        group.not_applicable += Mark.NOT_APPLICABLE in marks
        if Mark.DRIFT in marks:
            group.drift.append(names[vector])
        if Mark.FINDING in marks:
            for view in meets[cell, names[vector]]:
                group.findings[view.finding.name].append(names[vector])
                group.new = group.new or not view.known
    for group in (group for groups in out.values() for group in groups.values()):
        for found in (group.drift, *group.findings.values()):
            found.sort()  # the journal has them in the order in which hosts answered
    return {cell: dict(sorted(groups.items())) for cell, groups in out.items()}


def some(vectors: list[str]) -> list[str]:
    """The text has the first few, and how many more there are."""
    return vectors[:FEW] + ([f"and {len(vectors) - FEW} more"] if len(vectors) > FEW else [])
