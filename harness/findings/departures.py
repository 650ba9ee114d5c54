"""Departures: one vector's answer that the manual does not allow, and what it looks like without the vector."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from harness.results import Answer, Cell, CellKey, Mark, departing
from kvmodel import sdm
from kvmodel.cpu import Cpu
from kvmodel.question import tally
from kvmodel.question.outcome import Allowed, Kind, NotApplicable, Outcome
from kvmodel.question.program import ProgramVector
from kvmodel.question.sequence import SequenceVector
from kvmodel.question.vector import (
    CapsVector,
    ClientSequence,
    ClientVector,
    HostVector,
    MmioVector,
    UserCapsVector,
    Vector,
)

STALE: Final = "stale translation"
LOG: Final = "the kernel's log"
ACCEPTED: Final = "VM entry accepted"
IN_PART: Final = "in part "  # before what is wrong of some members of a class

# The kinds of answers as a title says them; the others say themselves.
WORDS: Final = {
    Kind.DONE.value: "an access that completes",
    Kind.EXCEPTION.value: "an exception in L2",
    Kind.VIOLATION.value: "an EPT violation",
    Kind.MISCONFIG.value: "an EPT misconfiguration",
    Kind.ENTRY_FAIL.value: "a VM entry that fails",
    Kind.ENTRY_EXIT.value: "a VM entry that ends in an exit",
    Kind.EXIT.value: "another VM exit",
    Kind.ASTRAY.value: "an exit that leaves other state than it must",
    Kind.VALUE.value: "a value",
    Kind.LIVELOCK.value: "the same exit for ever",
    Kind.BYPASS.value: "an EPT entry that gives what the host's own rule withholds",
    Kind.HOST.value: "a VM that dies or a kernel that warns",
}


@dataclass(frozen=True, slots=True)
class Departure:
    """A departure is one vector's answer that the manual does not allow, at one level; of a sequence, one
    turn's.

    ``legal`` are all the answers the manual allows, the plainest first; ``rule`` and ``section`` are the first's.
    ``predicted`` is the mirror's of the whole vector, None where it was not asked.
    """

    vector: Vector
    cell: Cell
    host: str
    seen: Outcome
    legal: tuple[Outcome, ...]
    rule: str
    section: str
    predicted: Outcome | None = None
    turn: int = 0  # of a sequence: the turn that departs, from 0; ``seen`` and ``legal`` are its
    stale: bool = False  # it goes by entries or controls of an earlier turn, and shows nowhere without them

    @property
    def allowed(self) -> Outcome:
        """The first answer the manual allows."""
        return self.legal[0]

    @property
    def access(self) -> Vector:
        """This is the access that departs, without its history; of what is no sequence, it is the vector itself."""
        return self.vector.turns[self.turn].access if isinstance(self.vector, SequenceVector) else self.vector


@dataclass(frozen=True, slots=True)
class Symptom:
    """A symptom is what a departure looks like, without the vector: the answers' kinds and what of the seen one is
    wrong.
    """

    severity: str
    seen: str
    allowed: str
    wrong: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.severity == LOG:
            return f"{LOG}: {' and '.join(self.wrong)}"
        seen, allowed = WORDS.get(self.seen, self.seen), WORDS.get(self.allowed, self.allowed)
        if self.severity == ACCEPTED and self.seen == Kind.DONE.value:
            return f"{self.severity} where the manual has {allowed}"
        if self.seen == Kind.ASTRAY.value:
            return f"{self.severity}: {_listed(self.wrong)}"
        if self.wrong:
            return f"{self.severity}: {seen}, wrong {' and '.join(self.wrong)}"
        if self.seen == Kind.BYPASS.value:  # a rule of the host's own: there is no other answer to name
            return f"{self.severity}: {seen}"
        if (self.seen, self.allowed) == (Kind.VALUE.value, Kind.DONE.value):
            return f"{self.severity}: a module's parameter that is no longer what its user set"
        return f"{self.severity}: {seen} where the manual has {allowed}"


def _listed(wrong: Iterable[str]) -> str:
    """What is astray, the fields of one kind together: ``saved state: a, b and in part the launch state``."""
    fields: dict[str, list[str]] = {}
    for word in wrong:
        kind, _, field = word.partition(": ")
        fields.setdefault(kind, []).extend([field] if field else [])
    return " and ".join(kind + (f": {', '.join(names)}" if names else "") for kind, names in fields.items())


def _wrong_tally(seen: Outcome, allowed: Outcome) -> str:
    """What the counts of a client's sequence betray that made all its accesses."""
    if (seen.code ^ allowed.code) & allowed.defined & tally.MASK["pages_2m"]:
        return "mitigation bypassed"
    return "write missing in the dirty log"


