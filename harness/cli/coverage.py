"""``kvmirror coverage``: which of the lines that the patches write the vectors reach on real KVM."""

from __future__ import annotations

import argparse
import json
from typing import Any

from harness.build import kernel
from harness.cli.common import LAST_LEVEL, add_builds, add_command
from harness.coverage import Counted, Covered, Reach, Written, build, collect, counters, judge
from harness.errors import InputError
from harness.process import PROGRESS, programs, table
from harness.questions import PARAM_FROM, plan, selection
from harness.results import param_text
from harness.run import Bench, Options, Voices, huge_pages
from harness.series import authors, base_state, states

SCHEMA = "kvmirror-coverage-1"


def add_parser(commands: Any) -> None:
    """Add the command."""
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
    parser.add_argument(
        "--level", default=str(LAST_LEVEL), metavar="N", help=f"the base with patches 1..N (default {LAST_LEVEL})"
    )
    parser.add_argument("--param", default="all", help="enable_pt_guest_exec_control: unset, 0, 1 or all (default all)")
    parser.add_argument(
        "--vectors",
        nargs="+",
        default=["core"],
        metavar="V",
        help="core, full, sequences, thin, a part, an id or @FILE (default core)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    add_builds(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Build, ask, print; 1 where a line was never reached."""
    level = _level(args.level)
    params = selection.params(args.param)
    works = list(plan(selection.vector_list(args.vectors), [level], params))
    programs.interruptible()
    bench = Bench.of(args)
    bench.build([level])
    modules = build.modules(bench.cache, bench.series, level, linux=args.linux)
    voices = Voices(bench.host_cpu)
    named = frozenset((level, p) for p in params if p is not None and level >= PARAM_FROM)
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
        print(json.dumps(as_json(level, list(map(param_text, params)), counted, covered)))
    else:
        print("\n".join(text(counted, covered)))
    return int(any(patch.of(Reach.NEVER) for patch in covered))


def _level(named: str) -> int:
    """The level; InputError where it is several, or has no patches whose lines there could be."""
    levels = selection.levels(named, LAST_LEVEL)
    if len(levels) > 1 or not levels[0]:
        raise InputError(f"--level {named}: name one level from 1 to {LAST_LEVEL}, whose patches have lines to reach")
    return levels[0]


def text(counted: Counted, covered: list[Covered]) -> list[str]:
    """The table, and the lines that a reviewer wants to see."""
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


def as_json(level: int, params: list[str], counted: Counted, covered: list[Covered]) -> dict[str, Any]:
    """All of it, a row a line with code."""
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
