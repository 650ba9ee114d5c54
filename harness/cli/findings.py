"""``kvmirror findings``, ``explain`` and ``changes``: what a run showed, from the journal."""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from harness.cli.common import add_builds, add_command, add_host, add_journal
from harness.errors import InputError
from harness.findings import Finding, of_run, weight
from harness.process import PROGRESS, programs
from harness.questions import selection
from harness.report import facts
from harness.results import Journal, Under, cpus, of_series, stands
from harness.run import Bench, minimise_on_hosts
from kvmodel import machine
from kvmodel.question.outcome import Outcome
from kvmodel.sdm.rules import RULES


def add_parser(commands: Any) -> None:
    """Add the three commands."""
    listing = add_command(
        commands, "findings", "where the kernel departs from the manual, by cause", "findings", "findings --bare"
    )
    add_journal(listing)
    listing.add_argument("--bare", action="store_true", help="the bare CPU's departures (errata) instead of KVM's")
    listing.add_argument("--json", action="store_true", help="a JSON list")
    listing.set_defaults(run=run_findings)

    explain = add_command(
        commands,
        "explain",
        "one finding: rule, steps, smallest vector, reproducer",
        "explain F1",
        "explain F1 --live",
    )
    add_journal(explain)
    explain.add_argument(
        "--live", action="store_true", help="make its vector smaller on a host first, and run that alone three times"
    )
    add_builds(explain)
    add_host(explain)
    explain.add_argument("name", metavar="F", help="a finding's name, as 'kvmirror findings' prints it")
    explain.set_defaults(run=run_explain)

    changes = add_command(
        commands, "changes", "what a patch changed that can be seen from outside", "changes --patch 11"
    )
    add_journal(changes)
    changes.add_argument("--patch", required=True, metavar="N", help="the patch's number")
    changes.set_defaults(run=run_changes)


def run_findings(args: argparse.Namespace) -> int:
    """A line a finding."""
    with Journal(args.journal) as journal:
        host = of_run.BARE_HOST if args.bare else of_run.KVM_HOST
        run = args.run_number or journal.latest(host)
        found = of_run.findings(journal, run, host)
    if args.json:
        print(json.dumps([of_run.finding_json(f) for f in found], indent=1))
        return 0
    if not found:
        print("no findings")
    for f in found:
        print("\n".join(listed(f)))
    return 0


def listed(f: Finding) -> list[str]:
    """A finding in three lines; a bare CPU's has no level."""
    whence = f"{f.origin}" if f.host == of_run.BARE_HOST else f.whence
    confirmed = f", {f.confirmed}" if f.confirmed else ""
    return [
        f"{f.name:4} {f.title}",
        f"     {whence}; {facts.plural(len(f.vectors), 'vector')}{confirmed}",
        f"     {f.smallest.vector}",
    ]


def find(journal: Journal, run: int, name: str) -> Finding:
    """The finding of that name; InputError where the run has none."""
    found = {f.name: f for f in of_run.findings(journal, run)}
    if name not in found:
        raise InputError(f"finding {name!r} is not in run {run}: it has {', '.join(found) or 'none'}")
    return found[name]


def run_explain(args: argparse.Namespace) -> int:
    """One finding whole."""
    with Journal(args.journal) as journal:
        run = args.run_number or journal.latest(of_run.KVM_HOST)
        f = find(journal, run, args.name)
        if args.live:
            _live(journal, run, f, args)
            f = find(journal, run, args.name)
        under = cpus.of_run(journal.provenance(run))
    print("\n".join(explanation(f, under)))
    return 0


def _live(journal: Journal, run: int, f: Finding, args: argparse.Namespace) -> None:
    """Make the finding smaller on a host, and keep what came of it with the run."""
    programs.interruptible()
    bench = Bench.of(args)
    bench.build([f.smallest.cell[0]])
    with PROGRESS.paused():
        minimise_on_hosts.minimise_all(journal, run, [f], bench, lambda text: print(text, file=sys.stderr))


