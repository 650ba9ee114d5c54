"""``kvmirror compare``: the behaviour of two runs beside one another, from their journals alone."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from harness.cli.commands import Commands
from harness.compare import as_json, gather, html, mail, opened, parse, plain
from harness.process import PROGRESS
from harness.report import baseline

EXAMPLES = """\
A and B each name a run: its number in your journal, JOURNAL:RUN, a journal's path (its latest run), or a recording.
@LEVEL or @LEVEL/PARAM behind it names one level of that run; @LEVEL alone is of your latest run.
Where no level is named, the levels and parameter values that both runs asked are compared.

examples:
  kvmirror compare 1 2                           two runs: v1 of a series and v2
  kvmirror compare @10 @11                       what patch 11 changed
  kvmirror compare 1@18/1 merged.sqlite@0/unset  a series against another kernel
  kvmirror compare lab1.kvm lab2.kvm             two recordings, of two machines
  kvmirror compare --html diff.html 1 2          one page, to open in a browser
  kvmirror compare --mail 1 2                    for the mailing list

exit codes: 0 all that both were asked is answered alike, 1 something differs, 2 a run or level is not there
"""


def add_parser(commands: Commands) -> None:
    """The function adds the command."""
    parser = commands.add_parser(
        "compare",
        help="two runs beside one another: findings gone, stayed and new, answers changed",
        description="Compares what two runs answered to the same questions; runs nothing.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("a", metavar="A", help="a run, as below")
    parser.add_argument("b", metavar="B", help="the run to compare it with")
    parser.add_argument("--journal", type=Path, metavar="FILE", help="another journal than the user's own")
    parser.add_argument("--bare", action="store_true", help="the bare CPUs' answers instead of KVM's")
    parser.add_argument("--html", metavar="FILE", help="one self-contained page ('-' is standard output)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object (docs/compare.md)")
    form.add_argument("--mail", action="store_true", help="a mail for the list, 72 columns wide")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The command prints the comparison; the exit code is 1 where the runs differ."""
    a, b = parse(args.a), parse(args.b)
    with PROGRESS.task("comparing"), opened(a, b, args.journal, bare=args.bare) as sides:
        found = gather(*sides)
    if args.html == "-":
        sys.stdout.write(html.render(found))
    elif args.html:
        baseline.write_whole(Path(args.html), html.render(found))
        print(f"wrote {args.html}", file=sys.stderr)
    if args.json:
        print(json.dumps(as_json(found), indent=1))
    elif args.mail:
        sys.stdout.write(mail.render(found))
    elif args.html != "-":
        sys.stdout.write(plain.render(found))
    return 0 if found.equal else 1
