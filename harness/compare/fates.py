"""What became of the findings of A in B: gone, stayed, new, or not to be told.

Findings of both sides are one where their causes have one hash. Where a side has no cause to show (no mirror was
asked, or it does not explain the finding), they are one where any departure of either looks the same and breaks the
same rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property

from harness.compare.answers import Meeting
from harness.compare.pairing import Pair
from harness.compare.reading import RunSide, SideSaid, Twin
from harness.findings import Departure, Finding, Symptom, weight
from harness.results import Mark
from kvmodel.question.outcome import Allowed

Asked = tuple[Pair, str]  # a question where it was asked: the pair of cells, the vector's id


class Fate(Enum):
    """The fate is what became of a finding."""

    NEW = "new"
    GONE = "gone"
    STAYED = "stayed"
    UNKNOWN = "unknown"  # no vector that shows it on one side was answered on the other


@dataclass(frozen=True)
class Lot:
    """A lot has the findings of either side that are one, with every question that shows them."""

    before: tuple[Finding, ...]
    after: tuple[Finding, ...]
    shown: Mapping[Asked, Meeting]  # by both sides' departures
    in_a: frozenset[Asked]
    in_b: frozenset[Asked]
    order: Mapping[Pair, int]  # of the pairs

    @cached_property
    def answered(self) -> dict[Asked, Meeting]:
        """Of ``shown``, these were answered by both sides."""
        return {
            asked: m
            for asked, m in self.shown.items()
            if m.before is not None and m.after is not None and m.before.heard and m.after.heard
        }

    @property
    def fate(self) -> Fate:
        """This is what became of it, by what both sides answered alone."""
        if self.before and self.after:
            return Fate.STAYED
        if not self.answered:
            return Fate.UNKNOWN
        return Fate.GONE if self.before else Fate.NEW

    @property
    def title(self) -> str:
        """The title is the finding's, of the later side where it has it."""
        return (self.after or self.before)[0].title

    @property
    def vectors(self) -> set[str]:
        """The function gives the questions that show it on either side, each once."""
        return {vector for _, vector in self.shown}

    @property
    def smallest(self) -> Meeting:
        """This is the plainest question of the first pair: of those that show it on both sides, else of those both
        answered.
        """
        both = [self.shown[asked] for asked in self.in_a & self.in_b]
        shown = both or self.answered.values() or self.shown.values()
        return min(shown, key=lambda m: (self.order[m.pair], weight(m.vector)))

    @property
    def pairs(self) -> list[Pair]:
        """The function gives the pairs in which it shows on either side, in order."""
        return sorted({pair for pair, _ in self.shown}, key=self.order.__getitem__)

    @property
    def unanswered(self) -> int:
        """How many questions show it on one side and were not asked, or never ran, on the other."""
        return len(self.shown) - len(self.answered)

    @property
    def only(self) -> tuple[int, int]:
        """The two numbers say, of what both answered, how many show it in A alone, and in B alone."""
        answered = self.answered.keys()
        return len(answered & (self.in_a - self.in_b)), len(answered & (self.in_b - self.in_a))


def lots(a: RunSide, b: RunSide, pairs: Sequence[Pair], twins: Iterable[Twin]) -> list[Lot]:
    """The function gives every finding of either side in ``pairs``, each with its equals, by fate and then by the
    smallest question.
    """
    before = [(f, _shown(f, pairs, "before")) for f in a.run.findings]
    after = [(f, _shown(f, pairs, "after")) for f in b.run.findings]
    before, after = ([(f, shown) for f, shown in found if shown] for found in (before, after))
    needed = {asked for _, shown in (*before, *after) for asked in shown}
    met = {(twin.pair, name): twin for twin in twins for name in twin.names if (twin.pair, name) in needed}
    place = {pair: n for n, pair in enumerate(pairs)}
    made = []
    for mine, theirs in _matched(before, after):
        in_a = {asked: d for _, shown in mine for asked, d in shown.items()}
        in_b = {asked: d for _, shown in theirs for asked, d in shown.items()}
        made.append(
            Lot(
                tuple(_narrowed(f, shown) for f, shown in mine),
                tuple(_narrowed(f, shown) for f, shown in theirs),
                {asked: _meeting(asked, d, met.get(asked), asked in in_a) for asked, d in (in_a | in_b).items()},
                frozenset(in_a),
                frozenset(in_b),
                place,
            )
        )
    order = list(Fate)
    return sorted(made, key=lambda lot: (order.index(lot.fate), place[lot.smallest.pair], weight(lot.smallest.vector)))


Shown = dict[Asked, Departure]


def _shown(finding: Finding, pairs: Sequence[Pair], side: str) -> Shown:
    """The questions of the compared cells that show a finding."""
    at: dict[object, list[Pair]] = {}
    for pair in pairs:
        at.setdefault(getattr(pair, side), []).append(pair)
    return {(pair, d.vector.id): d for d in finding.departures for pair in at.get(d.cell, ())}


def _narrowed(finding: Finding, shown: Shown) -> Finding:
    """A finding with no more than what was compared."""
    kept = tuple(dict.fromkeys(shown.values()))
    minimal = finding.minimal if finding.minimal and finding.minimal.cell in {d.cell for d in kept} else None
    return replace(finding, departures=kept, minimal=minimal)


def _meeting(asked: Asked, d: Departure, twin: Twin | None, in_a: bool) -> Meeting:
    pair, _ = asked
    if twin is not None:
        return Meeting(d.vector, pair, twin.before, twin.after)
    own = SideSaid(d.seen, tuple(Allowed(legal, d.rule, d.section) for legal in d.legal), Mark.FINDING)
    return Meeting(d.vector, pair, own if in_a else None, None if in_a else own)


Held = tuple[Finding, Shown]


def _matched(before: Sequence[Held], after: Sequence[Held]) -> list[tuple[list[Held], list[Held]]]:
    """The findings of both sides in lots: whatever is linked, directly or over others, is one."""
    made: list[tuple[list[Held], list[Held]]] = []
    for side, held in [(0, h) for h in before] + [(1, h) for h in after]:
        linked = [lot for lot in made if any(_same(held[0], other[0]) for other in lot[1 - side])]
        whole: tuple[list[Held], list[Held]] = ([], [])
        for lot in linked:
            whole[0].extend(lot[0])
            whole[1].extend(lot[1])
        whole[side].append(held)
        made = [lot for lot in made if not any(lot is one for one in linked)] + [whole]
    return made


def _same(one: Finding, other: Finding) -> bool:
    """Whether findings of two runs are one."""
    if one.origin.known and other.origin.known:
        return one.cause == other.cause
    return bool(_looks(one) & _looks(other))


def _looks(finding: Finding) -> set[tuple[Symptom, str]]:
    return {(finding.symptom, rule) for rule, _ in finding.rules}
