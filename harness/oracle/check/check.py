"""Holds the mirror against the kernel's own C, function by function, at every level.

For each check the levels are grouped by version: the digest of the machine code under test with all it reaches
(versions.py), and the state it starts from, as the set-up entries give it. The C of a version runs once and stands
for its levels. The mirror runs over all cases at one level of each version, and at the version's other levels over
a spread of them; where it consulted (patches, constants, masks: fingerprint.py) what it consulted at an earlier level,
that level's answers stand for all cases but a sample.
"""

from __future__ import annotations

import hashlib
import random
import time
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from harness.jsonable import Json
from harness.oracle.check.fingerprint import fingerprint
from harness.oracle.image import EventKind, Image, ImageWorker, Results
from harness.oracle.specs import MASK64, Row, Spec, State, answers, flat, spread
from harness.review import Versions
from kvmodel.series import Level

CASES: Final = 100_000  # for each function and version, where there are more
THOROUGH: Final = 1_000_000
SAMPLE: Final = 2_000  # ordinary cases at a level whose code and whose mirror are as at another
OTHERS: Final = 10  # at a level whose code alone is another's, one case in so many
SHOWN: Final = 3  # mismatches that are minimised and shown, of each check and level
TRIES: Final = 400  # cases tried to make one mismatch smaller


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One case in which mirror and C differ; ``row`` is the smallest such case that was found from ``found``."""

    functions: tuple[str, ...]
    entry: str
    level: str
    state: State
    found: Row
    row: Row
    c: Row
    mirror: Row
    c_event: str
    mirror_warned: bool

    @property
    def call(self) -> str:
        """The text is the entry with the case's words."""
        return f"{self.entry}{_hexed(self.row)}"

    @property
    def c_words(self) -> str:
        """These are the words of C's answer."""
        return _hexed(self.c) + (f" with {self.c_event}" if self.c_event else "")

    @property
    def mirror_words(self) -> str:
        """These are the words of the mirror's answer."""
        return _hexed(self.mirror) + (" with a WARN" if self.mirror_warned else "")

    def __str__(self) -> str:
        return (
            f"{self.functions[0]} at level {self.level}: {self.call}\n    C      {self.c_words}\n"
            f"    mirror {self.mirror_words}\n    state  {self.state}\n    found as {_hexed(self.found)}"
        )


def _hexed(row: Row) -> str:
    return "(" + ", ".join(f"{w:#x}" for w in row) + ")"


@dataclass(slots=True)
class Checked:
    """The record has what came of one check."""

    spec: Spec
    versions: dict[str, list[int]] = field(default_factory=dict)  # digest of the code: levels
    cases: int = 0  # C calls compared, over all versions
    mirrored: int = 0  # mirror calls, over all levels
    exhaustive: bool = True
    mismatches: int = 0
    shown: list[Mismatch] = field(default_factory=list)
    seconds: float = 0.0
    c_seconds: float = 0.0  # spent in calls of the C, setting its state included

    def row(self) -> dict[str, Json]:
        """The function gives the row for JSON."""
        return {
            "entry": self.spec.entry,
            "functions": self.spec.functions,
            "versions": self.versions,
            "cases": self.cases,
            "mirrored": self.mirrored,
            "exhaustive": self.exhaustive,
            "mismatches": self.mismatches,
            "shown": [str(m) for m in self.shown],
            "seconds": round(self.seconds, 2),
            "c_seconds": round(self.c_seconds, 3),
        }


@dataclass(slots=True)
class Cases:
    """The record has the cases of one state, and what C gave."""

    state: State
    rows: Sequence[Row]
    out: array[int]
    status: bytearray

    def part(self, numbers: Sequence[int]) -> Cases:
        """The function gives these cases alone."""
        width = len(self.out) // len(self.rows)
        out = array("Q", [word for n in numbers for word in self.out[n * width : (n + 1) * width]])
        return Cases(self.state, [self.rows[n] for n in numbers], out, bytearray(self.status[n] for n in numbers))


Answers = tuple["array[int]", bytearray]
"""The mirror's results, flat, and its WARNs, one byte a case."""


