"""Answers of two runs to the same question that are not alike, grouped by what they look like beside one another.

Two answers are alike where their kinds, numbers and addresses are the same and their codes have the same bits, of
those that both vouch for. A note is no part of an answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, lru_cache
from typing import Final

from harness.compare.msrs import apart
from harness.compare.pairing import Pair
from harness.compare.reading import SideSaid, Stance, Twin
from harness.errors import InputError
from harness.findings import WORDS, common, symptom_of, weight
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.reading import parse
from kvmodel.question.sequence import SequenceVector
from kvmodel.question.vector import HostVector, MsrVector, Vector, VectorError

# What the bits of an answer's code are, by its kind.
_CODES: Final = {
    Kind.VIOLATION: "the exit qualification",
    Kind.EXIT: "the exit qualification",
    Kind.ENTRY_EXIT: "the exit qualification",
    Kind.EXCEPTION: "the error code",
    Kind.ENTRY_FAIL: "the VM-instruction error",
    Kind.VALUE: "the value",
    Kind.BYPASS: "the entry",
}
_PLACES: Final = {"gpa": "the guest-physical address", "gla": "the guest-linear address"}


class Sort(Enum):
    """What a pair of answers shows, in the order in which reports have them."""

    DEPARTS = "departs"  # other answers, of which at least one is none that the manual allows
    ALLOWED = "allowed"  # other answers, both allowed
    UNDECIDED = "undecided"  # other answers, and the manual decides at most one of them
    VERDICT = "verdict"  # the same answer, which the manual takes otherwise on the other side
    BLOCKED = "blocked"  # one side's vector never ran
    ALIKE = "alike"
    SILENT = "silent"  # neither ran


def alike(before: Outcome, after: Outcome) -> bool:
    """Two observed answers are the same, whichever comes first: True."""
    return before.matches(after) and after.matches(before)


def sort_of(before: SideSaid, after: SideSaid) -> Sort:
    """The function says what a pair of answers shows."""
    if not before.heard and not after.heard:
        return Sort.SILENT
    if not before.heard or not after.heard:
        return Sort.BLOCKED
    stances = {before.stance, after.stance}
    if alike(before.seen, after.seen):
        return Sort.ALIKE if len(stances) == 1 else Sort.VERDICT
    if Stance.DEPARTS in stances:
        return Sort.DEPARTS
    return Sort.UNDECIDED if Stance.UNDECIDED in stances else Sort.ALLOWED


@dataclass(frozen=True, slots=True)
class Meeting:
    """One question with both answers; a side that was not asked has none."""

    vector: Vector
    pair: Pair
    before: SideSaid | None
    after: SideSaid | None

    @property
    def first_apart(self) -> tuple[int, Outcome, Outcome]:
        """Of a sequence this is the first turn that differs, from 0, with both answers to it; else it is the answers
        themselves.
        """
        assert self.before is not None and self.after is not None  # else nothing differs
        seen = zip(self.before.seen.turns, self.after.seen.turns, strict=False)
        apart = ((n, x, y) for n, (x, y) in enumerate(seen) if not alike(x, y))
        return next(apart, (0, self.before.seen, self.after.seen))

    @property
    def access(self) -> Vector:
        """This is the access whose answers differ, without its history; of what is no sequence, it is the vector
        itself.
        """
        if isinstance(self.vector, SequenceVector):
            return self.vector.turns[self.first_apart[0]].access
        return self.vector


@dataclass(frozen=True)
class AnswerGroup:
    """The group has pairs of answers that look the same beside one another."""

    sort: Sort
    title: str
    members: tuple[Meeting, ...]

    @cached_property
    def vectors(self) -> set[str]:
        """The function gives the questions, each once."""
        return {m.vector.id for m in self.members}

    @cached_property
    def pairs(self) -> list[Pair]:
        """The function gives the pairs of cells in which it shows."""
        return list(dict.fromkeys(m.pair for m in self.members))

    @property
    def smallest(self) -> Meeting:
        """This is the plainest question, of those in the first pair that shows it, as findings have theirs."""
        first = self.pairs[0]
        return min((m for m in self.members if m.pair == first), key=lambda m: weight(m.vector))


def meetings(twin: Twin) -> Iterator[Meeting]:
    """The function gives the questions of a pair of answers."""
    return (Meeting(vector_of(name), twin.pair, twin.before, twin.after) for name in twin.names)


@lru_cache(maxsize=1 << 17)
def vector_of(name: str) -> Vector:
    """The function gives the vector of a journal's id.

    Raises InputError when this kvmirror knows none of that name.
    """
    try:
        return parse(name)
    except VectorError as error:
        raise InputError(f"{error}; a journal of another kvmirror has it, and it cannot be compared here") from error


def groups(twins: Iterable[Twin], order: Sequence[Pair]) -> list[AnswerGroup]:
    """The function gives the pairs of answers that say something, by sort, the largest group of each first."""
    found: dict[tuple[Sort, str], list[Meeting]] = defaultdict(list)
    for twin in twins:
        sort = sort_of(twin.before, twin.after)
        if sort not in (Sort.ALIKE, Sort.SILENT):
            met = list(meetings(twin))
            whole = look(sort, met[0])
            for meeting in met:
                found[sort, _of_value(sort, meeting) or whole].append(meeting)
    place = {pair: n for n, pair in enumerate(order)}
    sorts = list(Sort)
    made = []
    for (sort, title), members in found.items():
        members.sort(key=lambda m: place[m.pair])
        words = "" if sort is Sort.BLOCKED else common(m.access for m in members)
        made.append(AnswerGroup(sort, title + words, tuple(members)))
    return sorted(made, key=lambda g: (sorts.index(g.sort), -len(g.members), g.title))


def look(sort: Sort, meeting: Meeting) -> str:
    """A pair of answers has this look, whatever the vector: what a group has in common."""
    before, after = meeting.before, meeting.after
    assert before is not None and after is not None
    match sort:
        case Sort.BLOCKED:
            side, said = ("A", before) if not before.heard else ("B", after)
            return f"never ran in {side}: {said.seen.note or 'no reason given'}"
        case Sort.VERDICT:
            return f"{_word(before.seen)}: {_stance(before)} in A, {_stance(after)} in B"
        case _:
            _, was, now = meeting.first_apart
            return f"{_apart(meeting.vector, was, now)}{_tail(sort, before, after)}"


def _of_value(sort: Sort, meeting: Meeting) -> str:
    """``look`` of a question for a value, which is told by what it asks for; empty of any other."""
    before, after = meeting.before, meeting.after
    assert before is not None and after is not None
    if sort in (Sort.BLOCKED, Sort.VERDICT) or {before.seen.kind, after.seen.kind} != {Kind.VALUE}:
        return ""
    tail = _tail(sort, before, after)
    match meeting.vector:
        case MsrVector():
            number = meeting.vector.msr
            return f"MSR {number:#x} as L1 reads it: {apart(number, before.seen.code, after.seen.code)}{tail}"
        case HostVector():
            return f"the host's {meeting.vector.what}: another value{tail}"
        case _:
            return ""


def _word(outcome: Outcome) -> str:
    return WORDS.get(outcome.kind.value, outcome.kind.value)


def _stance(said: SideSaid) -> str:
    return {Stance.ALLOWED: "allowed", Stance.DEPARTS: "departs", Stance.UNDECIDED: "not decided"}[said.stance]


def _tail(sort: Sort, before: SideSaid, after: SideSaid) -> str:
    if sort is Sort.ALLOWED:
        return ""
    if before.stance is after.stance:
        return f": both {'depart' if sort is Sort.DEPARTS else 'not decided'}"
    return f": {_stance(before)} in A, {_stance(after)} in B"


def _apart(vector: Vector, was: Outcome, now: Outcome) -> str:
    """In which way two answers differ, as findings say in which way one is wrong."""
    if was.kind is not now.kind:
        return f"{_word(was)} becomes {_word(now)}"
    found = symptom_of(vector, now, (was,)) or symptom_of(vector, was, (now,))
    return f"{_word(was)}, other {' and '.join(_told(was.kind, text) for text in found.wrong)}" if found else _word(was)


def _told(kind: Kind, wrong: str) -> str:
    if wrong.startswith("bits "):
        return f"{wrong} of {_CODES.get(kind, 'the code')}"
    return _PLACES.get(wrong, wrong)
