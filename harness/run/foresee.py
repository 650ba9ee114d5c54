"""A run that nobody runs: mirror and contract alone, by the rules by which hosts would be asked.

What a session would read of its host, the mirror says: the parameter's value, what KVM offers L1, whether an L1 gets
past its first fetch, of which vectors it dies. Every answer goes into the journal under a host of its own, so that
nothing foreseen is ever read as observed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.observe import FIRST_FETCH, cannot_run, sampled, spared_outcome
from harness.questions import Load, Setting, Work, collapse, settled
from harness.results import FORESEEN_HOST, Answer, CellKey, Contract, Journal, Mark, Under, Verdict
from harness.run.done import HOST_CELL, machine_name, seal
from harness.run.judge import death
from harness.run.sharing import OneOfEach
from kvmodel import machine
from kvmodel.cpu import Cpu
from kvmodel.question import msr
from kvmodel.question.outcome import Outcome, parameter
from kvmodel.question.vector import HostVector, Machine, Vector

Named = frozenset[tuple[int, Setting]]  # levels with the parameter's values that the run gives by name


class ForeseenCells:
    """The object asks mirror and contract of one CPU under KVM, load by load; it has these two voices alone."""

    def __init__(self, under: Under) -> None:
        self._under = under
        self._each = OneOfEach()
        self._foreseen: dict[int, Verdict] = {}  # by the plain verdict's identity, which ``_each`` keeps

    def answers(self, work: Work, named: Named) -> tuple[dict[str, list[Answer]], dict[str, int]]:
        """The function gives a load's answers by cell, and how many vectors each rule left out."""
        load = work.load
        work, left_out = settled(work, named, {})
        if work.size:
            work = Work(load, work.host, dict(work.batches))
            for rule, count in self._collapse(work, named).items():
                left_out[rule] = left_out.get(rule, 0) + count
        blocked = cannot_run(self._predict(load, replace(FIRST_FETCH, env=load.env.name))) if work.batches else None
        found: dict[str, list[Answer]] = {}
        if work.host:
            said = [self._predict(load, v) for v in work.host]
            found[HOST_CELL] = self._judged(load, work.host[0].machine, work.host, said, {})
        for guest, vectors in work.batches.items():
            if blocked is not None:
                outcomes = [self._same(blocked)] * len(vectors)
                found[machine_name(guest)] = self._judged(load, guest, vectors, outcomes, {})
            else:
                found[machine_name(guest)] = self._batch(load, guest, vectors)
        return found, left_out

    def _collapse(self, work: Work, named: Named) -> dict[str, int]:
        load, env = work.load, work.load.env.name
        value = self._predict(load, HostVector("param", env))
        by_name = [on for on in (False, True) if (load.level, Setting.own_value(on)) in named]
        same = load.param is None and any(value == parameter(on) for on in by_name)
        controls = msr.allowed(self._predict(load, HostVector("m48b", env)).code)
        return collapse(work, same_value=same, offered=bool(controls & msr.MBEC))

    def _batch(self, load: Load, guest: Machine, vectors: list[Vector]) -> list[Answer]:
        predicted = [self._predict(load, v) for v in vectors]
        by_vector = {id(v): outcome for v, outcome in zip(vectors, predicted, strict=True)}

        def said(vector: Vector) -> Outcome:
            known = by_vector.get(id(vector))
            return self._predict(load, vector) if known is None else known

        _, spared = sampled(guest, vectors, lambda vector: death(vector, said))
        return self._judged(load, guest, vectors, predicted, spared)

    def _judged(
        self,
        load: Load,
        guest: Machine,
        vectors: Sequence[Vector],
        predicted: Sequence[Outcome],
        spared: Mapping[int, str],
    ) -> list[Answer]:
        cpu = machine.virtual_cpu(load.level, load.param, self._cpu(load), guest)
        contracts = self._each.contracts(cpu, list(vectors))
        found = []
        for i, (vector, outcome, contract) in enumerate(zip(vectors, predicted, contracts, strict=True)):
            seen = self._same(spared_outcome(spared[i])) if i in spared else outcome
            found.append(Answer(vector, seen, outcome, contract, self._verdict(outcome, contract, seen)))
        return found

    def _verdict(self, predicted: Outcome, contract: Contract, seen: Outcome) -> Verdict:
        verdict = self._each.verdict(predicted, contract, seen)
        if (known := self._foreseen.get(id(verdict))) is None:
            known = self._foreseen[id(verdict)] = Verdict(verdict.marks | Mark.FORESEEN, verdict.rule)
        return known

    def _predict(self, load: Load, vector: Vector) -> Outcome:
        return self._same(machine.predict(load.level, load.param, self._cpu(load), vector).outcome)

    def _same(self, outcome: Outcome) -> Outcome:
        return self._each.outcome(outcome)

    def _cpu(self, load: Load) -> Cpu:
        return self._under(load.env.cpu_mbec)


def foresee(
    works: Iterable[Work], journal: Journal, run: int, named: Named, under: Under, progress: Callable[[Work], None]
) -> None:
    """Mirror and contract are asked every work, and it is recorded as foreseen."""
    foresight = ForeseenCells(under)
    for work in works:
        began = time.monotonic()
        cells, left_out = foresight.answers(work, named)
        seconds = time.monotonic() - began
        load = work.load

        def record(name: str, answers: list[Answer], took: float, facts: dict[str, Any], load: Load = load) -> None:
            journal.record(run, CellKey(load.level, str(load.setting), FORESEEN_HOST, name), answers, took, facts)

        total = sum(map(len, cells.values()))
        for name, answers in cells.items():
            cell = f"{load.env.name}:{name}" if name == HOST_CELL else name
            record(cell, answers, seconds * len(answers) / total, {})
        record(seal(load), [], 0.0, {"collapsed": left_out})
        progress(work)
