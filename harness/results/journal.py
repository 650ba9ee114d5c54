"""What is known so far: every run's provenance and every voice's answer, in SQLite.

One row per (run, level, parameter, host, vector): the three answers and the marks of their comparison.
Vectors, outcomes and rules are stored once and referred to by number; an outcome's row is its JSON.
A cell (level, parameter, machine) is committed whole, so that an interrupted run loses at most the cell it was in.
With a cell stands its basis, a text that names all that its answers rest on: a later run takes answers of the same one.

Version 2 brought the basis. A journal of version 1 is read as it is, and becomes one of version 2 when it is written.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from harness import places
from harness.errors import InputError
from harness.results.answer import Answer, CellKey, Judged, Judgement, NotReproduced
from harness.results.coding import contract_json, contract_of, outcome_json, outcome_of
from harness.results.verdict import GIVEN, OF_TRACES, UNHEARD, UNSEEN, Contract, Mark, Verdict
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.reading import parse
from kvmodel.question.vector import Vector, VectorError

USER_VERSION: Final = 2
OLDER: Final = 1  # the version that is read as well
BUSY: Final = 60_000  # milliseconds to wait for another writer
LEFT_OUT: Final = "left_out"  # in a run's provenance, by a patch's hash: what changes when it is left out
FORESEEN: Final = "foreseen"  # in a run's provenance: that the mirror alone was asked
_SCHEMA: Final = """
CREATE TABLE run (id INTEGER PRIMARY KEY, begun REAL NOT NULL, ended REAL, status TEXT NOT NULL,
    argv TEXT NOT NULL, provenance TEXT NOT NULL);
