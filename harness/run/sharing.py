"""Of a quarter of a million answers a few thousand differ: each is one object here, and judged once beside another."""

from __future__ import annotations

from collections.abc import Sequence

from harness.results import Contract, Verdict, judge
from kvmodel import sdm
from kvmodel.cpu import Cpu
from kvmodel.question.outcome import Outcome
from kvmodel.question.program import ProgramVector
from kvmodel.question.vector import Vector


class OneOfEach:
    """The outcomes, contracts and verdicts of one run are kept here.

    What is known by its identity is kept, so that it stays the one.
    """

    def __init__(self) -> None:
        self._outcomes: dict[Outcome, Outcome] = {}
        self._contracts: dict[Contract, Contract] = {}
        self._allowed: dict[Cpu, dict[int, tuple[Vector, Contract]]] = {}
        self._verdicts: dict[tuple[int, int, int], tuple[object, Verdict]] = {}

    def outcome(self, outcome: Outcome) -> Outcome:
        """The value is the one outcome that is equal to it."""
        return self._outcomes.setdefault(outcome, outcome)

    def contracts(self, cpu: Cpu, vectors: Sequence[Vector], seen: Sequence[Outcome] | None = None) -> list[Contract]:
        """The manual allows these on ``cpu``, the same at every level that makes that virtual CPU.

        Of a program, which may have many rows of answers, those that bear on what was ``seen``, where that is given.
        """
        known = self._allowed.setdefault(cpu, {})
        found = []
        for at, vector in enumerate(vectors):
            if seen is not None and isinstance(vector, ProgramVector):
                contract = sdm.allowed_beside(cpu, vector, seen[at])
                found.append(self._contracts.setdefault(contract, contract))
                continue
            if (kept := known.get(id(vector))) is None:
                contract = sdm.allowed(cpu, vector)
                kept = known[id(vector)] = vector, self._contracts.setdefault(contract, contract)
            found.append(kept[1])
        return found

    def verdict(self, predicted: Outcome | None, contract: Contract, seen: Outcome) -> Verdict:
        """``judge`` is asked once of three that this gave out; None stands for a mirror that was not asked."""
        key = id(predicted), id(contract), id(seen)
        if (known := self._verdicts.get(key)) is None:
            known = self._verdicts[key] = (predicted, contract, seen), judge(predicted, contract, seen)
        return known[1]
