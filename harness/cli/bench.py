"""``kvmirror bench exits``: how many VM exits MBEC saves, counted on real kernels and held against the mirror."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Final

from harness.bench import (
    VARIANTS,
    Kernel,
    Plan,
    Programs,
    Result,
    as_json,
    batch,
    images,
    measure,
    named,
    page,
    pictures,
    table,
)
from harness.cli.commands import Commands
from harness.cli.common import LAST_LEVEL, add_builds, add_command, add_cpu, one_cpu, want_mirror
from harness.errors import GuestError, InputError
from harness.process import parallel, programs
from harness.questions import selection
from harness.report import baseline
from harness.run import Bench
from kvmodel.machine.exits import Mix
from kvmodel.series import Level

WHAT: Final = "count the VM exits that MBEC saves an L1 which guards its L2's kernel code"
MORE: Final = """\
An L1 lets its L2's kernel run verified code only. Without MBEC it needs two EPT views and is entered at each change
between user and kernel code; with MBEC one view serves both. L2 makes system calls, some with a hypercall, new kernel
code or a fresh page beside. KVM's exits are counted by reason and held against what the mirror says, exit by exit.
"""


def add_parser(subparsers: Commands) -> None:
    """The function adds ``bench`` to the command line."""
    top = add_command(subparsers, "bench", "what MBEC costs and saves: exits", "bench exits")
    commands = top.add_subparsers(title="benches", metavar="BENCH", required=True)
    parser = add_command(
        commands,
        "exits",
        WHAT,
        "bench exits",
        "bench exits --variants software,mbec-evmcs --levels 18 --params 1 --no-curve",
        "bench exits --linux linux-7.2.tar.xz --html exits.html",
    )
    parser.description = f"{WHAT[0].upper()}{WHAT[1:]}.\n\n{MORE}\n" + "\n".join(
        f"  {v.name:16} {v.title}" for v in VARIANTS
    )
    parser.add_argument("--variants", metavar="LIST", help="such as software,mbec-evmcs (default: all six)")
    parser.add_argument("--levels", metavar="LIST", help=f"levels of the series (default: 0,{LAST_LEVEL}; --linux: 0)")
    parser.add_argument("--params", default="0,1", metavar="LIST", help="the parameter's values (default: 0,1)")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="runs of L1 a variant (default: 3)")
    _add_mix(parser)
    parser.add_argument("--no-curve", action="store_true", help="the mix above only, not the curve over mixes")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="hosts side by side (default: 2)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output, instead of the table")
    parser.add_argument("--html", type=Path, metavar="FILE", help="a page with stacked bars and curves")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="the bars and the curve alone, as one picture")
    add_builds(parser)
    add_cpu(parser)
    parser.set_defaults(run=run)


def _add_mix(parser: argparse.ArgumentParser) -> None:
    """What L2 does."""
    mix = parser.add_argument_group("what L2 does")
    mix.add_argument("--calls", type=int, default=200, metavar="N", help="system calls counted (default: 200)")
    for name, default, what in (
        ("--hypercall-every", 4, "makes a hypercall"),
        ("--load-every", 100, "loads new kernel code, which L1 verifies"),
        ("--fresh-every", 20, "touches a data page never touched before"),
    ):
        mix.add_argument(
            name, type=int, default=default, metavar="N", help=f"one in N {what}, 0: none (default: {default})"
        )
    mix.add_argument(
        "--looks", type=int, default=5, metavar="N", help="VMCS fields L1 reads at each exit for itself (default: 5)"
    )


def _mix(args: argparse.Namespace) -> Mix:
    """The mix asked for. InputError where the workload cannot do it."""
    _at_least_one("--calls", args.calls)
    mix = Mix(args.calls, args.fresh_every, args.load_every, args.hypercall_every, 1, args.looks)
    for name in ("fresh_every", "load_every", "hypercall_every"):
        if (value := getattr(args, name)) < 0:
            raise InputError(f"--{name.replace('_', '-')} {value}: one in N, N is 0 for none; give 0 or more")
    batch.check(measure.whole(mix))
    return mix


def _levels(args: argparse.Namespace) -> list[int]:
    """The levels asked for."""
    text = args.levels or ("0" if args.linux else f"0,{LAST_LEVEL}")
    return selection.levels(text, LAST_LEVEL)


def kernels(levels: list[int], params: list[bool | None], release: str, foreign: bool) -> list[Kernel]:
    """The function gives a kernel a level and value of the parameter; one where the level has no parameter."""
    found = []
    for level in levels:
        values = params if Level.of(level).has_parameter else [None]
        found += [Kernel(level, param, release, foreign) for param in values]
    return found


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise InputError(f"{name} {value}: give 1 or more")


def _has_folder(path: Path | None) -> None:
    """InputError where a file could not be written: told before the minutes of work, not behind them."""
    if path is not None and not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} is not there; make it first")


def require_named(results: list[Result], asked: str | None, foreign: bool) -> None:
    """GuestError where a variant ran on no kernel but was asked for: by name, or MBEC on the user's own kernel."""
    for variant in named(asked.split(",")) if asked else VARIANTS:
        rows = [row for result in results for row in result.rows if row.variant == variant]
        wanted = asked is not None or (foreign and variant.l1.mbec)
        if wanted and rows and not any(row.runs for row in rows):
            raise GuestError(f"variant {variant.name} ran on none of the kernels: {rows[0].missing}")


def code(results: list[Result]) -> int:
    """The exit code is 3 where mirror and count differ, 1 where a fault of a kernel kept a variant from running, else
    0.
    """
    rows = [row for result in results for row in result.rows]
    if any(row.drift or row.trace_differs for row in rows) or any(p.drifts for r in results for p in r.curve):
        return 3
    return 1 if any(row.finding for row in rows) else 0


def _write(path: Path, text: str) -> None:
    baseline.write_whole(path, text)
    print(f"wrote {path}", file=sys.stderr)


def run(args: argparse.Namespace) -> int:
    """The command makes what is missing, then counts and prints."""
    variants = named(args.variants.split(",")) if args.variants else VARIANTS
    mix, levels, params = _mix(args), _levels(args), selection.params(args.params)
    for path in (args.html, args.svg):
        _has_folder(path)
    _at_least_one("--runs", args.runs)
    _at_least_one("--jobs", args.jobs)
    programs.interruptible()
    bench = Bench.of(args, one_cpu(args))
    want_mirror(bench.series, "bench exits", "it counts levels of that series, or with --linux another kernel")
    bench.build(levels)
    made = parallel.side_by_side(
        {"workload": lambda: images.workload(bench.cache), "counter": lambda: images.counter(bench.cache)}
    )
    asked = kernels(levels, params, bench.kernel_release, args.linux is not None)
    results = measure.measure(
        asked,
        Plan(variants, mix, args.runs, not args.no_curve, bench.host_cpu()),
        Programs(made["workload"], made["counter"]),
        open_host=lambda name: bench.open_host(True, name),
        open_session=bench.open_session,
        modules=bench.modules,
        jobs=args.jobs if bench.lab is None else bench.lab.want(args.jobs),
    )
    if args.json:
        print(json.dumps(as_json(mix, results) | {"provenance": bench.provenance()}, indent=1))
    else:
        print("\n".join(table.lines(mix, results)))
    if args.html is not None:
        _write(args.html, page.render(mix, results, args.runs, bench.provenance()))
    if args.svg is not None:
        _write(args.svg, str(pictures.both(results)) + "\n")
    require_named(results, args.variants, args.linux is not None)
    return code(results)
