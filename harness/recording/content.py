"""What a recording holds: of a run its vectors, answers and traces, cell by cell, and what it was made of.

Vectors and outcomes are told once, in the order of their texts, and referred to by number. A cell's answers are in the
order of their vectors, in rows of neighbours: which vectors (first, how many), what was seen (outcome, how many), and
which of the answers bear a mark that no judge gives (``TAKEN``: first, how many).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NoReturn

from harness.errors import InputError
from harness.jsonable import Json
from harness.observe import Traced, cut
from harness.questions import Setting
from harness.recording import container, shapes
from harness.recording.container import refuse
from harness.results import BARE_HOST, GIVEN, KVM_HOST, CellKey, Mark, outcome_of
from harness.run import CPU
from kvmodel.question.outcome import Outcome
from kvmodel.question.reading import parse
from kvmodel.question.vector import Vector, VectorError

CHUNK: Final = 2048  # vectors or outcomes a line
VECTORS_MAX: Final = 2_000_000
OUTCOMES_MAX: Final = 500_000
TURNS_MAX: Final = 2048  # answers of one vector: a program has 64 steps at most
ANSWERS_MAX: Final = 20_000_000
CELLS_MAX: Final = 100_000
VIRTUAL: Final = CPU  # in a cell's facts: the CPU as L1 read it
BARE: Final = "cpu"  # ... the CPU itself, where no KVM ran
LEVEL_MAX: Final = 10_000  # patches of a series
_TIME_MAX: Final = 1e11  # seconds since 1970
_CELL: Final = {
    "level": int,
    "param": str,
    "host": str,
    "machine": str,
    "seconds": float | int,
    "facts": dict[str, Any],
    "asked": list[int],
    "seen": list[int],
    "given": dict[str, list[int]],
    "traces": list[Any],
}
STATUSES: Final = ("complete", "interrupted", "failed", "running")


@dataclass(frozen=True, slots=True)
class Told:
    """One answer is a vector and an outcome by their numbers, and the marks that no judge gives."""

    vector: int
    outcome: int
    given: Mark


@dataclass(frozen=True, slots=True)
class CellRecord:
    """One cell has its place, its seconds, what its host said of itself, its answers, and its traces as they came."""

    key: CellKey
    seconds: float
    facts: dict[str, Any]
    answers: tuple[Told, ...]
    traces: tuple[Traced, ...] = ()


@dataclass(frozen=True, slots=True)
class About:
    """The recording says of its run when it was, how it ended, how it was typed and what it was made of.

    Without times the first and the third are empty.
    """

    begun: float
    ended: float | None
    status: str
    argv: list[str]
    provenance: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording is written and read as this.

    ``sha256`` is that of its text, empty where it was never written.
    """

    about: About
    vectors: Sequence[Vector]
    outcomes: Sequence[Outcome]
    cells: Sequence[CellRecord]
    sha256: str = ""
    bodies: Sequence[str] = field(default=(), compare=False)  # the outcomes' texts, where the writer has them

    @property
    def answers(self) -> int:
        """The value says how many answers there are."""
        return sum(len(cell.answers) for cell in self.cells)


def runs(values: Iterable[int]) -> list[int]:
    """``5 5 7`` becomes ``5 2 7 1``: each value and how often it comes in a row."""
    found: list[int] = []
    for value in values:
        if found and found[-2] == value:
            found[-1] += 1
        else:
            found += [value, 1]
    return found


def stretches(values: Iterable[int]) -> list[int]:
    """``3 4 5 9`` becomes ``3 3 9 1``: the first of neighbours, and how many."""
    found: list[int] = []
    for value in values:
        if found and found[-2] + found[-1] == value:
            found[-1] += 1
        else:
            found += [value, 1]
    return found


# writing


def lines(recording: Recording) -> Iterator[dict[str, Any]]:
    """The lines are those of a recording's file."""
    yield {"run": shapes.shown(asdict(recording.about))}
    names = [vector.id for vector in recording.vectors]
    for at in range(0, len(names), CHUNK):
        yield {"vectors": names[at : at + CHUNK]}
    for at in range(0, len(recording.bodies), CHUNK):
        yield {"outcomes": [shapes.shown(json.loads(body)) for body in recording.bodies[at : at + CHUNK]]}
    for cell in recording.cells:
        yield {"cell": _cell_body(cell)}


