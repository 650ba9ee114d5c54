"""``kvmirror check``: the mirror against the kernel's own C, function by function."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.build import Cache, kernel, sha256
from harness.cli.commands import Commands
from harness.cli.common import add_linux, add_on, want_mirror
from harness.errors import InputError
from harness.oracle import hands
from harness.oracle.check import CASES, THOROUGH, reach
from harness.oracle.check import constants as constants_check
from harness.oracle.image import Image, ImageWorker
from harness.oracle.image import levels as images
from harness.oracle.mutate import mutation, sharp
from harness.oracle.specs import SPECS, Spec
from harness.posted import opened
from harness.process import programs, table
from harness.questions import selection
from harness.results import KVM_HOST, LEFT_OUT, Journal
from harness.series import Series
from kvmodel.series import Level

SCHEMA = 1
DRIFT = 3  # exit code
EXAMPLES = """\
examples:
  kvmirror check --levels 0,18
  kvmirror check --list
  kvmirror check --functions make_spte --levels 15 --thorough
  kvmirror check --on DIR --levels 0,18      does the mirror hold where the series stands on other patches?
"""


def add_parser(commands: Commands) -> None:
    """The function adds the command."""
    parser = commands.add_parser(
        "check",
        help="the mirror against the kernel's own C functions",
        description=(
            "Compiles the KVM code of each level, calls its functions in a child process and compares what they "
            "give with what the mirror gives. Exit code 3 when they differ."
        ),
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--levels", help="as in 0,11,16-18 (default: all)")
    parser.add_argument("--functions", default="", metavar="NAMES", help="only these, comma-separated (see --list)")
    parser.add_argument("--list", action="store_true", help="list the checks and what no check reaches")
    parser.add_argument("--sharp", action="store_true", help="for each patch: who notices when it is left out")
    parser.add_argument(
        "--journal", metavar="FILE", help="with --sharp: tell the latest run of this journal, whose reports then say it"
    )
    parser.add_argument("--cases", type=int, help=f"cases a function and version (default {CASES})")
    parser.add_argument("--thorough", action="store_true", help=f"{THOROUGH} cases instead")
    parser.add_argument("--jobs", type=int, metavar="N", help="children at once (default: one a processor)")
    parser.add_argument("--seed", type=int, default=1, help="of the sampled cases (default 1)")
    parser.add_argument("--json", action="store_true", help="JSON on standard output")
    add_linux(parser)
    parser.add_argument("--series", metavar="DIR", help="another series' folder (default: patches/)")
    add_on(parser)
    parser.set_defaults(run=run)


def chosen(names: str) -> list[Spec]:
    """The function gives the checks that ``names`` selects, by entry or by C function.

    Raises InputError for a name that selects none.
    """
    if not names:
        return list(SPECS)
    found: list[Spec] = []
    for name in names.split(","):
        some = [s for s in SPECS if s.entry == name or any(f.split(" ", 1)[1] == name for f in s.functions)]
        if not some:
            raise InputError(f"--functions: no check is called {name!r}; kvmirror check --list has the names")
        found += [s for s in some if s not in found]
    return found


def run(args: argparse.Namespace) -> int:
    """The command runs the checks; the exit code is 0, or 3 when mirror and C differ."""
    if args.list:
        return listing()
    if args.journal and not args.sharp:
        raise InputError(
            "--journal goes with --sharp: only what a patch changes is told to a run; give both or neither"
        )
    if args.journal and not Path(args.journal).is_file():
        raise InputError(f"--journal {args.journal}: there is no such file; kvmirror validate writes one")
    for name in ("cases", "jobs"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise InputError(f"--{name} {value}: give 1 or more")
    programs.interruptible()
    start = time.monotonic()
    if args.on and args.sharp:
        raise InputError("--sharp leaves patches out of the series as the mirror knows it: --on does not go with it")
    series = opened(Path(args.series) if args.series else None, args.on, args.linux)
    want_mirror(series, "check", "kvmirror validate --no-mirror asks the kernel itself", on_others=True)
    wanted = selection.levels(args.levels or f"0-{series.last}", series.last)
    specs = chosen(args.functions)
    cache = Cache()
    if args.sharp:
        return sharpness(cache, series, images.levels(cache, series, range(series.last + 1), args.linux), specs, args)
    found = images.levels(cache, series, wanted, args.linux)
    built = time.monotonic() - start
    cases = args.cases or (THOROUGH if args.thorough else CASES)
    rows = checked(cache, found, specs, cases, args.seed, args.jobs or kernel.jobs())
    constants = [constants_check.compare(Level.of(level), mutation.constants_of(found[level])) for level in wanted]
    report = summary(rows, constants, built, time.monotonic() - start, cases, args.seed)
    if args.json:
        json.dump(report, sys.stdout, indent=1)
        print()
    else:
        show(report)
    return DRIFT if report["totals"]["mismatches"] else 0


def checked(
    cache: Cache, found: dict[int, Path], specs: Sequence[Spec], cases: int, seed: int, jobs: int
) -> list[dict[str, Any]]:
    """The ``specs`` are run in ``jobs`` children, those that take longest first; their rows are in the order of
    ``specs``.
    """
    order = sorted(specs, key=lambda spec: -spec.cost * len(spec.states))
    setting = {"images": {level: str(path) for level, path in found.items()}, "cases": cases, "seed": seed}
    rows: dict[Spec, dict[str, Any]] = {}
    with cache.progress.task("check", total=sum(spec.cost for spec in specs)) as task:
        numbers = [SPECS.index(spec) for spec in order]
        answers = hands.shared("harness.oracle.check.hand", setting, numbers, jobs, lambda n: cache.log(f"check-{n}"))
        for number, row in answers:
            rows[order[number]] = row
            task.note = order[number].name
            task.advance(order[number].cost)
    return [rows[spec] for spec in specs]


Constants = list[tuple[int, list[constants_check.ConstantDifference]]]


def summary(
    rows: list[dict[str, Any]], constants: Constants, built: float, seconds: float, cases: int, seed: int
) -> dict[str, Any]:
    """The function gives the run as JSON."""
    wrong = [
        {"name": d.name, "level": str(d.level), "c": d.c, "where": d.where, "mirror": d.mirror}
        for _, differences in constants
        for d in differences
    ]
    calls, in_c = sum(row["cases"] for row in rows), sum(row["c_seconds"] for row in rows)
    return {
        "schema": SCHEMA,
        "cases": cases,
        "seed": seed,
        "checks": rows,
        "constants": {
            "compared": sum(same + len(differences) for same, differences in constants),
            "differences": wrong,
        },
        "unreached": reach.unreached(SPECS),
        "totals": {
            "mismatches": sum(row["mismatches"] for row in rows) + len(wrong),
            "cases": calls,
            "mirrored": sum(row["mirrored"] for row in rows),
            "versions": sum(len(row["versions"]) for row in rows),
            "calls_per_second": round(calls / in_c) if in_c else 0,
            "build_seconds": round(built, 1),
            "seconds": round(seconds, 1),
        },
    }


def ranges(levels: list[int]) -> str:
    """The text is like 0,2-5 for [0, 2, 3, 4, 5]."""
    parts: list[list[int]] = []
    for level in levels:
        if parts and level == parts[-1][-1] + 1:
            parts[-1].append(level)
        else:
            parts.append([level])
    return ",".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)


def show(report: dict[str, Any]) -> None:
    """The function prints the run as text."""
    rows = [("check", "cases", "", "differ", "versions of the code (levels)")]
    for row in report["checks"]:
        versions = " | ".join(ranges(levels) for levels in row["versions"].values())
        rows.append((row["entry"], row["cases"], "all" if row["exhaustive"] else "", row["mismatches"], versions))
    print("\n".join(table.lines(rows, right=(1, 3))))
    for row in report["checks"]:
        for mismatch in row["shown"]:
            print(f"\n{mismatch}")
    for d in report["constants"]["differences"]:
        print(f"constant {d['name']} at level {d['level']}: C {d['c']:#x}, kvmodel {d['where']} {d['mirror']:#x}")
    totals = report["totals"]
    print(
        f"\n{totals['mismatches']} differences in {totals['cases']} cases of {totals['versions']} versions; "
        f"{report['constants']['compared']} constants compared; {totals['calls_per_second']} C calls a second; "
        f"{totals['seconds']} s, of which {totals['build_seconds']} s for the images"
    )
    print(f"{len(report['unreached'])} mirrored functions are left to vectors: kvmirror check --list")


def sharpness(cache: Cache, series: Series, found: dict[int, Path], specs: list[Spec], args: argparse.Namespace) -> int:
    """The lines say for each patch who notices when it is left out, what its own level changed, and what is
    only text.
    """
    rows = []
    with cache.progress.task("patches", total=series.last) as task, ImageWorker(Image(found[series.last])) as worker:
        for row in sharp.account(cache, series, found, specs, worker, args.seed):
            rows.append(row)
            task.advance()
    if args.journal:
        tell(Path(args.journal), series, rows)
    if args.json:
        told = [
            {
                "patch": n.patch,
                "checks": n.checks,
                "example": str(n.example or n.error),
                "vector": n.vector,
                "own_level": n.own,
                "without": n.without,
            }
            for n in rows
        ]
        json.dump({"schema": SCHEMA, "seed": args.seed, "patches": told}, sys.stdout, indent=1)
        print()
        return 0
    for n in rows:
        shown = ", ".join(n.own[:4]) + (f" and {len(n.own) - 4} more" if len(n.own) > 4 else "")
        print(f"patch {n.patch}")
        print(f"    its level changes   {shown or 'nothing that is called here: same machine code, same constants'}")
        print(f"    checks that notice  {', '.join(n.checks) or 'none'}")
        if n.example:
            print("        " + str(n.example).split("\n    state")[0].replace("\n", "\n        "))
        print(f"    vector that changes {n.vector or 'none'}")
        if n.without:
            print(f"    left out            {n.without}")
    print(f"{sum(n.accounted for n in rows)} of {len(rows)} patches are accounted for")
    return 0


def tell(path: Path, series: Series, rows: Sequence[sharp.Noticed]) -> None:
    """The function writes what each patch changes to the latest run of a journal, by the patches' hashes."""
    hashes = {patch.number: sha256(patch.path) for patch in series.patches}
    with Journal(path) as journal:
        told = {hashes[row.patch]: row.words for row in rows}
        journal.amend(journal.latest(KVM_HOST), {LEFT_OUT: told})


def listing() -> int:
    """The list has the checks, and what no check reaches with the reason."""
    for spec in SPECS:
        print(f"{spec.entry:32} {len(spec.states):3} states  {', '.join(spec.functions)}")
    seen, python = reach.by_vectors(), reach.mirrored()
    print("\nreached by no check, but by vectors that kvmirror validate asks:")
    for name in reach.unreached(SPECS):
        if tuple(python[name].rpartition(".")[::2]) in seen:
            print(f"  {name}")
    print("\nreached by neither:")
    for name in reach.unreached(SPECS):
        if tuple(python[name].rpartition(".")[::2]) not in seen:
            print(f"  {name}")
    return 0
