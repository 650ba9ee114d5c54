"""``kvmirror validate``: the main job. Builds what is missing, asks every level, prints the table and the summary."""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import sys
import time
from pathlib import Path

from harness.cli.commands import Commands
from harness.cli.common import (
    PARAMS_HELP,
    add_builds,
    add_cpu,
    add_host,
    add_journal,
    add_new,
    add_vectors,
    chosen_cpus,
    want_mirror,
)
from harness.cli.summary import Summary
from harness.errors import InputError
from harness.findings import Run, finding_json
from harness.hosts import Model
from harness.observe import arguments, bare, module_options
from harness.process import PROGRESS, programs
from harness.protocol import L1_MEMORY
from harness.questions import Work, left_out_by, paired, parameters, plan, selection, twins
from harness.recording import PROVENANCE, of_run, write
from harness.report import facts
from harness.results import Journal, PartAsked, RunSeries, cpus, of_series, parts, rows
from harness.run import (
    Bench,
    Done,
    Earlier,
    Options,
    Voices,
    costs,
    execute,
    finished,
    huge_pages,
    machine_name,
    minimise_on_hosts,
)
from harness.run import bare as silicon
from kvmodel.question.ids import short
from kvmodel.question.vector import Environment, Vector

JOBS = 2  # emulated hosts side by side where nobody says how many
MERGING_FROM = 1000  # vectors; where fewer are named, each is asked where it is named
SELECTING = ("levels", "param", "vectors", "no_mirror", "every_level", "fresh", "cpu")  # the options that select

EXAMPLES = """\
examples:
  kvmirror validate --levels 0,11,18 --vectors thin
  kvmirror validate --levels 15-18 --param 1 --vectors permissions_4k --json >run.json
  kvmirror validate --levels 18 --cpu skylake-x,sapphire-rapids
  kvmirror validate --resume
"""


def add_parser(commands: Commands) -> None:
    """The function adds the command."""
    parser = commands.add_parser(
        "validate",
        help="ask every level and judge the answers",
        description="Builds what is missing, boots emulated Intel hosts, asks the vectors at every level and "
        "parameter value, judges the answers and prints a row a (level, parameter).",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--levels", default="all", help="as in 0,11,16-18 (default: all)")
    parser.add_argument("--param", default="all", help=PARAMS_HELP)
    add_vectors(parser)
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="hosts side by side (default 2 emulated ones, or all of --host's)"
    )
    parser.add_argument("--bare", action="store_true", help="no KVM: the CPU itself against the manual (errata)")
    parser.add_argument(
        "--every-level",
        action="store_true",
        help="ask every level in full, also one whose modules are a lower level's machine code (default: a spread)",
    )
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="ask all, also what an earlier run of the journal answered where kernel, modules, emulator and all else "
        "that the answer rests on were the same (default: take it, and ask a sample again)",
    )
    parser.add_argument("--no-mirror", action="store_true", help="contract and observation only")
    parser.add_argument(
        "--trace",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="hold KVM's tracepoints of a sample of every batch against the mirror's, event by event (default: off)",
    )
    parser.add_argument(
        "--minimise",
        action="store_true",
        help="afterwards make each finding's vector smaller on a host and run it alone three times",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with the latest run where it was interrupted, as it was asked"
    )
    add_new(parser)
    parser.add_argument(
        "--record", type=Path, metavar="FILE", help="write a recording of the run, as 'kvmirror record'"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a run, a line each")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the commands and how many vectors each asks, run nothing"
    )
    add_builds(parser)
    add_cpu(parser, several="a run each")
    add_host(parser)
    add_journal(parser)
    parser.set_defaults(run=run)


