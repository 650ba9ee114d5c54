"""``kvmirror findings``, ``explain`` and ``changes``: what a run showed, from the journal."""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from harness.cli.commands import Commands
from harness.cli.common import add_builds, add_command, add_host, add_journal, add_new
from harness.errors import InputError
from harness.findings import Finding, Run, finding_json, weight
from harness.process import PROGRESS, programs
from harness.questions import PLAIN, Setting, selection
from harness.report import facts
from harness.results import BARE_HOST, FORESEEN_HOST, Journal, Under, below, cpus, stands
from harness.run import Bench, minimise_on_hosts
from kvmodel import machine
from kvmodel.question.ids import short
from kvmodel.question.outcome import Outcome
from kvmodel.question.sequence import SequenceVector
from kvmodel.question.vector import Vector
from kvmodel.sdm.rules import RULES


def add_parser(commands: Commands) -> None:
    """The function adds the three commands."""
    listing = add_command(
        commands,
        "findings",
        "where the kernel departs from the manual, by cause",
        "findings",
        "findings --new",
        "findings --bare",
    )
    add_journal(listing)
    listing.add_argument("--bare", action="store_true", help="the bare CPU's departures (errata) instead of KVM's")
    add_new(listing)
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
    """The command prints a line a finding."""
    with Journal(args.journal) as journal:
        run = Run.open(journal, args.run_number, bare=args.bare)
        if args.new and args.bare:
            raise InputError("--new asks what the series brings, and a bare CPU has no series: leave out --bare")
        found = brought(run) if args.new else run.findings
    code = 1 if args.new and found else 0
    if args.json:
        print(json.dumps([finding_json(f) | _mark(run) for f in found], indent=1))
        return code
    if run.foreseen:
        print(f"run {run.number} is foreseen: what the mirror says, nobody has looked")
    if not found:
        print("no findings that the series brings" if args.new else "no findings")
    for f in found:
        print("\n".join(listed(f)))
    return code


def brought(run: Run) -> list[Finding]:
    """Those of the run's findings that the base has not; said where the base may have more of them than is known."""
    new = [f for f in run.findings if not f.of_base]
    if all(level for level, _ in run.present) and any(not f.origin.known and f.left_out is None for f in new):
        print(
            f"{run.name} did not ask level 0: a finding of the base counts as new where no cause is known; "
            "'kvmirror causes' asks the base",
            file=sys.stderr,
        )
    return new


def _mark(run: Run) -> dict[str, bool]:
    """What says of a finding's object that it is none of an observation."""
    return {"foreseen": True} if run.foreseen else {}


def listed(f: Finding) -> list[str]:
    """A finding in four lines; a bare CPU's has no level, and what is no rule's has no rule."""
    whence = f"{f.origin}" if f.host == BARE_HOST else f.whence
    confirmed = f", {f.confirmed}" if f.confirmed else ""
    return [
        f"{f.name:4} {f.title}",
        *(f"     {text}" for text in broken(f)[:1]),
        f"     {whence}; {facts.plural(len(f.vectors), 'vector')}{confirmed}",
        f"     {short(f.smallest.vector.id)}",
    ]


def broken(f: Finding) -> list[str]:
    """The function gives the contract's rules that a finding breaks, the one most often broken first, in words."""
    return [f"{stands(section)}: {RULES[rule].text}" for rule, section in f.rules if rule in RULES]


def run_explain(args: argparse.Namespace) -> int:
    """The command prints one finding whole."""
    with Journal(args.journal) as journal:
        run = Run.open(journal, args.run_number)
        f = run.finding(args.name)
        if args.live:
            _live(run, f, args)
            run = Run.open(journal, run.number)
            f = run.finding(args.name)
    print("\n".join(explanation(f, run.under)))
    return 0