def setting(worker: ImageWorker, state: State) -> list[Results]:
    """The image is put into ``state``; the function gives what the set-up entries gave."""
    return [worker.call(entry, flat([tuple(int(w) & MASK64 for w in row)])) for entry, row in state.calls()]


def chosen(spec: Spec, out: array[int], words: int) -> array[int]:
    """The function gives the words of C's results that the mirror has."""
    if not spec.outputs or spec.outputs == tuple(range(words)):
        return out
    picked = array("Q", bytes(8 * (len(out) // words) * len(spec.outputs)))
    for to, at in enumerate(spec.outputs):
        picked[to :: len(spec.outputs)] = out[at::words]
    return picked


def run_c(worker: ImageWorker, spec: Spec, state: State, rows: Sequence[Row], cases: array[int] | None = None) -> Cases:
    """The C of the image is run over ``rows`` (``cases``: the same, flat) in ``state``."""
    setting(worker, state)
    results = worker.call(spec.entry, flat(rows) if cases is None else cases)
    return Cases(state, rows, chosen(spec, results.out, results.words), results.status)


def seeded(spec: Spec, number: int, seed: int) -> random.Random:
    """The cases are the same for the same seed, whatever else is run."""
    text = f"{seed}:{spec.entry}:{spec.space}:{number}"
    return random.Random(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little"))


def differing(spec: Spec, mirror: Answers, batch: Cases) -> list[int]:
    """The function gives the cases of ``batch`` for which the mirror's answers (to all of them, or to the first) are
    something else.
    """
    out, status = mirror
    count = min(len(batch.rows), len(status))
    if not count:
        return []
    width = len(out) // len(status)
    c_out = batch.out[: count * width]
    c_status = batch.status[:count]
    if out == c_out and (status == c_status or (not spec.warns and not any(c_status))):
        return []
    return [
        n
        for n in range(count)
        if out[n * width : (n + 1) * width] != c_out[n * width : (n + 1) * width]
        or (spec.warns and status[n] != c_status[n])
        or c_status[n] > EventKind.WARN
    ]


def smaller(row: Row) -> Iterator[Row]:
    """The function gives simpler cases near ``row``: a word zero, or one bit of it cleared."""
    for n, word in enumerate(row):
        if word:
            yield (*row[:n], 0, *row[n + 1 :])
    for n, word in enumerate(row):
        bit = word
        while bit:
            low = bit & -bit
            bit ^= low
            if word != low:
                yield (*row[:n], word ^ low, *row[n + 1 :])


def inside(spec: Spec, row: Row) -> bool:
    """The case is of the check's space: True."""
    if len(row) != len(spec.space.columns):
        return False
    for word, column in zip(row, spec.space.columns, strict=True):
        if isinstance(column, tuple):
            if word not in column:
                return False
        elif word & ~(column.mask | column.base) or word & column.base != column.base:
            return False
    return True


def minimise(worker: ImageWorker, spec: Spec, level: Level, state: State, row: Row) -> Mismatch:
    """The mismatch of ``row`` is made as small as single steps can."""

    def wrong(candidate: Row) -> bool:
        batch = run_c(worker, spec, state, [candidate])
        return bool(differing(spec, answers(spec, state.side(level), [candidate]), batch))

    best, tries, again = row, 0, True
    while again and tries < TRIES:
        again = False
        for candidate in smaller(best):
            tries += 1
            if inside(spec, candidate) and wrong(candidate):
                best, again = candidate, True
                break
            if tries >= TRIES:
                break
    setting(worker, state)
    results = worker.call(spec.entry, flat([best]))
    out, status = answers(spec, state.side(level), [best])
    return Mismatch(
        spec.functions,
        spec.entry,
        str(level),
        state,
        row,
        best,
        tuple(chosen(spec, results.out, results.words)),
        tuple(out),
        "; ".join(map(str, results.events.get(0, ()))),
        bool(status and status[0]),
    )


class Checker:
    """The checker holds images of levels, opened when they are needed."""

    def __init__(self, images: Mapping[int, Path], cases: int = CASES, seed: int = 1) -> None:
        self.images = dict(images)
        self.cases = cases
        self.seed = seed
        self._versions = {k: Versions(p.parent.glob("*.o")) for k, p in self.images.items()}
        self._workers: dict[int, ImageWorker] = {}
        self._states: dict[tuple[int, State], bytes] = {}

    def worker(self, level: int) -> ImageWorker:
        """The function gives the child of a level."""
        if level not in self._workers:
            self._workers[level] = ImageWorker(Image(self.images[level]))
        return self._workers[level]

    def close(self) -> None:
        """The children are ended."""
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()

    def __enter__(self) -> Checker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def version(self, spec: Spec, level: int) -> str:
        """The version of a check at ``level``: the code it runs, and the states its set-up makes."""
        h = hashlib.sha256(self._versions[level].digest(f"o_{spec.entry}").encode())
        for entry in spec.through:
            h.update(self._versions[level].digest(f"o_{entry}").encode())
        for state in spec.states:
            h.update(self._state(level, state))
        return h.hexdigest()[:16]

    def _state(self, level: int, state: State) -> bytes:
        """What the set-up entries give for ``state``: the masks, roles and reserved bits that are in force then."""
        key = (level, state)
        if key not in self._states:
            worker = self.worker(level)
            made = [setup.out.tobytes() + bytes(setup.status) for setup in setting(worker, state)]
            self._states[key] = hashlib.sha256(b"".join(made)).digest()
        return self._states[key]

    def run(self, spec: Spec) -> Checked:
        """One check is run at all its levels."""
        outcome = Checked(spec)
        start = time.perf_counter()
        for level in sorted(self.images):
            if spec.applies(Level.of(level)):
                outcome.versions.setdefault(self.version(spec, level), []).append(level)
        each = spec.each(self.cases)
        for number, state in enumerate(spec.states):
            rows, whole = spec.space.rows(each, seeded(spec, number, self.seed))
            outcome.exhaustive &= whole
            self._state_of(spec, state, rows, outcome)
        outcome.seconds = time.perf_counter() - start
        return outcome

    def _state_of(self, spec: Spec, state: State, rows: Sequence[Row], outcome: Checked) -> None:
        known: dict[tuple[object, ...], Answers] = {}
        cases = flat(rows)
        sample = spread(len(rows), SAMPLE // (len(spec.states) * spec.cost))
        others = spread(len(rows), max(len(sample), len(rows) // OTHERS))
        for levels in outcome.versions.values():
            start = time.perf_counter()
            batch = run_c(self.worker(levels[0]), spec, state, rows, cases)
            outcome.c_seconds += time.perf_counter() - start
            outcome.cases += len(rows)
            compared: set[tuple[object, ...]] = set()
            for number in levels:
                level = Level.of(number)
                key = fingerprint(spec, batch, level)
                if key not in known and not compared:
                    known[key] = answers(spec, state.side(level), rows)
                    outcome.mirrored += len(rows)
                    wrong = differing(spec, known[key], batch)
                else:
                    suspects = set(sample if key in known else others)
                    if key in known and key not in compared:
                        suspects.update(differing(spec, known[key], batch))
                    outcome.mirrored += len(suspects)
                    wrong = self._own(spec, level, batch, sorted(suspects))
                    if wrong and key not in known:  # a spread that finds something is not where it ends
                        outcome.mirrored += len(rows)
                        wrong = self._own(spec, level, batch, list(range(len(rows))))
                compared.add(key)
                self._note(spec, level, batch, wrong, outcome)

    def _own(self, spec: Spec, level: Level, batch: Cases, suspects: list[int]) -> list[int]:
        """Those of the cases in which the level's own answers differ: what a mirror consults once in a thousand cases
        need not be in the fingerprint by which another level's answers stand for them."""
        part = batch.part(suspects)
        mirror = answers(spec, batch.state.side(level), part.rows)
        return [suspects[n] for n in differing(spec, mirror, part)]

    def _note(self, spec: Spec, level: Level, batch: Cases, wrong: list[int], outcome: Checked) -> None:
        outcome.mismatches += len(wrong)
        if wrong and sum(m.level == str(level) for m in outcome.shown) < SHOWN:
            worker = self.worker(level.number or 0)
            outcome.shown.append(minimise(worker, spec, level, batch.state, batch.rows[wrong[0]]))
