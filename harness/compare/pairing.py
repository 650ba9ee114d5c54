"""Which level and parameter value of one run is held against which of the other."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Set
from dataclasses import dataclass

from harness.compare.naming import Name
from harness.errors import InputError
from harness.results import Cell, cell_order


@dataclass(frozen=True, slots=True)
class Pair:
    """A pair is a cell of A and the cell of B that it is compared with."""

    before: Cell
    after: Cell

    @property
    def same(self) -> bool:
        """Both are the same level with the same value of the parameter: True."""
        return self.before == self.after

    def __str__(self) -> str:
        return cell_text(self.after) if self.same else f"{cell_text(self.before)} against {cell_text(self.after)}"


def cell_text(cell: Cell) -> str:
    """The text is like ``18/1``, as the command line writes it behind an ``@``."""
    return f"{cell[0]}/{cell[1]}"


def listed(cells: Iterable[Cell]) -> str:
    """The text has the cells that a message offers, in order."""
    return ", ".join(map(cell_text, sorted(cells, key=cell_order))) or "none"


def pairs(a: Name, b: Name, there_a: Set[Cell], there_b: Set[Cell]) -> list[Pair]:
    """The function gives the pairs to compare, in order.

    Where no level is named, those that both runs asked; where they have none in common and one level each, those two.
    A named level is compared with the other run's level of that number, or its only one. Parameter values are paired
    with their equals; a level that has no parameter is compared with every value of the other.

    Raises InputError, with what is there, when there is none.
    """
    of_a, of_b = _named(a, there_a), _named(b, there_b)
    if a.level is None and b.level is None:
        if common := of_a & of_b:
            return [Pair(cell, cell) for cell in sorted(common, key=cell_order)]
        if max(len(_levels(of_a)), len(_levels(of_b))) > 1:
            raise InputError(
                f"{a} and {b} have no level with the same parameter value in common: A has {listed(of_a)}; B has"
                f" {listed(of_b)}; name one of each with @LEVEL/PARAM"
            )
    of_a, of_b = _level_of(a, of_a, b, of_b), _level_of(b, of_b, a, of_a)
    found = [Pair(x, y) for x in of_a for y in of_b if _go_together(a, b, x, y, of_a, of_b)]
    return sorted(found, key=lambda p: (cell_order(p.after), cell_order(p.before)))


def _named(name: Name, there: Set[Cell]) -> set[Cell]:
    """The cells of a run that its name leaves; InputError where it leaves none."""
    found = {c for c in there if name.level in (None, c[0]) and name.param in (None, c[1])}
    if not found:
        raise InputError(
            f"{name}: the run has not that level and parameter value; it has {listed(there)}: name one of these"
        )
    return found


def _levels(cells: Collection[Cell]) -> set[int]:
    return {level for level, _ in cells}


def _level_of(name: Name, cells: Set[Cell], other: Name, others: Set[Cell]) -> set[Cell]:
    """Of a run whose level is not named, the level of the other's number, or the only one."""
    if name.level is not None or len(_levels(cells)) == 1:
        return set(cells)
    if same := {c for c in cells if c[0] in _levels(others)} if len(_levels(others)) == 1 else set():
        return same
    raise InputError(f"{name} has no level {other.level}: name one with @LEVEL/PARAM of {listed(cells)}")


def _go_together(a: Name, b: Name, x: Cell, y: Cell, of_a: Set[Cell], of_b: Set[Cell]) -> bool:
    """Whether a cell of each is compared, of one level each: with equal values, or where one side has no choice."""
    if x[1] == y[1]:
        return True
    params_a, params_b = {p for _, p in of_a}, {p for _, p in of_b}
    without = (params_a == {"unset"} and a.param is None) or (params_b == {"unset"} and b.param is None)
    return without or not params_a & params_b