def explanation(f: Finding, under: Under) -> list[str]:
    """A finding whole, a line a fact; ``under`` KVM was the run's CPU."""
    smallest = f.smallest
    level, param_name = smallest.cell
    cells: dict[int, list[str]] = defaultdict(list)
    for at, value in sorted(f.cells):
        cells[at].append(value)
    shows = ", ".join(f"{at} ({'/'.join(values)})" for at, values in cells.items())
    lines = [
        f"{f.name}: {f.title}",
        f"  severity    {f.symptom.severity}",
        f"  first at    level {f.first_level}",
        f"  cause       {f.origin}",
        f"  parameter   {f.depends_on_parameter()}",
        f"  shows at    {shows}",
        f"  vectors     {len(f.vectors)}, the smallest:",
        f"              {smallest.vector}",
    ]
    if f.confirmed:
        lines.append(f"              {f.confirmed}")
    for rule, section in f.rules:
        text = f": {RULES[rule].text}" if rule in RULES else ""
        lines.append(f"  rule        {rule}, {stands(section)}{text}")
    turn = f" (turn {smallest.turn + 1})" if "+" in smallest.vector else ""
    lines += [f"  manual      {smallest.allowed}", f"  seen        {smallest.seen}{turn}"]
    if smallest.predicted is not None:
        (param,) = selection.params(param_name)
        vector = selection.vector(smallest.vector)
        prediction = machine.predict(level, param, under(vector.machine.env.cpu_mbec), vector, steps=True)
        lines.append(f"  mirror      {prediction.outcome}")
        lines += [f"  {number:9}. {step}" for number, step in enumerate(prediction.steps, 1)]
    lines.append(f"  reproduce   {f.command}")
    return lines


def run_changes(args: argparse.Namespace) -> int:
    """Groups of vectors whose answer differs from the level below, with counts and the smallest of each."""
    with Journal(args.journal) as journal:
        run = args.run_number or journal.latest(of_run.KVM_HOST)
        patch = _patch(args.patch, of_series.of_run(journal.provenance(run)).last)
        present = {(k.level, k.param) for k in journal.cells(run) if k.host == of_run.KVM_HOST}
        here = sorted(c for c in present if c[0] == patch)
        if not here:
            raise InputError(
                f"run {run} did not ask level {patch}: 'kvmirror validate --levels {patch - 1},{patch}' does"
            )
        row = next((p for p in facts.patches(journal, run) if p.number == patch), None)
        print(f"patch {patch}{': ' + row.subject if row and row.subject else ''}")
        for level, param in here:
            other = of_run.below(level, param, present)
            if other is None:
                print(f"parameter {param}: run {run} has no level below {level} to compare with")
                continue
            _print_changes(param, other[0], journal.changes(run, level, param, *other))
    if row and row.claim_text:
        print(f"The patch {row.claim_text}.")
    return 0


def _patch(text: str, last: int) -> int:
    """The patch of ``--patch``; InputError where it is none of the run's series, or several."""
    numbers = selection.levels(text, last, "--patch")
    if len(numbers) > 1 or not numbers[0]:
        raise InputError(f"--patch {text}: level 0 is the base; patches are 1 to {last}, name one")
    return numbers[0]


def _print_changes(param: str, below: int, changes: Iterable[tuple[str, Outcome, Outcome]]) -> None:
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, before, after in changes:
        groups[str(replace(before, note="")), str(replace(after, note=""))].append(name)
    total = sum(map(len, groups.values()))
    print(f"parameter {param}, against level {below}: {total or 'no'} answers changed")
    for (before_text, after_text), names in sorted(groups.items(), key=lambda item: -len(item[1])):
        print(f"  {len(names):5} {before_text} -> {after_text}")
        print(f"        {min(names, key=weight)}")
