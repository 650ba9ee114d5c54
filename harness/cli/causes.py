"""``kvmirror causes``: the patches behind findings, found out by leaving patches out of real kernels.

A command of its own rather than an option of ``explain``: the kernels that lack a patch serve every finding, so they
are built and asked once for all that are named.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence

from harness.cli.commands import Commands
from harness.cli.common import add_builds, add_command, add_host, add_journal
from harness.errors import InputError
from harness.findings import Became, Finding, Run, finding_json
from harness.process import programs, table
from harness.results import Journal, cpus, of_series
from harness.run import Bench, leave_out

HEAD = ("finding", "mirror", "needs", "real kernels", "needs", "builds on", "nothing told without", "seconds")


def add_parser(commands: Commands) -> None:
    """The function adds the command."""
    parser = add_command(
        commands,
        "causes",
        "which patches are behind findings, by leaving each out of a real kernel",
        "causes",
        "causes F1 F3",
    )
    parser.description = (
        "Which patches are behind findings, by leaving each out of a real kernel.\n\n"
        "The level that shows a finding is built without each of its patches, one kernel a patch, and asked the\n"
        "finding's smallest vector. The last patch without which the finding is gone is its cause, the earlier ones\n"
        "are what that needs. What does not apply or compile alone goes out together with what depends on it: of what\n"
        "the cause builds on in that way nothing more can be told. Levels that the run did not ask are asked for the\n"
        "first that shows the finding. The results stay with the run."
    )
    add_journal(parser)
    add_builds(parser)
    add_host(parser)
    parser.add_argument("--fresh", action="store_true", help="ask again what was asked before")
    parser.add_argument("--json", action="store_true", help="a JSON list")
    parser.add_argument(
        "names", nargs="*", metavar="F", help="findings' names, as 'kvmirror findings' prints them (default: all)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The command prints the table; the exit code is 3 where the mirror names other patches than real kernels."""
    programs.interruptible()
    with Journal(args.journal) as journal:
        asked = Run.open(journal, args.run_number)
        if asked.foreseen:
            raise InputError(f"run {asked.number} is foreseen: 'kvmirror validate' looks, then ask for causes")
        found = _named(asked, args.names)
        todo = [f for f in found if args.fresh or f.left_out is None or not f.left_out.told]
        if todo:
            bench = Bench.of(args, cpus.model_of(asked.info.provenance))
            bench.build(sorted({q.level for q in leave_out.questions(todo)}))
            _same_kernel(asked, bench)
            leave_out.find_causes(asked, todo, bench, lambda text: print(text, file=sys.stderr, flush=True))
            bench.release()
            found = _named(Run.open(journal, asked.number), args.names)
    if args.json:
        print(json.dumps([finding_json(f) for f in found], indent=1))
    else:
        print("\n".join(told(found)) if found else "no findings")
    return 3 if any(differs(f) for f in found) else 0


def _named(asked: Run, names: Sequence[str]) -> list[Finding]:
    return [asked.finding(name) for name in names] if names else asked.findings


def _same_kernel(asked: Run, bench: Bench) -> None:
    """InputError where the run was of another kernel or series than the bench's."""
    provenance = asked.info.provenance
    then = provenance.get("kernel", {})
    if then.get("inputs") != bench.base.key:
        raise InputError(
            f"run {asked.number} asked kernel {then.get('release', 'unknown')} of other inputs than those of "
            f"{bench.base.release} here: name its source with --linux, or run 'kvmirror validate' anew"
        )
    hashes = [row["sha256"] for row in provenance["patches"]], [row["sha256"] for row in bench.patches()]
    if hashes[0] != hashes[1]:
        raise InputError(f"run {asked.number} was of another series: name its folder with --series")
    of_series.same_below(asked.number, provenance, bench.series.on)


def differs(f: Finding) -> bool:
    """The mirror names other patches than real kernels, as far as those can tell: True."""
    if f.left_out is None or not f.left_out.told or not f.origin.known:
        return False
    real, mirror = f.left_out, f.origin
    untold = {*real.builds_on, *real.silent}
    return (
        mirror.in_base is not real.cause.in_base
        or mirror.patches != real.patches
        or not set(mirror.needs) - untold <= set(real.needs) <= set(mirror.needs)
    )


def told(found: Iterable[Finding]) -> list[str]:
    """The table has a row a finding, and under it the lines say what each kernel answered."""
    rows: list[Sequence[object]] = [HEAD]
    below: list[str] = []
    for f in found:
        mirror: tuple[str, str] = (_numbers(f.origin.patches), _numbers(f.origin.needs)) if f.origin.known else ("", "")
        if f.left_out is None:
            rows.append((f.name, *mirror, "not asked", "", "", "", ""))
            continue
        real = f.left_out
        patches = "the base" if real.first == 0 else _numbers(real.patches) or real.trouble or "none alone"
        others = map(_numbers, (real.needs, real.builds_on, real.silent))
        rows.append((f.name, *mirror, patches, *others, f"{real.seconds:.0f}"))
        below += details(f)
    return [*table.lines(rows, right=(7,)), "", *below]


def _numbers(patches: Iterable[int]) -> str:
    return ", ".join(map(str, patches))


def details(f: Finding) -> list[str]:
    """The lines say what each kernel answered to the finding's vector."""
    real = f.left_out
    assert real is not None
    lines = [f"{f.name}: {real.vector}", f"  level {real.level}, parameter {real.param}, {real.kernel}"]
    for w in real.without:
        alone = w.left_out == (w.patch,)
        others = "" if alone else f" and {_numbers(n for n in w.left_out if n != w.patch)} ({w.why})"
        part = f", another {w.part.value}" if w.became is Became.GONE and w.part.value != "rule" else ""
        same = f" [machine code of {w.same_as}]" if w.same_as else ""
        answer = f": {w.answer}" if w.answer else ""
        lines.append(f"  without {w.patch}{others}: {w.became.value}{part}{answer}{same}")
    if differs(f):
        lines.append(f"  DIFFERS from the mirror: {f.origin}")
    return lines
