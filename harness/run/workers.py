"""A run: every load asked on hosts side by side, judged, and put into the journal cell by cell.

Workers own a host each and take shares from one queue; the calling thread judges and writes, since SQLite and the table
have one writer. What a host was asking when it died goes back to the queue, for the host that is free first. What two
hosts died of is halved until the vector is alone of which they die. Before that an L1 is started there with nothing
to do: a host that dies of this, or of the load itself, does not die of vectors. Where the machine has answered before
it is the load, which is blocked; where it never did, the load waits for another, and it is the machine. A worker whose
hosts die in a row goes on with another machine where there is one; else it gives up and leaves the rest to the others.
What earlier runs answered is not asked, and a load of which that is all needs no host.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from harness.errors import GuestError, HostError, KvmirrorError
from harness.hosts import Host
from harness.observe import TROUBLE, Deadly, Seen, Session, spared_beside, spared_outcome, traced_beside
from harness.process import PROGRESS
from harness.process import programs as proc
from harness.questions import Load, Setting, Work, collapse, given_otherwise, parameters, settled
from harness.results import Journal
from harness.run.book import Book, Rests
from harness.run.done import HOST_CELL, Done, LoadFacts, Part, machine_name, merged
from harness.run.earlier import NOTHING, Answering, KnownCell, KnownLoad, Remembered, ToAsk, samples
from harness.run.judge import Voices
from harness.run.sample import huge_pages
from harness.run.shards import CALL, START, Share, halves, shares
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.program import ProgramVector
from kvmodel.question.vector import Machine, OnHost, Vector

HOST_DEATHS: Final = 3  # a worker whose hosts die this often in a row gives up
DEADLY: Final = 2  # what so many hosts died of is halved, and each half asked alone
SPLITS: Final = 48  # so often in a run: what hosts die of after that is asked no more
LEAVE: Final = 1300  # seconds that a worker has to leave its machine as it was, which may take a boot of it
IDLE: Final = 0.3  # seconds between two looks for something to do


@dataclass(slots=True)
class Options:
    """The options say how a run is made."""

    jobs: int = 2
    values_named: frozenset[tuple[int, Setting]] = frozenset()  # levels with the switches that the run gives by name
    twins: Mapping[int, int] = field(default_factory=dict)  # levels that are the machine code of a lower one
    deadly: Callable[[Load], Deadly | None] = lambda _: None  # which vectors are expected to kill L1, and their class
    offered: Callable[[Load], bool] = lambda _: True  # whether L1 is expected to be offered the control
    traced: Callable[[Load, list[Vector]], list[Vector]] = huge_pages  # which vectors' tracepoints are read
    known: Mapping[Load, KnownLoad] = field(default_factory=dict)  # what earlier runs answered
    basis: Rests = lambda *_: None  # what answers rest on


def _named(load: Load, options: Options) -> set[Setting]:
    return {setting for level, setting in options.values_named if level == load.level}


def _values(load: Load, session: Answering, options: Options) -> dict[parameters.Key, str | None]:
    """The parameters that a load leaves unset and other loads of its level name, as the session has them."""
    keys = dict.fromkeys(key for one in _named(load, options) for key in one.values if key not in load.setting.values)
    return {key: session.value(key) for key in keys}


def _same_value(load: Load, values: Mapping[parameters.Key, str | None], options: Options) -> bool:
    """Whether a load that leaves a parameter unset has a value that another load of its level names."""
    named = _named(load, options)
    known = [(key, value) for key, value in values.items() if value is not None and value in parameters.SWITCH]
    return any(load.setting.plus(key, value) in named for key, value in known)


def expected(work: Work, options: Options) -> int:
    """How long a load is expected to take, in vectors: a guess for order and progress, nothing is left out by it."""
    load = work.load
    left = Work(load, work.host, dict(work.batches))
    collapse(left, same_value=given_otherwise(load, options.values_named), offered=options.offered(load))
    if (known := options.known.get(load)) is not None:
        return known.unknown(left)
    calling = sum(isinstance(v, ProgramVector) and v.calls_host for batch in left.batches.values() for v in batch)
    return left.size + START * len(left.batches) + CALL * calling


def costs(works: Iterable[Work], options: Options) -> dict[Load, int]:
    """What each load is expected to take, for the progress: what the rules leave out takes nothing."""
    return {w.load: expected(settled(w, options.values_named, options.twins)[0], options) for w in works}


class NotLoadedError(HostError):
    """The host died, or refused, before it was asked anything: fewer vectors would not help."""


def ask(
    session: Answering,
    work: Work,
    options: Options,
    *,
    collapsing: bool = True,
    known: KnownLoad = NOTHING,
    starting: bool = False,
) -> Done:
    """Ask a load's vectors but for those that are ``known``; with ``collapsing`` what the rules leave out is counted.
    With ``starting`` each of its machines is started with nothing to do before it is asked anything.

    Raises NotLoadedError where the load itself fails, or such a start; else whatever ``session`` raises.
    """
    done = Done(work.load)
    work = Work(work.load, work.host, dict(work.batches))  # collapsed here, and whole again where it is asked twice
    begun = time.monotonic()
    try:
        session.load(work.load)
    except HostError as error:
        raise NotLoadedError(str(error)) from error
    values: dict[parameters.Key, str | None] = {}
    if collapsing:
        values = _values(work.load, session, options)
        same_value = _same_value(work.load, values, options)
        done.collapsed = collapse(work, same_value=same_value, offered=session.mbec_offered)
    blocked = session.l1_can_run() if work.batches else None
    done.facts = LoadFacts(session.parameter, session.mbec_offered, values, bool(work.batches), blocked)
    if work.host:
        part = _ask_host(session, work.host, known.cell(None))
        part.seconds = time.monotonic() - begun
        done.batches[HOST_CELL] = part
    for guest_machine, vectors in work.batches.items():
        begun = time.monotonic()
        if starting and blocked is None:
            _start(session, guest_machine)
        if blocked is not None:
            part = Part(vectors, Seen([blocked] * len(vectors)), guest=guest_machine)
        else:
            part = _ask_l1(session, guest_machine, vectors, work.load, options, known.cell(guest_machine))
        part.seconds = time.monotonic() - begun
        done.batches[machine_name(guest_machine)] = part
    return done


def _start(session: Answering, guest_machine: Machine) -> None:
    """An L1 comes and goes with nothing to do. Raises NotLoadedError where the host dies of that."""
    try:
        session.start_l1(guest_machine)
    except HostError as error:
        raise NotLoadedError(str(error)) from error


def _ask_host(session: Answering, vectors: list[OnHost], known: KnownCell) -> Part:
    todo = known.left(vectors)
    outcomes = session.ask_host(todo) if todo else []
    facts = {"parameter": session.parameter, "mbec_offered": session.mbec_offered}
    part = known.joined(vectors, todo, Seen(outcomes, None, facts), {})
    part.seen.facts |= facts
    part.seen.reported = session.unclaimed(outcomes)
    return part


def _ask_l1(
    session: Answering, guest: Machine, vectors: list[Vector], load: Load, options: Options, known: KnownCell
) -> Part:
    deadly, traced = options.deadly(load), options.traced(load, vectors)
    if known.answers:
        marked = traced_beside(guest, vectors, deadly, traced)
        known = known.asking({v.id for v in marked if known.trace(v) is None})
        died = [v for v in vectors if known.died(v)]
        spared = spared_beside(guest, (v for v in vectors if v.id not in known.answers), died, deadly)
        todo = [v for v in known.left(vectors) if v.id not in spared]
        seen = session.ask_l1(guest, todo, deadly, [v for v in traced if v in todo]) if todo else Seen([])
        # Another virtual CPU is another experiment, whatever the basis says: all of it is asked then.
        if seen.cpu in (None, known.cpu):
            part = known.joined(vectors, todo, seen, {v: spared_outcome(kind) for v, kind in spared.items()})
            before = [known.trace(v) for v in marked if v.id in part.earlier]
            part.seen.traced = [one for one in before if one is not None] + part.seen.traced
            part.guest = guest
            return part
    part = known.joined(vectors, vectors, session.ask_l1(guest, vectors, deadly, traced), {})
    part.guest = guest
    return part


@dataclass(slots=True)
class _Split:
    """Work that hosts died of, its halves, and what came of those."""

    work: Work
    halves: list[Work]
    there: list[Done] = field(default_factory=list)


class Queue:
    """The queue has the shares that no host has yet."""

    def __init__(self, shares: Iterable[Share]) -> None:
        self._shares = deque(shares)
        self._deaths: list[Work] = []  # what a host was asking when it died, once for each
        self._split: list[_Split] = []
        self._lock = threading.Lock()

    def take(self) -> Share | None:
        """The function gives the next share; None where there is none now."""
        with self._lock:
            return self._shares.popleft() if self._shares else None

    def give_back(self, share: Share) -> None:
        """What a host that died has left goes in front: it is taken next."""
        if share:
            with self._lock:
                self._shares.appendleft(share)

    def put_off(self, share: Share) -> None:
        """What may be the machine's fault goes behind the others, for another one."""
        if share:
            with self._lock:
                self._shares.append(share)

    def died(self, work: Work) -> int:
        """The function says how many hosts have died of ``work``, one more having done so now."""
        with self._lock:
            self._deaths.append(work)
            return self._count(work)

    def deaths(self, work: Work) -> int:
        """The function says how many hosts have died of ``work`` so far."""
        with self._lock:
            return self._count(work)

    def _count(self, work: Work) -> int:
        return sum(one is work for one in self._deaths)

    def is_half(self, work: Work) -> bool:
        """The method says whether ``work`` is a part of what hosts died of."""
        with self._lock:
            return any(half is work for split in self._split for half in split.halves)

    def halve(self, work: Work) -> list[Work]:
        """The method gives the halves of what hosts died of, to be asked instead; none of one vector."""
        with self._lock:
            found = halves(work) if len(self._split) < SPLITS else []
            if found:
                self._split.append(_Split(work, found))
            return found

    def whole(self, work: Work, done: Done) -> Done | None:
        """What came of the share that ``work`` is, or is a part of; None while other parts are out."""
        with self._lock:
            for split in self._split:
                if any(half is work for half in split.halves):
                    split.there.append(done)
                    if len(split.there) < len(split.halves):
                        return None
                    work, done = split.work, merged(split.work, split.there)
                    break
            else:
                return done
        return self.whole(work, done)


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
        known: Mapping[Load, KnownLoad],
        programs: proc.Group,
        replace: Callable[[], bool],
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._replace = replace
        self._known = known
        self._programs = programs
        self._todo = todo
        self._results = results
        self._open_host = open_host
        self._open_session = open_session
        self._options = options
        self._failures = 0  # hosts in a row that did not start, or died before they answered anything
        self._good: tuple[Load, Machine | None] | None = None  # what this machine has answered
        self._fresh = True  # the machine has answered nothing since it was opened
        self.stopping = threading.Event()
        self.gave_up: HostError | None = None

    def run(self) -> None:
        """The worker goes on until ``stopping``, a failure that is not one host's, or HOST_DEATHS in a row without
        another machine to be had.
        """
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
                if self._failures < HOST_DEATHS or self.stopping.is_set():
                    continue
                if self._replace():
                    self._failures, self._good = 0, None
                else:
                    self.gave_up = error
                    PROGRESS.say(f"{self.name} is given up: {str(error).splitlines()[0]}")
                    return

    def _ask_shares(self, cpu_mbec: bool, share: Share) -> None:
        """Ask ``share`` and those that follow for the same CPU on one host; what stays in it was not answered."""
        with self._open_host(cpu_mbec, self.name) as host:
            session = self._open_session(host)
            self._fresh = True
            while not self.stopping.is_set():
                if not share:
                    share += self._more(cpu_mbec)
                if not share:
                    return
                self._ask_first(session, share)
                if session.spent:
                    self._todo.give_back(share)
                    return

    def _ask_first(self, session: Session, share: Share) -> None:
        work = share[0]
        known = self._known.get(work.load, NOTHING)
        starting = self._todo.is_half(work) or self._todo.deaths(work) > 0
        if starting and self._fresh and self._good is not None:
            self._do_again(session, *self._good)
        try:
            self._put(work, ask(session, work, self._options, known=known, starting=starting))
        except NotLoadedError as error:
            if self._todo.died(work) >= DEADLY:
                self._not_asked(share, error, known)
            raise
        except HostError as error:
            if self._todo.died(work) >= (1 if self._todo.is_half(work) else DEADLY):
                share[:1] = parts = self._todo.halve(work)
                if not parts:
                    self._put(work, _lost(work, str(error), known, asked=True))
                self._failures = 0  # it is the work, not the host
            raise
        del share[0]
        self._failures, self._fresh = 0, False
        self._good = work.load, next(iter(work.batches), None)

    def _do_again(self, session: Session, load: Load, guest_machine: Machine | None) -> None:
        """The machine loads, and starts, what it has answered before: where it dies of that, it is not the work.

        Raises HostError then.
        """
        session.load(load)
        if guest_machine is not None:
            session.start_l1(guest_machine)
        self._fresh = False

    def _not_asked(self, share: Share, error: HostError, known: KnownLoad) -> None:
        """Hosts died, or refused, before the first of ``share`` was asked anything."""
        work = share.pop(0)
        if self._good is not None:
            self._put(work, _lost(work, str(error), known))
            self._failures = 0
        else:  # it may be the machine: it tries other work, and another machine this
            self._todo.put_off([work])

    def _put(self, work: Work, done: Done) -> None:
        if (whole := self._todo.whole(work, done)) is not None:
            self._results.put(whole)

    def _more(self, cpu_mbec: bool) -> Share:
        """The next share for the CPU that is there; empty where the next is for another, or there is none."""
        share = self._todo.take()
        if share is None or share[0].load.env.cpu_mbec is cpu_mbec:
            return share or []
        self._todo.give_back(share)
        return []


