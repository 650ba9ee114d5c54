"""The three voices side by side: what mirror and contract say of what a session saw."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256
from itertools import compress
from types import MappingProxyType
from typing import Final

from harness import places
from harness.observe import Deadly, Reported, Seen
from harness.questions import Load
from harness.results import Answer, Contract, Judged, Judgement, Mark, Under, Verdict, judge
from harness.run.basis import judges
from harness.run.done import Done
from harness.run.sample import judge_traces, select
from harness.run.sharing import OneOfEach
from kvmodel import machine, sdm
from kvmodel.cpu import Cpu
from kvmodel.question.outcome import Kind, Outcome, logged, not_mirrored
from kvmodel.question.program import ProgramVector
from kvmodel.question.sequence import SequenceVector
from kvmodel.question.vector import AccessVector, HostVector, LogVector, Machine, Mbec, MsrVector, NxVector, Vector

NOTHING_SAID: Final[Mapping[str, Judgement]] = MappingProxyType({})
# The order of a batch rests on the same predictions as its verdicts: two batches of the largest kind are remembered.
_predict = lru_cache(maxsize=1 << 15)(machine.predict)


def death(vector: Vector, predicted: Callable[[Vector], Outcome]) -> str | None:
    """The class of a vector of which L1 dies as ``predicted``; None where it lives, or no L1 is asked."""
    if isinstance(vector, NxVector):
        vector = vector.asked
    if not isinstance(vector, AccessVector | SequenceVector | ProgramVector):
        return None
    outcome = predicted(vector)
    if outcome.last.kind is not Kind.HOST:
        return None
    if isinstance(vector, ProgramVector):
        return f"a program's run, MBEC {'on' if vector.wants_mbec else 'off'}, {vector.env}"
    if isinstance(vector, AccessVector):
        return f"{vector.access.value}, MBEC {vector.mbec.value}"
    access = vector.turns[len(outcome.turns) - 1].access
    return f"a sequence's {access.access.value}, MBEC {access.mbec.value}"


class Voices:
    """Asks the mirror (unless ``mirror`` is off) and the contract; ``host_cpu`` gives the CPU under KVM.

    With ``once`` every vector is asked once at a level, and no prediction is remembered.
    """

    def __init__(self, host_cpu: Under, mirror: bool = True, *, once: bool = False) -> None:
        self._host_cpu = host_cpu
        self._mirror = mirror
        self._ask = machine.predict if once else _predict
        self._each = OneOfEach()

    def to_trace(self, load: Load, vectors: Sequence[Vector]) -> list[Vector]:
        """The vectors of a machine's batch whose tracepoints are to be read."""
        if not self._mirror:
            return [v for v in vectors if isinstance(v, NxVector)]
        return select(load, self._host_cpu(load.env.cpu_mbec), vectors)

    def listen(self, done: Done) -> None:
        """Hold what was traced in one load of the modules against the mirror: each part is told what it says.

        A WARN_ONCE speaks once in that load: its parts are judged in the order in which they ran.
        """
        if self._mirror:
            cpu = self._host_cpu(done.load.env.cpu_mbec)
            spoken: set[str] = set()
            shown = {warn for part in done.batches.values() for one in part.seen.traced for warn in one.warns}
            for part in done.batches.values():
                part.told = judge_traces(done.load, cpu, part.seen.traced, spoken, now=part.traced_now, shown=shown)

    def judge(self, load: Load, cell: str, read: Cpu | None) -> str:
        """The text is the same for two batches only where the same is said of a vector of which the same was seen:
        our code, level, parameters and CPUs are the same. ``read`` is the CPU that L1 read in the ``cell``.
        """
        told = (self._mirror, load.level, str(load.setting), cell, self._host_cpu(load.env.cpu_mbec), read)
        return sha256(f"{judges(places.PACKAGES)} {told}".encode()).hexdigest()

    def answers(
        self,
        load: Load,
        vectors: Sequence[Vector],
        seen: Seen,
        told: Sequence[Judged] = (),
        before: Mapping[str, Judgement] = NOTHING_SAID,
    ) -> list[Answer]:
        """The function gives the journal's rows of one batch.

        The contract's CPU is the one that L1 read; where L1 never ran, the one that the mirror says it would read.
        ``before`` is what this ``judge`` said of vectors earlier: it stands where the same was seen.
        """
        said = [
            one if (one := before.get(v.id)) is not None and one.seen == o else None
            for v, o in zip(vectors, seen.outcomes, strict=True)
        ]
        new = iter(self._judged(load, vectors, seen, [one is None for one in said]))
        marks = {one.vector: Mark.TRACED | (Mark.EVENT_DRIFT if one.difference else Mark(0)) for one in told}
        found = []
        for vector, one in zip(vectors, said, strict=True):
            one = next(new) if one is None else one
            verdict = one.verdict
            if marks:
                access = vector.asked if isinstance(vector, NxVector) else vector
                verdict = Verdict(verdict.marks | marks.get(access.id, Mark(0)), verdict.rule)
            found.append(Answer(vector, one.seen, one.predicted, one.contract, verdict))
        return found

    def _judged(self, load: Load, vectors: Sequence[Vector], seen: Seen, wanted: Sequence[bool]) -> Iterator[Judgement]:
        """What mirror and contract say of the vectors that are ``wanted``."""
        vectors = list(compress(vectors, wanted))
        seen = replace(seen, outcomes=list(compress(seen.outcomes, wanted)))
        cpu = self._host_cpu(load.env.cpu_mbec)
        for vector, outcome, contract in zip(vectors, seen.outcomes, self._contracts(load, vectors, seen), strict=True):
            outcome = self._each.outcome(outcome)
            predicted = self._predict(load, cpu, vector)
            yield Judgement(outcome, predicted, contract, self._each.verdict(predicted, contract, outcome))

    def _contracts(self, load: Load, vectors: Sequence[Vector], seen: Seen) -> list[Contract]:
        """What the manual allows of each on the CPU that L1 read, or that the mirror says it would read."""
        if seen.cpu is not None:
            return self._each.contracts(seen.cpu, vectors, seen.outcomes)
        cpu = self._host_cpu(load.env.cpu_mbec)
        virtual: dict[Machine, Cpu] = {}
        for vector in vectors:
            if vector.machine not in virtual:
                virtual[vector.machine] = self._virtual(load, cpu, vector)
        return [
            self._each.contracts(virtual[vector.machine], [vector], [outcome])[0]
            for vector, outcome in zip(vectors, seen.outcomes, strict=True)
        ]

    def logged(self, load: Load, reported: Iterable[Reported]) -> list[Answer]:
        """The method gives a row for each vector of which the kernel's log has a report, beside the vector's answer.

        What belongs to none is the host's. The mirror is not asked: which WARNs are due it says of traced vectors.
        """
        nobody = HostVector("log", load.env.name)
        texts: dict[Vector, list[str]] = {}
        for one in reported:
            texts.setdefault(nobody if one.vector is None else LogVector(one.vector), []).append(one.text)
        return [self.log_row(load, vector, logged(dict.fromkeys(said))) for vector, said in texts.items()]

    def log_row(self, load: Load, vector: Vector, outcome: Outcome) -> Answer:
        """The method gives the row of one vector beside which the kernel's log says ``outcome``."""
        contract = sdm.allowed(Cpu(), HostVector("log", load.env.name))
        predicted = not_mirrored("the kernel's log") if self._mirror else None
        return Answer(vector, outcome, predicted, contract, judge(predicted, contract, outcome))

    def deadly(self, load: Load) -> Deadly | None:
        """The function is for ``Session.ask_l1``: it gives the class of a vector of which the mirror says L1 dies; None
        without a mirror.
        """
        if not self._mirror:
            return None
        cpu = self._host_cpu(load.env.cpu_mbec)

        return lambda vector: death(vector, lambda asked: _predict(load.level, load.param, cpu, asked).outcome)

    def offered(self, load: Load) -> bool:
        """The mirror says that L1 is offered the control in ``load``: True; also without a mirror."""
        cpu = self._host_cpu(load.env.cpu_mbec)
        return self._virtual(load, cpu, MsrVector(Mbec.ON, env=load.env.name)).mbec

    def _predict(self, load: Load, cpu: Cpu, vector: Vector) -> Outcome | None:
        if not self._mirror:
            return None
        return self._each.outcome(self._ask(load.level, load.param, cpu, vector).outcome)

    def _virtual(self, load: Load, cpu: Cpu, vector: Vector) -> Cpu:
        return machine.virtual_cpu(load.level, load.param, cpu, vector.machine) if self._mirror else cpu
