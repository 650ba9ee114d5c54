"""A run: every load asked on emulated hosts side by side, judged, and put into the journal cell by cell.

Workers own a host each and take shares from one queue, loads that go well together; the calling thread judges and
writes, since SQLite and the table have one writer. A host that dies takes its load's batch with it (blocked, with the
reason), and a new one is booted for the next load.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from harness.errors import HostError, KvmirrorError
from harness.hosts import Host
from harness.observe import Deadly, Seen, Session
from harness.process import programs as proc
from harness.questions import SAME_CODE, Load, Setting, Work, collapse, given_otherwise, parameters, settled
from harness.results import KVM_HOST, CellKey, Journal, Mark
from harness.run.judge import Voices
from harness.run.sample import huge_pages
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.vector import Machine, Vector

HOST_DEATHS: Final = 3  # a worker whose hosts die this often in a row gives up
START: Final = 600  # a start of QEMU takes as long as so many vectors
LONG: Final = 1.3  # a share of so many times the usual length comes first
HOST_CELL: Final = "host"  # the cell of what is asked of the host itself
SEAL: Final = "load"  # the cell that is written when all others of a load are


def machine_name(m: Machine) -> str:
    """A machine as the journal names it."""
    words = [m.env.name]
    words += ["mbec"] if m.mbec_offered else []
    words += [] if m.execonly_offered else ["noxo"]
    words += ["evmcs"] if m.evmcs_offered else []
    return "+".join(words)


@dataclass(slots=True)
class Part:
    """One machine's part of a load: asked and seen."""

    vectors: list[Vector]
    seen: Seen
    seconds: float


@dataclass(slots=True)
class Done:
    """A load that was asked: batches by cell name ("host" for the host's own), and what collapsed by rule."""

    load: Load
    batches: dict[str, Part] = field(default_factory=dict)
    collapsed: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Options:
    """How a run is made."""

    jobs: int = 2
    values_named: frozenset[tuple[int, Setting]] = frozenset()  # levels with the switches that the run gives by name
    twins: Mapping[int, int] = field(default_factory=dict)  # levels that are the machine code of a lower one
    deadly: Callable[[Load], Deadly | None] = lambda _: None  # which vectors are expected to kill L1, and their class
    offered: Callable[[Load], bool] = lambda _: True  # whether L1 is expected to be offered the control
    traced: Callable[[Load, list[Vector]], list[Vector]] = huge_pages  # which vectors' tracepoints are read


def _same_value(load: Load, session: Session, options: Options) -> bool:
    """Whether a load that leaves a parameter unset has a value that another load of its level names."""
    named = {setting for level, setting in options.values_named if level == load.level}
    for key in dict.fromkeys(key for one in named for key in one.values if key not in load.setting.values):
        value = session.value(key)
        if value is not None and value in parameters.SWITCH and load.setting.plus(key, value) in named:
            return True
    return False


def _expected(work: Work, options: Options) -> int:
    """How long a load is expected to take, in vectors: a guess for order and progress, nothing is left out by it."""
    load = work.load
    left = Work(load, work.host, dict(work.batches))
    collapse(left, same_value=given_otherwise(load, options.values_named), offered=options.offered(load))
    return left.size + START * len(left.batches)


def costs(works: Iterable[Work], options: Options) -> dict[Load, int]:
    """What each load is expected to take, for the progress: what the rules leave out takes nothing."""
    return {w.load: _expected(settled(w, options.values_named, options.twins)[0], options) for w in works}


def shares(works: Iterable[Work], options: Options) -> list[list[Work]]:
    """What one host asks in a row, in the order in which the shares are taken.

    A level with one value of the parameter is one host's, and a CPU without MBEC is one more boot; where that makes too
    few shares for all hosts, the environments go apart. What is far longer than the others comes first, so that no host
    is left alone with it at the end; the others come level by level, as the table shows them.
    """
    works = list(works)
    for depth in (3, 4):
        parts: dict[tuple[object, ...], list[Work]] = {}
        for work in works:
            load = work.load
            mbec = load.env.cpu_mbec
            level = load.level if mbec else -1
            key = (mbec, level, load.setting if mbec or depth > 3 else None, load.env.name)[:depth]
            parts.setdefault(key, []).append(work)
        if len(parts) >= 2 * options.jobs:
            break
    sizes = {key: sum(_expected(work, options) for work in part) for key, part in parts.items()}
    far = LONG * sum(sizes.values()) / max(1, len(sizes))
    return [parts[key] for key in sorted(parts, key=lambda key: -sizes[key] if sizes[key] > far else 0)]


