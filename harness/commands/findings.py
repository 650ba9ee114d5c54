"""``kvmirror findings``, ``explain`` and ``changes``: what a run showed, from the journal."""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from typing import Any

from harness import selection, summary
from harness.causes import Cause, find_cause
from harness.commands.common import LAST_LEVEL, add_command, add_journal, host_cpu
from harness.errors import InputError
from harness.findings import Finding, weight
from harness.journal import Journal
from kvmodel import machine
from kvmodel.sequence import SequenceVector


def add_parser(commands: Any) -> None:
    """Add the three commands."""
    listing = add_command(
        commands, "findings", "where the kernel departs from the manual, by cause", "findings", "findings --bare"
    )
    add_journal(listing)
    listing.add_argument("--bare", action="store_true", help="the bare CPU's departures (errata) instead of KVM's")
    listing.add_argument("--json", action="store_true", help="a JSON list")
    listing.set_defaults(run=run_findings)

    explain = add_command(commands, "explain", "one finding: rule, steps, smallest vector, reproducer", "explain F1")
    add_journal(explain)
    explain.add_argument("name", metavar="F", help="a finding's name, as 'kvmirror findings' prints it")
    explain.set_defaults(run=run_explain)

    changes = add_command(
        commands, "changes", "what a patch changed that can be seen from outside", "changes --patch 11"
    )
    add_journal(changes)
    changes.add_argument("--patch", required=True, metavar="N", help="the patch's number")
    changes.set_defaults(run=run_changes)


def _cause(finding: Finding) -> Cause:
    smallest = finding.smallest
    (param,) = selection.params(smallest.cell[1])
    vector = selection.vector(smallest.vector)
    return find_cause(
        smallest.cell[0], param, host_cpu(vector.machine.env.cpu_mbec), vector, smallest.seen, smallest.turn
    )


def run_findings(args: argparse.Namespace) -> int:
    """A line a finding."""
    with Journal(args.journal) as journal:
        host = summary.BARE_HOST if args.bare else summary.KVM_HOST
        run = args.run_number or journal.latest(host)
        found = summary.findings(journal, run, host)
    if args.json:
        print(json.dumps([summary.finding_json(f) for f in found], indent=1))
        return 0
    if not found:
        print("no findings")
    for f in found:
        where = f"first at level {f.first_level}, {f.depends_on_parameter()}, {len(f.vectors)} vectors"
        print(f"{f.name:4} {f.symptom}")
        print(f"     {where}; {_cause(f)}" if not args.bare else f"     {where}")
        print(f"     {f.smallest.vector}")
    return 0


def run_explain(args: argparse.Namespace) -> int:
    """One finding whole."""
    with Journal(args.journal) as journal:
        run = args.run_number or journal.latest(summary.KVM_HOST)
        found = {f.name: f for f in summary.findings(journal, run)}
    if args.name not in found:
        known = ", ".join(found) or "none"
        raise InputError(f"finding {args.name!r} is not in run {run}: it has {known}")
    f = found[args.name]
    smallest = f.smallest
    level, param_name = smallest.cell
    (param,) = selection.params(param_name)
    vector = selection.vector(smallest.vector)
    prediction = machine.predict(level, param, host_cpu(vector.machine.env.cpu_mbec), vector, steps=True)
    cells: dict[int, list[str]] = defaultdict(list)
    for at, value in sorted(f.cells):
        cells[at].append(value)
    print(f"{f.name}: {f.symptom}")
    print(f"  cause       {_cause(f)}")
    shows = ", ".join(f"{at} ({'/'.join(values)})" for at, values in cells.items())
    print(f"  shows at    {shows}")
    print(f"  vectors     {len(f.vectors)}, the smallest:")
    print(f"              {smallest.vector}")
    print(f"  manual      {smallest.allowed} (rule {smallest.rule}, SDM {smallest.section})")
    turn = f" (turn {smallest.turn + 1})" if isinstance(vector, SequenceVector) else ""
    print(f"  seen        {smallest.seen}{turn}")
    print(f"  mirror      {prediction.outcome}")
    for number, step in enumerate(prediction.steps, 1):
        print(f"  {number:9}. {step}")
    print(f"  reproduce   kvmirror run --level {level} --param {param_name} {smallest.vector}")
    return 0


def run_changes(args: argparse.Namespace) -> int:
    """Groups of vectors whose answer differs from the level below, with counts and the smallest of each."""
    (patch,) = selection.levels(args.patch, LAST_LEVEL)
    if patch == 0:
        raise InputError("--patch 0: level 0 is the base; patches are 1 to 18")
    with Journal(args.journal) as journal:
        run = args.run_number or journal.latest(summary.KVM_HOST)
        present = {(k.level, k.param) for k in journal.cells(run) if k.host == summary.KVM_HOST}
        said = False
        for level, param in sorted(c for c in present if c[0] == patch):
            other = summary.below(level, param, present)
            if other is None:
                print(f"parameter {param}: run {run} has no level below {level} to compare with")
                continue
            groups: dict[tuple[str, str], list[str]] = defaultdict(list)
            for name, before, after in journal.changes(run, level, param, *other):
                groups[str(before), str(after)].append(name)
            sizes = Counter({pair: len(names) for pair, names in groups.items()})
            for (before_text, after_text), count in sizes.most_common():
                said = True
                print(f"parameter {param}, against level {other[0]}: {count} vectors, {before_text} -> {after_text}")
                print(f"     {min(groups[before_text, after_text], key=weight)}")
        if not said:
            print(f"patch {patch}: nothing that run {run} observed changed")
    return 0
