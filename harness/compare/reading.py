"""The two runs as they lie in their journals: the only module of this package that reads one.

Both files are attached read-only to a database in memory, which joins what both were asked. A whole run is a million
answers with a few thousand different pairs of them, so the join gives each pair once, with the vectors that have it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from harness.compare.naming import FORMS, Name
from harness.compare.pairing import Pair
from harness.errors import InputError
from harness.findings import Run
from harness.protocol import MSR_FIRST
from harness.recording import is_recording, replayed
from harness.results import (
    UNHEARD,
    Cell,
    Contract,
    Journal,
    Mark,
    contract_of,
    cpus,
    departing,
    journal,
    outcome_of,
    stands,
)
from kvmodel.question.outcome import NotApplicable, Outcome

SIDES: Final = "AB"


class Stance(Enum):
    """The stance says how an answer stands to the manual."""

    ALLOWED = "allowed"
    DEPARTS = "departs"
    UNDECIDED = "undecided"  # the contract cannot decide, or was not asked


@dataclass(frozen=True, slots=True)
class SideSaid:
    """The record has what one side saw of a question, and what the manual says of it there."""

    seen: Outcome
    contract: Contract | None
    marks: Mark

    @property
    def heard(self) -> bool:
        """The question was run on this side: True."""
        return self.seen.kind not in UNHEARD

    @property
    def stance(self) -> Stance:
        """The function says how the answer stands to the manual."""
        if Mark.FINDING in self.marks:
            return Stance.DEPARTS
        decided = self.contract is not None and not isinstance(self.contract, NotApplicable)
        return Stance.ALLOWED if decided else Stance.UNDECIDED

    @property
    def manual(self) -> str:
        """The text gives what the manual says of it, with rule and section."""
        if self.contract is None:
            return "the manual was not asked"
        if isinstance(self.contract, NotApplicable):
            return f"the manual does not decide: {self.contract.rule}"
        if self.stance is Stance.DEPARTS:
            turn, first = departing(self.contract, self.seen)
            where = f" in turn {turn + 1}" if self.seen.turns else ""
            return f"departs: the manual has {first.outcome}{where} ({first.rule}, {stands(first.section)})"
        met = next((a for a in self.contract if a.outcome.matches(self.seen)), self.contract[0])
        return f"allowed ({met.rule}, {stands(met.section)})"


@dataclass(frozen=True, slots=True)
class Twin:
    """A twin is one pair of answers to the same questions: in which pair of cells, by which vectors."""

    pair: Pair
    before: SideSaid
    after: SideSaid
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Alone:
    """Only one side was asked these questions; they are told by how their ids begin."""

    pair: Pair
    side: str
    part: str
    vectors: int


@dataclass(frozen=True, slots=True)
class Joint:
    """Two runs are joined: what both were asked, and what only one was."""

    twins: list[Twin]
    alone: list[Alone]


class RunSide:
    """This is one of the two runs, open."""

    def __init__(self, letter: str, name: Name, run: Run, source: Path | None = None) -> None:
        self.letter = letter
        self.name = name
        self.run = run
        self.source = source or run.journal.path  # what the user named, where the run was judged from a recording

    @property
    def path(self) -> Path:
        """The path is that of its journal."""
        return self.run.journal.path

    @property
    def cells(self) -> set[Cell]:
        """The run was asked these cells: levels and parameter values."""
        return self.run.present

    @property
    def title(self) -> str:
        """The line tells of the run: its number, the kernel, the series that it was made of, and the CPU under KVM."""
        info = self.run.info
        kernel = info.provenance.get("kernel")
        release = kernel.get("release") or kernel.get("version") if isinstance(kernel, dict) else kernel
        words = [self.run.name]
        if release:
            words.append(f"kernel {release}")
        if isinstance(patches := info.provenance.get("patches"), list | dict) and patches:
            words.append(f"{len(patches)} patches")
        if cpu := cpus.told(info.provenance):
            words.append(f"CPU {cpu}")
        if info.status != "complete":
            words.append(f"the run is {info.status}")
        if self.run.foreseen:
            words.append("nothing was observed, the mirror answers")
        return ", ".join(words)

    def numbers(self, cell: Cell) -> list[int]:
        """The function gives the journal's numbers of a cell, one a machine."""
        return [recorded.number for key, recorded in self.run.cells.items() if key.cell == cell]

    def left_out(self, cell: Cell) -> int:
        """The function says how many vectors rules left out of a cell."""
        found = (recorded.collapsed for key, recorded in self.run.cells.items() if key.cell == cell)
        return sum(sum(rules.values()) for rules in found)

    def msrs(self, cell: Cell) -> dict[str, dict[int, int]]:
        """The function gives the virtual CPU's VMX capability MSRs as L1 read them, by machine and number."""
        return {
            key.machine: {MSR_FIRST + n: int(str(value), 16) for n, value in enumerate(recorded.facts["msrs"])}
            for key, recorded in self.run.cells.items()
            if key.cell == cell and isinstance(recorded.facts.get("msrs"), list)
        }


