"""``kvmirror mutate``: is the check sharp? Wrong mirrors and wrong series, and who notices."""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache as remembered
from pathlib import Path
from typing import Any, Final, TypeVar

from harness.build import Cache, kernel
from harness.cli.commands import Commands
from harness.errors import InputError, KvmirrorError
from harness.jsonable import Json
from harness.oracle import hands
from harness.oracle.image import levels as images
from harness.oracle.mutate import (
    EQUIVALENT,
    Kept,
    Live,
    Mutant,
    MutantVerdict,
    PatchVerdict,
    earlier,
    hand,
    mutants,
    mutation,
    observed,
)
from harness.oracle.mutate import patches as patch_mutants
from harness.process import Task, programs
from harness.series import folder

SCHEMA: Final = 1
WHAT: Final = ("mirror", "patches")

T = TypeVar("T")

EPILOG = """\
A mutant of the mirror drops or forces a patch's gate, inverts a branch, flips a bit of a mask or of a constant, deletes
a statement or an early return, or swaps the arms of branches, neighbouring calls or guards (order), or arguments. One
of the series leaves a hunk out or makes a line it adds wrong. A mutant is caught by a case of the kernel's C, by a
constant as the compiler has it, by a vector whose answer a run recorded (--journal), because it fails, or because it
does not compile.

examples:
  kvmirror mutate --sample 50                       a quick look, half of it mutants of the series
  kvmirror mutate --journal core.sqlite --journal full.sqlite
                                                    all, with what two runs saw
  kvmirror mutate --what mirror --only spte,nested  two modules of the mirror
  kvmirror mutate --what mirror --kind return,order
                                                    one kind of mutant and another
  kvmirror mutate --resume verdicts                 goes on where an interrupted run with that file was
  kvmirror mutate --after verdicts --resume new     after a change of the mirror: quicker by what is known
"""