def _works(args: argparse.Namespace, bench: Bench) -> tuple[list[Work], Options, Voices]:
    if args.jobs is not None and args.jobs < 1:
        raise InputError(f"--jobs {args.jobs}: at least one host is needed; give 1 or more")
    series = bench.series
    levels = selection.levels(args.levels, series.last)
    settings = parameters.chosen(args.param, series.parameters)
    if args.param == parameters.ALL and parameters.too_many(series.parameters):
        print(
            f"the series adds {len(series.parameters)} parameters: all their combinations are more than "
            f"{parameters.MOST} loads a level, so one parameter is set at a time; --param names combinations",
            file=sys.stderr,
        )
    works = list(plan(selection.vector_list(args.vectors), levels, settings, series.parameters))
    jobs = args.jobs or JOBS
    if bench.lab is not None:
        jobs = bench.lab.want(args.jobs)
        if left_out := [w for w in works if not w.load.env.cpu_mbec]:
            works = [w for w in works if w.load.env.cpu_mbec]
            print(
                f"{sum(w.size for w in left_out)} vectors want a CPU without MBEC: only the emulated host has one",
                file=sys.stderr,
            )
    switches = parameters.switches(settings, series.parameters)
    named = frozenset((w.load.level, w.load.setting) for w in works if w.load.setting in switches)
    voices = Voices(bench.host_cpu, not args.no_mirror)
    options = Options(jobs=jobs, values_named=named, deadly=voices.deadly, offered=voices.offered)
    options.traced = voices.to_trace if args.trace else huge_pages
    return works, options, voices


def unfinished(works: list[Work], journal: Journal, run_number: int) -> list[Work]:
    """These works are the ones that the run was interrupted before or in."""
    there = finished(journal.cells(run_number))
    return [w for w in works if (w.load.level, str(w.load.setting), w.load.env.name) not in there]


def _untouched(pairs: dict[int, int], everything: list[Work], works: list[Work]) -> dict[int, int]:
    """Of ``plan.twins`` those whose lower level is still to be asked whole: what it answered before an interruption
    is in the journal only."""
    left = {w.load for w in works}
    begun = {w.load.level for w in everything if w.load not in left}
    return {level: twin for level, twin in pairs.items() if twin not in begun}


def resumed(args: argparse.Namespace, journal: Journal) -> argparse.Namespace:
    """The options of the latest run in place of those of this command line; InputError where it cannot go on."""
    info = journal.run_info(journal.latest())
    asked = info.provenance.get(of_series.ASKED)
    if asked is None:
        raise InputError(f"run {info.id} cannot be resumed: it is of the bare CPU, or of another kvmirror; start anew")
    if PROVENANCE in info.provenance:
        raise InputError(f"run {info.id} cannot be resumed: it was replayed from a recording; start anew")
    return argparse.Namespace(**vars(args) | asked)


def _same_series(named: RunSeries, journal: Journal) -> None:
    """InputError where the run to go on with is of another series than the one that is named."""
    run = journal.latest()
    if (was := of_series.of_run(journal.provenance(run))) != named:
        raise InputError(
            f"run {run} is of another series ({was.last} patches): go on with "
            f"'kvmirror validate{was.options} --resume', or start anew"
        )


def _planned(names: list[str], works: list[Work], voices: Voices) -> list[PartAsked]:
    """What of each part will be asked, as far as the mirror says what L1 is offered (without one: all of it)."""
    offered: dict[Environment, bool] = {}
    for work in works:
        offered[work.load.env] = offered.get(work.load.env, False) or voices.offered(work.load)

    def reason(vector: Vector) -> str | None:
        env = vector.machine.env.host
        if env not in offered:
            return parts.CPU0
        return None if offered[env] else left_out_by(vector)

    return parts.count(names, reason)


def _dry(works: list[Work], planned: list[PartAsked], bench: Bench) -> int:
    """The loads, each with the commands that would run on its host, and what will be asked of each part."""
    cpu_mbec: bool | None = None
    for work in works:
        if work.load.env.cpu_mbec is not cpu_mbec:
            cpu_mbec = work.load.env.cpu_mbec
            print("\n".join(bench.start_commands(cpu_mbec)))
        asked = [f"host {len(work.host)}"] if work.host else []
        asked += [f"{machine_name(m)} {len(v)}" for m, v in work.batches.items()]
        print(f"{work.load}: {', '.join(asked)}")
        words = module_options(work.load.setting, work.load.env)
        print(f"  insmod kvm.ko {words.kvm}\n  insmod kvm-intel.ko {words.kvm_intel}")
        for machine in work.batches:
            argv = arguments(machine, kernel="probe.elf", memory=L1_MEMORY, serial="l1-serial", board=bench.board)
            print(f"  {shlex.join(argv)}")
    print(f"{len(works)} loads, {sum(w.size for w in works)} vectors before collapse rules")
    for part in planned:
        print(part)
    return 0


