"""A finding made smaller on a host: simpler vectors are asked there, and the smallest is run alone, three times.

A vector is simpler when one field more is as in the plain vector, a sequence when it has fewer turns. Those that show
the same cause are kept; of them the first is taken, and the search goes on from it until nothing simpler shows it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from harness.errors import InputError
from harness.findings import without_mirror
from harness.findings.causes import find_cause, without_history
from harness.findings.departures import Departure, departures
from harness.findings.group import Finding, group
from harness.observe import pack
from harness.results import Answer, Mark, Under, contract_json, cpus, outcome_json, outcome_of
from kvmodel.question.sequence import SequenceVector
from kvmodel.question.vector import AccessVector, Vector, VectorError, changed_fields, parse

TIMES: Final = 3
PROVENANCE: Final = "confirmed"  # where a run's provenance keeps what was done, by the cause's hash

Ask = Callable[[Sequence[Vector]], list[Answer]]


@dataclass(frozen=True, slots=True)
class Minimal:
    """The smallest vector found, as it answered, and how often it showed the cause of those it was run alone."""

    departure: dict[str, Any]  # as a row that ``departures`` reads, outcomes as JSON
    shown: int
    times: int

    def __str__(self) -> str:
        return f"confirmed {self.shown}/{self.times} alone"


def simpler(vector: Vector) -> list[Vector]:
    """The vectors one step plainer, the plainest first; empty where that has no meaning.

    Of an access one field more is as in the plain one, in the order of an id. Of a sequence each turn's access is
    asked alone, the last one's first, then the sequences with one turn left out.
    """
    if isinstance(vector, SequenceVector):
        return _fewer_turns(vector)
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


def _fewer_turns(vector: SequenceVector) -> list[Vector]:
    found: list[Vector] = [turn.access for turn in reversed(vector.turns)]
    for left_out in range(len(vector.turns)) if len(vector.turns) > 2 else ():
        first, *rest = (turn for n, turn in enumerate(vector.turns) if n != left_out)
        found.append(SequenceVector((replace(first, invept=True, second=False), *rest)))
    return list({c.id: c for c in found}.values())


def row_of(answer: Answer, finding: Finding) -> dict[str, Any]:
    """An answer as a row that ``departures`` reads once its outcomes are decoded."""
    level, param = finding.smallest.cell
    assert answer.contract is not None
    return {
        "vector": answer.vector.id,
        "level": level,
        "param": param,
        "host": finding.host,
        "marks": answer.verdict.marks.value,
        "seen": outcome_json(answer.seen),
        "predicted": None if answer.predicted is None else outcome_json(answer.predicted.outcome),
        "contract": json.loads(contract_json(answer.contract)),
    }


def departure_of(row: dict[str, Any]) -> Departure | None:
    """The departure of such a row; None where it is none."""
    decoded = {name: None if row[name] is None else outcome_of(row[name]) for name in ("seen", "predicted")}
    found = departures([{**row, **decoded, "marks": Mark(row["marks"])}])
    return found[0] if found else None


def _same(row: dict[str, Any], finding: Finding, under: Under) -> bool:
    departure = departure_of(row)
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
    best = parse(finding.smallest.vector)
    while candidates := simpler(best):
        answers = ask(candidates)
        kept = [a for a in answers if _same(row_of(a, finding), finding, under)]
        said(f"{len(kept)} of {len(candidates)} simpler vectors show the same")
        if not kept:
            break
        best = kept[0].vector
    shown, last = 0, None
    for _ in range(TIMES):
        (answer,) = ask([best])
        row = row_of(answer, finding)
        if _same(row, finding, under):
            shown, last = shown + 1, row
        said(f"alone: {answer.seen}")
    return Minimal(last or row, shown, TIMES)


def attach(found: list[Finding], kept: dict[str, Any]) -> None:
    """Give findings what a run's provenance keeps of them."""
    for finding in found:
        if (entry := kept.get(finding.cause)) is None:
            continue
        minimal = Minimal(**entry)
        finding.confirmed = str(minimal)
        if minimal.shown == minimal.times:
            finding.minimal = departure_of(minimal.departure)