def add_parser(commands: Commands) -> None:
    """The function adds the command."""
    parser = commands.add_parser(
        "mutate",
        help="is the check sharp? wrong mirrors and wrong series, and who notices",
        description="Makes one small thing wrong at a time and tells which check notices. Exit code 0.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--what", default=",".join(WHAT), help="mirror, patches, or both (default)")
    parser.add_argument("--only", default="", metavar="NAMES", help="modules of the mirror, comma-separated")
    parser.add_argument(
        "--kind", default="", metavar="NAMES", help=f"kinds of mutants of the mirror: {', '.join(mutants.KINDS)}"
    )
    parser.add_argument("--sample", type=int, metavar="N", help="only N mutants, drawn by --seed")
    parser.add_argument("--seed", type=int, default=1, help="of the sample and of the cases (default 1)")
    parser.add_argument("--cases", type=int, default=mutation.CASES, help="a check and level (default %(default)s)")
    parser.add_argument(
        "--journal",
        metavar="FILE",
        action="append",
        default=[],
        help="a validate run whose answers measure the mirror as well; may be given again",
    )
    parser.add_argument(
        "--resume", metavar="FILE", help="keep verdicts there; those caught in an earlier run are not tried again"
    )
    parser.add_argument(
        "--after",
        metavar="FILE",
        help="what an earlier run kept with --resume, of whatever mirror: what caught a mutant then is tried first",
    )
    parser.add_argument("--jobs", type=int, metavar="N", help="children at once (default: one a processor)")
    parser.add_argument("--json", action="store_true", help="JSON on standard output")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The command tries every mutant asked for."""
    kinds = args.what.split(",")
    if unknown := [k for k in kinds if k not in WHAT]:
        raise InputError(
            f"--what {args.what!r}: {unknown[0]!r} is neither mirror nor patches; write one, or both with a comma"
        )
    of_kinds = _kinds(args.kind)
    modules = mutants.named(args.only.split(",")) if args.only else list(mutants.MODULES)
    for name in ("sample", "cases", "jobs"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise InputError(f"--{name} {value}: give 1 or more")
    programs.interruptible()
    cache, series = Cache(), folder.read()
    prepared = images.prepare(cache)
    started = time.monotonic()
    made = [m for m in mutants.mutants(modules) if m.kind in of_kinds] if "mirror" in kinds else []
    wrong = patch_mutants.mutants(series, prepared.pristine) if "patches" in kinds else []
    share = args.sample
    if share is not None and made and wrong:
        wrong = _drawn(wrong, share // 2, args.seed)
        share -= len(wrong)
    made = made if share is None else _drawn(made, share, args.seed)
    wrong = wrong if share is None or made else _drawn(wrong, share, args.seed)

    @remembered
    def image(level: int) -> Path:
        return images.levels(cache, series, [level])[level]

    levels = sorted({level for mutant in made for level in mutation.levels(mutant)})
    with contextlib.ExitStack() as stack:

        @remembered
        def recorded(level: int) -> Live:
            return stack.enter_context(Live(image(level), level, args.cases, args.seed))

        seen = None
        if args.journal and made:
            with cache.progress.task("what the runs saw") as task:
                task.note = f"{len(levels)} levels"
                seen = observed.read([_existing(name) for name in args.journal], levels)
        before = earlier(Path(args.after)) if args.after else {}
        kept = Kept(Path(args.resume) if args.resume else None, prepared.pristine)
        with cache.progress.task("mutants of the mirror", total=len(made)) as task:
            found = {level: image(level) for level in levels}
            told = hand.setting(found, args.cases, args.seed, modules, seen.asked if seen else ())
            verdicts = _mirror(cache, made, told, args.jobs or kernel.jobs(), kept, before, task)
        altered = []
        with cache.progress.task("mutants of the series", total=len(wrong)) as task:
            for mutant in wrong:
                task.note = str(mutant).split(": ")[0]
                if known := kept.known(mutant.identity):
                    altered.append(PatchVerdict(mutant, *known))
                else:
                    level = mutant.level
                    altered.append(patch_mutants.judge(cache, prepared, mutant, image(level), recorded(level)))
                    kept.keep(mutant.identity, altered[-1].by, altered[-1].caught)
                task.advance()
    report = summary(verdicts, altered, seen, args, time.monotonic() - started)
    if args.json:
        json.dump(report, sys.stdout, indent=1)
        print()
    else:
        show(report)
    return 0


def _kinds(names: str) -> list[str]:
    """The kinds of mutants of the mirror that are asked for; all where ``names`` is empty.

    Raises InputError for one that there is not.
    """
    wanted = names.split(",") if names else list(mutants.KINDS)
    if unknown := [name for name in wanted if name not in mutants.KINDS]:
        raise InputError(f"--kind: there are no mutants {unknown[0]!r}; there are {', '.join(mutants.KINDS)}")
    return wanted


def control(by: str, caught: str) -> None:
    """The mirror as it is was not caught.

    Raises KvmirrorError when it was, by ``by`` with ``caught``.
    """
    if by:
        raise KvmirrorError(
            f"the mirror without a mutation, imported anew, is caught ({by}: {caught}): the measure is wrong, and no "
            "verdict of this run counts; please report it"
        )


def _existing(name: str) -> Path:
    path = Path(name)
    if not path.is_file():
        raise InputError(f"--journal {name}: there is no such file; kvmirror validate --journal {name} makes one")
    return path


def _drawn(found: Sequence[T], count: int, seed: int) -> list[T]:
    if count >= len(found):
        return list(found)
    return [found[n] for n in sorted(random.Random(seed).sample(range(len(found)), count))]


def _mirror(
    cache: Cache,
    made: Sequence[Mutant],
    told: dict[str, Json],
    jobs: int,
    kept: Kept,
    before: Mapping[str, str],
    task: Task,
) -> list[MutantVerdict]:
    """The verdicts on mutants of the mirror, which ``jobs`` children share; ``before``: what caught them once.

    Those are tried first, which takes least, and those that change nothing, as is explained, last.
    """
    verdicts = {m.identity: MutantVerdict(m, *known) for m in made if (known := kept.known(m.identity))}
    task.advance(len(verdicts))
    waiting = {m.identity: m for m in made if m.identity not in verdicts}
    ordered = sorted(waiting, key=lambda name: (name not in before, waiting[name].key in EQUIVALENT))
    quick = sum(name in before for name in ordered)
    names = [*ordered[:quick], hand.CONTROL, *ordered[quick:]] if waiting else []
    asked = [(name, before.get(name, "")) for name in names]
    answers = hands.shared("harness.oracle.mutate.hand", told, asked, jobs, lambda n: cache.log(f"mutate-{n}"))
    for number, (by, caught) in answers:
        if names[number] == hand.CONTROL:
            control(by, caught)
            continue
        mutant = waiting[names[number]]
        verdicts[mutant.identity] = MutantVerdict(mutant, by, caught)
        kept.keep(mutant.identity, by, caught)
        task.note = str(mutant).split(": ")[0]
        task.advance()
    return [verdicts[m.identity] for m in made]


def summary(
    mirror: Sequence[MutantVerdict],
    patches: Sequence[PatchVerdict],
    seen: observed.Observed | None,
    args: argparse.Namespace,
    seconds: float,
) -> dict[str, Any]:
    """The function gives the run as JSON. ``survivors`` without a ``reason`` are what nobody noticed and nobody
    explained.
    """
    rows = [
        {
            "place": v.mutant.place,
            "function": v.mutant.function,
            "kind": v.mutant.kind,
            "mutation": v.mutant.what,
            "reason": EQUIVALENT.get(v.mutant.key, ""),
        }
        for v in mirror
        if not v.by
    ]
    altered = [
        {
            "place": f"{v.mutant.path}, hunk {v.mutant.hunk}",
            "function": f"patch {v.mutant.patch}",
            "kind": "patch",
            "mutation": v.mutant.what,
            "reason": v.caught if v.by == "identity" else "",
        }
        for v in patches
        if v.by in ("", "identity")
    ]
    return {
        "schema": SCHEMA,
        "seed": args.seed,
        "cases": args.cases,
        "journal": None
        if seen is None
        else {"runs": seen.runs, "vectors": len(seen.asked), "rows": seen.rows, "drift": seen.drift},
        "mirror": score(Counter(v.by for v in mirror), rows)
        | {
            "kinds": _of_kinds(mirror),
            "survivors": rows,
            "explained_yet_caught": [v.mutant.key for v in mirror if v.by and v.mutant.key in EQUIVALENT],
        },
        "patches": score(Counter(v.by for v in patches), altered)
        | {
            "survivors": altered,
            "caught": [
                {"mutant": str(v.mutant), "by": v.by, "case": v.caught} for v in patches if v.by not in ("", "identity")
            ],
        },
        "seconds": round(seconds, 1),
    }


def _of_kinds(mirror: Sequence[MutantVerdict]) -> dict[str, dict[str, int]]:
    """How many mutants of each kind there are, were caught, and survive with a reason."""
    found = {}
    for kind in mutants.KINDS:
        if own := [v for v in mirror if v.mutant.kind == kind]:
            explained = sum(not v.by and v.mutant.key in EQUIVALENT for v in own)
            found[kind] = {"mutants": len(own), "caught": sum(bool(v.by) for v in own), "explained": explained}
    return found


def score(by: Counter[str], survivors: Sequence[dict[str, str]]) -> dict[str, Any]:
    """The function says how many of the mutants were caught, and the share of those that change something, in
    per cent.
    """
    total = by.total()
    explained = sum(bool(row["reason"]) for row in survivors)
    caught = total - len(survivors)
    return {
        "mutants": total,
        "caught": caught,
        "by": {name: count for name, count in sorted(by.items()) if name not in ("", "identity")},
        "explained": explained,
        "unexplained": len(survivors) - explained,
        # rounded down: 100 % means all
        "score": 1000 * caught // (total - explained) / 10 if total > explained else None,
    }


def show(report: dict[str, Any]) -> None:
    """The function prints the run as text."""
    if report["journal"]:
        j = report["journal"]
        print(
            f"run {', '.join(map(str, j['runs']))}: {j['vectors']} vectors stand for {j['rows']} answers "
            f"({j['drift']} the mirror gets wrong today measure nothing)"
        )
    for name, title in (("mirror", "mutants of the mirror"), ("patches", "mutants of the series")):
        part = report[name]
        if not part["mutants"]:
            continue
        by = ", ".join(f"{count} by {who}" for who, count in part["by"].items())
        print(f"{title}: {part['caught']} of {part['mutants']} caught ({by})")
        for kind, row in part.get("kinds", {}).items():
            print(f"  {kind}: {row['caught']} of {row['mutants']} caught, {row['explained']} change nothing")
        for row in part["survivors"]:
            print(f"  {row['place']} {row['function']}: {row['mutation']}")
            print(f"      {row['reason'] or 'NOT EXPLAINED'}")
        print(
            f"  {part['explained']} survivors change nothing, {part['unexplained']} are not explained: "
            f"score {part['score']} %"
        )
    for key in report["mirror"]["explained_yet_caught"]:
        print(f"equivalent.toml says that this changes nothing, and it was caught: {key}")
    print(f"{report['seconds']} s")
