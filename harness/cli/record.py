"""``kvmirror record``: a run's observations in one small file, to be judged again anywhere."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from harness.cli.commands import Commands
from harness.cli.common import add_command, add_journal
from harness.findings import Run
from harness.process import PROGRESS
from harness.recording import of_run, write
from harness.results import Journal


def add_parser(commands: Commands) -> None:
    """The function adds the command."""
    parser = add_command(
        commands,
        "record",
        "a run in a file: what was asked and seen and what it was made of, for 'kvmirror replay'",
        "record lab1.kvm",
        "record --run 3 --no-times a.kvm",
    )
    add_journal(parser)
    parser.add_argument("--bare", action="store_true", help="the answers of the bare CPU instead of KVM's")
    parser.add_argument(
        "--no-times",
        action="store_true",
        help="leave out times, counts that depend on them, and how the host was reached: two runs of the same "
        "questions that were answered alike give the same bytes (docs/recordings.md)",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the recording to write")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The command writes the file and says what it holds."""
    with Journal(args.journal) as journal, PROGRESS.task("recording"):
        asked = Run.open(journal, args.run_number, bare=args.bare)
        made = of_run(asked, times=not args.no_times)
        size = write(made, args.file)
    print(f"wrote {args.file}: {asked.name}, {made.answers:,} answers, {size:,} bytes", file=sys.stderr)
    return 0
