"""``kvmirror foresee``: what the mirror and the manual say before anything is built: every level, in seconds."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from harness.cli.commands import Commands
from harness.cli.common import LAST_LEVEL, add_command, add_vectors
from harness.cli.findings import listed
from harness.findings import Run
from harness.process import PROGRESS, table
from harness.questions import parameters, plan, selection
from harness.report import facts
from harness.results import FORESEEN, Journal, Row, cpus
from harness.run import Named, foresee

# Title and count of each column; a line stands for neighbouring levels that count alike.
COLUMNS: Final = (
    ("answers", "vectors"),
    ("as the manual", "agree"),
    ("departing", "findings"),
    ("undecided", "not_applicable"),
    ("not mirrored", "not_mirrored"),
    ("cannot run", "blocked"),
    ("merged", "collapsed"),
    ("changed", "changes"),
)
LEGEND: Final = (
    "departing: the manual does not allow it; undecided: the manual does not say; not mirrored: the mirror does not;\n"
    "cannot run: L1 does not come so far, or dies of its like; merged: the same question again, by rule;\n"
    "changed: answered otherwise one level below"
)


def add_parser(commands: Commands) -> None:
    """The function adds the command."""
    parser = add_command(
        commands,
        "foresee",
        "what mirror and manual say of every level, without a host or a build",
        "foresee",
        "foresee --levels 11,16-18 --param 1",
        "foresee --levels 18 --json",
    )
    parser.add_argument("--levels", default=f"0-{LAST_LEVEL}", help="as in 0,11,16-18 (default: all)")
    parser.add_argument("--param", default="all", help="enable_pt_guest_exec_control: unset, 0, 1 or all (default all)")
    add_vectors(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--journal", type=Path, metavar="FILE", help="another journal than the user's own")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The command predicts, records and prints; the exit code is 1 where a finding is foreseen."""
    levels = selection.levels(args.levels, LAST_LEVEL)
    settings = selection.settings(args.param)
    works = list(plan(selection.vector_list(args.vectors), levels, settings))
    named: Named = frozenset((w.load.level, w.load.setting) for w in works if w.load.param is not None)
    with Journal(args.journal) as journal:
        number = journal.begin(sys.argv, {FORESEEN: True})
        began, status = time.monotonic(), "interrupted"
        try:
            with PROGRESS.task("vectors", total=sum(w.size for w in works)) as task:
                foresee(works, journal, number, named, cpus.emulated, lambda work: task.advance(work.size))
            status = "complete"
        finally:
            journal.end(number, status)
        with PROGRESS.task("causes"):
            foreseen = Run.open(journal, number)
            found = foreseen.findings
        seconds = time.monotonic() - began
        if args.json:
            print(json.dumps(foreseen.as_json()))
        else:
            _show(foreseen, seconds)
    return 1 if found else 0


def _show(foreseen: Run, seconds: float) -> None:
    """The table, the findings, and what can be done next."""
    print(f"Foreseen by the mirror and the manual; nothing ran: {foreseen.totals.vectors:,} answers, {seconds:.0f} s\n")
    print("\n".join(_table(foreseen.rows)))
    print(f"{LEGEND}\n")
    found = foreseen.findings
    print(f"{facts.plural(len(found), 'finding') if found else 'no findings'} foreseen")
    for f in found:
        print("\n".join(listed(f)))
    first = f"'kvmirror explain {found[0].name} --run {foreseen.number}' tells its steps; " if found else ""
    print(f"\nforeseen run {foreseen.number} in {foreseen.journal.path}")
    print(f"{first}'kvmirror validate' asks real KVM, and says of each whether it was seen")


def _table(counted: Iterable[Row]) -> list[str]:
    titles = ("levels", "parameter", *(title for title, _ in COLUMNS))
    lines = [
        (facts.ranges([row.level for row in alike]), alike[0].param, *_counts(alike[0])) for alike in _alike(counted)
    ]
    return table.lines([titles, *lines], right=range(len(titles)))


def _alike(counted: Iterable[Row]) -> list[list[Row]]:
    """Rows by parameter value, neighbouring levels that count alike together."""
    found: list[list[Row]] = []
    for row in sorted(counted, key=lambda row: (parameters.order(row.param), row.level)):
        last = found[-1][-1] if found else None
        if last and (last.param, last.level + 1) == (row.param, row.level) and _counts(last) == _counts(row):
            found[-1].append(row)
        else:
            found.append([row])
    return found


def _counts(row: Row) -> list[int]:
    return [getattr(row, name) for _, name in COLUMNS]