def _blocked(vectors: Iterable[Vector], why: str) -> list[Outcome]:
    return [Outcome(Kind.BLOCKED, note=why) for _ in vectors]


def ask(session: Session, work: Work, options: Options, *, collapsing: bool = True) -> Done:
    """Ask a load's vectors; with ``collapsing`` what the rules leave out is counted instead."""
    done = Done(work.load)
    work = Work(work.load, work.host, dict(work.batches))  # collapsed here, and whole again where it is asked twice
    begun = time.monotonic()
    session.load(work.load)
    if collapsing:
        same = _same_value(work.load, session, options)
        done.collapsed = collapse(work, same_value=same, offered=session.mbec_offered)
    blocked = session.l1_can_run() if work.batches else None
    if work.host:
        outcomes = session.ask_host(work.host)
        facts = {"parameter": session.parameter, "mbec_offered": session.mbec_offered}
        done.batches[HOST_CELL] = Part(list(work.host), Seen(outcomes, None, facts), time.monotonic() - begun)
    for guest_machine, vectors in work.batches.items():
        name = machine_name(guest_machine)
        begun = time.monotonic()
        if blocked is not None:
            seen = Seen([blocked] * len(vectors))
        else:
            seen = session.ask_l1(guest_machine, vectors, options.deadly(work.load), options.traced(work.load, vectors))
        done.batches[name] = Part(vectors, seen, time.monotonic() - begun)
    return done