class Table:
    """The live table: a line when the last load of a (level, parameter) is in, and every line above it stands.

    What a patch changed is counted against the level below: that one must be in. Loads on a CPU without MBEC run on a
    host of their own, at their own time: no line waits for them, and the summary has them.
    """

    def __init__(
        self, works: list[Work], journal: Journal, run_number: int, *, quiet: bool, mirrored: bool = True
    ) -> None:
        self._mirrored = mirrored
        self._left: dict[tuple[int, str], int] = {}
        for work in works:
            if work.load.env.cpu_mbec:
                key = (work.load.level, str(work.load.setting))
                self._left[key] = self._left.get(key, 0) + 1
        self._journal, self._run = journal, run_number
        self._out = sys.stderr if quiet else sys.stdout
        self._width = max([rows.PARAM_WIDTH, *(len(text) for _, text in self._left)])
        print(rows.table_head(self._width), file=self._out, flush=True)

    def done(self, done: Done) -> None:
        """A load is taken in."""
        if not done.load.env.cpu_mbec:
            return
        key = (done.load.level, str(done.load.setting))
        self._left[key] -= 1
        while self._left and not self._left[key := next(iter(self._left))]:
            del self._left[key]
            row = rows.row(self._journal, self._run, *key, self._journal.cells(self._run))
            with PROGRESS.paused():
                print(rows.table_line(row, self._width, mirrored=self._mirrored), file=self._out, flush=True)


def run(args: argparse.Namespace) -> int:
    """The command makes a run for each CPU; its exit code goes by precedence drift, findings, nothing."""
    if args.resume:
        with Journal(args.journal) as journal:
            args = resumed(args, journal)
    left = chosen_cpus(args)
    worst, several = 0, len(left) > 1
    if several and args.record:
        raise InputError(
            f"--record {args.record}: a recording is of one run, and {len(left)} CPUs are as many; name one"
        )
    while left:
        if several and not args.json:
            print(f"CPU {left[0]}:", flush=True)
        # What is left is what a resumed run of this CPU goes on to.
        asked = {"cpu": args.cpu and ",".join(map(str, left))}
        worst = max(worst, _run(argparse.Namespace(**vars(args) | asked), left.pop(0)))
        args.resume = False
    return worst


def _run(args: argparse.Namespace, model: Model) -> int:
    """The whole run on one CPU; its exit code."""
    bench = Bench.of(args, model)
    if args.resume:
        with Journal(args.journal) as journal:
            _same_series(bench.run_series, journal)
    if not (args.no_mirror or args.bare):
        want_mirror(bench.series, "validate", "add --no-mirror, for contract and observation")
    works, options, voices = _works(args, bench)
    if args.dry_run:
        # no host is there to say what its CPU has: what would be asked of a CPU that has all of it
        return _dry(works, _planned(args.vectors, works, Voices(cpus.emulated, bench.mirrored)), bench)
    programs.interruptible()
    if args.bare:
        return _bare(args, bench)
    with Journal(args.journal) as journal:
        levels = sorted({w.load.level for w in works})
        bench.build(levels)
        bench.check_parameters(w.load for w in works)
        everything = works
        if args.resume:
            run_number = journal.latest()
            works = unfinished(works, journal, run_number)
        else:
            asked = {name: getattr(args, name) for name in SELECTING}
            made = bench.provenance() | {"host": platform.platform(), of_series.ASKED: asked, parts.NAMED: args.vectors}
            run_number = journal.begin(sys.argv, made)
        if not args.every_level and sum(w.size for w in works) >= MERGING_FROM:
            options.twins = _untouched(paired(twins(levels, bench.code), everything), everything, works)
        _take_earlier(options, works, journal, run_number, bench, args.fresh)
        table = Table(works, journal, run_number, quiet=args.json, mirrored=not args.no_mirror)
        began = time.monotonic()
        status = "interrupted"
        try:
            expected = costs(works, options)
            with PROGRESS.task("vectors", total=sum(expected.values())) as task:

                def progress(done: Done) -> None:
                    task.advance(expected[done.load])
                    table.done(done)

                execute(
                    works,
                    journal,
                    run_number,
                    options=options,
                    voices=voices,
                    open_host=bench.open_host,
                    open_session=bench.open_session,
                    progress=progress,
                    replace=bench.replace_host,
                )
            status = "complete"
            journal.amend(run_number, {"patches": bench.patches(compared=True), "modules": bench.fingerprints()})
        except KeyboardInterrupt:
            programs.end_all()
            raise
        except BaseException:
            status = "failed"
            raise
        finally:
            journal.amend(run_number, {"cpus": bench.cpus} | bench.machines)
            journal.end(run_number, status)
        seconds = time.monotonic() - began
        if args.minimise:
            bench.release()
            with PROGRESS.paused():
                found = Run.open(journal, run_number).findings
                minimise_on_hosts.minimise_all(
                    journal, run_number, found, bench, lambda text: print(text, file=sys.stderr)
                )
        asked_run = Run.open(journal, run_number)
        _record(asked_run, args)
        return _close(asked_run, args, seconds)


