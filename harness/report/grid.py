"""A run's every answer, small enough to be carried by a page.

A full run is a million rows, of which most say the same as their neighbours. Texts are interned; the three voices
and the marks of a row are an **answer**; what a vector was answered in every cell is its **history**, run-length
coded; a vector's id is a shape with one digit a token that varies. 900,000 rows come to well under a megabyte.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from harness.jsonable import Json
from harness.questions import SWX
from harness.report.facts import Report
from harness.report.text import plain
from harness.results import Cell, Journal, Mark, below, contract_of, outcome_of, stands
from kvmodel.question.outcome import Kind, NotApplicable
from kvmodel.question.reading import parse
from kvmodel.question.vector import RWXU, UWX, AccessVector, Mbec, Paging

DIGITS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
NOT_RUN: Final = -1
PERMISSIONS: Final = [
    "".join(c if n >> i & 1 else "-" for i, c in enumerate("rwxu")) for n in range(16)
]  # a leaf's, plainest last
T = TypeVar("T")
COLUMNS: Final = ("read", "write", "rmw", "fetch U", "fetch S", "walk", "walka", "walkd")


@dataclass(slots=True)
class Intern(Generic[T]):
    """The table has values numbered in the order of their first use."""

    index: dict[T, int] = field(default_factory=dict)

    def __call__(self, value: T) -> int:
        return self.index.setdefault(value, len(self.index))

    @property
    def values(self) -> list[T]:
        """The function gives the values by number."""
        return list(self.index)


@dataclass(slots=True)
class Grid:
    """The grid has the data of a page, and the lattice pictures' answers."""

    body: dict[str, Any]
    lattice: dict[Cell, list[list[str]]]  # permissions x columns: the most frequent kind's name, "" for none
    kinds: dict[Cell, dict[str, int]]  # how many vectors were answered by each kind


def column_of(vector: AccessVector) -> str:
    """The function gives the matrix' column of an access: fetches go by the U/S of the page's linear address."""
    name = vector.access.value
    if name != "fetch":
        return name
    return "fetch U" if vector.gp.u and vector.gu.u else "fetch S"


def run_length(values: Iterable[int]) -> list[int]:
    """The function gives ``5 5 5 7`` as ``5 3 7 1``."""
    out: list[int] = []
    for value in values:
        if out and out[-2] == value:
            out[-1] += 1
        else:
            out += [value, 1]
    return out


def _shape(name: str) -> tuple[str, tuple[str, ...]]:
    tokens = tuple(name.split("."))
    return ("access" if tokens[0] in ("e4k", "e2m", "e1g") else tokens[0]), tokens


def encode_vectors(names: list[str], histories: list[int]) -> list[dict[str, Json]]:
    """The function gives shapes: ``kind``, ``tokens`` (the values of each place), ``digits`` (two a place) and
    ``history``, all by vector.

    A place with one value takes no digit; one with up to 64 takes one, else two.
    """
    shapes: dict[tuple[str, int], list[tuple[tuple[str, ...], int]]] = {}
    for name, history in zip(names, histories, strict=True):
        kind, tokens = _shape(name)
        shapes.setdefault((kind, len(tokens)), []).append((tokens, history))
    out: list[dict[str, Json]] = []
    for (kind, places), members in shapes.items():
        tables = [Intern[str]() for _ in range(places)]
        coded = [[table(token) for table, token in zip(tables, tokens, strict=True)] for tokens, _ in members]
        widths = [0 if len(t.index) == 1 else 1 if len(t.index) <= 64 else 2 for t in tables]
        digits = []
        for numbers in coded:
            for number, width in zip(numbers, widths, strict=True):
                if width == 2:
                    digits.append(DIGITS[number >> 6])
                if width:
                    digits.append(DIGITS[number & 63])
        out.append(
            {
                "kind": kind,
                "tokens": [t.values for t in tables],
                "widths": widths,
                "digits": "".join(digits),
                "history": [history for _, history in members],
            }
        )
    return out


def _contract(raw: str) -> list[object]:
    contract = contract_of(raw)
    if isinstance(contract, NotApplicable):
        return [[plain(f"not applicable: {contract.rule}"), plain(contract.reason, 300), ""]]
    return [[plain(a.outcome), plain(a.rule), plain(stands(a.section))] for a in contract]


