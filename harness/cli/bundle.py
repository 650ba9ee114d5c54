"""``kvmirror bundle``: a finding as one archive that shows it again on another machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.build import Cache
from harness.cli.commands import Commands
from harness.cli.common import add_command, add_journal, add_on
from harness.cli.findings import explanation
from harness.errors import InputError
from harness.findings import Run
from harness.posted import opened
from harness.process import programs
from harness.report import bundle
from harness.results import Journal


def add_parser(commands: Commands) -> None:
    """The function adds the command."""
    parser = add_command(
        commands,
        "bundle",
        "one finding as an archive that shows it again on another machine with KVM",
        "bundle F1",
        "bundle F3 --out livelock.tar.gz",
    )
    add_journal(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="the archive (default: kvmirror-F1.tar.gz)")
    parser.add_argument("--series", type=Path, metavar="DIR", help="the run's series' folder (default: patches/)")
    add_on(parser)
    parser.add_argument("--linux", type=Path, metavar="PATH", help="the git tree, where --on is a range of commits")
    parser.add_argument("name", metavar="F", help="a finding's name, as 'kvmirror findings' prints it")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the archive; how it is used goes to standard output."""
    with Journal(args.journal) as journal:
        run = Run.open(journal, args.run_number)
        finding = run.finding(args.name)
        made_of = bundle.board_of(run, finding)
    if run.foreseen:
        raise InputError(
            f"run {run.number} is foreseen: an archive shows again what was observed; '{finding.command}' looks, "
            "'kvmirror validate' makes a run"
        )
    series = opened(args.series, args.on, args.linux)
    programs.interruptible()
    binaries = bundle.Binaries.built(Cache())
    told = explanation(finding, run.under)
    files = bundle.contents(finding, told, run.number, run.info.provenance, series, binaries, made_of)
    folder = f"kvmirror-{finding.name}"
    out = args.out or Path(f"{folder}.tar.gz")
    try:
        out.write_bytes(bundle.archive(files, folder))
    except OSError as error:
        raise InputError(f"--out {out}: {error.strerror}; name a file that can be written") from error
    print(f"{out}: {finding.title}")
    print(f"on the other machine, as root: tar xzf {out.name} && sh {folder}/{bundle.SCRIPT}")
    return 0