def severity(vector: Vector, seen: Outcome, allowed: Outcome) -> str:
    """The text tells the departure in the field's terms."""
    own = isinstance(vector, ClientVector | ClientSequence | MmioVector)  # L1's own access: nothing is nested
    if seen.logged:
        return LOG
    if isinstance(vector, CapsVector | UserCapsVector) and seen.kind is Kind.VALUE:
        return f"capability MSRs at odds, {vector.relation}"
    match seen.kind, allowed.kind:
        case Kind.LIVELOCK, _:
            return "L1 livelock or death" if own else "L2 livelock"
        case Kind.BYPASS, _:
            return "permission not enforced" if isinstance(vector, HostVector) else "mitigation bypassed"
        case Kind.HOST, _:
            return "L1 livelock or death" if own and not seen.warned else "host trouble"
        case Kind.DONE, Kind.DONE:
            return "wrong page reached" if isinstance(vector, ProgramVector) else _wrong_tally(seen, allowed)
        case Kind.VALUE, Kind.DONE:
            return "host trouble"
        case Kind.ASTRAY, _:
            return "state astray after an exit"
        case (Kind.VIOLATION, Kind.VIOLATION) | (Kind.MISCONFIG, Kind.MISCONFIG):
            return "wrong exit information"
        case Kind.DONE, Kind.EXCEPTION | Kind.VIOLATION | Kind.MISCONFIG:
            return "permission not enforced"
        case ((Kind.VIOLATION | Kind.MISCONFIG | Kind.EXIT), Kind.DONE):
            return "exit to L1 that the manual does not have"
        case ((Kind.VIOLATION | Kind.MISCONFIG | Kind.EXIT), _):
            return "wrong exit to L1"
        case _, Kind.VIOLATION | Kind.MISCONFIG:
            return "missed exit to L1"
        case ((Kind.ENTRY_FAIL | Kind.ENTRY_EXIT), _):
            return "VM entry refused"
        case _, Kind.ENTRY_FAIL | Kind.ENTRY_EXIT:
            return ACCEPTED
        case _:
            return "wrong answer"


def wrong_bits(seen: Outcome, allowed: Outcome) -> int:
    """The function gives the bits of the code that both vouch for and that differ."""
    return (seen.code ^ allowed.code) & allowed.defined & seen.defined


def _wrong(seen: Outcome, allowed: Outcome) -> tuple[str, ...]:
    """What of an answer of the right kind is wrong: bits of its code, its number, its addresses."""
    if seen.logged:
        return (seen.logged,)
    if seen.kind is Kind.ASTRAY:
        return tuple(word.partition(" (")[0] for word in seen.note.split(", "))  # without the values of a field
    if seen.kind is not allowed.kind:
        return ()
    found = []
    if bits := wrong_bits(seen, allowed):
        found.append(f"bits {bits:#x}")
    if seen.number != allowed.number:
        found.append(f"number {seen.number}")
    found += [
        name
        for name in ("gpa", "gla")
        if getattr(allowed, name) is not None and getattr(allowed, name) != getattr(seen, name)
    ]
    return tuple(found)


def nearest(seen: Outcome, legal: tuple[Outcome, ...]) -> Outcome:
    """Of several legal answers this is the one that tells best what is wrong; the plainest where none is of the kind
    seen.
    """
    found = min(legal, key=lambda a: (a.kind is not seen.kind, len(_wrong(seen, a)), wrong_bits(seen, a).bit_count()))
    return legal[0] if found.kind is not seen.kind else found


def symptom_of(vector: Vector, seen: Outcome, legal: tuple[Outcome, ...], *, stale: bool = False) -> Symptom | None:
    """The function says what ``seen`` looks like beside what the manual allows; None where the manual allows it."""
    if any(a.matches(seen) for a in legal):
        return None
    plain = nearest(seen, legal)
    what = STALE if stale else severity(vector, seen, plain)
    allowed = seen if seen.kind is Kind.ASTRAY else plain  # whatever else the manual has of this vector
    return Symptom(what, seen.kind.value, allowed.kind.value, _wrong(seen, plain))


def symptom(d: Departure) -> Symptom:
    """The function gives the departure without its vector."""
    found = symptom_of(d.vector, d.seen, d.legal, stale=d.stale)
    assert found is not None  # else it were no departure
    return found


def departures(answers: Iterable[tuple[CellKey, Answer]]) -> list[Departure]:
    """The function gives the answers marked FINDING as departures."""
    return told_stale(fresh(answers))


def fresh(answers: Iterable[tuple[CellKey, Answer]]) -> list[Departure]:
    """``departures`` of which none is told to be a matter of history yet."""
    return [departure(key, answer) for key, answer in answers if Mark.FINDING in answer.verdict.marks]


def departure(key: CellKey, answer: Answer) -> Departure:
    """The function gives an answer that the manual does not allow as a departure."""
    contract = answer.contract
    assert contract is not None and not isinstance(contract, NotApplicable)  # else it were no finding
    turn, first = departing(contract, answer.seen)
    seen = answer.seen.turn(turn)
    assert seen is not None  # the turn that departs was seen
    legal = (first.outcome, *_others(contract, answer.seen, turn, first.outcome))
    rule, section = sdm.rule_left(seen.code) if seen.kind is Kind.ASTRAY else (first.rule, first.section)
    return Departure(answer.vector, key.cell, key.host, seen, legal, rule, section, answer.predicted, turn)


def _others(contract: Sequence[Allowed], seen: Outcome, turn: int, first: Outcome) -> list[Outcome]:
    """What else is allowed in ``turn``, with the history that was seen."""
    found = []
    for allowed in contract:
        outcome = allowed.outcome.turn(turn)
        history = zip(allowed.outcome.turns[:turn], seen.turns[:turn], strict=False)
        if outcome is not None and outcome != first and all(a.matches(b) for a, b in history):
            found.append(outcome)
    return found


def told_stale(found: Sequence[Departure]) -> list[Departure]:
    """The function gives ``found`` with those marked that only their history explains.

    What the same access shows as a first turn or alone is no matter of history, whatever it looks like.
    """
    without = {(d.access.id, d.cell, d.host, d.seen) for d in found if d.turn == 0}
    return [replace(d, stale=True) if _stale(d, without) else d for d in found]


def _stale(d: Departure, without: set[tuple[str, Cell, str, Outcome]]) -> bool:
    if not isinstance(d.vector, SequenceVector) or (d.access.id, d.cell, d.host, d.seen) in without:
        return False
    return sdm.stale(Cpu(), d.vector.turns[: d.turn + 1], d.seen)
