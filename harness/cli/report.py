"""``kvmirror report``: a run's pages and files, from the journal alone."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from harness.cli.commands import Commands
from harness.cli.common import add_journal
from harness.errors import InputError
from harness.report import baseline, facts, grid, groups, html, junit, ktap, mail, markdown
from harness.results import Journal
from harness.series import folder
from harness.series import mail as mails

FORMATS = ("html", "junit", "ktap", "json", "markdown")
# What these say is taken for what was tested.
OF_WHAT_RAN = ("junit", "ktap", "reply", "b4_check", "write_baseline", "exit_code")

EXAMPLES = """\
examples:
  kvmirror report --html report.html                     one page, to open in a browser
  kvmirror report --junit junit.xml --json run.json      what a CI reads
  kvmirror report --markdown -                           for a merge request, on standard output
  kvmirror report --write-baseline known.json            from now on these findings are known
  kvmirror report --reply --tester 'A <a@example.org>'   the answer to the mailing list
  kvmirror report --b4-check <patch.eml                  a check for 'b4 review'
  kvmirror report --baseline known.json --junit j.xml --exit-code    only new findings fail
"""


def add_parser(commands: Commands) -> None:
    """The function adds the command."""
    parser = commands.add_parser(
        "report",
        help="a run's pages and files: HTML, JUnit, KTAP, JSON, Markdown, mail",
        description="Writes reports of a run from the journal; runs nothing. FILE '-' is standard output.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_journal(parser)
    add_formats(parser)
    parser.add_argument(
        "--exit-code", action="store_true", help="for a CI: 3 on drift, 1 on new findings and broken claims"
    )
    parser.set_defaults(run=run)


def add_formats(parser: argparse.ArgumentParser) -> None:
    """The function adds the options that name pages and files of a run; ``write`` takes them."""
    parser.add_argument("--html", metavar="FILE", help="one self-contained page")
    parser.add_argument("--junit", metavar="FILE", help="JUnit XML: new findings fail, drift is an error")
    parser.add_argument("--ktap", metavar="FILE", help="KTAP version 1, as the kernel's own tools read it")
    parser.add_argument("--json", metavar="FILE", help="the run as data (docs/schema.md)")
    parser.add_argument("--markdown", metavar="FILE", help="for a merge request")
    parser.add_argument("--reply", action="store_true", help="the reply to the list, on standard output")
    parser.add_argument("--tester", default="", metavar="WHO", help="'Name <address>' for --reply")
    parser.add_argument("--series", type=Path, metavar="DIR", help="series folder for --reply (default: our own)")
    parser.add_argument("--b4-check", action="store_true", help="a patch mail on standard input, a JSON list out")
    parser.add_argument("--baseline", type=Path, metavar="FILE", help="findings whose causes it holds are known")
    parser.add_argument("--write-baseline", type=Path, metavar="FILE", help="write (or renew) a baseline of this run")


def _put(where: str, text: str) -> None:
    if where == "-":
        sys.stdout.write(text)
        return
    baseline.write_whole(Path(where), text)
    print(f"wrote {where} ({len(text.encode()):,} bytes)", file=sys.stderr)


def _refuse_foreseen(args: argparse.Namespace, number: int) -> None:
    """InputError where a foreseen run is to be handed to those who take it for what was tested."""
    for name in OF_WHAT_RAN:
        if getattr(args, name):
            raise InputError(
                f"--{name.replace('_', '-')}: run {number} is foreseen, nothing ran: name an observed run with --run, "
                "or make one with 'kvmirror validate'"
            )


def to_output(args: argparse.Namespace) -> int:
    """The value says how many of the formats go to standard output."""
    return sum((*(getattr(args, name) == "-" for name in FORMATS), bool(args.reply), bool(args.b4_check)))


def wanted(args: argparse.Namespace) -> bool:
    """The value says whether any format is wanted, or a baseline is named."""
    files = (*FORMATS, "baseline", "write_baseline", "reply", "b4_check")
    return any(getattr(args, name) for name in files)


def check_formats(args: argparse.Namespace, what: str) -> None:
    """Two formats do not fit on standard output.

    Raises InputError when two are to go there.
    """
    if to_output(args) > 1:
        raise InputError(f"{what}: only one format fits on standard output; give the others a file")


def run(args: argparse.Namespace) -> int:
    """The command writes what was asked for."""
    written = any(getattr(args, name) for name in FORMATS)
    if not written and not (args.write_baseline or args.reply or args.b4_check or args.exit_code):
        raise InputError(
            "report: nothing to write; name at least one of --html, --junit, --ktap, --json, --markdown (FILE or -),"
            " --reply, --b4-check, --write-baseline or --exit-code"
        )
    check_formats(args, "report")
    with Journal(args.journal) as journal:
        report = facts.load(journal, args.run_number, args.baseline)
        if report.foreseen:
            _refuse_foreseen(args, report.number)
        write(args, journal, report)
    if args.exit_code:
        print(report.verdict, file=sys.stderr)
        return 3 if report.totals.drift else 1 if report.new_findings or report.broken_claims else 0
    return 0


def write(args: argparse.Namespace, journal: Journal, report: facts.Report) -> None:
    """The function writes the pages and files that ``add_formats`` took, of a run of ``journal``."""
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
    if args.reply:
        series = folder.read(args.series) if args.series else folder.read()
        sys.stdout.write(mail.reply(report, series, args.tester))
    if args.b4_check:
        from harness.posted import letter

        patch = letter.one(sys.stdin.buffer.read(mails.MAX_BYTES + 1), "the mail on standard input")
        print(json.dumps(mail.b4_check(report, patch), indent=1))
    if args.write_baseline:
        baseline.write(args.write_baseline, [view.finding for view in report.findings], report.levels)
        print(f"wrote {args.write_baseline}: {facts.plural(len(report.findings), 'cause')}", file=sys.stderr)
