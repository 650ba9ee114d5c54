"""Answers of earlier runs in place of asking: of the very same experiment, as the basis of both says.

Only what was seen is taken, with what KVM's tracepoints and the kernel's log told of it: never what was blocked or
spared, and nothing of how it was judged. A seeded sample is
asked again all the same: what comes out otherwise is not reproducible, and is asked at every later run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Final, Protocol, TypeVar

from harness.observe import Deadly, Reported, Seen, Traced, cut, hurried, reports
from harness.questions import Load, Work, parameters
from harness.results import KVM_HOST, UNHEARD, Journal, Sighting, cpus
from harness.run.basis import other_parts
from harness.run.done import FACTS, LoadFacts, Part, beside, joined_facts, log_of, seal
from kvmodel.cpu import Cpu
from kvmodel.question.outcome import BETWEEN, Kind, Outcome
from kvmodel.question.reading import parse
from kvmodel.question.vector import AccessVector, LogVector, Machine, OnHost, Vector

AGAIN: Final = 64  # of the answers that are taken, one in so many is asked again
LOADS_AGAIN: Final = 256  # of the loads that need no host, one in so many gets one for that, and one at least
CPU: Final = "virtual_cpu"  # in a cell's facts: the virtual CPU as L1 read it
DROPPED: Final = ("events", "l1_seconds", "not_reproduced")  # facts that do not go along with an answer


Asked = TypeVar("Asked", bound=Vector)


class ToAsk(Exception):
    """A load cannot do without its host."""


class Answering(Protocol):
    """This is what ``workers.ask`` asks: a session on a host, or what is known of earlier ones."""

    @property
    def parameter(self) -> str | None: ...
    @property
    def mbec_offered(self) -> bool: ...
    def load(self, load: Load) -> None: ...
    def value(self, key: parameters.Key) -> str | None: ...
    def ask_host(self, vectors: Iterable[OnHost]) -> list[Outcome]: ...
    def l1_can_run(self) -> Outcome | None: ...
    def unclaimed(self, outcomes: Iterable[Outcome] = ()) -> list[Reported]: ...
    def start_l1(self, machine: Machine) -> None: ...
    def ask_l1(
        self, machine: Machine, vectors: list[Vector], deadly: Deadly | None = None, traced: Iterable[Vector] = ()
    ) -> Seen: ...


class Remembered:
    """A session without a host: knows what earlier ones were told, and raises ToAsk for everything else."""

    def __init__(self, facts: LoadFacts) -> None:
        self._facts = facts

    @property
    def parameter(self) -> str | None:
        """The value is as ``Session`` has it."""
        return self._facts.parameter

    @property
    def mbec_offered(self) -> bool:
        """The value is as ``Session`` has it."""
        return self._facts.mbec_offered

    def load(self, load: Load) -> None:
        """Nothing is loaded."""

    def value(self, key: parameters.Key) -> str | None:
        """The value is as ``Session`` has it."""
        if key not in self._facts.values:
            raise ToAsk
        return self._facts.values[key]

    def l1_can_run(self) -> Outcome | None:
        """The answer is as ``Session`` has it."""
        if not self._facts.started:
            raise ToAsk
        return self._facts.blocked

    def ask_host(self, vectors: Iterable[OnHost]) -> list[Outcome]:
        """There is no host."""
        raise ToAsk

    def unclaimed(self, outcomes: Iterable[Outcome] = ()) -> list[Reported]:
        """There is no host whose log said anything."""
        return []

    def start_l1(self, machine: Machine) -> None:
        """There is no host."""
        raise ToAsk

    def ask_l1(
        self, machine: Machine, vectors: list[Vector], deadly: Deadly | None = None, traced: Iterable[Vector] = ()
    ) -> Seen:
        """There is no host."""
        raise ToAsk


@dataclass(frozen=True, slots=True)
class KnownCell:
    """The cell has what earlier runs saw in it: by vector the run and its answer, the virtual CPU, facts of the
    newest, traces, and reports of the kernel's log.

    ``again``: vectors that are asked all the same.
    """

    answers: Mapping[str, tuple[int, Outcome]] = field(default_factory=dict)
    cpu: Cpu | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    again: frozenset[str] = frozenset()
    traces: Mapping[AccessVector, Traced] = field(default_factory=dict)
    reported: Sequence[Reported] = ()

    def left(self, vectors: Iterable[Asked]) -> list[Asked]:
        """Those of ``vectors`` are given that are to be asked."""
        answers, again = self.answers, self.again
        return [v for v in vectors if v.id not in answers or v.id in again]

    def trace(self, vector: Vector) -> Traced | None:
        """The trace that tells of ``vector`` is given; None where there is none."""
        access = cut.access_of(vector)
        return None if access is None else self.traces.get(access)

    def died(self, vector: Vector) -> bool:
        """It is known that L1 died of ``vector``: True."""
        known = self.answers.get(vector.id)
        return known is not None and known[1].last.kind is Kind.HOST

    def asking(self, vectors: Collection[str]) -> KnownCell:
        """The function gives this with ``vectors`` asked all the same."""
        return replace(self, again=self.again | (vectors & self.answers.keys()))

    def sampled(self, seed: str, share: float, least: int = 0) -> KnownCell:
        """The function gives this with a ``share`` of its answers asked again, each as likely as any other of the load,
        and ``least`` at least: a cell of few answers is not asked for them alone each time.
        """
        ids, random = sorted(self.answers), Random(seed)
        count = min(len(ids), max(least, math.floor(len(ids) * share + random.random())))
        return self.asking(set(random.sample(ids, count)))

    def joined(
        self, vectors: Sequence[Vector], todo: Sequence[Vector], seen: Seen, others: Mapping[str, Outcome]
    ) -> Part:
        """The function gives the part of which ``todo`` was asked and ``seen``; ``others`` are of what is neither asked
        nor known.

        Where one that was asked again was not heard, the earlier answer stands.
        """
        live = {v.id: outcome for v, outcome in zip(todo, seen.outcomes, strict=True)}
        part = Part(list(vectors), Seen([], seen.cpu or self.cpu, dict(seen.facts), seen.traced, seen.reported))
        for vector in vectors:
            known = self.answers.get(vector.id)
            outcome = live.get(vector.id)
            if known is None:
                outcome = others[vector.id] if outcome is None else outcome
            elif outcome is None or outcome.last.kind in UNHEARD:
                part.earlier[vector.id], outcome = known
            else:
                part.again[vector.id] = known
            part.seen.outcomes.append(outcome)
        if part.earlier:
            part.reported_before = [one for one in self.reported if _of(one, part.earlier)]
            livelocks = {v: text for v, text in self.facts.get("livelocks", {}).items() if v in part.earlier}
            own = part.seen.facts if todo else self.facts
            part.seen.facts = {name: value for name, value in own.items() if todo or name not in DROPPED}
            if livelocks:
                part.seen.facts["livelocks"] = livelocks | part.seen.facts.get("livelocks", {})
        return part


NO_CELL: Final = KnownCell()


@dataclass(frozen=True, slots=True)
class KnownLoad:
    """What earlier runs saw of a load; ``facts`` None: nobody wrote down what its host said."""

    facts: LoadFacts | None = None
    cells: Mapping[Machine | None, KnownCell] = field(default_factory=dict)

    def cell(self, guest: Machine | None) -> KnownCell:
        """The function gives the cell of L1 on ``guest``, or of the host itself."""
        return self.cells.get(guest, NO_CELL)

    def unknown(self, work: Work) -> int:
        """The function says how many vectors of ``work`` are left to ask."""
        batches: list[tuple[Machine | None, Sequence[Vector]]] = [(None, work.host), *work.batches.items()]
        return sum(len(self.cell(guest).left(vectors)) for guest, vectors in batches)

    @property
    def answers(self) -> int:
        """The function says how many answers there are."""
        return sum(len(cell.answers) for cell in self.cells.values())

    def sampled(self, seed: str, share: float) -> KnownLoad:
        """The function gives this with a ``share`` of each cell asked again, of the largest one answer at least."""
        largest = max(self.cells, key=lambda guest: len(self.cells[guest].answers), default=None)
        cells = {
            guest: cell.sampled(f"{seed} {guest}", share, int(guest == largest)) for guest, cell in self.cells.items()
        }
        return replace(self, cells=cells)


NOTHING: Final = KnownLoad()


def same(a: Outcome, b: Outcome) -> bool:
    """Two observations are one answer: True; what was noted beside it plays no part."""
    return a.matches(b) and b.matches(a)


class Earlier:
    """The object has the other runs of a journal, asked by what an answer rests on."""

    def __init__(self, journal: Journal, run: int, basis: Callable[[Load, Machine | None], str]) -> None:
        self._journal, self._run, self._basis = journal, run, basis
        self._sightings: dict[str, list[Sighting]] = {}

    def known(self, works: Iterable[Work]) -> dict[Load, KnownLoad]:
        """What is known of each work's load; loads of which nothing is are left out."""
        found = {}
        for work in works:
            facts, host = self._cell(work.load, None, work.host)
            cells: dict[Machine | None, KnownCell] = {None: host}
            cells |= {guest: self._cell(work.load, guest, asked)[1] for guest, asked in work.batches.items()}
            if facts is not None or any(cell.answers for cell in cells.values()):
                found[work.load] = KnownLoad(facts, cells)
        return found

    def otherwise(self, works: Iterable[Work]) -> dict[tuple[str, ...], list[int]]:
        """The function gives what the newest run of the same loads rested on that this one does not: the parts' names,
        and the levels.
        """
        found: dict[tuple[str, ...], set[int]] = {}
        for load in (work.load for work in works):
            was = self._journal.newest_basis(load.level, str(load.setting), KVM_HOST, seal(load), self._run)
            if was is not None and (names := other_parts(was, self._basis(load, None))):
                found.setdefault(tuple(names), set()).add(load.level)
        return {names: sorted(levels) for names, levels in found.items()}

    def _cell(self, load: Load, guest: Machine | None, asked: Iterable[Vector]) -> tuple[LoadFacts | None, KnownCell]:
        basis = self._basis(load, guest)
        if basis not in self._sightings:
            self._sightings[basis] = self._journal.observed(basis, KVM_HOST, self._run)
        return _merged(self._sightings[basis], {v.id for v in asked}, of_l1=guest is not None)


