"""Findings: departures from the manual grouped by cause: one cause, one finding.

Two departures have one cause when they look the same, go away without the same patches, and the same C function
decided them. Where no mirror explains a departure, the contract's rule and the machine stand in for the last two.
At which levels a cause shows, and with which value of the parameter, is not part of it: a run of fewer levels
finds the same causes.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from harness.findings.causes import NOT_ASKED, Cause
from harness.findings.departures import Cell, Departure, Symptom, departing_access, symptom
from harness.questions import parameters
from harness.results import RunSeries
from kvmodel.question.sequence import SequenceVector
from kvmodel.question.vector import AccessVector, ClientSequence, Vector, changed_fields, parse
from kvmodel.series import LAST, Level

Key = tuple[Symptom, str, str, str]


@dataclass(slots=True)
class Finding:
    """One cause: its symptom, the patch behind it, and every departure it leaves."""

    symptom: Symptom
    origin: Cause
    host: str
    key: Key
    departures: list[Departure] = field(default_factory=list)
    name: str = ""
    confirmed: str = ""  # how often ``minimal`` showed it when it was asked alone
    minimal: Departure | None = None  # the smallest that was found by asking simpler vectors on a host
    series: RunSeries = field(default_factory=RunSeries)  # of the run

    @property
    def cells(self) -> frozenset[Cell]:
        """(level, parameter) of every departure."""
        return frozenset(d.cell for d in self.departures)

    @property
    def first_level(self) -> int:
        """The lowest level that shows it."""
        return min(level for level, _ in self.cells)

    @property
    def vectors(self) -> list[str]:
        """The ids that meet it, smallest first."""
        return sorted({d.vector for d in self.departures}, key=weight)

    @property
    def smallest(self) -> Departure:
        """The departure nearest to the plainest vector, of those at the level that first shows it.

        In order: fewest fields off the plain vector, then the id, then the parameter's value. One that was made
        smaller on a host goes before.
        """
        if self.minimal is not None:
            return self.minimal
        first = self.first_level
        return min((d for d in self.departures if d.cell[0] == first), key=lambda d: (weight(d.vector), d.cell))

    @property
    def rules(self) -> list[tuple[str, str]]:
        """The contract's rules that are broken, with their sections, the one most often broken first."""
        return [rule for rule, _ in Counter((d.rule, d.section) for d in self.departures).most_common()]

    @property
    def cause(self) -> str:
        """A hash that stays the same from run to run while the cause does: what a baseline holds."""
        what, *rest = self.key
        text = repr((what.severity, what.seen, what.allowed, what.wrong, *rest))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def title(self) -> str:
        """The symptom with what all its accesses have in common, where no history is needed to show it."""
        if any(d.stale for d in self.departures):
            return str(self.symptom)
        return f"{self.symptom}{common(departing_access(d) for d in self.departures)}"

    @property
    def whence(self) -> str:
        """Where it begins and what is behind it."""
        return f"first at level {self.first_level}, {self.depends_on_parameter()}; {self.origin}"

    @property
    def command(self) -> str:
        """What asks the smallest vector again."""
        level, param = self.smallest.cell
        return f"kvmirror run{self.series.options} --level {level} --param {param} {self.smallest.vector}"

    def depends_on_parameter(self) -> str:
        """With which of the parameter's effective values it shows; of another series' parameters, with which given."""
        if not self.series.mirrored:
            return in_words(param for _, param in self.cells)
        values = {effective(*cell) for cell in self.cells}
        if values == {"on"}:
            return "only with the parameter on"
        return "with the parameter off and on" if "on" in values else "with the parameter off"


def in_words(params: Iterable[str]) -> str:
    """``with kvm_intel.mbec=1`` and the like, of the texts of settings."""
    texts = sorted(set(params), key=parameters.order)
    return "with " + " or ".join("no parameter set" if text == parameters.UNSET else text for text in texts)


def effective(level: int, param: str) -> str:
    """``on`` or ``off``: the parameter's value at a level, its default where it is unset, off where it is not there."""
    if param == "unset":
        return "on" if level <= LAST and Level.of(level).default_parameter else "off"
    return "on" if param == "1" else "off"


@lru_cache(maxsize=1 << 16)  # asked of every departure again for each finding's smallest
def weight(name: str) -> tuple[int, str]:
    """How far a vector is from the plainest one: fields that differ, then its id."""
    vector = parse(name)
    if isinstance(vector, AccessVector):
        return len(changed_fields(vector, AccessVector())), name
    if isinstance(vector, SequenceVector):  # a single access that shows the same is smaller
        differing = len(changed_fields(vector.turns[0].access, AccessVector()))
        return 100 * len(vector.turns) + differing + name.count(".") + name.count("+"), name
    if isinstance(vector, ClientSequence):
        return len(vector.steps), name
    return 0, name


def common(accesses: Iterable[Vector]) -> str:
    """What every access has in common, as words for a title; empty where that is nothing."""
    vectors = list(accesses)
    found = [v for v in vectors if isinstance(v, AccessVector)]
    if not found or len(found) < len(vectors):
        return ""
    words = []
    names = {v.access.value for v in found}
    if len(names) <= 2:
        words.append(" or ".join(sorted(names)))
    if len({v.mbec for v in found}) == 1:
        words.append(f"MBEC {found[0].mbec.value}")
    for bit, title in (("u", "bit 10"), ("x", "bit 2")):
        states = {(getattr(v.leaf, bit), getattr(v.upper, bit)) for v in found}
        if all(leaf for leaf, _ in states):
            words.append(f"{title} set in the leaf")
        elif not any(leaf and upper for leaf, upper in states):
            words.append(f"{title} clear in an entry")
    return f" ({', '.join(words)})" if words else ""


def _key(d: Departure, what: Symptom, origin: Cause) -> Key:
    if origin.errata is not None:
        return what, d.host, str(origin), "" if origin.errata else d.rule
    if origin.known:
        return what, d.host, f"patches {origin.patches}{' base' if origin.in_base else ''}", origin.place
    machine = parse(d.vector).machine.env.name
    return what, d.host, "mirror not asked" if not origin.asked else "not explained", f"{d.rule} {machine}"


def group(found: Iterable[Departure], origin: Callable[[Departure], Cause] = lambda _: NOT_ASKED) -> list[Finding]:
    """Departures grouped by cause, the first level's first; named F1, F2... in that order."""
    causes: dict[Key, Finding] = {}
    members: dict[Key, list[tuple[Departure, Cause]]] = defaultdict(list)
    for d in found:
        what, why = symptom(d), origin(d)
        key = _key(d, what, why)
        members[key].append((d, why))
        finding = causes.setdefault(key, Finding(what, why, d.host, key))
        finding.departures.append(d)
    for key, finding in causes.items():
        smallest = finding.smallest
        finding.origin = next(why for d, why in members[key] if d is smallest)
    ordered = sorted(causes.values(), key=lambda f: (f.first_level, f.symptom.severity, str(f.symptom), str(f.key)))
    for number, finding in enumerate(ordered, 1):
        finding.name = f"F{number}"
    return ordered