CREATE TABLE vector (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE outcome (id INTEGER PRIMARY KEY, body TEXT NOT NULL UNIQUE);
CREATE TABLE contract (id INTEGER PRIMARY KEY, body TEXT NOT NULL UNIQUE);
CREATE TABLE rule (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE cell (id INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES run, level INTEGER NOT NULL,
    param TEXT NOT NULL, host TEXT NOT NULL, machine TEXT NOT NULL, seconds REAL NOT NULL, facts TEXT NOT NULL,
    basis INTEGER REFERENCES basis, UNIQUE (run, level, param, host, machine));
CREATE TABLE result (cell INTEGER NOT NULL REFERENCES cell, vector INTEGER NOT NULL REFERENCES vector,
    seen INTEGER NOT NULL REFERENCES outcome, predicted INTEGER REFERENCES outcome,
    contract INTEGER REFERENCES contract, marks INTEGER NOT NULL, rule INTEGER REFERENCES rule,
    PRIMARY KEY (cell, vector)) WITHOUT ROWID;
CREATE INDEX result_marks ON result (marks);
CREATE TABLE basis (id INTEGER PRIMARY KEY, body TEXT NOT NULL UNIQUE);
CREATE INDEX cell_basis ON cell (basis);
"""
_UPGRADE: Final = (
    "CREATE TABLE basis (id INTEGER PRIMARY KEY, body TEXT NOT NULL UNIQUE)",
    "ALTER TABLE cell ADD COLUMN basis INTEGER REFERENCES basis",
    "CREATE INDEX cell_basis ON cell (basis)",
    f"PRAGMA user_version={USER_VERSION}",
)
# What was found out from a run's answers, with what it was found out from. It may go at any time: it is found out anew.
_DERIVED: Final = """
CREATE TABLE IF NOT EXISTS derived (run INTEGER NOT NULL REFERENCES run, host TEXT NOT NULL, source TEXT NOT NULL,
    body TEXT NOT NULL, PRIMARY KEY (run, host)) WITHOUT ROWID;
"""
# KVM's tracepoints of the vectors that were traced, a row a cell that has any.
_TRACES: Final = "CREATE TABLE IF NOT EXISTS trace (cell INTEGER PRIMARY KEY REFERENCES cell, body TEXT NOT NULL)"
# Who judged the answers of a cell: two cells of one judge were judged by the same rules, for the same CPU.
_JUDGED: Final = (
    "CREATE TABLE IF NOT EXISTS judged (cell INTEGER PRIMARY KEY REFERENCES cell, judge TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS judged_judge ON judged (judge)",
)
_OF_JUDGES: Final = ~(GIVEN | OF_TRACES).value
CELLS_OF_A_JUDGE: Final = 4  # so many of a judge's cells are read, the newest first
# The combinations of marks that occur, each found by the index without a look at the rows.
_MARKS: Final = """
WITH RECURSIVE met(m) AS (SELECT min(marks) FROM result
    UNION ALL SELECT (SELECT min(marks) FROM result WHERE marks > met.m) FROM met WHERE met.m IS NOT NULL)
SELECT m FROM met WHERE m IS NOT NULL
"""
_ROWS: Final = (
    "SELECT c.level, c.param, c.host, c.machine, v.id, v.name, s.body, p.body, k.body, r.marks, u.name"
    " FROM result r JOIN cell c ON c.id=r.cell JOIN vector v ON v.id=r.vector JOIN outcome s ON s.id=r.seen"
    " LEFT JOIN outcome p ON p.id=r.predicted LEFT JOIN contract k ON k.id=r.contract"
    " LEFT JOIN rule u ON u.id=r.rule WHERE c.run=?"
)
_CHANGED_FROM: Final = (
    "FROM result r JOIN cell c ON c.id=r.cell"
    " JOIN cell d ON d.run=c.run AND d.host=c.host AND d.machine=c.machine AND d.level=? AND d.param=?"
    " JOIN result q ON q.cell=d.id AND q.vector=r.vector"
)
_CHANGED_WHERE: Final = "WHERE c.run=? AND c.level=? AND c.param=? AND q.seen != r.seen"


def changed(before: Outcome, after: Outcome) -> bool:
    """Whether two levels answered differently: a vector that never ran says nothing, nor a foresight of what the
    mirror does not follow; notes are no part of an answer."""
    return not {before.kind, after.kind} & {*UNHEARD, Kind.NOT_MIRRORED} and not before.matches(after)


@dataclass(frozen=True, slots=True)
class Recorded:
    """The record is of a finished cell as the journal has it: its number, seconds of wall time, what its host said of
    itself.
    """

    number: int
    seconds: float
    facts: dict[str, Any]

    @property
    def collapsed(self) -> dict[str, int]:
        """The function says how many vectors each rule left out."""
        found: dict[str, int] = self.facts.get("collapsed", {})
        return found

    @property
    def events(self) -> list[Judged]:
        """The function gives the traced vectors."""
        return [Judged.from_json(body) for body in self.facts.get("events", ())]

    @property
    def not_reproduced(self) -> list[NotReproduced]:
        """The function gives the vectors that an earlier run answered otherwise."""
        return [NotReproduced.from_json(body) for body in self.facts.get("not_reproduced", ())]

    @property
    def earlier(self) -> dict[int, int]:
        """The function says how many answers are those of each earlier run."""
        return {int(run): count for run, count in self.facts.get("earlier", {}).items()}


@dataclass(frozen=True, slots=True)
class Sighting:
    """The record is of what one cell of a run saw for itself, and what its host said of itself."""

    run: int
    cell: CellKey
    facts: dict[str, Any]
    outcomes: dict[str, Outcome]  # by the vector's id
    traces: Sequence[Mapping[str, Any]] = ()  # as ``record`` was given them


@dataclass(frozen=True, slots=True)
class RunInfo:
    """This is a run's own row: when, how it ended, how it was typed, what it was made of."""

    id: int
    begun: float
    ended: float | None
    status: str
    argv: list[str]
    provenance: dict[str, Any]

    @property
    def foreseen(self) -> bool:
        """The run is the mirror's word alone, and no host was asked: True."""
        return bool(self.provenance.get(FORESEEN))


class OfRun:
    """What is read out of one run has the run's number and its kind."""

    __slots__ = ()
    info: RunInfo

    @property
    def number(self) -> int:
        """The run has this number in the journal."""
        return self.info.id

    @property
    def foreseen(self) -> bool:
        """The run was foreseen: what stands where an observation would is the mirror's word, and nobody looked."""
        return self.info.foreseen


def default_path() -> Path:
    """The journal is in the user's state folder."""
    return places.user_state() / "journal.sqlite"


class Journal:
    """This is one open journal. Writing is for one thread at a time; readers may open their own.

    Raises InputError when the file is no journal, or of another version.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or default_path()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=BUSY / 1000, check_same_thread=False)
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
        except (OSError, sqlite3.Error) as error:
            raise InputError(f"journal {self.path}: {error}; name another with --journal") from error
        if version == 0:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.executescript(_SCHEMA)
            self._db.execute(f"PRAGMA user_version={USER_VERSION}")
            version = USER_VERSION
        elif version not in (OLDER, USER_VERSION):
            raise InputError(
                f"journal {self.path} has version {version}, this kvmirror reads {OLDER} and {USER_VERSION}: "
                "move it away or name another with --journal"
            )
        self._version: int = version
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._ids: dict[tuple[str, str], int] = {}
        self._all_known = False  # ``_ids`` has the vectors that were there when the file was first looked into
        self._vectors: dict[int, Vector] = {}
        self._judgements: dict[tuple[int | None, ...], Judgement] = {}

    def close(self) -> None:
        """The file is closed."""
        self._db.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # writing

    def begin(self, argv: list[str], provenance: dict[str, Any]) -> int:
        """The function gives a new run's number."""
        self._upgrade()
        with self._db:
            cursor = self._db.execute(
                "INSERT INTO run (begun, status, argv, provenance) VALUES (?, 'running', ?, ?)",
                (time.time(), json.dumps(argv), json.dumps(provenance)),
            )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def adopt(self, info: RunInfo) -> int:
        """The value is the number of a new run: ``info`` but for its number, which is another journal's."""
        number = self.begin(info.argv, info.provenance)
        with self._db:
            self._db.execute(
                "UPDATE run SET begun=?, ended=?, status=? WHERE id=?", (info.begun, info.ended, info.status, number)
            )
        return number

    def amend(self, run: int, provenance: dict[str, Any]) -> None:
        """The run's provenance gets what became known on the way."""
        with self._db:
            merged = self.provenance(run) | provenance
            self._db.execute("UPDATE run SET provenance=? WHERE id=?", (json.dumps(merged), run))

    def end(self, run: int, status: str) -> None:
        """The run is marked ``complete``, ``interrupted`` or ``failed``."""
        with self._db:
            self._db.execute("UPDATE run SET ended=?, status=? WHERE id=?", (time.time(), status, run))

    def _upgrade(self) -> None:
        """Make a journal of the older version one of ours; one process does it, whoever else wants to waits."""
        if self._version == USER_VERSION:
            return
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            for statement in _UPGRADE if version == OLDER else ():
                self._db.execute(statement)
        self._version = USER_VERSION

    def _intern(self, table: str, column: str, text: str) -> int:
        key = (table, text)
        if key not in self._ids:
            self._db.execute(f"INSERT OR IGNORE INTO {table} ({column}) VALUES (?)", (text,))
            (self._ids[key],) = self._db.execute(f"SELECT id FROM {table} WHERE {column}=?", (text,)).fetchone()
        return self._ids[key]

    def record(
        self,
        run: int,
        key: CellKey,
        answers: Iterable[Answer],
        seconds: float,
        facts: dict[str, Any],
        basis: str | None = None,
        traces: Sequence[Mapping[str, Any]] = (),
        judge: str | None = None,
    ) -> None:
        """A whole cell is committed, replacing what an interrupted run left of it.

        ``basis`` names all that its answers rest on; None where that is not known, and no later run takes them.
        ``traces`` are kept as they are. ``judge`` is who judged the answers, for ``judgements``.
        """
        self._upgrade()
        with self._db:
            self._db.execute(_TRACES)
            for statement in _JUDGED:
                self._db.execute(statement)
            for table in ("result", "trace", "judged"):
                self._db.execute(
                    f"DELETE FROM {table} WHERE cell IN (SELECT id FROM cell WHERE run=? AND level=? AND param=?"
                    " AND host=? AND machine=?)",
                    (run, key.level, key.param, key.host, key.machine),
                )
            self._db.execute(
                "INSERT OR REPLACE INTO cell (run, level, param, host, machine, seconds, facts, basis)"
                " VALUES (?,?,?,?,?,?,?,?)",
                (
                    *(run, key.level, key.param, key.host, key.machine, seconds, json.dumps(facts)),
                    None if basis is None else self._intern("basis", "body", basis),
                ),
            )
            (cell,) = self._db.execute("SELECT last_insert_rowid()").fetchone()
            number, judged = self._numbering(), self._judging()
            rows = [
                (
                    cell,
                    self._intern("vector", "name", a.vector.id),
                    number(a.seen),
                    number(a.predicted),
                    number(a.contract),
                    *judged(a.verdict),
                )
                for a in answers
            ]
            self._db.executemany("INSERT INTO result VALUES (?,?,?,?,?,?,?)", rows)
            if traces:
                self._db.execute("INSERT INTO trace VALUES (?,?)", (cell, json.dumps(traces)))
            if judge is not None:
                self._db.execute("INSERT INTO judged VALUES (?,?)", (cell, judge))

    def _numbering(self) -> Callable[[Outcome | Contract | None], int | None]:
        """Gives an outcome or a contract its number. Most of a batch share few objects: each is looked up once."""
        known: dict[int, tuple[int, object]] = {}  # by identity, which holds as long as the object is kept

        def number(value: Outcome | Contract | None) -> int | None:
            if value is None:
                return None
            if (found := known.get(id(value))) is None:
                if isinstance(value, Outcome):
                    found = self._intern("outcome", "body", outcome_json(value)), value
                else:
                    found = self._intern("contract", "body", contract_json(value)), value
                known[id(value)] = found
            return found[0]

        return number

    def _judging(self) -> Callable[[Verdict], tuple[int, int | None]]:
        """Gives a verdict's marks and the number of its rule. Most of a batch share few verdicts, as with outcomes."""
        known: dict[int, tuple[tuple[int, int | None], Verdict]] = {}

        def numbers(verdict: Verdict) -> tuple[int, int | None]:
            if (found := known.get(id(verdict))) is None:
                rule = self._intern("rule", "name", verdict.rule) if verdict.rule else None
                found = known[id(verdict)] = (verdict.marks.value, rule), verdict
            return found[0]

        return numbers

    def keep(self, run: int, host: str, source: str, body: str) -> None:
        """Keep what was found out from a run's answers on ``host``; ``source`` stands for all that it rests on.

        A journal that cannot be written, or that is being written, keeps nothing: it costs the next reader time only.
        """
        with suppress(sqlite3.OperationalError), self._db:
            self._db.execute("PRAGMA busy_timeout=1000")
            self._db.execute(_DERIVED)
            self._db.execute("INSERT OR REPLACE INTO derived VALUES (?,?,?,?)", (run, host, source, body))
        self._db.execute(f"PRAGMA busy_timeout={BUSY}")

    # reading

    def kept(self, run: int, host: str, source: str) -> str | None:
        """The function gives what ``keep`` was given with the very same ``source``, be it for ``run`` or another; None
        where that is nothing.
        """
        try:
            found = self._db.execute(
                "SELECT body FROM derived WHERE host=? AND source=? ORDER BY run=? DESC LIMIT 1", (host, source, run)
            ).fetchone()
        except sqlite3.OperationalError:  # an older kvmirror's journal has no such table
            return None
        return None if found is None else str(found[0])

    def latest(self, host: str | None = None) -> int:
        """The function gives the newest observed run, of those with a finished cell on ``host`` where it is
        given.

        A run without a cell there is taken only where no other has one; a foreseen run never.

        Raises InputError when there is none.
        """
        observed = [info.id for info in self.runs() if not info.foreseen]
        if not observed:
            (foreseen,) = self._db.execute("SELECT max(id) FROM run").fetchone()
            if foreseen is None:
                raise InputError(f"journal {self.path} holds no run yet: run 'kvmirror validate' first")
            raise InputError(
                f"journal {self.path} holds no observed run yet, only foreseen ones: run 'kvmirror validate', or name "
                f"the newest foreseen one with --run {foreseen}"
            )
        newest = observed[-1]
        if host is not None:
            (there,) = self._db.execute("SELECT max(run) FROM cell WHERE host=?", (host,)).fetchone()
            newest = there or newest
        return newest

    def foreseen(self) -> RunInfo | None:
        """The function gives the newest run of ``kvmirror foresee`` that came to its end."""
        return next((i for i in reversed(self.runs()) if i.foreseen and i.status == "complete"), None)

    def runs(self) -> list[RunInfo]:
        """The function gives every run, the oldest first."""
        rows = self._db.execute("SELECT id, begun, ended, status, argv, provenance FROM run ORDER BY id")
        return [_info(row) for row in rows]

    def run_info(self, run: int) -> RunInfo:
        """The function gives a run's own row.

        Raises InputError when there is none.
        """
        row = self._db.execute(
            "SELECT id, begun, ended, status, argv, provenance FROM run WHERE id=?", (run,)
        ).fetchone()
        if row is None:
            there = ", ".join(str(info.id) for info in self.runs())
            mend = f"it has {there}: name one of these with --run" if there else "it has none: run 'kvmirror validate'"
            raise InputError(f"journal {self.path} has no run {run}; {mend}")
        return _info(row)

    def provenance(self, run: int) -> dict[str, Any]:
        """The function gives what a run was made of."""
        return self.run_info(run).provenance

    def cells(self, run: int) -> dict[CellKey, Recorded]:
        """The function gives the finished cells of a run."""
        with closing(
            self._db.execute(
                "SELECT level, param, host, machine, id, seconds, facts FROM cell WHERE run=?"
                " ORDER BY level, param, host",
                (run,),
            )
        ) as rows:
            return {
                CellKey(level, param, host, machine): Recorded(number, seconds, json.loads(facts))
                for level, param, host, machine, number, seconds, facts in rows
            }

    def traces(self, run: int) -> dict[int, list[dict[str, Any]]]:
        """The value is what ``record`` was given as traces, by the cell's number."""
        return self._traces("SELECT t.cell, t.body FROM trace t JOIN cell c ON c.id=t.cell WHERE c.run=?", run)

    def _traces_of(self, cell: int) -> list[dict[str, Any]]:
        return self._traces("SELECT cell, body FROM trace WHERE cell=?", cell).get(cell, [])

    def _traces(self, query: str, number: int) -> dict[int, list[dict[str, Any]]]:
        try:
            rows = self._db.execute(query, (number,)).fetchall()
        except sqlite3.OperationalError:  # nothing was ever traced in this journal
            return {}
        return {cell: json.loads(body) for cell, body in rows}

    def counts(self, cell: int) -> dict[Mark, int]:
        """The function says how many results of a cell carry each combination of marks."""
        rows = self._db.execute("SELECT marks, count(*) FROM result WHERE cell=? GROUP BY marks", (cell,))
        return {Mark(marks): count for marks, count in rows}

    def answers(
        self, run: int, *, having: Mark | None = None, level: int | None = None, host: str | None = None
    ) -> Iterator[tuple[CellKey, Answer]]:
        """The function gives answers of a run that carry any of ``having`` (all where it is None), each with
        its cell.
        """
        for row in self._rows(run, having, level, host):
            cell_level, param, there, machine, number, name, seen, predicted, contract, marks, rule = row
            yield (
                CellKey(cell_level, param, there, machine),
                Answer(
                    self._vector(number, name),
                    outcome_of(seen),
                    None if predicted is None else outcome_of(predicted),
                    None if contract is None else contract_of(contract),
                    Verdict(Mark(marks), rule or ""),
                ),
            )

    def observed(self, basis: str, host: str, but: int) -> list[Sighting]:
        """The function gives what other runs than ``but`` saw for themselves on ``basis``, the newest first, one a
        cell.

        An answer that was itself taken is not among them, and none that says nothing.
        """
        if self._version == OLDER:
            return []
        cells = self._db.execute(
            "SELECT c.id, c.run, c.level, c.param, c.machine, c.facts FROM cell c JOIN basis b ON b.id=c.basis"
            " WHERE b.body=? AND c.host=? AND c.run!=? ORDER BY c.run DESC, c.id DESC",
            (basis, host, but),
        ).fetchall()
        return [
            Sighting(
                run, CellKey(level, param, host, machine), json.loads(facts), self._seen(cell), self._traces_of(cell)
            )
            for cell, run, level, param, machine, facts in cells
        ]

    def _seen(self, cell: int) -> dict[str, Outcome]:
        """What was seen in a cell by those that were asked there."""
        rows = self._db.execute(
            "SELECT v.name, s.body FROM result r JOIN vector v ON v.id=r.vector JOIN outcome s ON s.id=r.seen"
            " WHERE r.cell=? AND r.marks & ? = 0",
            (cell, UNSEEN.value),
        )
        return {name: outcome_of(body) for name, body in rows}

    def judgements(self, judge: str, wanted: Collection[str]) -> dict[str, Judgement]:
        """The function gives what ``judge`` said of vectors that are ``wanted``, by their ids, without the marks that
        say how an answer was come by or what a trace showed.
        """
        try:
            cells = self._db.execute(
                "SELECT cell FROM judged WHERE judge=? ORDER BY cell DESC LIMIT ?", (judge, CELLS_OF_A_JUDGE)
            ).fetchall()
        except sqlite3.OperationalError:  # an older kvmirror's journal has no such table
            return {}
        missing = self._numbers_of(wanted) if cells else {}
        found = {}
        for (cell,) in cells:
            if not missing:
                break
            for vector, *rest in self._db.execute(
                "SELECT vector, seen, predicted, contract, marks, rule FROM result WHERE cell=?", (cell,)
            ):
                if (name := missing.pop(vector, None)) is not None:
                    found[name] = self._judgement(*rest)
        return found

    def _numbers_of(self, names: Iterable[str]) -> dict[int, str]:
        """Those of the vectors ``names`` that the journal has, by their numbers."""
        if not self._all_known:
            self._ids |= {("vector", name): number for number, name in self._db.execute("SELECT id, name FROM vector")}
            self._all_known = True
        found = ((self._ids.get(("vector", name)), name) for name in names)
        return {number: name for number, name in found if number is not None}

    def _judgement(
        self, seen: int, predicted: int | None, contract: int | None, marks: int, rule: int | None
    ) -> Judgement:
        key = seen, predicted, contract, marks & _OF_JUDGES, rule
        if (found := self._judgements.get(key)) is None:
            words = "" if rule is None else self._text("rule", "name", rule)
            found = self._judgements[key] = Judgement(
                outcome_of(self._text("outcome", "body", seen)),
                None if predicted is None else outcome_of(self._text("outcome", "body", predicted)),
                None if contract is None else contract_of(self._text("contract", "body", contract)),
                Verdict(Mark(marks & _OF_JUDGES), words),
            )
        return found

    def _text(self, table: str, column: str, number: int) -> str:
        (found,) = self._db.execute(f"SELECT {column} FROM {table} WHERE id=?", (number,)).fetchone()
        return str(found)

    def newest_basis(self, level: int, param: str, host: str, machine: str, but: int) -> str | None:
        """The function gives the newest basis of such a cell in another run than ``but``; None where none is known."""
        if self._version == OLDER:
            return None
        row = self._db.execute(
            "SELECT b.body FROM cell c JOIN basis b ON b.id=c.basis WHERE c.level=? AND c.param=? AND c.host=?"
            " AND c.machine=? AND c.run!=? ORDER BY c.run DESC LIMIT 1",
            (level, param, host, machine, but),
        ).fetchone()
        return None if row is None else str(row[0])

    def digest(self, run: int, host: str, having: Mark) -> str:
        """The hash is of what ``answers`` gives, but for the marks that say how an answer was come by."""
        found = sha256()
        for *row, marks, rule in self._rows(run, having, None, host):
            found.update(repr((row, marks & _OF_JUDGES, rule)).encode("utf-8", "surrogatepass"))
        return found.hexdigest()

    def _rows(self, run: int, having: Mark | None, level: int | None, host: str | None) -> Iterator[tuple[Any, ...]]:
        sql = _ROWS
        given: list[object] = [run]
        if having is not None:
            met = [marks for (marks,) in self._db.execute(_MARKS) if marks & having.value]
            sql += f" AND r.marks IN ({','.join(map(str, met))})"
        if level is not None:
            sql += " AND c.level=?"
            given.append(level)
        if host is not None:
            sql += " AND c.host=?"
            given.append(host)
        yield from self._db.execute(sql + " ORDER BY c.level, c.param, v.id", given)

    def _vector(self, number: int, name: str) -> Vector:
        if number not in self._vectors:
            try:
                self._vectors[number] = parse(name)
            except VectorError as error:
                raise InputError(
                    f"journal {self.path}: {error}; it is of another kvmirror: name another with --journal"
                ) from error
        return self._vectors[number]

    def notes(self, run: int, host: str) -> dict[str, str | None]:
        """The method gives every vector of a run by id: None where it was asked in a cell, else why it was blocked."""
        sql = (
            "SELECT v.name, min(r.marks & ?), s.body FROM result r JOIN cell c ON c.id=r.cell"
            " JOIN vector v ON v.id=r.vector JOIN outcome s ON s.id=r.seen WHERE c.run=? AND c.host=? GROUP BY r.vector"
        )
        found = self._db.execute(sql, (Mark.BLOCKED.value, run, host))
        return {
            name: (outcome_of(body).note or "no reason given") if blocked else None for name, blocked, body in found
        }

    def texts(self, table: str) -> dict[int, str]:
        """The texts that ``numbers`` refers to: ``table`` is vector, outcome, contract or rule."""
        column = {"vector": "name", "outcome": "body", "contract": "body", "rule": "name"}[table]
        return dict(self._db.execute(f"SELECT id, {column} FROM {table}"))

    def numbers(self, run: int, host: str) -> Iterator[tuple[int, int, int, int | None, int | None, int, int | None]]:
        """The function gives every row of a run on ``host`` unresolved: cell, vector, seen, predicted, contract, marks,
        rule.

        A whole run is a million rows with a few thousand different answers: what reads all of it resolves each once.
        """
        yield from self._db.execute(
            "SELECT r.cell, r.vector, r.seen, r.predicted, r.contract, r.marks, r.rule FROM result r"
            " JOIN cell c ON c.id=r.cell WHERE c.run=? AND c.host=? ORDER BY r.cell, r.vector",
            (run, host),
        )

    def tally(self, run: int, host: str, mark: Mark, column: str) -> dict[int | None, int]:
        """The function says how many rows that carry ``mark`` refer to each ``contract`` or ``seen``."""
        if column not in ("contract", "seen"):
            raise ValueError(column)
        rows = self._db.execute(
            f"SELECT r.{column}, count(*) FROM result r JOIN cell c ON c.id=r.cell"
            f" WHERE c.run=? AND c.host=? AND r.marks & ? != 0 GROUP BY r.{column}",
            (run, host, mark.value),
        )
        return dict(rows)

    def heard(self, run: int, host: str, other: int, there: str) -> Iterator[tuple[int, str, str, str]]:
        """The function gives the findings' rows of a run whose vector ``other`` answered at that level on that machine
        as well.

        Level, parameter, parameter in the other run, vector's id. A vector that never ran was not heard.
        """
        yield from self._db.execute(
            "SELECT c.level, c.param, d.param, v.name FROM result r JOIN cell c ON c.id=r.cell"
            " JOIN cell d ON d.run=? AND d.host=? AND d.level=c.level AND d.machine=c.machine"
            " JOIN result q ON q.cell=d.id AND q.vector=r.vector JOIN vector v ON v.id=r.vector"
            " WHERE c.run=? AND c.host=? AND r.marks & ? != 0 AND q.marks & ? = 0",
            (other, there, run, host, Mark.FINDING.value, Mark.BLOCKED.value),
        )

    def changes(
        self, run: int, level: int, param: str, below: int, below_param: str
    ) -> Iterator[tuple[Vector, Outcome, Outcome]]:
        """The function gives vectors seen at both of two levels with different answers: vector, below, here."""
        sql = (
            f"SELECT v.id, v.name, a.body, b.body {_CHANGED_FROM} JOIN outcome a ON a.id=q.seen"
            f" JOIN outcome b ON b.id=r.seen JOIN vector v ON v.id=r.vector {_CHANGED_WHERE} ORDER BY v.id"
        )
        for number, name, was, now in self._db.execute(sql, (below, below_param, run, level, param)):
            before, after = outcome_of(was), outcome_of(now)
            if changed(before, after):
                yield self._vector(number, name), before, after

    def count_changes(self, run: int, level: int, param: str, below: int, below_param: str) -> int:
        """The function says how many ``changes`` has."""
        sql = (
            f"SELECT a.body, b.body, count(*) {_CHANGED_FROM} JOIN outcome a ON a.id=q.seen"
            f" JOIN outcome b ON b.id=r.seen {_CHANGED_WHERE} GROUP BY q.seen, r.seen"
        )
        rows = self._db.execute(sql, (below, below_param, run, level, param))
        return sum(count for before, after, count in rows if changed(outcome_of(before), outcome_of(after)))


def _info(row: tuple[Any, ...]) -> RunInfo:
    number, begun, ended, status, argv, provenance = row
    return RunInfo(number, begun, ended, status, json.loads(argv), json.loads(provenance))