def _merged(sightings: Sequence[Sighting], asked: Set[str], *, of_l1: bool) -> tuple[LoadFacts | None, KnownCell]:
    """What sightings of one basis, the newest first, say together of what is ``asked``: what they do not agree on is
    not known.
    """
    facts = joined_facts(LoadFacts.from_json(s.facts[FACTS]) for s in sightings if FACTS in s.facts)
    logs = {(s.run, s.cell): _reports(s) for s in sightings if beside(s.cell.machine) is not None}
    told = []
    reported: list[Reported] = []
    for sighting in (s for s in sightings if s.outcomes and beside(s.cell.machine) is None):
        there = logs.get((sighting.run, replace(sighting.cell, machine=log_of(sighting.cell.machine))), [])
        # Which of its vectors made a report that is nobody's is not known: it goes with all of them, or with none.
        if all(one.vector is not None for one in there) or sighting.outcomes.keys() <= asked:
            told.append(sighting)
            reported += there
    read = {cpus.from_json(s.facts[CPU]) for s in told if CPU in s.facts}
    if len(read) != of_l1:
        return facts, NO_CELL
    answers: dict[str, tuple[int, Outcome]] = {}
    unsteady = set()
    for sighting in told:
        for name, outcome in sighting.outcomes.items():
            newest = answers.setdefault(name, (sighting.run, outcome))[1]
            if newest is not outcome and not same(newest, outcome):
                unsteady.add(name)
    kept = {name: answers[name] for name in answers.keys() & asked - unsteady if _certain(answers[name][1])}
    traces = _traces(body for sighting in told for body in sighting.traces)
    facts_of_it = told[0].facts if told else {}
    said = reports.some(reversed(reported))
    return facts, KnownCell(kept, next(iter(read), None), facts_of_it, traces=traces, reported=said)