def _lost(work: Work, why: str, known: KnownLoad, *, asked: bool = False) -> Done:
    """What hosts died of: one vector's answer is that death where it was ``asked``, all else that is not known is
    blocked with it.
    """
    alone = asked and work.size == 1
    dead = Outcome(Kind.HOST if alone else Kind.BLOCKED, note=why.splitlines()[0])
    facts = {} if alone else {TROUBLE: why}
    done = Done(work.load)
    if work.host:
        seen = Seen([dead] * len(work.host), None, facts)
        done.batches[HOST_CELL] = known.cell(None).joined(work.host, work.host, seen, {})
    for guest_machine, vectors in work.batches.items():
        seen = Seen([dead] * len(vectors), None, facts)
        part = known.cell(guest_machine).joined(vectors, vectors, seen, {})
        part.guest = guest_machine
        done.batches[machine_name(guest_machine)] = part
    return done


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


def _unheard(part: Part) -> bool:
    """Whether nothing was heard of a part, and why that is stands in its facts."""
    return TROUBLE in part.seen.facts and all(one.kind is Kind.BLOCKED for one in part.seen.outcomes)


class _Heard:
    """Keeps loads back of which nothing was heard, as long as no L1 was: where it stays so, the hosts are at fault."""

    def __init__(self) -> None:
        self._anything = False
        self._trouble = ""
        self._held: list[Done] = []

    @property
    def held(self) -> set[Load]:
        """The loads that are kept back."""
        return {done.load for done in self._held}

    def entered(self, whole: Done) -> list[Done]:
        """The loads that may be kept, now that ``whole`` is there."""
        guests = [part for part in whole.batches.values() if part.guest is not None]
        troubles = [part.seen.facts[TROUBLE] for part in guests if _unheard(part)]
        self._anything = self._anything or len(troubles) < len(guests)
        if troubles and not self._anything:
            self._trouble = troubles[0]
            self._held.append(whole)
            return []
        held, self._held = (self._held, []) if self._anything else ([], self._held)
        return [*held, whole]

    def check(self) -> None:
        """Raises GuestError where no L1 was heard of."""
        if self._held:
            raise GuestError(f"no L1 could be asked anything: {self._trouble.splitlines()[0]}")


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
    replace: Callable[[], bool] = lambda: False,
) -> None:
    """Every work is asked and recorded. ``replace`` gives a worker another machine where it can. KeyboardInterrupt and
    failures stop the hosts before they are raised.
    """
    book = Book(journal, run, voices, progress, twins=options.twins, basis=options.basis)
    left: dict[Load, dict[str, int]] = {}  # what rules left out beforehand
    asked = []
    ready = []
    for work in works:
        rest, by_rule = settled(work, options.values_named, options.twins)
        left[work.load] = by_rule
        if not rest.size:
            ready.append(Done(work.load))
        elif (done := _recalled(rest, options)) is not None:
            ready.append(done)
        asked.append(rest)
    empty = {done.load for done in ready if not done.batches}
    left_to_know = {load: known for load, known in options.known.items() if load not in empty}
    known = samples(left_to_know, [done.load for done in ready if done.batches], f"run {run}")
    ready = [done for done in ready if done.load not in known]
    there = {done.load for done in ready}
    asked = [work for work in asked if work.load not in there]
    parts = shares(asked, options.jobs, lambda work: expected(work, options), options.deadly)
    gathered = _Gathered(asked, parts)
    heard = _Heard()
    todo = Queue(parts)
    results: queue.SimpleQueue[Done | BaseException] = queue.SimpleQueue()
    programs = proc.Group()
    workers = [
        Worker(f"host {n + 1}", todo, results, open_host, open_session, options, known, programs, replace)
        for n in range(min(options.jobs, len(parts)))
    ]
    for worker in workers:
        worker.start()

    def enter(done: Done) -> None:
        for rule, count in left.pop(done.load).items():
            done.collapsed[rule] = done.collapsed.get(rule, 0) + count
        book.enter(done)

    try:
        for done in ready:
            voices.listen(done)
            enter(done)
        while left.keys() - heard.held:
            try:
                came = results.get(timeout=0.5)
            except queue.Empty:
                if not any(w.is_alive() for w in workers) and results.empty():
                    raise _stopped(workers, len(left)) from None
                continue
            if isinstance(came, BaseException):
                if isinstance(came, KvmirrorError):
                    raise came
                raise RuntimeError("a worker failed") from came
            voices.listen(came)
            if (whole := gathered.take(came)) is not None:
                for one in heard.entered(whole):
                    enter(one)
        heard.check()
    except BaseException:
        for worker in workers:
            worker.stopping.set()
        programs.cancel()  # a worker waits on its host, perhaps for minutes: without the host it waits no longer
        raise
    finally:
        for worker in workers:
            worker.stopping.set()
        for worker in workers:
            worker.join(timeout=LEAVE)


def _stopped(workers: Iterable[Worker], left: int) -> HostError:
    """Why no worker is left: what the last host of one of them said."""
    said = [str(worker.gave_up) for worker in workers if worker.gave_up is not None]
    return HostError(f"the hosts stopped with {left} loads not asked: {said[-1] if said else 'no host says why'}")


def _recalled(work: Work, options: Options) -> Done | None:
    """A load of which earlier runs answered all that a host would be asked; None where there is something left."""
    known = options.known.get(work.load)
    if known is None or known.facts is None:
        return None
    try:
        return ask(Remembered(known.facts), work, options, known=known)
    except ToAsk:
        return None
