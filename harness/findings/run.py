"""A run with its findings: each computed once, shared by the table, the JSON, the reports and the exit code."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import cached_property, partial
from typing import Final

from harness.errors import InputError
from harness.findings import kept, left_out
from harness.findings.causes import find_errata
from harness.findings.departures import departures
from harness.findings.group import Finding, group
from harness.findings.minimise import PROVENANCE as CONFIRMED
from harness.findings.minimise import attached
from harness.jsonable import Json
from harness.results import (
    BARE_HOST,
    FORESEEN_HOST,
    KVM_HOST,
    Aside,
    Cell,
    CellKey,
    Journal,
    Judged,
    Mark,
    NotReproduced,
    OfRun,
    PartAsked,
    Recorded,
    Row,
    RunInfo,
    RunSeries,
    Under,
    cpus,
    of_series,
    parts,
    rows,
)
from kvmodel.cpu import Cpu

SCHEMA: Final = "kvmirror-run-1"


class Run(OfRun):
    """One run of a journal as it is read: of KVM, of the bare CPU, or foreseen."""

    def __init__(self, journal: Journal, info: RunInfo, host: str) -> None:
        self.journal = journal
        self.info = info
        self.host = host

    @classmethod
    def open(cls, journal: Journal, number: int | None = None, *, bare: bool = False) -> Run:
        """The function opens run ``number``, or the latest observed one; of its answers those of KVM, or the ``bare``
        CPU's.

        A foreseen run is only read where it is named.

        Raises InputError when there is none.
        """
        host = BARE_HOST if bare else KVM_HOST
        info = journal.run_info(journal.latest(host) if number is None else number)
        if info.foreseen and bare:
            raise InputError(f"run {info.id} is foreseen, and nothing is foreseen of a bare CPU: leave out --bare")
        return cls(journal, info, FORESEEN_HOST if info.foreseen else host)

    @property
    def name(self) -> str:
        """The run has this name in a sentence."""
        return f"{'foreseen ' if self.foreseen else ''}run {self.number}"

    @cached_property
    def cells(self) -> dict[CellKey, Recorded]:
        """The function gives the finished cells on the run's host."""
        return {key: cell for key, cell in self.journal.cells(self.number).items() if key.host == self.host}

    @cached_property
    def present(self) -> set[Cell]:
        """The function gives every (level, parameter) that was asked."""
        return {key.cell for key in self.cells}

    @cached_property
    def rows(self) -> list[Row]:
        """The function gives a row a (level, parameter), in order."""
        return rows.rows(self.journal, self.number, self.host)

    @cached_property
    def totals(self) -> Row:
        """The row has the sum of the rows."""
        return rows.totals(self.rows)

    @cached_property
    def parts(self) -> list[PartAsked]:
        """This says how many vectors of each part that was named were asked."""
        named = self.info.provenance.get(parts.NAMED, [])
        return parts.of_run(named, self.journal.notes(self.number, self.host), self.host) if named else []

    @cached_property
    def event_drift(self) -> list[tuple[CellKey, Judged]]:
        """The function gives the traced vectors whose events differ from the mirror's."""
        return list(rows.event_drift(self.cells))

    @cached_property
    def not_reproduced(self) -> list[tuple[CellKey, NotReproduced]]:
        """The function gives the vectors that an earlier run answered otherwise."""
        return [(key, one) for key, recorded in self.cells.items() for one in recorded.not_reproduced]

    @cached_property
    def earlier(self) -> list[int]:
        """The function gives the runs of which answers were taken."""
        return sorted({number for recorded in self.cells.values() for number in recorded.earlier})

    @cached_property
    def under(self) -> Under:
        """This is the CPU under KVM."""
        return cpus.of_run(self.info.provenance)

    @cached_property
    def series(self) -> RunSeries:
        """This is the series that was asked."""
        return of_series.of_run(self.info.provenance)

    @cached_property
    def findings(self) -> list[Finding]:
        """The function gives departures by cause; of a bare CPU, its errata."""
        if self.host == BARE_HOST:
            found = departures(self.journal.answers(self.number, having=Mark.FINDING, host=BARE_HOST))
            return group(found, partial(find_errata, cpu=self._bare_cpu()))
        known = kept.findings(self.journal, self.number, self.host, self.under)
        cpu = cpus.model_of(self.info.provenance)
        known = [
            replace(f, series=self.series, cpu=cpu) for f in attached(known, self.info.provenance.get(CONFIRMED, {}))
        ]
        return left_out.attached(known, self.info.provenance.get(left_out.PROVENANCE, {}))

    def _bare_cpu(self) -> Cpu:
        """The bare CPU as its own MSRs told the probe; one without errata where an older run did not write it down."""
        told = (recorded.facts["cpu"] for recorded in self.cells.values() if "cpu" in recorded.facts)
        return next((cpus.from_json(body) for body in told), Cpu())

    def finding(self, name: str) -> Finding:
        """The function gives the finding of that name.

        Raises InputError when the run has none.
        """
        found = {f.name: f for f in self.findings}
        if name not in found:
            has = f"name one of {', '.join(found)}" if found else "it has no findings"
            raise InputError(f"finding {name!r} is not in {self.name}: {has}")
        return found[name]

    @cached_property
    def errata(self) -> list[Finding]:
        """In this run the bare CPU was seen to have these errata."""
        return self.findings if self.host == BARE_HOST else Run(self.journal, self.info, BARE_HOST).findings

    @cached_property
    def aside(self) -> Aside:
        """The run has this that was not asked, or not judged."""
        return rows.aside(self.journal, self.number, self.host)

    def totals_json(self) -> dict[str, Json]:
        """The function gives the sum of the rows, of no level and parameter."""
        total = asdict(self.totals)
        del total["level"], total["param"]
        return total

    def as_json(self) -> dict[str, Json]:
        """The function gives the object that ``--json`` prints."""
        return {
            "schema": SCHEMA,
            "run": self.number,
            **({"foreseen": True} if self.foreseen else {}),
            "status": self.info.status,
            "begun": self.info.begun,
            "ended": self.info.ended,
            "provenance": self.info.provenance,
            "levels": [asdict(r) for r in self.rows],
            "findings": [finding_json(f) for f in self.findings],
            "errata": [finding_json(f) for f in self.errata],
            **self.aside.as_json(),
            "parts": [part.as_json() for part in self.parts],
            "totals": self.totals_json(),
            "earlier_runs": self.earlier,
            "not_reproduced": [
                {
                    "level": key.level,
                    "param": key.param,
                    "vector": one.vector,
                    "run": one.run,
                    "before": str(one.before),
                    "now": str(one.now),
                }
                for key, one in self.not_reproduced
            ],
        }


def finding_json(f: Finding) -> dict[str, Json]:
    """The function gives one finding as data."""
    smallest = f.smallest
    return {
        "name": f.name,
        "cause": f.cause,
        "title": f.title,
        "severity": f.symptom.severity,
        "symptom": str(f.symptom),
        "rule": smallest.rule,
        "section": smallest.section,
        "rules": [rule for rule, _ in f.rules],
        "first_level": f.begins,
        "patches": list(f.origin.patches),
        "needs": list(f.origin.needs),
        "origin": str(f.origin),
        **({} if f.left_out is None else {"left_out": f.left_out.as_json()}),
        "place": f.origin.place,
        "parameter": f.depends_on_parameter(),
        "confirmed": f.confirmed or None,
        "cells": [list(c) for c in sorted(f.cells)],
        "vectors": len(f.vectors),
        "environments": list(f.environments),
        "smallest": smallest.vector.id,
        "seen": str(smallest.seen),
        "allowed": str(smallest.allowed),
    }
