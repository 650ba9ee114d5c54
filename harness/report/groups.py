"""A run as test cases: the vectors of a cell in groups of one kind, so that a CI's page stays readable.

A group is a leaf size, an access and what L1 does with MBEC (``e4k fetch mbec=on``; of a sequence its first turn's,
``seq e4k read mbec=on``), or a kind of vector (``msr``); names are the same from level to level and from run to run.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from harness.findings import of_run
from harness.report.facts import Cell, FindingView, Report
from harness.results import Journal, Mark

FEW = 5  # examples a message carries


@dataclass(slots=True)
class Group:
    """One test case of a cell."""

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


def name_of(vector: str) -> str:
    """The group of a vector's id."""
    tokens = vector.split(".")
    turns = tokens[0] == "seq"  # a sequence is named by its first turn
    if turns:
        tokens = tokens[1:]
    if tokens[0] not in ("e4k", "e2m", "e1g"):
        return "seq" if turns else tokens[0]
    mbec = next(t for t in tokens if t.startswith("mbec="))
    return f"{'seq ' if turns else ''}{tokens[0]} {tokens[6]} {mbec}"


def gather(journal: Journal, report: Report, host: str = of_run.KVM_HOST) -> dict[Cell, dict[str, Group]]:
    """Every cell's groups, sorted by name."""
    cells = {n: (k.level, k.param) for k, (n, _, _) in journal.cells(report.run).items() if k.host == host}
    names = journal.texts("vector")
    group_names = {number: name_of(name) for number, name in names.items()}
    meets: dict[tuple[Cell, str], list[FindingView]] = defaultdict(list)
    for view in report.findings:
        for departure in view.finding.departures:
            meets[departure.cell, departure.vector].append(view)
    out: dict[Cell, dict[str, Group]] = {cell: {} for cell in report.cells}
    for number, vector, _, _, _, bits, _ in journal.numbers(report.run, host):
        cell, marks = cells[number], Mark(bits)
        groups = out[cell]
        name = group_names[vector]
        if name not in groups:
            groups[name] = Group()
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
    return {cell: dict(sorted(groups.items())) for cell, groups in out.items()}


def some(vectors: list[str]) -> list[str]:
    """The first few, and how many more there are."""
    return vectors[:FEW] + ([f"and {len(vectors) - FEW} more"] if len(vectors) > FEW else [])