def _reports(sighting: Sighting) -> list[Reported]:
    """What the cell of a log says, each report with its vector."""
    asked = ((parse(name), outcome) for name, outcome in sighting.outcomes.items())
    return [
        Reported(row.asked if isinstance(row, LogVector) else None, text)
        for row, outcome in asked
        for text in outcome.logged.split(BETWEEN)
    ]


def _of(report: Reported, earlier: Collection[str]) -> bool:
    """Whether a report is of what was not asked now."""
    return report.vector is None or report.vector.id in earlier


def _traces(bodies: Iterable[Mapping[str, Any]]) -> dict[AccessVector, Traced]:
    """The traces by their access; of two that are not the same none is known."""
    found: dict[AccessVector, Traced] = {}
    other = set()
    for one in map(cut.from_json, bodies):
        if found.setdefault(one.vector, one).exits != one.exits:
            other.add(one.vector)
    return {access: one for access, one in found.items() if access not in other}


def _certain(outcome: Outcome) -> bool:
    """Whether an outcome is an answer that wall time had no part in."""
    return not hurried(outcome) and not any(turn.kind in UNHEARD for turn in outcome.turns or (outcome,))


def samples(known: Mapping[Load, KnownLoad], whole: Collection[Load], seed: str) -> dict[Load, KnownLoad]:
    """The function gives ``known`` with one answer in AGAIN asked again, without the loads that get no host.

    Where ``whole`` loads need no host, one in LOADS_AGAIN of them gets one all the same, the likelier the more answers
    it has: a start costs more than a thousand answers.
    """
    random = Random(seed)
    drawn = sorted(whole, key=lambda load: random.random() ** (1 / max(1, known[load].answers)), reverse=True)
    again = {*(known.keys() - set(whole)), *drawn[: math.ceil(len(drawn) / LOADS_AGAIN)]}
    return {load: known[load].sampled(f"{seed}, {load}", 1 / AGAIN) for load in known if load in again}
