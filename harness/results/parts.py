"""How many vectors of each part a run asked, and why it asked none of the others: no part is empty in silence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from harness.jsonable import Json
from harness.questions import RULES, core, left_out_by
from harness.results.answer import BARE_HOST
from kvmodel.question.vector import Vector

NAMED: Final = "vectors"  # in a run's provenance: what the user named to be asked
CPU0: Final = "wants a CPU without MBEC, and only the emulated host has one"
BARE: Final = "wants KVM, or another machine than the bare CPU is"
NOT_YET: Final = "the run did not come to it"


@dataclass(frozen=True, slots=True)
class PartAsked:
    """The part has so many vectors, of which so many were asked anywhere in the run; why the others were not.

    ``why``: reason (a rule's name, or words) to number of vectors, the most frequent first.
    """

    name: str
    vectors: int
    asked: int
    why: Mapping[str, int]

    @property
    def empty(self) -> bool:
        """This says whether nothing of it was asked."""
        return not self.asked

    @property
    def reasons(self) -> str:
        """This is ``why`` in short, empty where all were asked."""
        heads: Counter[str] = Counter()
        for reason, count in self.why.items():
            heads[reason.partition(":")[0]] += count
        return ", ".join(f"{count} {head}" for head, count in heads.most_common())

    def __str__(self) -> str:
        return f"{self.name}: {self.asked} of {self.vectors}" + (f" ({self.reasons})" if self.why else "")

    def as_json(self) -> dict[str, Json]:
        """This is the part as the run's JSON has it."""
        return {
            "name": self.name,
            "vectors": self.vectors,
            "asked": self.asked,
            "not_asked": [{"reason": reason, "vectors": count} for reason, count in self.why.items()],
        }


def count(names: Iterable[str], reason: Callable[[Vector], str | None]) -> list[PartAsked]:
    """The parts that ``names`` (what the user named) are made of; ``reason`` says why a vector was not asked."""
    found = []
    for name, vectors in core.parts_of(names).items():
        why = Counter(text for vector in vectors if (text := reason(vector)) is not None)
        found.append(PartAsked(name, len(vectors), len(vectors) - why.total(), dict(why.most_common())))
    return found


def absent(vector: Vector, host: str) -> str:
    """The function says why a finished run on ``host`` has no answer to ``vector``."""
    if host == BARE_HOST:
        return BARE
    return left_out_by(vector) or (NOT_YET if vector.machine.env.cpu_mbec else CPU0)


def of_run(names: Iterable[str], notes: Mapping[str, str | None], host: str) -> list[PartAsked]:
    """The function gives the parts of a run.

    ``notes``: its vectors by id, None for one that was asked, else why it was blocked.
    """

    def reason(vector: Vector) -> str | None:
        return notes[vector.id] if vector.id in notes else absent(vector, host)

    return count(names, reason)


def lines(parts: Iterable[PartAsked]) -> list[str]:
    """The lines tell a person how many parts were asked whole, of which only some was, and of which nothing was."""
    parts = list(parts)
    whole = [part for part in parts if part.asked == part.vectors]
    some = [part for part in parts if not part.empty and part not in whole]
    told = [f"{len(whole)} of {len(parts)} parts were asked whole"] if parts else []
    told += [f"     {part}" for part in some]
    return told + [f"nothing was asked of {_empty(part)}" for part in parts if part.empty]


def _empty(part: PartAsked) -> str:
    """A part of which nothing was asked, with its reasons in words."""
    told = (f"{reason}: {RULES[reason]}" if reason in RULES else reason for reason in part.why)
    return f"{part.name}, {part.vectors} vectors ({'; '.join(told)})"
