"""A run in rows: what the live table, the JSON object and the reports all show. Reads the journal only."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final

from harness.findings.causes import find_cause, find_errata, without_history
from harness.findings.departures import departures
from harness.findings.group import Finding, group
from harness.findings.minimise import PROVENANCE as CONFIRMED
from harness.findings.minimise import attach
from harness.questions import RULES as COLLAPSE_RULES
from harness.questions import SAME_CODE, Setting, parameters
from harness.results import CellKey, Journal, Mark, cpus, of_series, outcome_of
from kvmodel.cpu import Cpu
from kvmodel.sdm.rules import RULES as CONTRACT_RULES

SCHEMA: Final = "kvmirror-run-1"
KVM_HOST: Final = "kvm"  # the journal's host of every observation on KVM; the bare CPU is "bare"
BARE_HOST: Final = "bare"


@dataclass(slots=True)
class Row:
    """One (level, parameter): counts over all its machines. A vector may be both drift and finding.

    ``collapsed``: left out by rule. ``taken``: of the vectors, those whose answer is a lower level's by the rule
    ``same-code``.
    """

    level: int
    param: str
    vectors: int = 0
    agree: int = 0
    drift: int = 0
    findings: int = 0
    changes: int = 0
    not_applicable: int = 0
    blocked: int = 0
    entry_failures: int = 0
    traced: int = 0
    event_drift: int = 0
    collapsed: int = 0
    taken: int = 0
    seconds: float = 0.0


def below(level: int, param: str, present: set[tuple[int, str]]) -> tuple[int, str] | None:
    """The cell to compare with for a behaviour change: the nearest lower level with the same parameter values,
    or, below the patch that adds a parameter, without that one; None where the run has none."""
    setting = Setting.parse(param)
    for lower in range(level - 1, -1, -1):
        there = {text for at, text in present if at == lower}
        given = {key for text in there for key in Setting.parse(text).values}
        for text in (param, str(setting.only(given))):
            if text in there:
                return lower, text
    return None


def row(journal: Journal, run: int, level: int, param: str, keys: dict[CellKey, Any], host: str = KVM_HOST) -> Row:
    """The counts of one (level, parameter) from its cells."""
    out = Row(level, param)
    for key, (cell, seconds, facts) in keys.items():
        if (key.level, key.param, key.host) != (level, param, host):
            continue
        out.seconds += seconds
        rules = facts.get("collapsed", {})
        out.collapsed += sum(rules.values()) - rules.get(SAME_CODE, 0)
        for marks, count in journal.counts(cell).items():
            out.vectors += count
            out.taken += count * (Mark.TAKEN in marks)
            out.agree += count * (Mark.AGREE in marks)
            out.drift += count * (Mark.DRIFT in marks)
            out.findings += count * (Mark.FINDING in marks)
            out.not_applicable += count * (Mark.NOT_APPLICABLE in marks)
            out.blocked += count * (Mark.BLOCKED in marks)
            out.entry_failures += count * (Mark.ENTRY_FAILURE in marks)
            out.traced += count * (Mark.TRACED in marks)
            out.event_drift += count * (Mark.EVENT_DRIFT in marks)
    present = {(k.level, k.param) for k in keys if k.host == host}
    if (other := below(level, param, present)) is not None:
        out.changes = journal.count_changes(run, level, param, *other)
    out.seconds = round(out.seconds, 1)
    return out


def rows(journal: Journal, run: int, host: str = KVM_HOST) -> list[Row]:
    """Every (level, parameter) of a run, in order."""
    keys = journal.cells(run)
    present = sorted({(k.level, k.param) for k in keys if k.host == host}, key=lambda c: (c[0], parameters.order(c[1])))
    return [row(journal, run, level, param, keys, host) for level, param in present]


def event_drift(journal: Journal, run: int) -> Iterator[tuple[CellKey, dict[str, Any]]]:
    """The traced vectors whose events differ from the mirror's: cell, and the row as ``traced.Judged`` has it."""
    for key, (_, _, facts) in journal.cells(run).items():
        for one in facts.get("events", ()):
            if one["difference"]:
                yield key, one


def findings(journal: Journal, run: int, host: str = KVM_HOST) -> list[Finding]:
    """The findings of a run, by cause (``host`` BARE_HOST: the CPU's errata)."""
    found = departures(journal.results(run, having=Mark.FINDING, host=host))
    if host == KVM_HOST:
        provenance = journal.provenance(run)
        under = cpus.of_run(provenance)
        grouped = group((without_history(d, under) for d in found), partial(find_cause, under=under))
        attach(grouped, provenance.get(CONFIRMED, {}))
        for finding in grouped:
            finding.series = of_series.of_run(provenance)
        return grouped
    cpu = bare_cpu(journal, run)
    return group(found, lambda d: find_errata(d, cpu))


def bare_cpu(journal: Journal, run: int) -> Cpu:
    """The bare CPU as its own MSRs told the probe; one without errata where an older run did not write it down."""
    for key, (_, _, facts) in journal.cells(run).items():
        if key.host == BARE_HOST and "cpu" in facts:
            return cpus.from_json(facts["cpu"])
    return Cpu()


