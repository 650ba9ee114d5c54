"""``kvmirror coverage``: which of the lines that the patches write the vectors reach on real KVM."""

from __future__ import annotations

import argparse
import json

from harness.build import kernel
from harness.cli.commands import Commands
from harness.cli.common import PARAMS_HELP, add_builds, add_command, add_cpu, add_vectors, one_cpu
from harness.coverage import Counted, Covered, Reach, Written, build, collect, counters, judge
from harness.errors import InputError
from harness.jsonable import Json
from harness.process import PROGRESS, programs, table
from harness.questions import parameters, plan, selection
from harness.run import Bench, Options, Voices, huge_pages
from harness.series import authors, base_state, states

SCHEMA = "kvmirror-coverage-1"


def add_parser(commands: Commands) -> None:
    """The function adds the command."""
    parser = add_command(
        commands,
        "coverage",
        "which of the lines that the patches write the vectors reach on real KVM",
        "coverage --vectors thin",
        "coverage --level 15 --param 1 --json >lines.json",
    )
    parser.description = (
        "Builds the level's modules with gcc's counters, asks the vectors, and lists the lines of each patch that "
        "nothing reached. Exit code 1: there are some."
    )
    parser.add_argument("--level", metavar="N", help="the base with patches 1..N (default: the last)")
    parser.add_argument("--param", default="all", help=PARAMS_HELP)
    add_vectors(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    add_builds(parser)
    add_cpu(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The command builds, asks and prints; the exit code is 1 where a line was never reached."""
    bench = Bench.of(args, one_cpu(args))
    level = _level(args.level, bench.series.last)
    known = bench.series.parameters
    settings = parameters.chosen(args.param, known)
    works = list(plan(selection.vector_list(args.vectors), [level], settings, known))
    programs.interruptible()
    bench.build([level])
    bench.check_parameters(work.load for work in works)
    modules = build.modules(bench.cache, bench.series, level, linux=args.linux)
    voices = Voices(bench.host_cpu, bench.mirrored)
    switches = parameters.switches(settings, known)
    named = frozenset((level, w.load.setting) for w in works if w.load.setting in switches)
    options = Options(values_named=named, deadly=voices.deadly, offered=voices.offered, traced=huge_pages)
    with PROGRESS.task("vectors", total=sum(w.size for w in works)) as task:
        counted = collect(bench, works, options, modules, task.advance)
    pristine = kernel.source(bench.cache, args.linux)
    applied = states(bench.series, pristine, level)
    covered = judge(
        [done.patch for done in applied],
        authors(base_state(bench.series, pristine), applied),
        applied[-1].state,
        counters.lines(counted.vectors, modules),
        counters.lines(counted.setup, modules),
    )
    if args.json:
        print(json.dumps(as_json(level, list(map(str, settings)), counted, covered)))
    else:
        print("\n".join(text(counted, covered)))
    return int(any(patch.of(Reach.NEVER) for patch in covered))


def _level(named: str | None, last: int) -> int:
    """The level; InputError where it is several, or has no patches whose lines there could be."""
    levels = [last] if named is None else selection.levels(named, last)
    if len(levels) > 1 or not levels[0]:
        raise InputError(f"--level {named}: name one level from 1 to {last}, whose patches have lines to reach")
    return levels[0]


def text(counted: Counted, covered: list[Covered]) -> list[str]:
    """The text has the table, and the lines that a reviewer wants to see."""
    everything = [line for one in covered for line in one.lines]
    rows: list[tuple[object, ...]] = [("patch", "lines", "reached", "set-up", "never", "subject")]
    rows += [(c.patch.number, len(c.lines), *(len(c.of(r)) for r in Reach), c.patch.subject) for c in covered]
    rows.append(("all", len(everything), *(sum(line.reach is r for line in everything) for r in Reach), ""))
    found = table.lines(rows, right=range(5))
    found.append(
        f"{counted.asked} vectors asked in {counted.loads} loads, {counted.blocked} blocked, {counted.merged} merged"
    )
    for title, chosen in (
        ("never reached", [line for line in everything if line.reach is Reach.NEVER]),
        ("reached by loading the modules only", [line for line in everything if line.reach is Reach.SETUP]),
        ("reached, but not every way out of the condition taken", [line for line in everything if line.one_sided]),
    ):
        if chosen:
            found += ["", f"{title}:", *map(_told, chosen)]
    return found


def _told(line: Written) -> str:
    ways = f" ({line.ways[0]} of {line.ways[1]} ways)" if line.one_sided else ""
    return f"  patch {line.patch:>2}  {line.path}:{line.number}: {line.text}{ways}"


def as_json(level: int, params: list[str], counted: Counted, covered: list[Covered]) -> dict[str, Json]:
    """The function gives all of it, a row a line with code."""
    return {
        "schema": SCHEMA,
        "level": level,
        "params": params,
        "loads": counted.loads,
        "vectors": {"asked": counted.asked, "blocked": counted.blocked, "merged": counted.merged},
        "patches": [
            {
                "number": one.patch.number,
                "subject": one.patch.subject,
                "counts": {reach.value: len(one.of(reach)) for reach in Reach},
                "lines": [
                    {
                        "file": line.path,
                        "line": line.number,
                        "text": line.text,
                        "reached": line.reach.value,
                        "ways_taken": line.ways[0],
                        "ways": line.ways[1],
                    }
                    for line in one.lines
                ],
            }
            for one in covered
        ],
    }
