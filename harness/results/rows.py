"""A run in rows: what the live table, the JSON object and the reports all count. Reads the journal only."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Final

from harness.jsonable import Json
from harness.questions import ASKED_BEFORE, SAME_CODE, Setting, parameters
from harness.questions import RULES as COLLAPSE_RULES
from harness.results.answer import KVM_HOST, Cell, CellKey, Judged
from harness.results.coding import outcome_of
from harness.results.journal import Journal, Recorded
from harness.results.verdict import Mark
from kvmodel.sdm.rules import RULES as CONTRACT_RULES

Cells = Mapping[CellKey, Recorded]


@dataclass(slots=True)
class Row:
    """The row is of one (level, parameter): counts over all its machines. A vector may be both drift and finding.

    ``collapsed``: left out by rule. ``taken``: of the vectors, those whose answer is a lower level's by the rule
    ``same-code``. ``not_mirrored``: those on which the mirror does not speak, in whole or from some turn on.
    ``earlier``: of those not ``taken``, the ones whose answer is an earlier run's by the rule ``asked-before``.
    ``again``: asked although an earlier run has such an answer; of them ``not_reproduced`` had another answer there.
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
    not_mirrored: int = 0
    earlier: int = 0
    again: int = 0
    not_reproduced: int = 0
    seconds: float = 0.0

    @property
    def cell(self) -> Cell:
        """The pair is level and parameter."""
        return self.level, self.param


_COUNTED: Final = {
    Mark.TAKEN: "taken",
    Mark.EARLIER: "earlier",
    Mark.AGAIN: "again",
    Mark.NOT_REPRODUCED: "not_reproduced",
    Mark.AGREE: "agree",
    Mark.DRIFT: "drift",
    Mark.FINDING: "findings",
    Mark.NOT_APPLICABLE: "not_applicable",
    Mark.BLOCKED: "blocked",
    Mark.ENTRY_FAILURE: "entry_failures",
    Mark.TRACED: "traced",
    Mark.EVENT_DRIFT: "event_drift",
    Mark.NOT_MIRRORED: "not_mirrored",
}
ANSWERED: Final = (SAME_CODE, ASKED_BEFORE)  # rules by which an answer comes from elsewhere: nothing is left out
COUNTS: Final = tuple(f.name for f in fields(Row) if f.name not in ("level", "param"))


def cell_order(cell: Cell) -> tuple[int, tuple[int, str]]:
    """The key sorts (level, parameter)s: the parameter left unset comes first."""
    return cell[0], parameters.order(cell[1])


def below(level: int, param: str, present: set[Cell]) -> Cell | None:
    """This is the cell to compare with for a behaviour change: the nearest lower level with the same parameter values,
    or, below the patch that adds a parameter, without that one; None where the run has none.
    """
    for lower in range(level - 1, -1, -1):
        if (text := asked_at(lower, param, present)) is not None:
            return lower, text
    return None


def asked_at(level: int, param: str, present: Collection[Cell]) -> str | None:
    """The text is that of the parameter values with which ``level`` was asked where others were asked with ``param``:
    the same, or only what the level was given of it; None where it was not.
    """
    there = {text for at, text in present if at == level}
    given = {key for text in there for key in Setting.parse(text).values}
    return next((text for text in (param, str(Setting.parse(param).only(given))) if text in there), None)


def row(journal: Journal, run: int, level: int, param: str, cells: Cells, host: str = KVM_HOST) -> Row:
    """The function gives the counts of one (level, parameter) from its cells."""
    out = Row(level, param)
    for key, recorded in cells.items():
        if (key.level, key.param, key.host) != (level, param, host):
            continue
        out.seconds += recorded.seconds
        out.collapsed += sum(count for rule, count in recorded.collapsed.items() if rule not in ANSWERED)
        for marks, count in journal.counts(recorded.number).items():
            out.vectors += count
            for mark in marks & ~Mark.EARLIER if Mark.TAKEN in marks else marks:
                if (name := _COUNTED.get(mark)) is not None:
                    setattr(out, name, getattr(out, name) + count)
    present = {k.cell for k in cells if k.host == host}
    if (other := below(level, param, present)) is not None:
        out.changes = journal.count_changes(run, level, param, *other)
    out.seconds = round(out.seconds, 1)
    return out


def rows(journal: Journal, run: int, host: str = KVM_HOST) -> list[Row]:
    """The function gives every (level, parameter) of a run, in order."""
    cells = journal.cells(run)
    present = sorted({k.cell for k in cells if k.host == host}, key=cell_order)
    return [row(journal, run, *cell, cells, host) for cell in present]


def totals(table: Iterable[Row]) -> Row:
    """The row has the sum of all rows."""
    out = Row(-1, "all")
    for each in table:
        for name in COUNTS:
            setattr(out, name, getattr(out, name) + getattr(each, name))
    out.seconds = round(out.seconds, 1)
    return out


