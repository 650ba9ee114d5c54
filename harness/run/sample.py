"""Which vectors are traced, and what the mirror says of their traces."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from harness.observe import Traced, cut, matching, warns
from harness.questions import Load
from harness.results import Judged
from kvmodel import machine
from kvmodel.cpu import Cpu
from kvmodel.question.outcome import Kind
from kvmodel.question.vector import RWXU, UWX, AccessVector, NxVector, Paging, Vector

LIMIT: Final = 24  # vectors traced of one machine's batch; those that ask about huge pages come on top
LIVELOCKS: Final = 2  # of them, at most: each fills the trace until its deadline
MANY: Final = 200  # accesses above which only the simple ones are candidates

Key = tuple[Kind, tuple[str, ...]]


def _simple(v: AccessVector) -> bool:
    """At most one thing beside leaf, access and MBEC is out of the ordinary."""
    odd = (
        v.upper != RWXU,
        v.memtype != 6 or v.leaf_bits != 0,
        v.upper_bits != 0,
        v.gp != UWX,
        v.gu != UWX,
        v.paging is not Paging.LONG,
        v.smep or v.smap or not v.wp,
        v.ad and not v.access.is_walk,
        v.leaf_level > 1,
        v.cpl == 3 and not v.access.is_walk,
        v.upper_level - v.leaf_level > 1,
    )
    return sum(odd) <= 1


def _kind_of(load: Load, cpu: Cpu, v: AccessVector) -> Key:
    """What two vectors share of which one is enough: how they end, and their events but for L1's own entries."""
    outcome = machine.predict(load.level, load.param, cpu, v).outcome
    told = machine.events(load.level, load.param, cpu, v)
    shapes = (name if name == "kvm_mmu_paging_element" else matching.shape((name, text))[0] for name, text in told)
    return outcome.kind, tuple(shapes)


def select(load: Load, cpu: Cpu, vectors: Sequence[Vector]) -> list[Vector]:
    """The function gives one vector of each kind of events that the mirror predicts, and every question about huge
    pages.

    Where there are more kinds than LIMIT, they are taken evenly from the list. Vectors of which L1 dies are left out.
    """
    accesses = [v for v in vectors if isinstance(v, AccessVector)]
    if len(accesses) > MANY:
        accesses = [v for v in accesses if _simple(v)]
    first: dict[Key, AccessVector] = {}
    for v in accesses:
        first.setdefault(_kind_of(load, cpu, v), v)
    by_end: dict[Kind, list[Vector]] = defaultdict(list)
    for (kind, _), v in first.items():
        by_end[kind].append(v)
    livelocks = by_end.pop(Kind.LIVELOCK, [])[:LIVELOCKS]
    for kind in (Kind.HOST, Kind.BLOCKED, Kind.SCAFFOLD):
        by_end.pop(kind, None)
    rest = [v for members in by_end.values() for v in members]
    step = max(1.0, len(rest) / (LIMIT - len(livelocks)))
    chosen = [rest[int(n * step)] for n in range(int(len(rest) / step))]
    return [*chosen, *livelocks, *(v for v in vectors if isinstance(v, NxVector) and _lives(load, cpu, v))]


def huge_pages(_: Load, vectors: Sequence[Vector]) -> list[Vector]:
    """The function gives the questions that only a trace answers."""
    return [v for v in vectors if isinstance(v, NxVector)]


def _lives(load: Load, cpu: Cpu, v: NxVector) -> bool:
    return machine.predict(load.level, load.param, cpu, v.asked).outcome.kind is not Kind.HOST


def judge_traces(
    load: Load,
    cpu: Cpu,
    traced: Iterable[Traced],
    spoken: set[str],
    *,
    now: Collection[AccessVector],
    shown: Collection[str] = (),
) -> list[Judged]:
    """Each traced vector is held against the mirror, in the order in which they ran.

    A WARN_ONCE speaks once a load: what the mirror predicts for several vectors is due at the first. ``spoken``: what
    was due at the load's vectors before; this call's are added. Only those of ``now`` ran in this load. What had spoken
    before another one in its own load is not known: of such a one no WARN is due that is among ``shown``, what all
    traces of the load show.
    """
    found = []
    for one in traced:
        told = cut.predicted(machine.events(load.level, load.param, cpu, one.vector))
        difference = matching.compare(told, one.exits)
        text = str(difference) if difference is not None else ""
        possible = machine.warns(load.level, load.param, cpu, one.vector)
        due = [warn for warn in possible if warn not in spoken]
        if one.vector not in now:
            due = [warn for warn in due if not warns.is_among(warn, shown)]
        spoken.update(due)
        if not text and not warns.same_warns(due, possible, one.warns):
            text = f"WARN: mirror {', '.join(due) or 'none'!r}, KVM {', '.join(one.warns) or 'none'!r}"
        found.append(Judged(one.vector.id, len(one.exits) - 1, one.events, text, one.warns))
    return found
