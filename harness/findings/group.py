"""Findings: departures from the manual grouped by cause: one cause, one finding.

Two departures have one cause when they look the same, go away without the same patches, and the same C function
decided them. Where no mirror explains a departure, ``without_mirror`` says what is told as one.
At which levels a cause shows, and with which value of the parameter, is not part of it: a run of fewer levels
finds the same causes.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Final

from harness.findings import without_mirror
from harness.findings.causes import NOT_ASKED, Cause
from harness.findings.departures import Departure, Symptom, symptom
from harness.hosts import Model, models
from harness.questions import PLAIN, Setting, parameters
from harness.results import FORESEEN_HOST, KVM_HOST, Cell, RunSeries
from kvmodel.question.program import ProgramVector
from kvmodel.question.sequence import SequenceVector
from kvmodel.question.vector import AccessVector, ClientSequence, Vector, changed_fields
from kvmodel.question.vm_entry import VmEntryVector
from kvmodel.question.vm_exit import VmExitVector
from kvmodel.series import LAST, Level

if TYPE_CHECKING:
    from harness.findings.left_out import LeavingOut

Key = tuple[Symptom, str, str, str]
NAMED: Final = 3  # environments that a line names


@dataclass(frozen=True)
class Finding:
    """One cause: its symptom, the patch behind it, and every departure it leaves."""

    name: str
    symptom: Symptom
    origin: Cause
    host: str
    key: Key
    departures: tuple[Departure, ...]
    confirmed: str = ""  # how often ``minimal`` showed it when it was asked alone
    minimal: Departure | None = None  # the smallest that was found by asking simpler vectors on a host
    left_out: LeavingOut | None = None  # what kernels without a patch each said of it
    series: RunSeries = field(default_factory=RunSeries)  # of the run
    cpu: Model = models.USUAL  # of the run, where that is on emulated hosts

    @cached_property
    def cells(self) -> frozenset[Cell]:
        """The function gives (level, parameter) of every departure."""
        return frozenset(d.cell for d in self.departures)

    @property
    def first_level(self) -> int:
        """This is the lowest level that shows it."""
        return min(level for level, _ in self.cells)

    @property
    def begins(self) -> int:
        """This is the lowest level known to show it: the run's, or a lower one that was asked afterwards."""
        return self.first_level if self.left_out is None else min(self.first_level, self.left_out.first)

    @property
    def of_base(self) -> bool:
        """Whether the base has it already: the series does not bring it."""
        return self.origin.in_base or self.begins == 0

    @cached_property
    def vectors(self) -> list[Vector]:
        """The function gives the vectors that meet it, each once, smallest first."""
        return sorted({d.vector.id: d.vector for d in self.departures}.values(), key=weight)

    @property
    def smallest(self) -> Departure:
        """This is the departure nearest to the plainest vector, of those at the level that first shows it.

        In order: fewest fields off the plain vector, then the id, then the parameter's value. One that was made
        smaller on a host goes before.
        """
        return self.minimal or self.seen_smallest

    @cached_property
    def seen_smallest(self) -> Departure:
        """This is ``smallest`` of those that the run itself asked."""
        return _smallest(self.departures)

    @cached_property
    def environments(self) -> tuple[str, ...]:
        """These are the environments that show it, the plain one first."""
        return tuple(
            sorted({d.access.machine.env.name for d in self.departures}, key=lambda name: (name != PLAIN, name))
        )

    @property
    def surroundings(self) -> str:
        """The text says in which environments it shows beside the plain one, or instead of it; empty for the plain one
        alone.
        """
        others = [name for name in self.environments if name != PLAIN]
        if not others:
            evmcs = all(d.access.machine.evmcs_offered for d in self.departures)
            return "only where L1 is offered an enlightened VMCS" if evmcs else ""
        named = ", ".join(others[:NAMED]) + (f" and {len(others) - NAMED} more" if len(others) > NAMED else "")
        if len(others) < len(self.environments):
            return (
                f"also in {'another environment' if len(others) == 1 else f'{len(others)} other environments'}: {named}"
            )
        return f"only in {'environment' if len(others) == 1 else 'environments'} {named}"

    @property
    def rules(self) -> list[tuple[str, str]]:
        """The function gives the contract's rules that are broken, with their sections, the one most often broken
        first.
        """
        return [rule for rule, _ in Counter((d.rule, d.section) for d in self.departures).most_common()]

    @property
    def cause(self) -> str:
        """The hash stays the same from run to run while the cause does: it is what a baseline holds."""
        what, *rest = self.key
        text = repr((what.severity, what.seen, what.allowed, what.wrong, *rest))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def title(self) -> str:
        """The title has the symptom with what all its accesses have in common, where no history is needed to
        show it.
        """
        if any(d.stale for d in self.departures):
            return str(self.symptom)
        return f"{self.symptom}{common(d.access for d in self.departures)}"

    @property
    def whence(self) -> str:
        """The text says where it begins and what is behind it."""
        parts = [f"first at level {self.begins}, {self.depends_on_parameter()}", self.surroundings, str(self.origin)]
        return "; ".join(part for part in parts if part)

    @property
    def command(self) -> str:
        """The command is what asks the smallest vector again."""
        level, param = self.smallest.cell
        options = f"{self.series.options}{models.option(self.cpu)}"
        return f"kvmirror run{options} --level {level} --param {param} {self.smallest.vector.id}"

    def depends_on_parameter(self) -> str:
        """The text says with which of the parameter's effective values it shows; of another series' parameters, with
        which given.
        """
        if not self.series.mirrored:
            return in_words(param for _, param in self.cells)
        values = {effective(*cell) for cell in self.cells}
        if values == {"on"}:
            return "only with the parameter on"
        return "with the parameter off and on" if "on" in values else "with the parameter off"


