"""A run: every load asked on hosts side by side, judged, and put into the journal cell by cell.

Workers own a host each and take shares from one queue; the calling thread judges and writes, since SQLite and the table
have one writer. What a host was asking when it died goes back to the queue, for the host that is free first. What two
hosts died of is blocked, with the reason. A worker whose hosts die in a row gives up and leaves the rest to the others.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from harness.errors import HostError, KvmirrorError
from harness.hosts import Host
from harness.observe import Deadly, Seen, Session
from harness.process import PROGRESS
from harness.process import programs as proc
from harness.questions import SAME_CODE, Load, Setting, Work, collapse, given_otherwise, parameters, settled
from harness.results import KVM_HOST, CellKey, Journal, Mark
from harness.run.done import HOST_CELL, SEAL, Done, Part, machine_name, merged, questions
from harness.run.judge import Voices
from harness.run.sample import huge_pages
from harness.run.shards import START, Share, shares
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.vector import Vector

HOST_DEATHS: Final = 3  # a worker whose hosts die this often in a row gives up
DEADLY: Final = 2  # what so many hosts died of is asked no more
IDLE: Final = 0.3  # seconds between two looks for something to do


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


def expected(work: Work, options: Options) -> int:
    """How long a load is expected to take, in vectors: a guess for order and progress, nothing is left out by it."""
    load = work.load
    left = Work(load, work.host, dict(work.batches))
    collapse(left, same_value=given_otherwise(load, options.values_named), offered=options.offered(load))
    return left.size + START * len(left.batches)


def costs(works: Iterable[Work], options: Options) -> dict[Load, int]:
    """What each load is expected to take, for the progress: what the rules leave out takes nothing."""
    return {w.load: expected(settled(w, options.values_named, options.twins)[0], options) for w in works}


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


class Queue:
    """The shares that no host has yet."""

    def __init__(self, shares: Iterable[Share]) -> None:
        self._shares = deque(shares)
        self._deaths: list[Work] = []  # what a host was asking when it died, once for each
        self._lock = threading.Lock()

    def take(self) -> Share | None:
        """The next share; None where there is none now."""
        with self._lock:
            return self._shares.popleft() if self._shares else None

    def give_back(self, share: Share) -> None:
        """What a host that died has left goes in front."""
        if share:
            with self._lock:
                self._shares.appendleft(share)

    def deaths(self, work: Work) -> int:
        """How many hosts have died of ``work``, one more having done so now."""
        with self._lock:
            self._deaths.append(work)
            return sum(one is work for one in self._deaths)


class Worker(threading.Thread):
    """One host at a time, and the shares it takes from the queue.

    A worker without a share waits: the host of another may still die.
    """

    def __init__(
        self,
        name: str,
        todo: Queue,
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
        self._failures = 0  # hosts in a row that did not start, or died before they answered anything
        self.stopping = threading.Event()
        self.gave_up: HostError | None = None

    def run(self) -> None:
        """Until ``stopping``, a failure that is not one host's, or HOST_DEATHS in a row."""
        try:
            with self._programs.mine():
                self._work()
        except BaseException as error:
            self._results.put(error)

    def _work(self) -> None:
        while not self.stopping.is_set():
            share = self._todo.take()
            if share is None:
                self.stopping.wait(IDLE)
                continue
            cpu_mbec = share[0].load.env.cpu_mbec
            if self._failures:  # whether there will be a host is not sure: another may have the share meanwhile
                self._todo.give_back(share)
                share = []
            try:
                self._ask_shares(cpu_mbec, share)
            except HostError as error:
                self._failures += 1
                self._todo.give_back(share)
                if self._failures >= HOST_DEATHS:
                    self.gave_up = error
                    PROGRESS.say(f"{self.name} is given up: {str(error).splitlines()[0]}")
                    return

    def _ask_shares(self, cpu_mbec: bool, share: Share) -> None:
        """Ask ``share`` and those that follow for the same CPU on one host; what stays in it was not answered."""
        with self._open_host(cpu_mbec, self.name) as host:
            session = self._open_session(host)
            while not self.stopping.is_set():
                if not share:
                    share += self._more(cpu_mbec)
                if not share:
                    return
                self._ask_first(session, share)

    def _ask_first(self, session: Session, share: Share) -> None:
        work = share[0]
        try:
            self._results.put(ask(session, work, self._options))
        except HostError as error:
            if self._todo.deaths(work) >= DEADLY:
                self._results.put(_lost(work, str(error)))
                del share[0]
            raise
        del share[0]
        self._failures = 0

    def _more(self, cpu_mbec: bool) -> Share:
        """The next share for the CPU that is there; empty where the next is for another, or there is none."""
        share = self._todo.take()
        if share is None or share[0].load.env.cpu_mbec is cpu_mbec:
            return share or []
        self._todo.give_back(share)
        return []


def _lost(work: Work, why: str) -> Done:
    """A load that hosts died of: every vector blocked, with what the last of them said."""
    why = why.splitlines()[0]
    return Done(
        work.load,
        {name: Part(asked, Seen(_blocked(asked, why)), 0.0) for name, asked in questions(work).items()},
    )


class _Gathered:
    """Collects the shards of each load; a load is whole when all of them are in."""

    def __init__(self, works: Iterable[Work], parts: Iterable[Share]) -> None:
        self._whole = {work.load: work for work in works}
        self._awaited: dict[Load, int] = {}
        for part in parts:
            for piece in part:
                self._awaited[piece.load] = self._awaited.get(piece.load, 0) + 1
        self._there: dict[Load, list[Done]] = {}

    def take(self, done: Done) -> Done | None:
        """The whole load where ``done`` was the last of it, else None."""
        there = self._there.setdefault(done.load, [])
        there.append(done)
        self._awaited[done.load] -= 1
        if self._awaited[done.load]:
            return None
        return merged(self._whole[done.load], self._there.pop(done.load))


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
    parts = shares(asked, options.jobs, lambda work: expected(work, options), options.deadly)
    gathered = _Gathered(asked, parts)
    todo = Queue(parts)
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
                    raise _stopped(workers, len(left)) from None
                continue
            if isinstance(done, BaseException):
                if isinstance(done, KvmirrorError):
                    raise done
                raise RuntimeError("a worker failed") from done
            voices.listen(done)
            if (whole := gathered.take(done)) is not None:
                for rule, count in left.pop(whole.load).items():
                    whole.collapsed[rule] = whole.collapsed.get(rule, 0) + count
                book.enter(whole)
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


def _stopped(workers: Iterable[Worker], left: int) -> HostError:
    """Why no worker is left: what the last host of one of them said."""
    said = [str(worker.gave_up) for worker in workers if worker.gave_up is not None]
    return HostError(f"the hosts stopped with {left} loads not asked: {said[-1] if said else 'no host says why'}")


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
        facts = dict(batch.seen.facts)
        if batch.told:
            facts["events"] = [one.as_json() for one in batch.told]
        answers = voices.answers(load, batch.vectors, batch.seen, batch.told)
        if (others := taken.get(name)) is not None:
            answers += [
                replace(answer, verdict=replace(answer.verdict, marks=answer.verdict.marks | Mark.TAKEN))
                for answer in voices.answers(load, others.vectors, others.seen)
            ]
        journal.record(
            run, key(f"{load.env.name}:{name}" if name == HOST_CELL else name), answers, batch.seconds, facts
        )
    journal.record(run, key(f"{load.env.name}:{SEAL}"), [], 0.0, {"collapsed": done.collapsed})
