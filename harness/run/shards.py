"""How a run is cut for the hosts that share it: loads that go well together, and a load too long for one host.

A shard is a row of a load's vectors that is asked with the modules loaded for it alone. What a load answers does not
depend on how it is cut: vectors of which L1 is expected to die stay together, since only a sample of them is asked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from harness.observe import Deadly
from harness.questions import Load, Work
from kvmodel.question.vector import Vector

START: Final = 600  # a start of QEMU takes as long as so many vectors
CALL: Final = 250  # a program that calls its host as long as so many
LEAST: Final = (
    4 * START
)  # a shard is at least so long: each is one more load of the modules, and one more start of QEMU
LONG: Final = 1.3  # a share of so many times the usual length comes first

Share = list[Work]


def shares(
    works: Iterable[Work], jobs: int, cost: Callable[[Work], int], deadly: Callable[[Load], Deadly | None]
) -> list[Share]:
    """What one host asks in a row, in the order in which the shares are taken.

    A level with one value of the parameter is one host's, and a CPU without MBEC is one more boot; where that makes too
    few shares for all hosts, the environments go apart. A load that is longer than half of what falls to a host is cut.
    What is far longer than the others comes first, so that no host is left alone with it at the end; the others come
    level by level, as the table shows them, and those for a CPU without MBEC last: no host boots again behind them.
    """
    works = list(works)
    pieces = _cut_long(works, jobs, cost, deadly)
    whole = [work for work in works if work.load not in {piece.load for piece in pieces}]
    parts: list[Share] = []
    for depth in (3, 4):
        grouped: dict[tuple[object, ...], Share] = {}
        for work in whole:
            load = work.load
            mbec = load.env.cpu_mbec
            level = load.level if mbec else -1
            key = (mbec, level, load.setting if mbec or depth > 3 else None, load.env.name)[:depth]
            grouped.setdefault(key, []).append(work)
        parts = list(grouped.values()) + [[piece] for piece in pieces]
        if len(parts) >= 2 * jobs:
            break
    sizes = {id(part): sum(map(cost, part)) for part in parts}
    far = LONG * sum(sizes.values()) / max(1, len(sizes))

    def place(part: Share) -> tuple[int, bool]:
        size = sizes[id(part)]
        return (-size, False) if size > far else (0, not part[0].load.env.cpu_mbec)

    return sorted(parts, key=place)


def _cut_long(
    works: Sequence[Work], jobs: int, cost: Callable[[Work], int], deadly: Callable[[Load], Deadly | None]
) -> list[Work]:
    """The shards of the loads that are too long for one host of ``jobs``."""
    if jobs < 2:
        return []
    costs = [cost(work) for work in works]
    room = max(LEAST, sum(costs) / (2 * jobs))
    found: list[Work] = []
    for work, length in zip(works, costs, strict=True):
        if length > LONG * room:
            found += cut(work, math.ceil(length / room), deadly(work.load))
    return found


def cut(work: Work, count: int, deadly: Deadly | None = None) -> list[Work]:
    """``work`` as at most ``count`` shards of about one length; each vector is in one of them.

    The vectors stay in order, so that those which share settings of the VMCS stay neighbours. Those that ``deadly``
    names stay with the first shard of their machine.
    """
    room = math.ceil(work.size / count)
    shards = [Work(work.load, list(work.host))]
    for machine, asked in work.batches.items():
        kept = {v.id for v in asked if deadly is not None and deadly(v) is not None}
        rest = [v for v in asked if v.id not in kept]
        while rest or kept:
            space = room - shards[-1].size
            if space < START / 2 and len(shards) < count:
                shards.append(Work(work.load))
                continue
            end = len(rest) if len(shards) == count or len(rest) < space + START / 2 else space
            piece = kept | {v.id for v in rest[:end]}
            shards[-1].batches[machine] = _of(asked, piece)
            rest, kept = rest[end:], set()
    return shards


def halves(work: Work) -> list[Work]:
    """The function gives ``work`` as two shards of the same load, in order; none where it is one vector."""
    if work.size < 2:
        return []
    middle = work.size // 2
    found = [Work(work.load, work.host[:middle]), Work(work.load, work.host[middle:])]
    at = len(work.host)
    for machine, asked in work.batches.items():
        here = max(0, min(len(asked), middle - at))
        for half, part in zip(found, (asked[:here], asked[here:]), strict=True):
            if part:
                half.batches[machine] = part
        at += len(asked)
    return found


def _of(vectors: Iterable[Vector], ids: set[str]) -> list[Vector]:
    return [v for v in vectors if v.id in ids]
