"""Accesses one after the other that share EPT entries: what a CPU may still know of them (SDM 29.4).

A translation may be cached once its entries are present and not misconfigured, and is found again by the EPT
pointer's address bits alone: neither EPTP bit 6 nor mode-based execute control nor the VMCS is part of the tag.
INVEPT makes the CPU forget; so does an EPT violation, for the address it is about. Nothing else here does: VM
entries and exits without VPIDs only forget what comes of the guest's own paging.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product

from kvmodel.cpu import Cpu
from kvmodel.question.outcome import THEN, Allowed, Kind, NotApplicable, Outcome, of_turns
from kvmodel.question.sequence import SequenceVector, Turn
from kvmodel.question.vector import AccessVector
from kvmodel.sdm.rules import RULES

Answers = tuple[Allowed, ...] | NotApplicable
One = Callable[[Cpu, AccessVector], Answers]  # the answers to one access without history
Cacheable = Callable[[Cpu, AccessVector], bool]  # whether its entries may be cached at all
CACHED = "cached-translation"


def _mixed(now: AccessVector, known: tuple[AccessVector, ...]) -> Iterator[AccessVector]:
    """``now``'s access by entries and controls each of which is of now or of a time that the CPU may remember."""
    states = (now, *known)
    leaves = dict.fromkeys((s.leaf, s.memtype) for s in states)
    uppers = dict.fromkeys(s.upper for s in states)
    controls = dict.fromkeys((s.mbec, s.ad) for s in states)
    for (leaf, memtype), upper, (mbec, ad) in product(leaves, uppers, controls):
        yield replace(now, leaf=leaf, memtype=memtype, upper=upper, mbec=mbec, ad=ad)


def _turn(cpu: Cpu, now: AccessVector, known: tuple[AccessVector, ...], one: One) -> Answers:
    """The answers to a turn: by the entries and controls as they are, then by what may be cached."""
    current = one(cpu, now)
    if isinstance(current, NotApplicable) or not known or current[0].outcome.kind is Kind.ENTRY_FAIL:
        return current
    found = {a.outcome: a for a in current}
    for state in _mixed(now, known):
        for a in one(cpu, state):  # type: ignore[union-attr]  # what is decided for now is for another entry as well
            found.setdefault(a.outcome, Allowed(a.outcome, CACHED, RULES[CACHED].section))
    return tuple(found.values())


def _known(
    cpu: Cpu, seen: Outcome, now: AccessVector, known: tuple[AccessVector, ...], cacheable: Cacheable
) -> tuple[AccessVector, ...]:
    """What the CPU may remember of the address after a turn that ended in ``seen``."""
    if seen.kind is Kind.VIOLATION:
        return ()
    if seen.kind in (Kind.DONE, Kind.EXCEPTION) and now not in known and cacheable(cpu, now):
        return (*known, now)
    return known


def answers(cpu: Cpu, vector: SequenceVector, one: One, cacheable: Cacheable) -> Answers:
    """Every row of outcomes that ``cpu`` may show; the first is that of a CPU that caches nothing."""
    rows: list[tuple[tuple[Allowed, ...], tuple[AccessVector, ...]]] = [((), ())]
    for turn in vector.turns:
        longer = []
        for row, known in rows:
            known = () if turn.invept else known
            found = _turn(cpu, turn.access, known, one)
            if isinstance(found, NotApplicable):
                return found
            longer += [((*row, a), _known(cpu, a.outcome, turn.access, known, cacheable)) for a in found]
        rows = longer
    return tuple(
        Allowed(of_turns(a.outcome for a in row), THEN.join(a.rule for a in row), THEN.join(a.section for a in row))
        for row, _ in rows
    )


def stale(cpu: Cpu, turns: tuple[Turn, ...], seen: Outcome, one: One) -> bool:
    """Whether ``seen``, the last turn's outcome, is what earlier entries or controls would give and today's do not.

    For a departure: INVEPT came between, or else the contract would have allowed it.
    """
    *before, last = turns
    given = [one(cpu, state) for state in _mixed(last.access, tuple(t.access for t in before))]
    today, *earlier = [isinstance(g, tuple) and any(a.outcome.matches(seen) for a in g) for g in given]
    return not today and any(earlier)