def in_words(params: Iterable[str]) -> str:
    """The text is like ``with kvm_intel.mbec=1``, made of the texts of settings."""
    texts = sorted(set(params), key=parameters.order)
    return "with " + " or ".join("no parameter set" if text == parameters.UNSET else text for text in texts)


@lru_cache(maxsize=1 << 10)
def effective(level: int, param: str) -> str:
    """The text is ``on`` or ``off``: the mirrored series' parameter at a level, its default where ``param`` leaves it
    unset, off where it is not there.
    """
    value = Setting.parse(param).own
    if value is None:
        return "on" if level <= LAST and Level.of(level).default_parameter else "off"
    return "on" if value else "off"


def weight(vector: Vector) -> tuple[int, str]:
    """The weight says how far a vector is from the plainest one: fields that differ, then its id."""
    return _fields_off(vector), vector.id


def _smallest(found: Iterable[Departure]) -> Departure:
    departures = list(found)
    first = min(d.cell[0] for d in departures)
    return min((d for d in departures if d.cell[0] == first), key=lambda d: (weight(d.vector), d.cell))


def common(accesses: Iterable[Vector]) -> str:
    """The text says what every access has in common, as words for a title; it is empty where that is nothing."""
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


def _fields_off(vector: Vector) -> int:
    if isinstance(vector, AccessVector):
        return len(changed_fields(vector, AccessVector()))
    if isinstance(vector, SequenceVector):  # a single access that shows the same is smaller
        differing = len(changed_fields(vector.turns[0].access, AccessVector()))
        return 100 * len(vector.turns) + differing + vector.id.count(".") + vector.id.count("+")
    if isinstance(vector, ProgramVector):  # among programs; a single access that shows the same is smaller
        return 1000 + 10 * len(vector.steps) + len(vector.id)
    if isinstance(vector, ClientSequence):
        return len(vector.steps)
    if isinstance(vector, VmExitVector):
        return 10 + len(vector.steps) + len(vector.changes) + (vector.machine.env.name != PLAIN)
    if isinstance(vector, VmEntryVector):
        return len(vector.changes) + (vector.machine.env.name != PLAIN)
    return 0


def _key(d: Departure, what: Symptom, origin: Cause) -> Key:
    host = _host(d)
    if origin.errata is not None:
        return what, host, str(origin), "" if origin.errata else d.rule
    return what, host, f"patches {origin.patches}{' base' if origin.in_base else ''}", origin.place


def _host(d: Departure) -> str:
    """What is foreseen of KVM and then seen of it is one cause."""
    return KVM_HOST if d.host == FORESEEN_HOST else d.host


def _unexplained(told: Iterable[tuple[Departure, Cause]]) -> dict[Departure, tuple[Key, Symptom]]:
    """Key and symptom of each departure of which no cause is known."""
    apart: dict[tuple[str, str], list[Departure]] = defaultdict(list)
    for d, why in told:
        if why.errata is None and not why.known:
            apart[_host(d), "not explained" if why.asked else "mirror not asked"].append(d)
    found = {}
    for (host, word), members in apart.items():
        for d, one in without_mirror.classes(members).items():
            found[d] = (one.known_by, host, word, one.rest), one.symptom
    return found


def group(found: Iterable[Departure], origin: Callable[[Departure], Cause] = lambda _: NOT_ASKED) -> list[Finding]:
    """The departures are grouped by cause, the first level's first; the groups have the names F1, F2... in that
    order.
    """
    return of_causes([(d, origin(d)) for d in found])


def of_causes(found: Sequence[tuple[Departure, Cause]]) -> list[Finding]:
    """The function does what ``group`` does, for departures whose causes are known."""
    unexplained = _unexplained(found)
    members: dict[Key, list[tuple[Departure, Cause]]] = defaultdict(list)
    symptoms: dict[Key, Symptom] = {}
    for d, why in found:
        if d in unexplained:
            key, what = unexplained[d]
        else:
            key = _key(d, what := symptom(d), why)
        symptoms.setdefault(key, what)
        members[key].append((d, why))
    begins = {key: min(d.cell[0] for d, _ in pairs) for key, pairs in members.items()}
    ordered = sorted(members, key=lambda key: (begins[key], symptoms[key].severity, str(symptoms[key]), str(key)))
    return [_finding(f"F{n}", symptoms[key], key, members[key]) for n, key in enumerate(ordered, 1)]


def _finding(name: str, what: Symptom, key: Key, members: Sequence[tuple[Departure, Cause]]) -> Finding:
    departures = tuple(d for d, _ in members)
    smallest = _smallest(departures)
    origin = next(why for d, why in members if d is smallest)
    return Finding(name, what, origin, smallest.host, key, departures)