@contextmanager
def opened(a: Name, b: Name, own: Path | None = None, *, bare: bool = False) -> Iterator[tuple[RunSide, RunSide]]:
    """The two runs that are named; ``own`` is the user's journal. InputError where one is not there, with what is."""
    with ExitStack() as stack:
        before, after = (
            RunSide(letter, name, stack.enter_context(_opened(name, own, bare)), _recording(name))
            for letter, name in zip(SIDES, (a, b), strict=True)
        )
        yield before, after


def _recording(name: Name) -> Path | None:
    """The recording that a name is of; None where it is of a journal."""
    return name.journal if name.journal is not None and is_recording(name.journal) else None


@contextmanager
def _opened(name: Name, own: Path | None, bare: bool) -> Iterator[Run]:
    """The run of a name; that of a recording is judged now."""
    if (recording := _recording(name)) is not None:
        if name.run not in (None, 1):
            raise InputError(f"{name}: the recording {recording} has one run, and no run {name.run}; {FORMS}")
        with replayed(recording) as found:
            yield found
    else:
        with _journal(name, own) as there:
            yield _run(there, name, bare)


def _journal(name: Name, own: Path | None) -> Journal:
    path = name.journal or own or journal.default_path()
    if not path.is_file():
        there = "is a folder" if path.is_dir() else "is not there"
        raise InputError(f"{name}: the journal {path} {there}; {FORMS}")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
    except sqlite3.Error as error:
        raise InputError(f"{name}: {path} cannot be read as a journal ({error}); {FORMS}") from error
    if version == 0:  # opening it would make one of it
        raise InputError(f"{name}: {path} is no journal of kvmirror; {FORMS}")
    return Journal(path)


def _run(found: Journal, name: Name, bare: bool) -> Run:
    there = [info.id for info in found.runs()]
    if name.run is not None and name.run not in there:
        raise InputError(
            f"{name}: journal {found.path} has no run {name.run}; it has {_these(there)}: name one of these"
        )
    run = Run.open(found, name.run, bare=bare)
    if not run.present:
        raise InputError(
            f"{name}: {run.name} of {found.path} has no finished cell on {'the bare CPU' if bare else 'KVM'}; it is"
            f" {run.info.status}, the journal has {_these(there)}"
        )
    return run


def _these(runs: Sequence[int]) -> str:
    return f"{'run' if len(runs) == 1 else 'runs'} {', '.join(map(str, runs))}" if runs else "no run"


