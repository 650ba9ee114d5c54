"""Departures that no mirror explains, sorted by what they look like.

What two of them share that are told as one: the kinds of the answers, who makes the access (the CPU, KVM's emulator,
a user of /dev/kvm), the manual's rule, and a field of the answer that is wrong in both. Of an answer of the right kind
the rule says what made it, not what is wrong of it: there the rules of one section are one.

One defect shows in another set of wrong fields wherever a wrong value happens to be the right one. So the fewest
fields are sought of which every departure has one: a field that is always wrong makes one finding of all sets it is
in, and two defects stay two as long as each shows without the other. A defect of the plain host shows in the other
environments as well. What the plain host does not have is told by environment; environments of which one and the same
question departs share the defect. What a vector shows at the base already is told apart from what it shows at later
levels only.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from harness.findings.departures import ACCEPTED, IN_PART, Departure, Symptom, nearest, symptom, wrong_bits
from harness.questions import PLAIN
from kvmodel.question.outcome import Kind
from kvmodel.question.vector import (
    AccessVector,
    CapsVector,
    ClientSequence,
    ClientVector,
    HostVector,
    UserCapsVector,
    Vector,
)

ADVANCED: Final = 0xE00  # bits 9 to 11 of a qualification: given together or not at all (SDM 30.2.1, MSR 0x48C bit 22)
EVMCS: Final = "evmcs"  # stands for the plain host where L1 is offered Hyper-V's enlightened VMCS
# Which controls may be set: in an environment that the plain host is not like it is one clause for all control fields.
CONTROLS: Final = frozenset(f"entry-{which}-controls" for which in ("pin", "primary", "secondary", "exit", "entry"))
_SURROUNDINGS: Final = re.compile(r"\.(env=\w+|ev\d)(?=[.+]|$)")  # of an id

Told = tuple[Departure, Symptom]


@dataclass(frozen=True, slots=True)
class Frame:
    """The frame is all that a departure looks like but for the fields that are wrong and the environment."""

    severity: str
    seen: str
    allowed: str
    maker: str
    broken: str  # the rule, or where the answer is of the right kind the section


@dataclass(frozen=True, slots=True)
class Class:
    """What is told as one: the symptom by which it is known, the same with all that is wrong, and the rest as text."""

    known_by: Symptom
    symptom: Symptom
    rest: str


def _surroundings(d: Departure) -> str:
    """The environment of a departure; of the plain host told apart by whether L1 is offered an enlightened VMCS."""
    machine = d.access.machine
    return EVMCS if machine.env.name == PLAIN and machine.evmcs_offered else machine.env.name


def _question(d: Departure) -> tuple[str, int]:
    """What was asked, whatever the environment."""
    return _SURROUNDINGS.sub("", d.vector.id), d.turn


def _sharing(found: Iterable[Departure]) -> dict[str, str]:
    """Which environment stands for each: the plain one for all, else the first of those of which questions in common
    depart.
    """
    asked: dict[tuple[str, int], set[str]] = defaultdict(set)
    for d in found:
        asked[_question(d)].add(_surroundings(d))
    groups: list[set[str]] = []
    for names in asked.values():
        meeting = [group for group in groups if group & names]
        groups = [group for group in groups if not group & names] + [names.union(*meeting)]
    every = set().union(*groups)
    return {name: PLAIN if PLAIN in every else min(group) for group in groups for name in group}


def _coarser(frame: Frame) -> Frame:
    """The frame of a departure that the plain host has not: what makes it is the environment."""
    one = frame.severity == ACCEPTED and frame.broken in CONTROLS
    return replace(frame, broken="entry-controls") if one else frame


def _maker(vector: Vector) -> str:
    """Who makes the access; of MSRs held against each other, in what."""
    if isinstance(vector, HostVector):
        return vector.what
    if isinstance(vector, CapsVector | UserCapsVector):
        return vector.relation
    if isinstance(vector, ClientVector | ClientSequence):
        return "client"
    return "emulator" if isinstance(vector, AccessVector) and vector.access.is_emulated else "cpu"


def _frame(d: Departure, what: Symptom) -> Frame:
    broken = "" if d.seen.kind is Kind.ASTRAY else d.section if what.wrong else d.rule
    return Frame(what.severity, what.seen, what.allowed, d.seen.logged or _maker(d.access), broken)


def _fields(d: Departure, what: Symptom) -> frozenset[str]:
    """Each field that is wrong, by a name; what is no set of flags, and the advanced information, as a whole."""
    if not what.wrong:
        return frozenset({""})
    if d.seen.kind is Kind.ASTRAY:
        return frozenset(what.wrong)
    names = {name.partition(" ")[0] for name in what.wrong} - {"bits"}
    bits = wrong_bits(d.seen, nearest(d.seen, d.legal))
    if d.seen.kind in (Kind.ENTRY_FAIL, Kind.VALUE) and bits:
        return frozenset(names | {"value"})
    if d.seen.kind is Kind.VIOLATION and bits & ADVANCED:
        names.add(f"bits {ADVANCED:#x}")
        bits &= ~ADVANCED
    return frozenset(names | {f"bits {1 << n:#x}" for n in range(bits.bit_length()) if bits >> n & 1})


def _order(name: str) -> tuple[bool, int, str]:
    """Of fields that are wrong as often: an address before a number before a bit, the lowest bit first."""
    return name.startswith("bits"), len(name), name


def _cores(sets: Iterable[frozenset[str]]) -> dict[frozenset[str], str]:
    """The fewest fields of which each of ``sets`` has one, sought greedily: which one stands for each set."""
    left = Counter(sets)
    found: dict[frozenset[str], str] = {}
    while left:
        counts: Counter[str] = Counter()
        for names, many in left.items():
            counts.update(dict.fromkeys(names, many))
        core = min(counts, key=lambda name: (-counts[name], _order(name)))
        for names in [names for names in left if core in names]:
            found[names] = core
            del left[names]
    return found


def _words(core: str, members: list[Symptom]) -> tuple[str, ...]:
    """What is wrong of all members, and of some: as the first that has only the former says it, where there is one."""
    always = set(members[0].wrong).intersection(*(set(m.wrong) for m in members))
    bits = 0
    sometimes: list[str] = []
    for word in (w for m in members for w in m.wrong if w not in always):
        if word.startswith("bits"):
            bits |= int(word.split()[1], 16)
        elif word not in sometimes:
            sometimes.append(word)
    fixed = [w for w in members[0].wrong if w in always]
    if bits:
        text = f"bits {bits:#x}"
        if core.startswith("bits") or all(any(w.startswith("bits") for w in m.wrong) for m in members):
            fixed.insert(0, text)
        else:
            sometimes.insert(0, text)
    return tuple(fixed + [f"{IN_PART}{word}" for word in sometimes])


def classes(found: Iterable[Departure]) -> dict[Departure, Class]:
    """The function gives the class of each departure."""
    frames: dict[Frame, list[Told]] = defaultdict(list)
    pairs = [(d, symptom(d)) for d in dict.fromkeys(found)]
    of_plain = {_frame(d, what) for d, what in pairs if _surroundings(d) == PLAIN}
    for d, what in pairs:
        frame = _frame(d, what)
        frames[frame if frame in of_plain else _coarser(frame)].append((d, what))
    told: dict[Departure, Class] = {}
    for frame, members in frames.items():
        fields = {d: _fields(d, what) for d, what in members}
        cores = _cores(fields.values())
        alike: dict[str, list[Told]] = defaultdict(list)
        for d, what in members:
            alike[cores[fields[d]]].append((d, what))
        for core, same in alike.items():
            told |= _apart(frame, core, same)
    return told


def _apart(frame: Frame, core: str, same: list[Told]) -> dict[Departure, Class]:
    """The members of one core told apart by whether the base shows the same vector so, and by environment."""
    base = {(d.vector, d.turn) for d, _ in same if d.cell[0] == 0}
    parts: dict[tuple[bool, str], list[Told]] = defaultdict(list)
    for of_base in (True, False):
        members = [(d, what) for d, what in same if ((d.vector, d.turn) in base) is of_base]
        names = _sharing(d for d, _ in members)
        for d, what in members:
            parts[of_base, names[_surroundings(d)]].append((d, what))
    told: dict[Departure, Class] = {}
    for (of_base, environment), members in parts.items():
        known_by = replace(members[0][1], wrong=(core,) if core else ())
        whole = replace(known_by, wrong=_words(core, [what for _, what in members]) if core else ())
        rest = f"{frame.broken} {frame.maker} {environment}{' base' if of_base else ''}"
        told |= dict.fromkeys((d for d, _ in members), Class(known_by, whole, rest))
    return told


def is_of(d: Departure, known_by: Symptom, like: Departure) -> bool:
    """Whether ``d`` would be told as one with ``like``, a member of the class that is known by ``known_by``."""
    what = symptom(d)
    core = known_by.wrong[0] if known_by.wrong else ""
    return _frame(d, what) == _frame(like, symptom(like)) and core in _fields(d, what)