class Worker(threading.Thread):
    """One host at a time, and the shares it takes from the queue."""

    def __init__(
        self,
        name: str,
        todo: queue.SimpleQueue[list[Work]],
        results: queue.SimpleQueue[Done | BaseException],
        open_host: Callable[[bool, str], Host],
        open_session: Callable[[Host], Session],
        options: Options,
        programs: proc.Group,
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._programs = programs
        self._todo = todo
        self._results = results
        self._open_host = open_host
        self._open_session = open_session
        self._options = options
        self.stopping = threading.Event()

    def run(self) -> None:
        """Until the queue is empty, a failure that is not one host's, or ``stopping``."""
        try:
            with self._programs.mine():
                self._work()
        except BaseException as error:
            self._results.put(error)

    def _work(self) -> None:
        deaths = 0
        share: list[Work] = []
        while not self.stopping.is_set() and (share or self._more(share)):
            cpu_mbec = share[0].load.env.cpu_mbec
            try:
                with self._open_host(cpu_mbec, self.name) as host:
                    session = self._open_session(host)
                    while share and share[0].load.env.cpu_mbec is cpu_mbec:
                        self._results.put(ask(session, share[0], self._options))
                        deaths = 0
                        del share[0]
                        if self.stopping.is_set() or not (share or self._more(share)):
                            return
            except HostError as error:
                deaths += 1
                if deaths >= HOST_DEATHS:
                    raise
                if deaths > 1:
                    self._results.put(_lost(share.pop(0), str(error)))

    def _more(self, share: list[Work]) -> bool:
        """Add the next share from the queue; whether there was one."""
        try:
            share += self._todo.get_nowait()
        except queue.Empty:
            return False
        return True


def _lost(work: Work, why: str) -> Done:
    """A load whose host died twice: every vector blocked, with what the host said."""
    why = why.splitlines()[0]
    done = Done(work.load)
    if work.host:
        done.batches[HOST_CELL] = Part(list(work.host), Seen(_blocked(work.host, why)), 0.0)
    for guest_machine, vectors in work.batches.items():
        done.batches[machine_name(guest_machine)] = Part(vectors, Seen(_blocked(vectors, why)), 0.0)
    return done


class _Book:
    """Puts loads into the journal, each with what it takes over from the level whose machine code it is."""

    def __init__(
        self, journal: Journal, run: int, options: Options, voices: Voices, progress: Callable[[Done], None]
    ) -> None:
        self._journal, self._run, self._voices, self._progress = journal, run, voices, progress
        self._twins = options.twins
        self._kept: dict[Load, Done] = {}  # of levels that others are the machine code of
        self._waiting: list[Done] = []

    def enter(self, done: Done) -> None:
        """Record a load, and whatever waited for it; one that comes before its twin's waits."""
        if done.load.level in self._twins.values():
            self._kept[done.load] = done
        self._waiting.append(done)
        for one in list(self._waiting):
            twin = self._twins.get(one.load.level)
            if twin is None:
                taken: dict[str, Part] = {}
            elif (source := self._kept.get(replace(one.load, level=twin))) is not None:
                taken = _take_over(one, source)
            else:
                continue
            self._waiting.remove(one)
            _record(self._journal, self._run, self._voices, one, taken)
            self._progress(one)


def _take_over(done: Done, source: Done) -> dict[str, Part]:
    """The answers of ``source`` to what ``done`` did not ask, by cell name; ``done`` counts them."""
    taken = {}
    for name, batch in source.batches.items():
        asked = {v.id for v in done.batches[name].vectors} if name in done.batches else set()
        rest = [(v, seen) for v, seen in zip(batch.vectors, batch.seen.outcomes, strict=True) if v.id not in asked]
        if rest:
            taken[name] = Part([v for v, _ in rest], Seen([seen for _, seen in rest], batch.seen.cpu), 0.0)
    done.collapsed = source.collapsed | {SAME_CODE: sum(len(batch.vectors) for batch in taken.values())}
    return taken


def execute(
    works: list[Work],
    journal: Journal,
    run: int,
    *,
    options: Options,
    voices: Voices,
    open_host: Callable[[bool, str], Host],
    open_session: Callable[[Host], Session],
    progress: Callable[[Done], None],
) -> None:
    """Ask every work and record it. KeyboardInterrupt and failures stop the hosts before they are raised."""
    book = _Book(journal, run, options, voices, progress)
    left: dict[Load, dict[str, int]] = {}  # what rules left out beforehand
    asked = []
    for work in works:
        rest, by_rule = settled(work, options.values_named, options.twins)
        if rest.size:
            asked.append(rest)
            left[work.load] = by_rule
        else:
            book.enter(Done(work.load, collapsed=by_rule))
    todo: queue.SimpleQueue[list[Work]] = queue.SimpleQueue()
    parts = shares(asked, options)
    for part in parts:
        todo.put(part)
    results: queue.SimpleQueue[Done | BaseException] = queue.SimpleQueue()
    programs = proc.Group()
    workers = [
        Worker(f"host {n + 1}", todo, results, open_host, open_session, options, programs)
        for n in range(min(options.jobs, len(parts)))
    ]
    for worker in workers:
        worker.start()
    try:
        while left:
            try:
                done = results.get(timeout=0.5)
            except queue.Empty:
                if not any(w.is_alive() for w in workers) and results.empty():
                    raise HostError(f"the hosts stopped with {len(left)} loads not asked") from None
                continue
            if isinstance(done, BaseException):
                if isinstance(done, KvmirrorError):
                    raise done
                raise RuntimeError("a worker failed") from done
            for rule, count in left.pop(done.load).items():
                done.collapsed[rule] = done.collapsed.get(rule, 0) + count
            book.enter(done)
    except BaseException:
        for worker in workers:
            worker.stopping.set()
        programs.cancel()  # a worker waits on its host, perhaps for minutes: without the host it waits no longer
        raise
    finally:
        for worker in workers:
            worker.stopping.set()
        for worker in workers:
            worker.join(timeout=30)


def finished(cells: Iterable[CellKey]) -> set[tuple[int, str, str]]:
    """The loads of which every cell is there: level, parameter, environment."""
    return {
        (key.level, key.param, key.machine.removesuffix(f":{SEAL}"))
        for key in cells
        if key.machine.endswith(f":{SEAL}")
    }


def _record(journal: Journal, run: int, voices: Voices, done: Done, taken: dict[str, Part]) -> None:
    load = done.load
    nothing = Part([], Seen([]), 0.0)

    def key(machine: str) -> CellKey:
        return CellKey(load.level, str(load.setting), KVM_HOST, machine)

    for name in done.batches | taken:
        batch = done.batches.get(name, nothing)
        told = voices.judge_events(load, batch.seen)
        facts = dict(batch.seen.facts) | ({"events": [one.as_json() for one in told]} if told else {})
        answers = voices.answers(load, batch.vectors, batch.seen, told)
        if (others := taken.get(name)) is not None:
            answers += [
                replace(answer, verdict=replace(answer.verdict, marks=answer.verdict.marks | Mark.TAKEN))
                for answer in voices.answers(load, others.vectors, others.seen)
            ]
        journal.record(
            run, key(f"{load.env.name}:{name}" if name == HOST_CELL else name), answers, batch.seconds, facts
        )
    journal.record(run, key(f"{load.env.name}:{SEAL}"), [], 0.0, {"collapsed": done.collapsed})
