"""What became of the lines that have code, by the patch that wrote them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum

from harness.coverage.counters import CountedLine, Lines
from harness.series import Patch, State


class Reach(Enum):
    """The reach says what reached a line, the most telling first."""

    VECTORS = "vectors"
    SETUP = "setup"  # loading the modules, reading what KVM offers, removing them: whatever the vectors are
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Written:
    """This is a line with code that a patch wrote. ``ways``: how many ways out of its conditions the vectors took, of
    how many.
    """

    patch: int
    path: str
    number: int
    text: str
    reach: Reach
    ways: tuple[int, int]

    @property
    def one_sided(self) -> bool:
        """The line was reached by vectors and some way out of it was never taken: True."""
        return self.reach is Reach.VECTORS and self.ways[0] < self.ways[1]


@dataclass(frozen=True, slots=True)
class Covered:
    """The record is of a patch with its lines that have code."""

    patch: Patch
    lines: tuple[Written, ...]

    def of(self, reach: Reach) -> list[Written]:
        """The function gives the lines that were reached so."""
        return [line for line in self.lines if line.reach is reach]


def judge(
    patches: Sequence[Patch], written: dict[str, list[int]], state: State, vectors: Lines, setup: Lines
) -> list[Covered]:
    """Every patch of a level with its lines; ``state`` has the level's files, ``written`` is their ``authors``."""
    found: dict[int, list[Written]] = {patch.number: [] for patch in patches}
    for path, numbers in sorted(written.items()):
        text = (state.get(path) or b"").decode("utf-8", "replace").splitlines()
        for number, patch in enumerate(numbers, 1):
            copies = vectors.get((path, number))
            if patch and copies:
                reach = _reach(copies, setup.get((path, number), []))
                found[patch].append(Written(patch, path, number, text[number - 1].strip(), reach, _ways(copies)))
    return [Covered(patch, tuple(found[patch.number])) for patch in patches]


def _reach(vectors: Collection[CountedLine], setup: Collection[CountedLine]) -> Reach:
    if any(line.count for line in vectors):
        return Reach.VECTORS
    return Reach.SETUP if any(line.count for line in setup) else Reach.NEVER


def _ways(copies: Collection[CountedLine]) -> tuple[int, int]:
    """Taken and there. Copies of an inline function may be compiled differently: the best of each kind counts."""
    sums: dict[int, list[int]] = {}
    for line in copies:
        row = sums.setdefault(len(line.ways), [0] * len(line.ways))
        row[:] = [a + b for a, b in zip(row, line.ways, strict=True)]
    return min(((sum(map(bool, row)), len(row)) for row in sums.values()), key=lambda way: way[1] - way[0])
