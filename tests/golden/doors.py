"""The only file here that names modules under test: where one moves, or is typed anew, this is what changes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness import cli, cpus, selection, summary, vectors
from harness.compare import Mark, Verdict, judge
from harness.journal import Answer, CellKey, Journal, outcome_json, outcome_of
from kvmodel import machine, sdm
from kvmodel.outcome import NotApplicable, Outcome
from kvmodel.vector import AccessVector, Vector

main = cli.main  # main(argv) -> exit code

# Marks that the judge does not give: they say how an answer was come by.
_GIVEN = Mark.TRACED | Mark.EVENT_DRIFT | Mark.TAKEN


def commands() -> list[str]:
    """Every command and subcommand as it is typed, the whole program first, as an empty text."""

    def walk(parser: argparse.ArgumentParser, path: str) -> Iterator[str]:
        yield path
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, child in action.choices.items():
                    yield from walk(child, f"{path} {name}".strip())

    return list(walk(cli.parser(), ""))


def parts() -> tuple[str, ...]:
    """The name of every part and whole space that a user may ask for."""
    return vectors.NAMES


def part(name: str) -> list[Vector]:
    """The vectors of a part, in its order."""
    return selection.vector_list([name])


def vector(name: str) -> Vector:
    """The vector of an id."""
    return selection.vector(name)


def kind(asked: Vector) -> str:
    """The name of a vector's kind."""
    return type(asked).__name__


def _outcome_text(outcome: Outcome) -> str:
    """An outcome with what its own text leaves out: all of its code, and the bits that are vouched for."""
    turns = "".join(f" [{_outcome_text(turn)}]" for turn in outcome.turns)
    return f"{outcome} code={outcome.code:#x} number={outcome.number} defined={outcome.defined:#x}{turns}"


def predict(level: int, param: bool | None, asked: Vector) -> tuple[str, str, int, list[str]]:
    """The mirror's outcome, in its own text and whole, the exits on the way, and the steps' texts."""
    found = machine.predict(level, param, cpus.emulated(asked.machine.env.cpu_mbec), asked, steps=True)
    return str(found.outcome), _outcome_text(found.outcome), found.exits, [str(step) for step in found.steps]


def predict_alone(level: int, param: bool | None, asked: Sequence[Vector]) -> None:
    """The mirror's outcome of each vector without steps, for speed.py."""
    for one in asked:
        machine.predict(level, param, cpus.emulated(one.machine.env.cpu_mbec), one)


def events(level: int, param: bool | None, asked: Vector) -> list[str]:
    """What KVM's tracepoints print on the way; empty for what is no single access."""
    if not isinstance(asked, AccessVector):
        return []
    found = machine.events(level, param, cpus.emulated(asked.machine.env.cpu_mbec), asked)
    return [f"{name}: {text}" for name, text in found]


def warns(level: int, param: bool | None, asked: Vector) -> list[str]:
    """The WARNs on the way; empty for what is no single access."""
    if not isinstance(asked, AccessVector):
        return []
    return list(machine.warns(level, param, cpus.emulated(asked.machine.env.cpu_mbec), asked))


def _contract(level: int, param: bool | None, asked: Vector) -> Any:
    cpu = cpus.emulated(asked.machine.env.cpu_mbec)
    return sdm.allowed(machine.virtual_cpu(level, param, cpu, asked.machine), asked)


def allowed(level: int, param: bool | None, asked: Vector) -> list[str]:
    """What the contract allows on the virtual CPU that L1 reads there, or why it does not say."""
    found = _contract(level, param, asked)
    if isinstance(found, NotApplicable):
        return [f"not applicable: {found.rule}: {found.reason}"]
    return [f"{_outcome_text(one.outcome)} by {one.rule}, {one.section}" for one in found]


def read_run(path: Path, run: int) -> dict[str, Any]:
    """A run of a journal as data: what was observed, with the marks it got there."""
    with Journal(path) as journal:
        info = journal.run_info(run)
        cells = [
            {
                "level": k.level,
                "param": k.param,
                "host": k.host,
                "machine": k.machine,
                "seconds": seconds,
                "facts": facts,
            }
            for k, (_, seconds, facts) in journal.cells(run).items()
        ]
        rows = [
            {
                "cell": [row["level"], row["param"], row["host"], row["machine"]],
                "vector": row["vector"],
                "seen": json.loads(outcome_json(row["seen"])),
                "predicted": None if row["predicted"] is None else json.loads(outcome_json(row["predicted"])),
                "marks": row["marks"].value,
                "rule": row["rule"],
            }
            for row in journal.results(run)
        ]
    return {
        **{name: info[name] for name in ("status", "begun", "ended", "argv", "provenance")},
        "cells": cells,
        "rows": rows,
    }


def write_run(
    path: Path, argv: list[str], provenance: dict[str, Any], status: str, cells: list[dict[str, Any]]
) -> None:
    """A journal with one run in which each cell's ``answers`` were seen; mirror, contract and judge speak anew.

    An answer is (vector, what was seen as the journal has it, marks, rule). ValueError where an answer's marks or rule
    are no longer those that it had.
    """
    values: dict[str, bool | None] = {"unset": None, "0": False, "1": True}
    with Journal(path) as journal:
        run = journal.begin(argv, provenance)
        for cell in cells:
            param = values[cell["param"]]
            answers = []
            for name, body, marks, rule in cell["answers"]:
                asked, seen = vector(name), outcome_of(json.dumps(body))
                cpu = cpus.emulated(asked.machine.env.cpu_mbec)
                prediction = machine.predict(cell["level"], param, cpu, asked)
                contract = _contract(cell["level"], param, asked)
                verdict = judge(prediction, contract, seen)
                had = Mark(marks)
                if (verdict.marks | had & _GIVEN, verdict.rule) != (had, rule):
                    raise ValueError(
                        f"level {cell['level']}, parameter {cell['param']}, {name}: was {had} by {rule!r}, is "
                        f"{verdict.marks} by {verdict.rule!r}; the mirror says {prediction.outcome}"
                    )
                answers.append(Answer(asked, seen, prediction, contract, Verdict(had, rule)))
            key = CellKey(cell["level"], cell["param"], cell["host"], cell["machine"])
            journal.record(run, key, answers, cell["seconds"], cell["facts"])
        journal.end(run, status)


def findings(path: Path, run: int) -> list[dict[str, Any]]:
    """The findings of a run on KVM, as ``kvmirror findings --json`` prints them, with the vectors of each cell."""
    with Journal(path) as journal:
        found = summary.findings(journal, run)
    out = []
    for f in found:
        cells: dict[str, set[str]] = {}
        for d in f.departures:
            cells.setdefault(f"{d.cell[0]}/{d.cell[1]}", set()).add(d.vector)
        out.append(
            summary.finding_json(f)
            | {
                "cells": {
                    cell: len(names)
                    for cell, names in sorted(cells.items(), key=lambda item: (int(item[0].partition("/")[0]), item[0]))
                }
            }
        )
    return out


def totals(path: Path, run: int) -> dict[str, Any]:
    """A run's totals, without the seconds."""
    with Journal(path) as journal:
        found: dict[str, Any] = summary.as_json(journal, run)["totals"]
    return {name: value for name, value in found.items() if name != "seconds"}