def gather(journal: Journal, report: Report) -> Grid:
    """The function gives the grid of a run."""
    columns = {cell: n for n, cell in enumerate(report.cells)}
    cell_column = {
        recorded.number: columns[key.cell]
        for key, recorded in journal.cells(report.number).items()
        if key.host == report.host
    }
    outcomes = {number: outcome_of(body) for number, body in journal.texts("outcome").items()}
    vector_names = journal.texts("vector")
    answers = Intern[tuple[int, int | None, int | None, int]]()
    histories = Intern[tuple[int, ...]]()
    per_vector: dict[int, list[int]] = {}
    kind_counts: list[dict[str, int]] = [{} for _ in columns]
    for cell, vector, seen, predicted, contract, marks, _ in journal.numbers(report.number, report.host):
        column = cell_column[cell]
        answer = answers((seen, predicted, contract, marks))
        per_vector.setdefault(vector, [NOT_RUN] * len(columns))[column] = answer
        kind = outcomes[seen].kind.value
        kind_counts[column][kind] = kind_counts[column].get(kind, 0) + 1
    texts, contracts = Intern[str](), Intern[int]()
    contract_bodies = journal.texts("contract")
    kinds = [k.value for k in Kind]
    table = []
    for seen, predicted, contract, marks in answers.values:
        table.append(
            [
                kinds.index(outcomes[seen].kind.value),
                texts(plain(outcomes[seen], 300)),
                NOT_RUN if predicted is None else texts(plain(outcomes[predicted], 300)),
                NOT_RUN if contract is None else contracts(contract),
                marks,
            ]
        )
    ordered = sorted(per_vector)
    numbers = [histories(tuple(run_length(per_vector[v]))) for v in ordered]
    lower = [below(*cell, set(report.cells)) for cell in report.cells]
    body = {
        "run": plain(report.run_again),
        "cells": [list(c) for c in report.cells],
        "below": [NOT_RUN if b is None else columns[b] for b in lower],
        "observation": "foreseen" if report.foreseen else "observation",
        "kinds": kinds,
        "marks": {m.name: m.value for m in Mark},
        "permissions": PERMISSIONS,
        "columns": list(COLUMNS),
        "texts": texts.values,
        "contracts": [_contract(contract_bodies[c]) for c in contracts.values],
        "answers": table,
        "histories": [list(h) for h in histories.values],
        "shapes": encode_vectors([plain(vector_names[v]) for v in ordered], numbers),
    }
    return Grid(
        body,
        _lattice(report, [(vector_names[v], per_vector[v]) for v in ordered], table, kinds),
        dict(zip(report.cells, kind_counts, strict=True)),
    )


def _plain(vector: AccessVector) -> bool:
    """Whether it is a 4 KiB access whose leaf's permissions alone are out of the ordinary, on the plain machine."""
    leaf = (vector.leaf_level, vector.memtype, vector.leaf_bits) == (1, 6, 0)
    upper = (vector.upper_level, vector.upper, vector.upper_bits) == (2, RWXU, 0)
    return leaf and upper and vector.mbec is not Mbec.NA and vector.env == "std" and vector.xo


def _permitted(vector: AccessVector) -> bool:
    """Whether the guest's own paging plainly permits the access, so that the EPT decides."""
    user = vector.gp == UWX and vector.gu == UWX
    page = (user and vector.cpl == 3) or (vector.gp == SWX and vector.gu == UWX and vector.cpl == 0)
    return page and vector.paging is Paging.LONG and not (vector.smep or vector.smap)


def _lattice(
    report: Report, vectors: list[tuple[str, list[int]]], answers: list[list[int]], kinds: list[str]
) -> dict[Cell, list[list[str]]]:
    """The most frequent kind of each permission and column, over plain 4 KiB accesses under an open upper entry."""
    counts: dict[Cell, dict[tuple[str, str], dict[str, int]]] = {cell: {} for cell in report.cells}
    for name, row in vectors:
        vector = parse(name)
        if not isinstance(vector, AccessVector) or not _plain(vector) or not _permitted(vector):
            continue
        at = str(vector.leaf), column_of(vector)
        # With the control on where L1 may turn it on; the same access with it off would hide what it does.
        group = at if vector.mbec is Mbec.ON else (at[0], at[1] + "/off")
        for cell, answer in zip(report.cells, row, strict=True):
            if answer == NOT_RUN or kinds[answers[answer][0]] in ("entry-fail", "entry-exit"):
                continue
            tally = counts[cell].setdefault(group, {})
            kind = kinds[answers[answer][0]]
            tally[kind] = tally.get(kind, 0) + 1
    out: dict[Cell, list[list[str]]] = {}
    for cell, tallies in counts.items():
        rows = []
        for permission in PERMISSIONS:
            row_kinds = []
            for column in COLUMNS:
                tally = tallies.get((permission, column)) or tallies.get((permission, column + "/off")) or {}
                row_kinds.append(max(tally, key=lambda k: (tally[k], k), default=""))
            rows.append(row_kinds)
        out[cell] = rows
    return out
