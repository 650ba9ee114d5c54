"""What is known of one vector in one cell, and what a journal's words for cells and hosts are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from harness.jsonable import Json
from harness.results.coding import outcome_json, outcome_of
from harness.results.verdict import Contract, Verdict
from kvmodel.question.outcome import Outcome
from kvmodel.question.vector import Vector

KVM_HOST: Final = "kvm"  # the journal's host of every observation on KVM
BARE_HOST: Final = "bare"  # ... of every observation on the CPU itself
FORESEEN_HOST: Final = "foreseen"  # nobody looked: the mirror's prediction stands where an observation would

Cell = tuple[int, str]  # level, parameter text


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer is all that is known of one vector in one cell, as the journal keeps it.

    ``predicted`` and ``contract`` are None where that voice was not asked.
    """

    vector: Vector
    seen: Outcome
    predicted: Outcome | None
    contract: Contract | None
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Judgement:
    """The judgement is what mirror and contract say of a vector of which ``seen`` was seen, and their verdict on it."""

    seen: Outcome
    predicted: Outcome | None
    contract: Contract | None
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class CellKey:
    """The key says where a batch ran: one QEMU start, or the host itself."""

    level: int
    param: str
    host: str
    machine: str

    @property
    def cell(self) -> Cell:
        """The pair is level and parameter."""
        return self.level, self.param


@dataclass(frozen=True, slots=True)
class Judged:
    """The record is of a traced vector beside the mirror: the first difference, empty where there is none."""

    vector: str
    exits: int
    events: int
    difference: str
    warns: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Json]:
        """The function gives the record for the journal."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Judged:
        """The function is the inverse of ``as_json``."""
        return cls(**{**body, "warns": tuple(body.get("warns", ()))})


@dataclass(frozen=True, slots=True)
class NotReproduced:
    """The record is of a vector that was answered otherwise than in an earlier ``run``, all else the same."""

    vector: str
    run: int
    before: Outcome
    now: Outcome

    def as_json(self) -> dict[str, Json]:
        """The function gives the record for the journal."""
        return {
            "vector": self.vector,
            "run": self.run,
            "before": outcome_json(self.before),
            "now": outcome_json(self.now),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> NotReproduced:
        """The function is the inverse of ``as_json``."""
        return cls(body["vector"], body["run"], outcome_of(body["before"]), outcome_of(body["now"]))