# The tables of the join: cells of each side by the pair they stand in, vectors by one number for both files.
_TABLES: Final = """
CREATE TABLE name (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE cell (side TEXT, pair INTEGER, id INTEGER, PRIMARY KEY (side, pair, id)) WITHOUT ROWID;
CREATE TABLE asked_A (pair INTEGER, vector INTEGER, seen INTEGER, contract INTEGER, marks INTEGER,
    PRIMARY KEY (pair, vector)) WITHOUT ROWID;
CREATE TABLE asked_B (pair INTEGER, vector INTEGER, seen INTEGER, contract INTEGER, marks INTEGER,
    PRIMARY KEY (pair, vector)) WITHOUT ROWID;
"""
_TWINS: Final = """
SELECT a.pair, a.seen, a.contract, a.marks, b.seen, b.contract, b.marks, group_concat(a.vector)
FROM asked_A a JOIN asked_B b ON b.pair=a.pair AND b.vector=a.vector GROUP BY 1, 2, 3, 4, 5, 6, 7
"""


def joined(a: RunSide, b: RunSide, pairs: Sequence[Pair]) -> Joint:
    """The function gives what both sides were asked in ``pairs``, by how both answered, and what only one was."""
    with closing(sqlite3.connect(":memory:", uri=True)) as db:
        db.executescript(_TABLES)
        for side in (a, b):
            _attach(db, side, [p.before if side is a else p.after for p in pairs])
        names: dict[int, str] = dict(db.execute("SELECT id, name FROM name"))
        said_a, said_b = _Texts(a), _Texts(b)
        twins = [
            Twin(pairs[n], said_a.said(*first), said_b.said(*second), tuple(names[int(v)] for v in vectors.split(",")))
            for n, first, second, vectors in ((r[0], r[1:4], r[4:7], r[7]) for r in db.execute(_TWINS))
        ]
        alone = [
            Alone(pairs[n], letter, part, count)
            for letter, other in (tuple(SIDES), tuple(SIDES[::-1]))
            for n, part, count in db.execute(_alone(letter, other))
        ]
    return Joint(twins, alone)


def _alone(letter: str, other: str) -> str:
    return (
        f"SELECT x.pair, substr(v.name, 1, instr(v.name || '.', '.') - 1) part, count(*) FROM asked_{letter} x"
        f" JOIN name v ON v.id=x.vector WHERE NOT EXISTS (SELECT 1 FROM asked_{other} y"
        f" WHERE y.pair=x.pair AND y.vector=x.vector) GROUP BY 1, 2 ORDER BY 1, 3 DESC, 2"
    )


def _attach(db: sqlite3.Connection, side: RunSide, cells: Sequence[Cell]) -> None:
    """Copy what a run answered in ``cells``, one a pair, with the vectors' numbers that both files share."""
    letter = side.letter
    db.execute(f"ATTACH ? AS {letter}", (f"{side.path.resolve().as_uri()}?mode=ro",))
    db.execute(f"INSERT OR IGNORE INTO name (name) SELECT name FROM {letter}.vector ORDER BY id")
    numbers = [(letter, n, number) for n, cell in enumerate(cells) for number in side.numbers(cell)]
    db.executemany("INSERT INTO cell VALUES (?, ?, ?)", numbers)
    db.execute(
        f"INSERT OR IGNORE INTO asked_{letter}"
        f" SELECT c.pair, n.id, r.seen, coalesce(r.contract, 0), r.marks FROM cell c"
        f" JOIN {letter}.result r ON r.cell=c.id JOIN {letter}.vector v ON v.id=r.vector"
        f" JOIN name n ON n.name=v.name WHERE c.side=? ORDER BY c.pair, n.id",
        (letter,),
    )


class _Texts:
    """A journal's outcomes and contracts by number, each decoded once."""

    def __init__(self, side: RunSide) -> None:
        self._outcomes = side.run.journal.texts("outcome")
        self._contracts = side.run.journal.texts("contract")
        self._said: dict[tuple[object, ...], SideSaid] = {}

    def said(self, seen: int, contract: int, marks: int) -> SideSaid:
        key = (seen, contract, marks)
        if key not in self._said:
            manual = contract_of(self._contracts[contract]) if contract else None
            self._said[key] = SideSaid(outcome_of(self._outcomes[seen]), manual, Mark(marks))
        return self._said[key]
