"""``kvmirror run``: a few vectors at one level on a real host, the three voices side by side. Writes no journal."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping

from harness.cli.commands import Commands
from harness.cli.common import add_builds, add_cpu, add_host, add_level, chosen_cpus, one_level, want_mirror
from harness.errors import InputError
from harness.jsonable import Json
from harness.observe import Traced, cut, matching
from harness.process import programs
from harness.questions import Load, plan, selection
from harness.results import Answer, Judged, Mark, departing, stands
from harness.run import Bench, Options, Voices, ask
from kvmodel import machine
from kvmodel.cpu import Cpu
from kvmodel.question.outcome import NotApplicable
from kvmodel.question.program import ProgramVector, answers_of
from kvmodel.question.vector import AccessVector, NxVector, Vector

EXAMPLES = """\
examples:
  kvmirror run --level 0 prog+read.a3+m0=t1.r-x-+invept1.r0+write.a3
  kvmirror run --level 18 --param 1 --program swap.prog
  kvmirror run --level 18 --param 1 --times 3 \\
      e4k.l1=rwx-.l2=rwxu.mt6.xb0.ub0.fetch.gpuwx.guuwx.pg64.cpl3.wp1.smep0.smap0.nxe1.ad0.mbec=off.xo1.ev0.env=std
"""


def add_parser(commands: Commands) -> None:
    """The function adds the command."""
    parser = commands.add_parser(
        "run",
        help="a few vectors at one level, the three voices side by side",
        description="Boots an emulated host, loads one level and asks the vectors named, again if told to.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_level(parser)
    parser.add_argument("--times", type=int, default=1, metavar="N", help="ask N times, modules loaded anew each time")
    parser.add_argument("--trace", action="store_true", help="KVM's tracepoints beside the mirror's, event by event")
    parser.add_argument("--json", action="store_true", help="one JSON object an answer, a line each")
    add_builds(parser)
    add_cpu(parser, several="asked one after the other")
    add_host(parser)
    parser.add_argument(
        "--program", action="append", default=[], metavar="FILE", help="a program, one step a line; may be given again"
    )
    parser.add_argument("ids", nargs="*", metavar="ID", help="a vector's id, a part's name, or @FILE")
    parser.set_defaults(run=run)


def _show(answer: Answer, as_json: bool, where: Mapping[str, Json]) -> None:
    contract = answer.contract
    if isinstance(contract, NotApplicable):
        allowed = [f"not applicable: {contract.rule}"]
    else:
        allowed = [f"{a.outcome} ({a.rule}, {stands(a.section)})" for a in contract or ()]
    marks = str(answer.verdict.marks).removeprefix("Mark.").lower()
    mirror = str(answer.predicted) if answer.predicted else "not asked"
    if as_json:
        row = {"vector": answer.vector.id, **where, "seen": str(answer.seen)}
        print(json.dumps(row | {"mirror": mirror, "contract": allowed, "verdict": marks}), flush=True)
        return
    print(answer.vector.id)
    if isinstance(answer.vector, ProgramVector) and answer.seen.turns:
        for line in _steps(answer.vector, answer):
            print(f"  {line}")
        print(f"  mirror    {mirror}")
        print(f"  verdict   {marks}", flush=True)
        return
    print(f"  seen      {answer.seen}")
    print(f"  mirror    {mirror}")
    for line in allowed:
        print(f"  contract  {line}")
    print(f"  verdict   {marks}", flush=True)


def _steps(program: ProgramVector, answer: Answer) -> Iterator[str]:
    """A program step by step, each answer behind its step, and what the manual allows where it departs."""
    left = iter(answer.seen.turns)
    contract = answer.contract
    departs, first = departing(contract, answer.seen) if isinstance(contract, tuple) else (-1, None)
    if Mark.FINDING not in answer.verdict.marks:
        departs = -1
    number = 0
    for made in program.steps:
        yield str(made)
        for _ in range(answers_of(made)):
            seen = next(left, None)
            yield f"    {seen or 'not reached: L1 died before it'}"
            if number == departs and first is not None:
                assert isinstance(contract, tuple)
                legal = dict.fromkeys(str(a.outcome.turn(number)) for a in contract)
                yield f"    DEPARTS: the manual has {', or '.join(legal)} ({first.rule}, {stands(first.section)})"
            number += 1


def _show_trace(load: Load, cpu: Cpu, one: Traced, told: Judged) -> None:
    print(f"{one.vector.id}\n  events    {told.events} in {told.exits} exits: {told.difference or 'as predicted'}")
    ours = cut.predicted(machine.events(load.level, load.param, cpu, one.vector))
    for sign, text in matching.beside(ours, one.exits):
        print(f"  {sign} {text}")
    for text in one.warns:
        print(f"  ! WARN {text}")


def _all_of(_: Load, vectors: list[Vector]) -> list[Vector]:
    return [v for v in vectors if isinstance(v, AccessVector | NxVector)]


def _asked(args: argparse.Namespace) -> list[Vector]:
    """The vectors and programs that the user names. Raises InputError where there is none."""
    vectors = [*selection.vector_list(args.ids), *map(selection.program_file, args.program)]
    if not vectors:
        raise InputError("run: nothing is asked; name a vector's id, a part, @FILE, or --program FILE")
    return vectors


def run(args: argparse.Namespace) -> int:
    """The command asks each CPU and prints; the exit code is 3 where a vector drifted, 1 where one is a finding."""
    chosen = chosen_cpus(args)
    worst = 0
    for model in chosen:
        if len(chosen) > 1 and not args.json:
            print(f"CPU {model}:", flush=True)
        worst = max(worst, _ask(args, Bench.of(args, model)))
    return worst


def _ask(args: argparse.Namespace, bench: Bench) -> int:
    """The same of one CPU."""
    level, setting = one_level(args, bench.series)
    vectors = _asked(args)
    if args.trace:
        want_mirror(bench.series, "--trace", "leave it out")
    works = list(plan(vectors, [level], [setting], bench.series.parameters))
    programs.interruptible()
    bench.build([level])
    bench.check_parameters(work.load for work in works)
    voices = Voices(bench.host_cpu, bench.mirrored)
    options = Options(traced=_all_of) if args.trace else Options()
    where: dict[str, Json] = {"level": level, "param": str(setting)}
    where |= {} if bench.lab else {"cpu": bench.model.name}
    marks = Mark(0)
    for cpu_mbec in sorted({v.machine.env.cpu_mbec for v in vectors}, reverse=True):
        with bench.open_host(cpu_mbec, "emulated host") as host:
            session = bench.open_session(host)
            for _ in range(args.times):
                for work in works:
                    if work.load.env.cpu_mbec is not cpu_mbec:
                        continue
                    done = ask(session, work, options, collapsing=False)
                    voices.listen(done)
                    for batch in done.batches.values():
                        for answer in voices.answers(done.load, batch.vectors, batch.seen, batch.told):
                            marks |= answer.verdict.marks
                            _show(answer, args.json, where)
                        if not args.json:
                            for one, judged in zip(batch.seen.traced, batch.told, strict=True):
                                _show_trace(done.load, bench.host_cpu(cpu_mbec), one, judged)
    return 3 if marks & (Mark.DRIFT | Mark.EVENT_DRIFT) else 1 if Mark.FINDING in marks else 0