def _live(run: Run, f: Finding, args: argparse.Namespace) -> None:
    """Make the finding smaller on a host, and keep what came of it with the run."""
    if run.foreseen:
        raise InputError(
            f"--live: run {run.number} is foreseen, and only what was observed is made smaller on a host; "
            f"'{f.command}' looks"
        )
    programs.interruptible()
    bench = Bench.of(args, cpus.model_of(run.info.provenance))
    bench.build([f.smallest.cell[0]])
    with PROGRESS.paused():
        minimise_on_hosts.minimise_all(run.journal, run.number, [f], bench, lambda text: print(text, file=sys.stderr))


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
        f"  first at    level {f.begins}",
        f"  cause       {f.origin}",
        f"  parameter   {f.depends_on_parameter()}",
        f"  shows at    {shows}",
        f"  vectors     {len(f.vectors)}, the smallest:",
        f"              {short(smallest.vector.id)}",
    ]
    if f.confirmed:
        lines.append(f"              {f.confirmed}")
    if f.environments != (PLAIN,):
        lines.append(f"  environment {', '.join(f.environments)}")
    for rule, section in f.rules:
        text = f": {RULES[rule].text}" if rule in RULES else ""
        lines.append(f"  rule        {rule}, {stands(section)}{text}")
    turn = f" (turn {smallest.turn + 1})" if isinstance(smallest.vector, SequenceVector) else ""
    word = "foreseen" if f.host == FORESEEN_HOST else "seen"
    lines += [f"  manual      {smallest.allowed}", f"  {word:11} {smallest.seen}{turn}"]
    if smallest.predicted is not None:
        cpu = under(smallest.vector.machine.env.cpu_mbec)
        prediction = machine.predict(level, Setting.parse(param_name).own, cpu, smallest.vector, steps=True)
        lines.append(f"  mirror      {prediction.outcome}")
        lines += [f"  {number:9}. {step}" for number, step in enumerate(prediction.steps, 1)]
    if f.left_out is not None:
        lines.append(f"  real        {f.left_out.trouble or f.left_out.cause}")
    lines.append(f"  reproduce   {f.command}")
    return lines


def run_changes(args: argparse.Namespace) -> int:
    """The command prints groups of vectors whose answer differs from the level below, with counts and the smallest of
    each.
    """
    with Journal(args.journal) as journal:
        run = Run.open(journal, args.run_number)
        patch = _patch(args.patch, run.series.last)
        here = sorted(c for c in run.present if c[0] == patch)
        if not here:
            raise InputError(
                f"{run.name} did not ask level {patch}: 'kvmirror validate --levels {patch - 1},{patch}' does"
            )
        if run.foreseen:
            print(f"run {run.number} is foreseen: what the mirror says, nobody has looked")
        row = next((p for p in facts.patches(run) if p.number == patch), None)
        print(f"patch {patch}{': ' + row.subject if row and row.subject else ''}")
        for level, param in here:
            other = below(level, param, run.present)
            if other is None:
                print(f"parameter {param}: {run.name} has no level below {level} to compare with")
                continue
            _print_changes(param, other[0], journal.changes(run.number, level, param, *other))
    if row and row.claim_text:
        print(f"The patch {row.claim_text}.")
    return 0


def _patch(text: str, last: int) -> int:
    """The patch of ``--patch``; InputError where it is none of the run's series, or several."""
    numbers = selection.levels(text, last, "--patch")
    if len(numbers) > 1 or not numbers[0]:
        raise InputError(f"--patch {text}: level 0 is the base; patches are 1 to {last}, name one")
    return numbers[0]


def _print_changes(param: str, lower: int, changes: Iterable[tuple[Vector, Outcome, Outcome]]) -> None:
    groups: dict[tuple[str, str], list[Vector]] = defaultdict(list)
    for vector, before, after in changes:
        groups[str(replace(before, note="")), str(replace(after, note=""))].append(vector)
    total = sum(map(len, groups.values()))
    print(f"parameter {param}, against level {lower}: {total or 'no'} answers changed")
    for (before_text, after_text), vectors in sorted(groups.items(), key=lambda item: -len(item[1])):
        print(f"  {len(vectors):5} {before_text} -> {after_text}")
        print(f"        {short(min(vectors, key=weight).id)}")