def _take_earlier(
    options: Options, works: list[Work], journal: Journal, run_number: int, bench: Bench, fresh: bool
) -> None:
    """Let the run take what earlier ones answered, unless it asks afresh; say why where it cannot."""
    if (basis := bench.basis()) is None:
        return
    options.basis = basis.text
    if fresh:
        return
    earlier = Earlier(journal, run_number, basis.text)
    with PROGRESS.task("earlier answers"):
        options.known = earlier.known(works)
    for named, levels in earlier.otherwise(w for w in works if w.load not in options.known).items():
        one = len(levels) == 1
        asked = f"{'level' if one else 'levels'} {facts.ranges(levels)} {'is' if one else 'are'} asked anew"
        PROGRESS.say(f"{asked}: since the last run there is another {', '.join(named)}")


def _bare(args: argparse.Namespace, bench: Bench) -> int:
    """The silicon voice: the probe on the bare CPU, judged by the contract alone."""
    if args.minimise:
        raise InputError("--minimise asks KVM again, and --bare asks none: leave one out")
    vectors = [v for v in selection.vector_list(args.vectors) if bare.askable(v)]
    bench.build_bare()
    with Journal(args.journal) as journal:
        made = bench.provenance() | {"host": platform.platform(), parts.NAMED: args.vectors}
        run_number = journal.begin(sys.argv, made)
        with PROGRESS.task("bare CPU"):
            cell = silicon.ask(bench.bochs, bench.probe, bench.model, vectors)
        journal.record(run_number, silicon.KEY, cell.answers, cell.seconds, cell.facts)
        journal.end(run_number, "complete")
        asked = Run.open(journal, run_number, bare=True)
        _record(asked, args)
        found = asked.findings
        if args.json:
            print(json.dumps(asked.as_json()))
        else:
            print(
                f"{len(cell.answers)} vectors on the bare CPU {bench.model} in {cell.seconds:.1f} s, its boot included "
                f"({cell.rate:.0f} a second): {len(found) or 'no'} departures from the manual"
            )
            print("".join(f"{line}\n" for line in parts.lines(asked.parts)), end="")
            for f in found:
                smallest = f.smallest
                print(f"{f.origin}: {f.title}, {len(f.vectors)} vectors")
                print(f"     {short(smallest.vector.id)}: seen {smallest.seen}, allowed {smallest.allowed}")
            print(f"run {run_number} in {journal.path}")
        # Errata are the host's: they do not change the exit code.
        return 0


def _record(asked: Run, args: argparse.Namespace) -> None:
    """The function writes the recording of the run, where one is wanted."""
    if args.record:
        size = write(of_run(asked), args.record)
        print(f"wrote {args.record} ({size:,} bytes)", file=sys.stderr)


def _close(asked: Run, args: argparse.Namespace, seconds: float) -> int:
    """The summary and the exit code."""
    done = Summary.of(asked, args.new)
    if args.json:
        body = asked.as_json()
        if args.new:
            body["findings"] = [finding_json(f) for f in done.findings]
            body["totals"] = asked.totals_json() | {"findings": done.total.findings}
            body["findings_of_base"] = len(asked.findings) - len(done.findings)
        print(json.dumps(body))
    else:
        print("\n" + "\n".join(done.lines(seconds)))
        hint = f"; 'kvmirror explain {done.findings[0].name}' explains a finding" if done.findings else ""
        print(f"run {asked.number} in {asked.journal.path}{hint}")
    return done.code
