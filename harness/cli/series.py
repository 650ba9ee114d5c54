"""``kvmirror series show | apply | build | check | import``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from harness.build import Cache, kernel
from harness.build import modules as levels
from harness.cli.commands import Commands
from harness.cli.common import add_command, add_linux, add_on
from harness.errors import InputError
from harness.posted import opened
from harness.process import PROGRESS, table
from harness.questions import selection
from harness.review import check as series_check
from harness.series import Parameter, Series, folder, harmless
from harness.series import folder as series_io


def add_parser(subparsers: Commands) -> None:
    """The function adds ``series`` to the command line; each subcommand sets ``run``."""
    top = add_command(
        subparsers, "series", "the patch series: show, apply, build, check, import", "series show", "series check"
    )
    commands = top.add_subparsers(title="series commands", metavar="COMMAND", required=True)

    def command(
        name: str, function: Callable[[argparse.Namespace], int], what: str, *examples: str
    ) -> argparse.ArgumentParser:
        parser = add_command(commands, name, what, *(f"series {name}{example}" for example in examples))
        parser.set_defaults(run=function)
        if name == "import":
            parser.add_argument(
                "--linux", type=Path, metavar="PATH", help="the git tree of a range, or its base's source"
            )
        else:
            add_linux(parser)
            parser.add_argument("--series", type=Path, metavar="DIR", help="another series' folder (default: patches/)")
            add_on(parser)
        return parser

    show = command("show", _show, "List the patches: number, claim, author, subject, files, what should be seen.",
                   "", " --json")  # fmt: skip
    show.add_argument("--json", action="store_true", help="one JSON object on standard output")
    apply = command("apply", _apply, "Make a git tree of the base with one commit a patch; fuzz is never allowed.",
                    " /tmp/tree", " --level 11 /tmp/tree")  # fmt: skip
    apply.add_argument("target", type=Path, metavar="DIR", help="the folder to make")
    apply.add_argument("--level", metavar="N", help="patches 1 to N only (default: all)")
    build = command("build", _build, "Build the modules of every level and prove that one base image takes them.",
                    "", " --levels 0,11,18", " --levels 0 --naive 18")  # fmt: skip
    build.add_argument("--levels", metavar="LIST", help="such as 0,11,16-18 (default: all)")
    build.add_argument("--naive", metavar="LIST", help="measure these levels from a clean tree as well, for comparison")
    check = command("check", _check, "Check each patch: applies, builds, warnings, checkpatch, object identity, claim.",
                    " --no-build", " --patches 1,2,10", " --format markdown", " --series DIR --verbose")  # fmt: skip
    check.add_argument("--patches", metavar="LIST", help="such as 1,2,10 (default: all)")
    check.add_argument(
        "--no-build", action="store_true", help="only what answers in seconds: applies, order, claims, checkpatch"
    )
    check.add_argument("--format", choices=("text", "markdown", "json"), default="text")
    check.add_argument("--verbose", action="store_true", help="show how each function changed")
    bring = command("import", _import, "Make a series folder of mails as posted.",
                    " series.mbox DIR", " v3.mbox.gz DIR --version 2", " - DIR",
                    " --linux ~/src/linux v6.12.8..my-branch DIR")  # fmt: skip
    bring.add_argument(
        "source",
        metavar="SOURCE",
        help="an mbox (.gz too), a folder of mails, - for standard input, or a range A..B of --linux",
    )
    bring.add_argument("target", type=Path, metavar="DIR", help="the series folder to make")
    bring.add_argument("--version", type=int, metavar="N", help="this version of the series (default: the newest)")
    bring.add_argument("--json", action="store_true", help="one JSON object on standard output")


def _series(args: argparse.Namespace) -> Series:
    return opened(args.series, args.on, args.linux)


def _told(parameter: Parameter) -> str:
    """A parameter in a line: its name, its type, the values that a run gives it, its levels."""
    until = "" if parameter.last_level is None else f" to level {parameter.last_level}"
    values = f", asked with {', '.join(parameter.values)}" if parameter.values else ", left unset (--param sets it)"
    return (
        f"parameter {parameter} ({parameter.type or 'type unknown'}) from level {parameter.first_level}{until}{values}"
    )


def _show(args: argparse.Namespace) -> int:
    series = _series(args)
    if args.json:
        rows = [
            {
                "number": p.number,
                "subject": p.subject,
                "author": p.author,
                "message_id": p.message_id,
                "claim": p.claim.value,
                "files": list(p.files),
                "visible": [{"where": v.where, "what": v.what, "level": v.level} for v in p.visible],
            }
            for p in series.patches
        ]
        told = {"schema": 1, "title": series.title, "base": series.base_version, "patches": rows}
        told |= {"parameters": [p.row for p in series.parameters]} if series.parameters else {}
        print(json.dumps(told, indent=1))
        return 0
    files = len(series.touched)
    print(f"{harmless(series.title)}\n{series.last} patches on {harmless(series.told_base)}, {files} files")
    for one in (*map(_told, series.parameters), *(f"on {harmless(patch.subject)}" for patch in series.on)):
        print(one)
    print()
    for p in series.patches:
        added = sum(f.added for f in p.mail.files)
        removed = sum(f.removed for f in p.mail.files)
        claim = "" if p.claim.value == "none" else f"  [no functional change: {p.claim.value}]"
        print(f"{p.number:2}  {harmless(p.subject)}{claim}")
        posted = f"  <{harmless(p.message_id)}>" if p.message_id else ""
        print(f"    {harmless(p.author)}{posted}")
        print(f"    +{added} -{removed}  {', '.join(p.files)}")
        for v in p.visible:
            later = f" (from level {v.level})" if v.level != p.number else ""
            print(f"    {v.where}: {v.what}{later}")
    return 0


def _apply(args: argparse.Namespace) -> int:
    series = _series(args)
    level = series.last if args.level is None else selection.levels(args.level, series.last)[-1]
    head = folder.apply_tree(series, kernel.source(Cache(), args.linux), args.target, level)
    print(f"{args.target}: the base and {level} commits, HEAD {head}")
    return 0


def _build(args: argparse.Namespace) -> int:
    series = _series(args)
    wanted = range(series.last + 1) if args.levels is None else selection.levels(args.levels, series.last)
    cache = Cache()
    started = time.monotonic()
    missing = levels.missing(cache, series, wanted, linux=args.linux)
    made = levels.build(cache, series, wanted, linux=args.linux, need_image=False)
    taken = time.monotonic() - started
    rows: list[tuple[object, ...]] = [("level", "seconds", "compiled", "warnings", "image objects", "modules")]
    bad = False
    for level, modules in made.items():
        seconds = "cached" if level not in missing else f"{modules.seconds:.1f}"
        served = f"{len(modules.image_objects)} identical"
        if modules.image_differs:
            bad, served = True, f"{', '.join(modules.image_differs)} DIFFER"
        rows.append((level, seconds, modules.compiled, len(modules.warnings), served, modules.folder))
    print("\n".join(table.lines(rows, right=range(4))))
    new = sorted({w for level, m in made.items() for w in m.warnings})
    for line in new:
        first = min(level for level, m in made.items() if line in m.warnings)
        print(f"warning from level {first}: {line}")
    for level in [] if args.naive is None else selection.levels(args.naive, series.last):
        print(f"level {level} from a clean tree: {levels.naive(cache, series, level, linux=args.linux):.1f} s")
    image = "does NOT take the modules of every level" if bad else "takes the modules of every level"
    print(f"{len(made)} levels in {taken:.1f} s; one base image {image}")
    return 1 if bad or any(m.warnings for level, m in made.items() if level) else 0


def _check(args: argparse.Namespace) -> int:
    series = _series(args)
    if args.patches is None:
        wanted = list(range(1, series.last + 1))
    else:
        wanted = [n for n in selection.levels(args.patches, series.last) if n]
    if args.no_build:
        return _glance(args, series, wanted)
    rows = series_check.check(Cache(), series, wanted, linux=args.linux)
    with PROGRESS.paused():
        if args.format == "json":
            print(json.dumps({"schema": 1, "title": series.title, "patches": series_check.as_json(rows)}, indent=1))
        elif args.format == "markdown":
            print(series_check.markdown(rows))
        else:
            print(series_check.text(rows, args.verbose))
            touched = {path for row in rows for path in row.patch.files}
            held = [row for row in rows if row.patch.claim.value != "none"]
            broken = [str(row.number) for row in rows if row.finding]
            print(f"\n{len(rows)} patches, {len(touched)} files; {len(held)} claim no functional change")
            print(f"findings: {'patch ' + ', '.join(broken) if broken else 'none'}")
    return 1 if any(row.finding for row in rows) else 0


def _glance(args: argparse.Namespace, series: series_io.Series, wanted: list[int]) -> int:
    if args.format == "markdown":
        raise InputError("--format markdown is of a check with a build; leave --no-build out, or take text or json")
    rows = series_check.glance(Cache(), series, wanted, linux=args.linux)
    with PROGRESS.paused():
        if args.format == "json":
            said = {"schema": 1, "title": series.title, "built": False, "patches": series_check.glanced_json(rows)}
            print(json.dumps(said, indent=1))
        else:
            print(series_check.glanced(rows))
            held = sum(row.patch.claim.value != "none" for row in rows)
            print(
                f"\n{len(rows)} patches apply in order; {held} claim no functional change, which only a build can tell"
            )
    return 0


def _import(args: argparse.Namespace) -> int:
    from harness.posted import bring  # b4 takes a third of a second to load: no other command pays for it

    made = bring.bring_in(args.source, args.target, linux=args.linux, version=args.version)
    series = made.series
    for note in made.notes:
        print(f"note: {note}", file=sys.stderr)
    title = harmless(series.title)
    if args.json:
        said = {"schema": 1, "folder": str(args.target), "title": series.title, "base": series.base_version,
                "patches": series.last, "mirrored": series.mirrored, "notes": list(made.notes)}  # fmt: skip
        print(json.dumps(said, indent=1))
        return 0
    print(f"{args.target}: {series.last} patches, {len(series.touched)} files: {title}")
    for parameter in series.parameters:
        print(_told(parameter))
    if series.mirrored:
        print("these are the subjects and authors of the series that this tool mirrors: the mirror applies")
    else:
        print("there is no mirror of this series: apply, build, check and the contract work with --series")
    return 0
