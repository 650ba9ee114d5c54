"""A level without some of its patches: the rest applied in order, or those taken back from the level.

Hunks may land at an offset, never with fuzz. Where neither works, the patches that do not apply without the others
stay out with them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from harness.errors import SeriesError
from harness.series.authors import authors
from harness.series.folder import (
    Applied,
    Series,
    State,
    apply_patch,
    base_state,
    laid_out,
    level_state,
    read_back,
)


class How(Enum):
    """How a patch was kept out."""

    LEFT_OUT = "left out"
    TAKEN_BACK = "taken back"


@dataclass(frozen=True, slots=True)
class Variant:
    """The files of a level without the patches ``left_out``; ``applied`` are the others (none: taken back)."""

    level: int
    left_out: tuple[int, ...]
    how: How
    state: State
    applied: tuple[Applied, ...] = ()


def leave_out(series: Series, pristine: Path, level: int, patches: Collection[int]) -> Variant:
    """The function gives ``level`` without ``patches``, and without what does not apply without them."""
    gone = set(patches)
    applied, refused = _rest(series, pristine, [n for n in series.numbers(level) if n not in gone])
    if refused and (state := _taken_back(series, pristine, level, gone)) is not None:
        return Variant(level, tuple(sorted(gone)), How.TAKEN_BACK, state)
    state = applied[-1].state if applied else base_state(series, pristine)
    return Variant(level, tuple(sorted(gone | refused)), How.LEFT_OUT, state, tuple(applied))


def _rest(series: Series, pristine: Path, numbers: Iterable[int]) -> tuple[list[Applied], set[int]]:
    """The patches ``numbers`` applied in order, and those that did not apply and were passed over."""
    state = base_state(series, pristine)
    applied: list[Applied] = []
    refused: set[int] = set()
    with laid_out(state) as folder:
        for number in numbers:
            patch = series.patches[number - 1]
            try:
                offsets = apply_patch(folder, patch, str(number))
            except SeriesError:
                refused.add(number)
                continue
            state = state | read_back(folder, patch.files)
            applied.append(Applied(patch, state, tuple(offsets)))
    return applied, refused


def _taken_back(series: Series, pristine: Path, level: int, gone: Collection[int]) -> State | None:
    """The level's files with ``gone`` taken back, the latest first; None where that does not apply."""
    with laid_out(level_state(series, pristine, level)) as folder:
        try:
            for number in sorted(gone, reverse=True):
                apply_patch(folder, series.patches[number - 1], str(level), reverse=True)
        except SeriesError:
            return None
        return read_back(folder, series.reached)


def writers(series: Series, pristine: Path, variant: Variant, lines: Iterable[tuple[str, int]]) -> set[int]:
    """These patches wrote ``lines`` (path, number from 1) of a variant whose patches were left out."""
    written = authors(base_state(series, pristine), variant.applied)
    found = {written[path][number - 1] for path, number in lines if number <= len(written.get(path, ()))}
    return found - {0}
