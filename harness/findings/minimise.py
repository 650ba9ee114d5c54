"""A finding made smaller on a host: simpler vectors are asked there, and the smallest is run alone, three times.

A vector is simpler when one field more is as in the plain vector, a sequence when it has fewer turns. Those that show
the same cause are kept; of them the first is taken, and the search goes on from it until nothing simpler shows it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from harness.errors import InputError
from harness.findings import without_mirror
from harness.findings.causes import find_cause, without_history
from harness.findings.departures import Departure, departures
from harness.findings.group import Finding, group
from harness.jsonable import Json
from harness.observe import pack
from harness.results import (
    Answer,
    CellKey,
    Mark,
    Under,
    Verdict,
    contract_json,
    contract_of,
    cpus,
    outcome_json,
    outcome_of,
)
from kvmodel.question.program import ProgramVector
from kvmodel.question.reading import parse
from kvmodel.question.sequence import SequenceVector
from kvmodel.question.vector import AccessVector, LogVector, Vector, VectorError, changed_fields
from kvmodel.question.vm_entry import VmEntryVector
from kvmodel.question.vm_exit import VmExitVector

TIMES: Final = 3
PROVENANCE: Final = "confirmed"  # where a run's provenance keeps what was done, by the cause's hash

Ask = Callable[[Sequence[Vector]], list[Answer]]


@dataclass(frozen=True, slots=True)
class Minimal:
    """The record has the smallest vector found, as it answered, and how often it showed the cause of those it was run
    alone.
    """

    key: CellKey
    answer: Answer
    shown: int
    times: int

    def __str__(self) -> str:
        return f"confirmed {self.shown}/{self.times} alone"

    @property
    def departure(self) -> Departure | None:
        """The answer departs from the manual in this; None where it does not."""
        return departure_of(self.key, self.answer)

    def as_json(self) -> dict[str, Json]:
        """The function gives the record for a run's provenance."""
        key, answer = self.key, self.answer
        assert answer.contract is not None  # else it were no finding's
        row = {
            "vector": answer.vector.id,
            "level": key.level,
            "param": key.param,
            "host": key.host,
            "marks": answer.verdict.marks.value,
            "seen": outcome_json(answer.seen),
            "predicted": None if answer.predicted is None else outcome_json(answer.predicted),
            "contract": json.loads(contract_json(answer.contract)),
        }
        return {"departure": row, "shown": self.shown, "times": self.times}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Minimal:
        """The inverse of ``as_json``; the machine, which says nothing of a cause, is left open."""
        row = body["departure"]
        answer = Answer(
            parse(row["vector"]),
            outcome_of(row["seen"]),
            None if row["predicted"] is None else outcome_of(row["predicted"]),
            contract_of(json.dumps(row["contract"])),
            Verdict(Mark(row["marks"])),
        )
        return cls(CellKey(row["level"], row["param"], row["host"], ""), answer, body["shown"], body["times"])


def simpler(vector: Vector) -> list[Vector]:
    """The function gives the vectors one step plainer, the plainest first; none where that has no meaning.

    Of an access one field more is as in the plain one, in the order of an id. Of a sequence each turn's access is
    asked alone, the last one's first, then the sequences with one turn left out. Of a VM entry one change is left
    out, or a step of L2's.
    """
    if isinstance(vector, ProgramVector):
        return list(vector.shorter())
    if isinstance(vector, LogVector):
        return [LogVector(one) for one in simpler(vector.asked)]
    if isinstance(vector, SequenceVector):
        return _fewer_turns(vector)
    if isinstance(vector, VmEntryVector):
        return _fewer_changes(vector)
    if isinstance(vector, VmExitVector):
        return [*_fewer_changes(vector), *_fewer_steps(vector)]
    if not isinstance(vector, AccessVector):
        return []
    plain = AccessVector()
    found: list[Vector] = []
    for name in changed_fields(vector, plain):
        if name == "env":  # another host, another finding
            continue
        changes = {name: getattr(plain, name)}
        if name in ("leaf_level", "upper_level"):
            changes = {"leaf_level": plain.leaf_level, "upper_level": plain.upper_level}
        candidate = replace(vector, **changes)
        try:
            parse(candidate.id)
            pack([candidate])
        except (VectorError, InputError):
            continue
        found.append(candidate)
    return list({c.id: c for c in found}.values())


def _fewer_steps(vector: VmExitVector) -> list[Vector]:
    steps = vector.steps
    return [replace(vector, steps=(*steps[:n], *steps[n + 1 :])) for n in range(len(steps))]


def _fewer_changes(vector: VmEntryVector | VmExitVector) -> list[Vector]:
    changes, found = vector.changes, list[Vector]()
    for n in range(len(changes)):
        try:
            found.append(replace(vector, changes=(*changes[:n], *changes[n + 1 :])))
        except VectorError:  # without it nothing would end L2
            continue
    return found


def _fewer_turns(vector: SequenceVector) -> list[Vector]:
    found: list[Vector] = [turn.access for turn in reversed(vector.turns)]
    for left_out in range(len(vector.turns)) if len(vector.turns) > 2 else ():
        first, *rest = (turn for n, turn in enumerate(vector.turns) if n != left_out)
        found.append(SequenceVector((replace(first, invept=True, second=False), *rest)))
    return list({c.id: c for c in found}.values())


def departure_of(key: CellKey, answer: Answer) -> Departure | None:
    """The function gives the departure of an answer; None where it is none."""
    found = departures([(key, answer)])
    return found[0] if found else None


def _same(departure: Departure | None, finding: Finding, under: Under) -> bool:
    if departure is None:
        return False
    if not finding.origin.known:
        return without_mirror.is_of(departure, finding.key[0], finding.smallest)
    (other,) = group([without_history(departure, under)], partial(find_cause, under=under))
    return other.cause == finding.cause


def minimise(
    finding: Finding, ask: Ask, said: Callable[[str], None] = lambda _: None, under: Under = cpus.emulated
) -> Minimal:
    """Make ``finding``'s smallest vector smaller and run it alone; ``ask`` asks a batch, modules loaded anew."""
    best = finding.smallest.vector
    key = CellKey(*finding.smallest.cell, finding.host, "")
    while candidates := simpler(best):
        answers = ask(candidates)
        kept = [a for a in answers if _same(departure_of(key, a), finding, under)]
        said(f"{len(kept)} of {len(candidates)} simpler vectors show the same")
        if not kept:
            break
        best = kept[0].vector
    shown, last = 0, None
    for _ in range(TIMES):
        (answer,) = ask([best])
        if _same(departure_of(key, answer), finding, under):
            shown, last = shown + 1, answer
        said(f"alone: {answer.seen}")
    return Minimal(key, last or answer, shown, TIMES)


def attached(found: Iterable[Finding], kept: Mapping[str, Any]) -> list[Finding]:
    """The function gives findings with what a run's provenance keeps of them."""
    return [_with(f, Minimal.from_json(kept[f.cause])) if f.cause in kept else f for f in found]


def _with(finding: Finding, minimal: Minimal) -> Finding:
    always = minimal.shown == minimal.times
    return replace(finding, confirmed=str(minimal), minimal=minimal.departure if always else None)