def event_drift(cells: Cells) -> Iterator[tuple[CellKey, Judged]]:
    """The function gives the traced vectors whose events differ from the mirror's, each with its cell."""
    for key, recorded in cells.items():
        for one in recorded.events:
            if one.difference:
                yield key, one


@dataclass(frozen=True, slots=True)
class RuleRow:
    """The row is of a named rule that put vectors aside: where it comes from, what it says, how many it met."""

    name: str
    section: str
    text: str
    vectors: int


@dataclass(frozen=True, slots=True)
class Aside:
    """The object has what a run did not ask, or did not judge.

    ``rules`` are the manual's, by which a vector does not apply; ``collapsed`` those by which a run leaves vectors out;
    ``blocked`` has the reasons why vectors did not run, most frequent first.
    """

    rules: list[RuleRow]
    collapsed: list[RuleRow]
    blocked: list[tuple[str, int]]

    def as_json(self) -> dict[str, Json]:
        """The function gives three lists of objects."""
        return {
            "rules": [asdict(row) for row in self.rules],
            "collapsed": [{"name": row.name, "text": row.text, "vectors": row.vectors} for row in self.collapsed],
            "blocked": [{"reason": reason, "vectors": count} for reason, count in self.blocked],
        }


def aside(journal: Journal, run: int, host: str = KVM_HOST) -> Aside:
    """The function gives rules that put vectors aside, rules by which runs collapsed, reasons why vectors were
    blocked.
    """
    contracts, outcomes = journal.texts("contract"), journal.texts("outcome")
    apart = journal.tally(run, host, Mark.NOT_APPLICABLE, "contract")
    blocked = journal.tally(run, host, Mark.BLOCKED, "seen")
    names: Counter[str] = Counter()
    reasons: dict[str, str] = {}
    for number, count in sorted(apart.items(), key=lambda item: -item[1]):
        if number is None:
            continue
        body = json.loads(contracts[number])
        names[body["rule"]] += count
        reasons.setdefault(body["rule"], body["reason"])
    collapsed: Counter[str] = Counter()
    for key, recorded in journal.cells(run).items():
        if key.host == host:
            collapsed.update(recorded.collapsed)
    notes: Counter[str] = Counter()
    for number, count in blocked.items():
        assert number is not None  # the column is NOT NULL
        notes[outcome_of(outcomes[number]).note or "no reason given"] += count
    return Aside(
        [
            RuleRow(
                name,
                CONTRACT_RULES[name].section if name in CONTRACT_RULES else "",
                CONTRACT_RULES[name].text if name in CONTRACT_RULES else reasons[name],
                count,
            )
            for name, count in names.most_common()
        ],
        [RuleRow(name, "", COLLAPSE_RULES.get(name, ""), count) for name, count in collapsed.most_common()],
        notes.most_common(),
    )


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the live table: its title, how wide it is, the count it shows."""

    title: str
    width: int
    name: str


COLUMNS: Final = (
    Column("level", 5, "level"),
    Column("param", 5, "param"),
    Column("vectors", 7, "vectors"),
    Column("agree", 7, "agree"),
    Column("drift", 6, "drift"),
    Column("finding", 7, "findings"),
    Column("change", 7, "changes"),
    Column("n/a", 5, "not_applicable"),
    Column("blocked", 7, "blocked"),
    Column("entry-f", 7, "entry_failures"),
    Column("traced", 6, "traced"),
    Column("ev-drift", 8, "event_drift"),
    Column("merged", 7, "collapsed"),
    Column("taken", 6, "taken"),
    Column("no-mirr", 7, "not_mirrored"),
    Column("earlier", 7, "earlier"),
    Column("seconds", 8, "seconds"),
)


OF_MIRROR: Final = ("drift", "traced", "event_drift")  # what a run without a mirror cannot count
PARAM_WIDTH: Final = next(c.width for c in COLUMNS if c.name == "param")  # where no setting's text is longer


def _columns(param: int) -> list[Column]:
    """The columns, that of the parameter ``param`` wide."""
    return [replace(c, width=param) if c.name == "param" else c for c in COLUMNS]


def table_head(param: int = PARAM_WIDTH) -> str:
    """The live table's first line; ``param`` is the width of the parameter's column."""
    return " ".join(f"{c.title:>{c.width}}" for c in _columns(param))


def table_line(r: Row, param: int = PARAM_WIDTH, *, mirrored: bool = True) -> str:
    """One line of the live table; without a mirror it says nothing of what only a mirror shows."""

    def text(name: str) -> str:
        return str(getattr(r, name)) if mirrored or name not in OF_MIRROR else "-"

    return " ".join(f"{text(c.name):>{c.width}}" for c in _columns(param))
