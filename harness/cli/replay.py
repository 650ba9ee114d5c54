"""``kvmirror replay``: a recording judged by today's mirror and contract, without KVM, QEMU, root or a cache."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from harness.cli import report
from harness.cli.commands import Commands
from harness.cli.common import add_command, add_new
from harness.cli.findings import listed
from harness.cli.summary import Summary
from harness.findings import Run
from harness.process import PROGRESS
from harness.recording import replayed
from harness.report import facts
from harness.results import BARE_HOST, rows


def add_parser(commands: Commands) -> None:
    """The function adds the command."""
    parser = add_command(
        commands,
        "replay",
        "a recording judged by today's mirror and manual; nothing is built and nothing runs",
        "replay lab1.kvm",
        "replay lab1.kvm --html lab1.html --junit lab1.xml",
        "replay lab1.kvm --journal lab1.sqlite    then: kvmirror explain F1 --journal lab1.sqlite",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="what 'kvmirror record' wrote")
    parser.add_argument(
        "--journal", type=Path, metavar="FILE", help="keep the run in this journal, for the other commands"
    )
    report.add_formats(parser)
    add_new(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The command judges, prints and writes what was asked for.

    The exit code is that of the run; with a baseline only what that does not hold makes it 1.
    """
    report.check_formats(args, "replay")
    began = time.monotonic()
    with replayed(args.file, args.journal) as asked:
        seconds = time.monotonic() - began
        if asked.host == BARE_HOST:
            return _bare(asked)
        with PROGRESS.task("causes"):
            done = Summary.of(asked, args.new)
        if not report.to_output(args):
            _show(asked, done, seconds, args)
        if not report.wanted(args):
            return done.code
        told = facts.of(asked, args.baseline)
        report.write(args, asked.journal, told)
        new = told.new_findings or told.broken_claims
        return 0 if done.code == 1 and args.baseline and not new else done.code


def _show(asked: Run, done: Summary, seconds: float, args: argparse.Namespace) -> None:
    width = max(rows.PARAM_WIDTH, *(len(row.param) for row in asked.rows))
    print(rows.table_head(width))
    for row in asked.rows:
        print(rows.table_line(row, width))
    print("\n" + "\n".join(done.lines(seconds)))
    if args.journal:
        print(f"replayed from {args.file}: run {asked.number} in {args.journal}")
    else:
        print(f"replayed from {args.file}; --journal FILE keeps it, for 'kvmirror explain' and the others")


def _bare(asked: Run) -> int:
    """The function prints the bare CPU's errata: they are the host's, and do not change the exit code."""
    print(f"{asked.totals.vectors} answers of a bare CPU: {len(asked.findings) or 'no'} departures from the manual")
    for f in asked.findings:
        print("\n".join(listed(f)))
    return 0
