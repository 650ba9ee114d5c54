"""``kvmirror build``: everything a run needs, built now, so that the next run starts at once."""

from __future__ import annotations

import argparse

from harness.cli.commands import Commands
from harness.cli.common import add_builds, add_command
from harness.process import programs
from harness.questions import selection
from harness.run import Bench


def add_parser(commands: Commands) -> None:
    """The function adds the command."""
    parser = add_command(
        commands, "build", "build what a run needs into the cache, and nothing else", "build", "build --levels 0,18"
    )
    parser.add_argument("--levels", default="all", help="as in 0,11,16-18 (default: all)")
    add_builds(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The command builds what is missing and prints where each part is."""
    programs.interruptible()
    bench = Bench.of(args)
    bench.build(selection.levels(args.levels, bench.series.last))
    for name, value in bench.provenance().items():
        print(f"{name:12} {value}")
    return 0