def _cell_body(cell: CellRecord) -> dict[str, Json]:
    marks: dict[str, list[int]] = {}
    for mark in Mark:
        if places := stretches(i for i, told in enumerate(cell.answers) if mark in told.given):
            marks[str(mark.name)] = places
    return {
        **asdict(cell.key),
        "seconds": cell.seconds,
        "facts": shapes.shown(cell.facts),
        "asked": stretches(told.vector for told in cell.answers),
        "seen": runs(told.outcome for told in cell.answers),
        **({"given": marks} if marks else {}),
        **({"traces": shapes.shown([cut.as_json(one) for one in cell.traces])} if cell.traces else {}),
    }


# reading


def read(path: Path) -> Recording:
    """The function reads the recording in a file.

    Raises InputError, with its name, the reason and the mend, when there is none.
    """
    return _Reader(container.unpacked(path, most=container.RUN_MAX)).recording()


class _Reader:
    """The reader takes the lines in, each held against what it may be, with the tables that later ones refer to."""

    def __init__(self, source: container.Unpacked) -> None:
        self._source = source
        self._path = source.path
        self._about: About | None = None
        self._vectors: list[Vector] = []
        self._outcomes: list[Outcome] = []
        self._cells: list[CellRecord] = []
        self._answers = 0

    def recording(self) -> Recording:
        """The recording is read line by line."""
        takers = {"run": self._run, "vectors": self._names, "outcomes": self._seen, "cell": self._cell}
        for value in self._source.values():
            if not isinstance(value, dict) or len(value) != 1 or next(iter(value)) not in takers:
                self._refuse("a line of it is none that a recording has")
            ((name, body),) = value.items()
            takers[name](body)
        if self._about is None:
            self._refuse("it does not say of which run it is")
        keys = [cell.key for cell in self._cells]
        if len(set(keys)) < len(keys):
            self._refuse("a cell is there twice")
        if len(set(self._vectors)) < len(self._vectors):
            self._refuse("a vector is told twice")
        if len(set(self._outcomes)) < len(self._outcomes):
            self._refuse("an outcome is told twice")
        return Recording(self._about, self._vectors, self._outcomes, self._cells, self._source.sha256)

    def _refuse(self, reason: str) -> NoReturn:
        refuse(self._path, reason)

    def _run(self, body: Any) -> None:
        if self._about is not None:
            self._refuse("it says twice of which run it is")
        told = shapes.known(
            self._path, "what it says of its run", body,
            {"begun": float | int, "ended": float | int | None, "status": str, "argv": list[str]},
        )  # fmt: skip
        if set(told) != set(About.__dataclass_fields__) or told["status"] not in STATUSES:
            self._refuse("what it says of its run is not complete")
        times = [told["begun"], told["ended"] or 0.0]
        if not all(0 <= time < _TIME_MAX for time in times):
            self._refuse(f"its run's times are none: {times}")
        made = shapes.known(self._path, "its provenance", told["provenance"], shapes.PROVENANCE)
        ended = told["ended"]
        self._about = About(
            float(told["begun"]), None if ended is None else float(ended), told["status"], told["argv"], made
        )

    def _names(self, body: Any) -> None:
        if not shapes.fits(body, list[str]) or len(self._vectors) + len(body) > VECTORS_MAX:
            self._refuse(f"its vectors are no list of ids, or more than {VECTORS_MAX:,}")
        shapes.harmless_json(self._path, "a vector's id", body)
        for name in body:
            try:
                vector = parse(name)
            except VectorError as error:
                refuse(self._path, f"vector {len(self._vectors)}: {error}", "read it with the kvmirror that wrote it")
            if vector.id != name:
                self._refuse(f"vector {len(self._vectors)}: {name!r} is not its full id")
            self._vectors.append(vector)

    def _seen(self, body: Any) -> None:
        if not isinstance(body, list) or len(self._outcomes) + len(body) > OUTCOMES_MAX:
            self._refuse(f"its outcomes are no list, or more than {OUTCOMES_MAX:,}")
        shapes.harmless_json(self._path, "an outcome", body)
        self._outcomes += map(self._outcome, body)

    def _outcome(self, body: Any) -> Outcome:
        at = f"outcome {len(self._outcomes)}"
        turns = body.get("turns") if isinstance(body, dict) else None
        if isinstance(turns, list) and len(turns) > TURNS_MAX:
            self._refuse(f"{at} has {len(turns):,} turns, and none has more than {TURNS_MAX:,}")
        try:
            outcome = outcome_of(json.dumps(body, sort_keys=True))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            refuse(self._path, f"{at} is none that this kvmirror knows ({type(error).__name__})")
        if not shapes.fits(outcome, Outcome) or any(turn.turns for turn in outcome.turns):
            self._refuse(f"{at} is not what an outcome is made of")
        return outcome

    def _cell(self, body: Any) -> None:
        if len(self._cells) >= CELLS_MAX:
            self._refuse(f"it has more than {CELLS_MAX:,} cells")
        told = shapes.known(self._path, "a cell", body, _CELL)
        if set(told) - {"given", "traces"} != set(_CELL) - {"given", "traces"}:
            self._refuse("a cell is not complete")
        key = CellKey(told["level"], told["param"], told["host"], told["machine"])
        where = f"cell {len(self._cells)}"
        if not 0 <= key.level <= LEVEL_MAX or key.host not in (KVM_HOST, BARE_HOST):
            self._refuse(f"{where} is of no level or no host that there is: {key.level}, {key.host!r}")
        try:
            Setting.parse(key.param)
        except InputError as error:
            self._refuse(f"{where}: {error}")
        facts = shapes.known(self._path, f"{where}: what its host says", told["facts"], shapes.FACTS)
        answers = tuple(self._told(where, told))
        self._cells.append(CellRecord(key, float(told["seconds"]), facts, answers, self._traces(where, told)))

    def _told(self, where: str, told: dict[str, Any]) -> list[Told]:
        asked = list(self._spread(where, told["asked"], len(self._vectors), neighbours=True))
        seen = list(self._spread(where, told["seen"], len(self._outcomes), neighbours=False))
        if len(asked) != len(seen):
            self._refuse(f"{where} has {len(asked)} vectors and {len(seen)} answers")
        if any(b <= a for a, b in pairwise(asked)):
            self._refuse(f"{where} has a vector twice, or not in their order")
        self._answers += len(asked)
        given: dict[int, Mark] = {}
        for name, places in told.get("given", {}).items():
            if name not in Mark.__members__ or Mark[name] not in GIVEN:
                refuse(
                    self._path, f"{where} marks answers {name!r}, which this kvmirror does not know",
                    "read it with a kvmirror as new as the one that wrote it",
                )  # fmt: skip
            for place in self._spread(where, places, len(asked), neighbours=True):
                given[place] = given.get(place, Mark(0)) | Mark[name]
        none = Mark(0)
        return [Told(v, o, given.get(i, none)) for i, (v, o) in enumerate(zip(asked, seen, strict=True))]

    def _spread(self, where: str, row: list[int], bound: int, *, neighbours: bool) -> Iterator[int]:
        """A row of (first, how many) stands for these numbers.

        Raises InputError when one is beyond ``bound``.
        """
        if len(row) % 2:
            self._refuse(f"{where} has a row that breaks off")
        left = ANSWERS_MAX - self._answers
        for first, count in zip(row[::2], row[1::2], strict=True):
            last = first + count - 1 if neighbours else first
            if first < 0 or count < 1 or last >= bound:
                self._refuse(f"{where} refers to what is not there: {first} and {count} of {bound}")
            left -= count
            if left < 0:
                self._refuse(f"it has more than {ANSWERS_MAX:,} answers")
            yield from range(first, first + count) if neighbours else (first for _ in range(count))

    def _traces(self, where: str, told: dict[str, Any]) -> tuple[Traced, ...]:
        try:
            return tuple(cut.from_json(body) for body in told.get("traces", ()))
        except (VectorError, KeyError, TypeError, ValueError) as error:
            refuse(self._path, f"{where}: a trace is none ({error})")
