"""``kvmirror report``: a run's pages and files, from the journal alone."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from harness.commands.common import add_journal
from harness.errors import InputError
from harness.journal import Journal
from harness.report import baseline, facts, grid, groups, html, junit, ktap, markdown

EXAMPLES = """\
examples:
  kvmirror report --html report.html                     one page, to open in a browser
  kvmirror report --junit junit.xml --json run.json      what a CI reads
  kvmirror report --markdown -                           for a merge request, on standard output
  kvmirror report --write-baseline known.json            from now on these findings are known
  kvmirror report --baseline known.json --junit j.xml    only new findings fail
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "report",
        help="a run's pages and files: HTML, JUnit, KTAP, JSON, Markdown, mail",
        description="Writes reports of a run from the journal; runs nothing. FILE '-' is standard output.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_journal(parser)
    parser.add_argument("--html", metavar="FILE", help="one self-contained page")
    parser.add_argument("--junit", metavar="FILE", help="JUnit XML: new findings fail, drift is an error")
    parser.add_argument("--ktap", metavar="FILE", help="KTAP version 1, as the kernel's own tools read it")
    parser.add_argument("--json", metavar="FILE", help="the run as data (docs/schema.md)")
    parser.add_argument("--markdown", metavar="FILE", help="for a merge request")
    parser.add_argument("--baseline", type=Path, metavar="FILE", help="findings whose causes it holds are known")
    parser.add_argument("--write-baseline", type=Path, metavar="FILE", help="write (or renew) a baseline of this run")
    parser.set_defaults(run=run)


def _put(where: str, text: str) -> None:
    if where == "-":
        sys.stdout.write(text)
        return
    baseline.write_whole(Path(where), text)
    print(f"wrote {where} ({len(text.encode()):,} bytes)", file=sys.stderr)


def run(args: argparse.Namespace) -> int:
    """Write what was asked for."""
    wanted = {name: getattr(args, name) for name in ("html", "junit", "ktap", "json", "markdown")}
    if not any(wanted.values()) and not args.write_baseline:
        raise InputError(
            "report: nothing to write; name at least one of --html, --junit, --ktap, --json, --markdown (FILE or -),"
            " or --write-baseline"
        )
    if sum(where == "-" for where in wanted.values()) > 1:
        raise InputError("report: only one format fits on standard output; give the others a file")
    with Journal(args.journal) as journal:
        report = facts.load(journal, args.run_number, args.baseline)
        found = groups.gather(journal, report) if args.junit or args.ktap else {}
        if args.html:
            _put(args.html, html.render(report, grid.gather(journal, report)))
    if args.junit:
        _put(args.junit, junit.render(report, found))
    if args.ktap:
        _put(args.ktap, ktap.render(report, found))
    if args.json:
        _put(args.json, json.dumps(report.json, indent=1) + "\n")
    if args.markdown:
        _put(args.markdown, markdown.render(report))
    if args.write_baseline:
        baseline.write(args.write_baseline, [view.finding for view in report.findings])
        print(f"wrote {args.write_baseline}: {facts.plural(len(report.findings), 'cause')}", file=sys.stderr)
    return 0