def as_json(journal: Journal, run: int, host: str = KVM_HOST) -> dict[str, Any]:
    """The object that ``--json`` prints."""
    info = journal.run_info(run)
    table = rows(journal, run, host)
    totals = Row(-1, "all")
    for r in table:
        for name in ("vectors", "agree", "drift", "findings", "changes", "not_applicable", "blocked"):
            setattr(totals, name, getattr(totals, name) + getattr(r, name))
        totals.entry_failures += r.entry_failures
        totals.traced += r.traced
        totals.event_drift += r.event_drift
        totals.collapsed += r.collapsed
        totals.taken += r.taken
        totals.seconds = round(totals.seconds + r.seconds, 1)
    total = asdict(totals)
    del total["level"], total["param"]
    return {
        "schema": SCHEMA,
        "run": run,
        "status": info["status"],
        "begun": info["begun"],
        "ended": info["ended"],
        "provenance": info["provenance"],
        "levels": [asdict(r) for r in table],
        "findings": [finding_json(f) for f in findings(journal, run, host)],
        "errata": [finding_json(f) for f in findings(journal, run, BARE_HOST)],
        **aside_json(journal, run, host),
        "totals": total,
    }


def aside_json(journal: Journal, run: int, host: str = KVM_HOST) -> dict[str, list[dict[str, Any]]]:
    """Rules that put vectors aside, rules by which runs collapsed, reasons why vectors were blocked."""
    contracts, outcomes = journal.texts("contract"), journal.texts("outcome")
    aside = journal.tally(run, host, Mark.NOT_APPLICABLE, "contract")
    blocked = journal.tally(run, host, Mark.BLOCKED, "seen")
    names: Counter[str] = Counter()
    reasons: dict[str, str] = {}
    for number, count in sorted(aside.items(), key=lambda item: -item[1]):
        if number is None:
            continue
        body = json.loads(contracts[number])
        names[body["rule"]] += count
        reasons.setdefault(body["rule"], body["reason"])
    collapsed: Counter[str] = Counter()
    for key, (_, _, facts) in journal.cells(run).items():
        if key.host == host:
            collapsed.update(facts.get("collapsed", {}))
    notes: Counter[str] = Counter()
    for number, count in blocked.items():
        assert number is not None  # the column is NOT NULL
        notes[outcome_of(outcomes[number]).note or "no reason given"] += count
    return {
        "rules": [
            {
                "name": name,
                "section": CONTRACT_RULES[name].section if name in CONTRACT_RULES else "",
                "text": CONTRACT_RULES[name].text if name in CONTRACT_RULES else reasons[name],
                "vectors": count,
            }
            for name, count in names.most_common()
        ],
        "collapsed": [
            {"name": name, "text": COLLAPSE_RULES.get(name, ""), "vectors": count}
            for name, count in collapsed.most_common()
        ],
        "blocked": [{"reason": note, "vectors": count} for note, count in notes.most_common()],
    }


def finding_json(f: Finding) -> dict[str, Any]:
    """One finding as data."""
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
        "first_level": f.first_level,
        "patches": list(f.origin.patches),
        "needs": list(f.origin.needs),
        "origin": str(f.origin),
        "place": f.origin.place,
        "parameter": f.depends_on_parameter(),
        "confirmed": f.confirmed or None,
        "cells": [list(c) for c in sorted(f.cells)],
        "vectors": len(f.vectors),
        "smallest": smallest.vector,
        "seen": str(smallest.seen),
        "allowed": str(smallest.allowed),
    }


COLUMNS: Final = (
    ("level", 5, "level"),
    ("param", 5, "param"),
    ("vectors", 7, "vectors"),
    ("agree", 7, "agree"),
    ("drift", 6, "drift"),
    ("finding", 7, "findings"),
    ("change", 7, "changes"),
    ("n/a", 5, "not_applicable"),
    ("blocked", 7, "blocked"),
    ("entry-f", 7, "entry_failures"),
    ("traced", 6, "traced"),
    ("ev-drift", 8, "event_drift"),
    ("merged", 7, "collapsed"),
    ("taken", 6, "taken"),
    ("seconds", 8, "seconds"),
)


PARAM_WIDTH: Final = 5  # of the column of the parameter, where no setting's text is longer


def _widths(param: int) -> list[int]:
    return [param if name == "param" else width for _, width, name in COLUMNS]


def table_head(param: int = PARAM_WIDTH) -> str:
    """The table's first line; ``param`` is the width of the parameter's column."""
    return " ".join(f"{title:>{width}}" for (title, _, _), width in zip(COLUMNS, _widths(param), strict=True))


def table_line(r: Row, param: int = PARAM_WIDTH) -> str:
    """One line of the table."""
    return " ".join(f"{getattr(r, name):>{width}}" for (_, _, name), width in zip(COLUMNS, _widths(param), strict=True))
