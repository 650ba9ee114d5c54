"""What is known so far: every run's provenance and every voice's answer, in SQLite.

One row per (run, level, parameter, host, vector): the three answers and the marks of their comparison.
Vectors, outcomes and rules are stored once and referred to by number; an outcome's row is its JSON.
A cell (level, parameter, machine) is committed whole, so that an interrupted run loses at most the cell it was in.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness import places
from harness.errors import InputError
from harness.results.verdict import UNHEARD, Contract, Mark, Verdict
from kvmodel.question.outcome import Kind, NotApplicable, Outcome, Place, Prediction
from kvmodel.question.vector import Vector

USER_VERSION: Final = 1
LEFT_OUT: Final = "left_out"  # in a run's provenance, by a patch's hash: what changes when it is left out
_SCHEMA: Final = """
CREATE TABLE run (id INTEGER PRIMARY KEY, begun REAL NOT NULL, ended REAL, status TEXT NOT NULL,
    argv TEXT NOT NULL, provenance TEXT NOT NULL);
CREATE TABLE vector (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE outcome (id INTEGER PRIMARY KEY, body TEXT NOT NULL UNIQUE);
CREATE TABLE contract (id INTEGER PRIMARY KEY, body TEXT NOT NULL UNIQUE);
CREATE TABLE rule (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE cell (id INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES run, level INTEGER NOT NULL,
    param TEXT NOT NULL, host TEXT NOT NULL, machine TEXT NOT NULL, seconds REAL NOT NULL, facts TEXT NOT NULL,
    UNIQUE (run, level, param, host, machine));
CREATE TABLE result (cell INTEGER NOT NULL REFERENCES cell, vector INTEGER NOT NULL REFERENCES vector,
    seen INTEGER NOT NULL REFERENCES outcome, predicted INTEGER REFERENCES outcome,
    contract INTEGER REFERENCES contract, marks INTEGER NOT NULL, rule INTEGER REFERENCES rule,
    PRIMARY KEY (cell, vector)) WITHOUT ROWID;
CREATE INDEX result_marks ON result (marks);
"""
_CHANGED_FROM: Final = (
    "FROM result r JOIN cell c ON c.id=r.cell"
    " JOIN cell d ON d.run=c.run AND d.host=c.host AND d.machine=c.machine AND d.level=? AND d.param=?"
    " JOIN result q ON q.cell=d.id AND q.vector=r.vector"
)
_CHANGED_WHERE: Final = "WHERE c.run=? AND c.level=? AND c.param=? AND q.seen != r.seen"


def _outcome_body(outcome: Outcome) -> dict[str, Any]:
    body: dict[str, Any] = {"kind": outcome.kind.value, "code": outcome.code, "number": outcome.number}
    for name in ("gpa", "gla"):
        place = getattr(outcome, name)
        if place is not None:
            body[name] = [place.base, place.offset]
    if outcome.defined != Outcome.__dataclass_fields__["defined"].default:
        body["defined"] = outcome.defined
    if outcome.note:
        body["note"] = outcome.note
    if outcome.turns:
        body["turns"] = [_outcome_body(turn) for turn in outcome.turns]
    return body


def outcome_json(outcome: Outcome) -> str:
    """An outcome as its journal row, without the fields that say nothing."""
    return json.dumps(_outcome_body(outcome), sort_keys=True)


def outcome_of(body: str) -> Outcome:
    """The inverse of ``outcome_json``."""
    return _outcome_from(json.loads(body))


def _outcome_from(fields: dict[str, Any]) -> Outcome:
    fields["kind"] = Kind(fields["kind"])
    for name in ("gpa", "gla"):
        if name in fields:
            fields[name] = Place(*fields[name])
    if "turns" in fields:
        fields["turns"] = tuple(_outcome_from(turn) for turn in fields["turns"])
    return Outcome(**fields)


def changed(before: Outcome, after: Outcome) -> bool:
    """Whether two levels answered differently: a vector that never ran says nothing, notes are no part of an answer."""
    return not {before.kind, after.kind} & set(UNHEARD) and not before.matches(after)


def contract_json(contract: Contract) -> str:
    """What the contract allows as its journal row."""
    if isinstance(contract, NotApplicable):
        return json.dumps({"rule": contract.rule, "reason": contract.reason})
    return json.dumps([[outcome_json(a.outcome), a.rule, a.section] for a in contract])


@dataclass(frozen=True, slots=True)
class Answer:
    """All that is known of one vector in one cell."""

    vector: Vector
    seen: Outcome
    predicted: Prediction | None
    contract: Contract | None
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class CellKey:
    """Where a batch ran: one QEMU start, or the host itself."""

    level: int
    param: str
    host: str
    machine: str


def default_path() -> Path:
    """The journal in the user's state folder."""
    return places.user_state() / "journal.sqlite"


class Journal:
    """One open journal. Writing is for one thread at a time; readers may open their own."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or default_path()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=60, check_same_thread=False)
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
        except (OSError, sqlite3.Error) as error:
            raise InputError(f"journal {self.path}: {error}; name another with --journal") from error
        if version == 0:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.executescript(_SCHEMA)
            self._db.execute(f"PRAGMA user_version={USER_VERSION}")
        elif version != USER_VERSION:
            raise InputError(
                f"journal {self.path} has version {version}, this kvmirror reads {USER_VERSION}: "
                "move it away or name another with --journal"
            )
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._ids: dict[tuple[str, str], int] = {}

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # writing

    def begin(self, argv: list[str], provenance: dict[str, Any]) -> int:
        """A new run's number."""
        with self._db:
            cursor = self._db.execute(
                "INSERT INTO run (begun, status, argv, provenance) VALUES (?, 'running', ?, ?)",
                (time.time(), json.dumps(argv), json.dumps(provenance)),
            )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def amend(self, run: int, provenance: dict[str, Any]) -> None:
        """Add to a run's provenance what became known on the way."""
        with self._db:
            merged = self.provenance(run) | provenance
            self._db.execute("UPDATE run SET provenance=? WHERE id=?", (json.dumps(merged), run))

    def end(self, run: int, status: str) -> None:
        """``complete``, ``interrupted`` or ``failed``."""
        with self._db:
            self._db.execute("UPDATE run SET ended=?, status=? WHERE id=?", (time.time(), status, run))

    def _intern(self, table: str, column: str, text: str) -> int:
        key = (table, text)
        if key not in self._ids:
            self._db.execute(f"INSERT OR IGNORE INTO {table} ({column}) VALUES (?)", (text,))
            (self._ids[key],) = self._db.execute(f"SELECT id FROM {table} WHERE {column}=?", (text,)).fetchone()
        return self._ids[key]

    def record(self, run: int, key: CellKey, answers: Iterable[Answer], seconds: float, facts: dict[str, Any]) -> None:
        """Commit a whole cell, replacing what an interrupted run left of it."""
        with self._db:
            self._db.execute(
                "DELETE FROM result WHERE cell IN (SELECT id FROM cell WHERE run=? AND level=? AND param=? AND host=?"
                " AND machine=?)",
                (run, key.level, key.param, key.host, key.machine),
            )
            self._db.execute(
                "INSERT OR REPLACE INTO cell (run, level, param, host, machine, seconds, facts) VALUES (?,?,?,?,?,?,?)",
                (run, key.level, key.param, key.host, key.machine, seconds, json.dumps(facts)),
            )
            (cell,) = self._db.execute("SELECT last_insert_rowid()").fetchone()
            rows = []
            for a in answers:
                rows.append(
                    (
                        cell,
                        self._intern("vector", "name", a.vector.id),
                        self._intern("outcome", "body", outcome_json(a.seen)),
                        None
                        if a.predicted is None
                        else self._intern("outcome", "body", outcome_json(a.predicted.outcome)),
                        None if a.contract is None else self._intern("contract", "body", contract_json(a.contract)),
                        a.verdict.marks.value,
                        self._intern("rule", "name", a.verdict.rule) if a.verdict.rule else None,
                    )
                )
            self._db.executemany("INSERT INTO result VALUES (?,?,?,?,?,?,?)", rows)

    # reading

    def latest(self, host: str | None = None) -> int:
        """The newest run's number, of those with a finished cell on ``host`` where it is given; InputError: none."""
        (newest,) = self._db.execute("SELECT max(id) FROM run").fetchone()
        if newest is None:
            raise InputError(f"journal {self.path} holds no run yet: run 'kvmirror validate' first")
        if host is not None:
            # A run without a cell there is only taken where no other has one.
            (there,) = self._db.execute("SELECT max(run) FROM cell WHERE host=?", (host,)).fetchone()
            newest = there or newest
        return int(newest)

    def run_info(self, run: int) -> dict[str, Any]:
        """Begun, ended, status, argv, provenance of a run."""
        row = self._db.execute("SELECT begun, ended, status, argv, provenance FROM run WHERE id=?", (run,)).fetchone()
        if row is None:
            raise InputError(f"journal {self.path} has no run {run}")
        begun, ended, status, argv, provenance = row
        return {
            "id": run,
            "begun": begun,
            "ended": ended,
            "status": status,
            "argv": json.loads(argv),
            "provenance": json.loads(provenance),
        }

    def provenance(self, run: int) -> dict[str, Any]:
        """What a run was made of."""
        found: dict[str, Any] = self.run_info(run)["provenance"]
        return found

    def cells(self, run: int) -> dict[CellKey, tuple[int, float, dict[str, Any]]]:
        """The finished cells of a run: number, seconds, facts."""
        with closing(
            self._db.execute(
                "SELECT level, param, host, machine, id, seconds, facts FROM cell WHERE run=?"
                " ORDER BY level, param, host",
                (run,),
            )
        ) as rows:
            return {
                CellKey(level, param, host, machine): (cell, seconds, json.loads(facts))
                for level, param, host, machine, cell, seconds, facts in rows
            }

    def counts(self, cell: int) -> dict[Mark, int]:
        """How many results of a cell carry each combination of marks."""
        rows = self._db.execute("SELECT marks, count(*) FROM result WHERE cell=? GROUP BY marks", (cell,))
        return {Mark(marks): count for marks, count in rows}

    def results(
        self, run: int, *, having: Mark | None = None, level: int | None = None, host: str | None = None
    ) -> Iterator[dict[str, Any]]:
        """Rows of a run that carry any of ``having`` (all rows where it is None), texts resolved."""
        sql = (
            "SELECT c.level, c.param, c.host, c.machine, v.name, s.body, p.body, k.body, r.marks, u.name"
            " FROM result r JOIN cell c ON c.id=r.cell JOIN vector v ON v.id=r.vector JOIN outcome s ON s.id=r.seen"
            " LEFT JOIN outcome p ON p.id=r.predicted LEFT JOIN contract k ON k.id=r.contract"
            " LEFT JOIN rule u ON u.id=r.rule WHERE c.run=?"
        )
        args: list[Any] = [run]
        if having:
            sql += " AND r.marks & ? != 0"
            args.append(having.value)
        if level is not None:
            sql += " AND c.level=?"
            args.append(level)
        if host is not None:
            sql += " AND c.host=?"
            args.append(host)
        for row in self._db.execute(sql + " ORDER BY c.level, c.param, v.id", args):
            yield {
                "level": row[0],
                "param": row[1],
                "host": row[2],
                "machine": row[3],
                "vector": row[4],
                "seen": outcome_of(row[5]),
                "predicted": None if row[6] is None else outcome_of(row[6]),
                "contract": None if row[7] is None else json.loads(row[7]),
                "marks": Mark(row[8]),
                "rule": row[9] or "",
            }

    def texts(self, table: str) -> dict[int, str]:
        """The texts that ``numbers`` refers to: ``table`` is vector, outcome, contract or rule."""
        column = {"vector": "name", "outcome": "body", "contract": "body", "rule": "name"}[table]
        return dict(self._db.execute(f"SELECT id, {column} FROM {table}"))

    def numbers(self, run: int, host: str) -> Iterator[tuple[int, int, int, int | None, int | None, int, int | None]]:
        """Every row of a run on ``host`` unresolved: cell, vector, seen, predicted, contract, marks, rule.

        A whole run is a million rows with a few thousand different answers: what reads all of it resolves each once.
        """
        yield from self._db.execute(
            "SELECT r.cell, r.vector, r.seen, r.predicted, r.contract, r.marks, r.rule FROM result r"
            " JOIN cell c ON c.id=r.cell WHERE c.run=? AND c.host=? ORDER BY r.cell, r.vector",
            (run, host),
        )

    def tally(self, run: int, host: str, mark: Mark, column: str) -> dict[int | None, int]:
        """How many rows that carry ``mark`` refer to each ``contract`` or ``seen``."""
        if column not in ("contract", "seen"):
            raise ValueError(column)
        rows = self._db.execute(
            f"SELECT r.{column}, count(*) FROM result r JOIN cell c ON c.id=r.cell"
            f" WHERE c.run=? AND c.host=? AND r.marks & ? != 0 GROUP BY r.{column}",
            (run, host, mark.value),
        )
        return dict(rows)

    def changes(
        self, run: int, level: int, param: str, below: int, below_param: str
    ) -> Iterator[tuple[str, Outcome, Outcome]]:
        """Vectors seen at both of two levels with different answers: id, below, here (KVM hosts only)."""
        sql = (
            f"SELECT v.name, a.body, b.body {_CHANGED_FROM} JOIN outcome a ON a.id=q.seen"
            f" JOIN outcome b ON b.id=r.seen JOIN vector v ON v.id=r.vector {_CHANGED_WHERE} ORDER BY v.id"
        )
        for name, was, now in self._db.execute(sql, (below, below_param, run, level, param)):
            before, after = outcome_of(was), outcome_of(now)
            if changed(before, after):
                yield name, before, after

    def count_changes(self, run: int, level: int, param: str, below: int, below_param: str) -> int:
        """How many ``changes`` has."""
        sql = (
            f"SELECT a.body, b.body, count(*) {_CHANGED_FROM} JOIN outcome a ON a.id=q.seen"
            f" JOIN outcome b ON b.id=r.seen {_CHANGED_WHERE} GROUP BY q.seen, r.seen"
        )
        rows = self._db.execute(sql, (below, below_param, run, level, param))
        return sum(count for before, after, count in rows if changed(outcome_of(before), outcome_of(after)))
