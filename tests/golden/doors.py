"""The only file here that names modules under test: where one moves, or is typed anew, this is what changes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from harness.cli.main import main as main
from harness.cli.main import parser
from harness.findings import Finding, Run, finding_json
from harness.questions import core, selection
from harness.results import KVM_HOST, Answer, CellKey, Journal, Mark, Verdict, cpus, judge, outcome_json, outcome_of
from harness.results.journal import default_path
from harness.series import folder
from kvmodel import machine, sdm
from kvmodel.question.outcome import NotApplicable, Outcome
from kvmodel.question.vector import AccessVector, Vector

# Marks that the judge does not give: they say how an answer was come by.
_GIVEN = Mark.TRACED | Mark.EVENT_DRIFT | Mark.TAKEN | Mark.EARLIER | Mark.AGAIN | Mark.NOT_REPRODUCED


def commands() -> list[str]:
    """Every command and subcommand as it is typed, the whole program first, as an empty text."""

    def walk(parser: argparse.ArgumentParser, path: str) -> Iterator[str]:
        yield path
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, child in action.choices.items():
                    yield from walk(child, f"{path} {name}".strip())

    return list(walk(parser(), ""))


def parts() -> tuple[str, ...]:
    """The name of every part and whole space that a user may ask for."""
    return core.NAMES


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


def read_run(path: Path, run: int | None) -> dict[str, Any]:
    """A run of a journal, the latest on KVM where ``run`` is None, as data: what was observed, with its marks."""
    with Journal(path) as journal:
        number = journal.latest(KVM_HOST) if run is None else run
        info = journal.run_info(number)
        cells: dict[CellKey, dict[str, Any]] = {
            key: {
                "level": key.level,
                "param": key.param,
                "host": key.host,
                "machine": key.machine,
                "seconds": recorded.seconds,
                "facts": recorded.facts,
                "answers": [],
            }
            for key, recorded in journal.cells(number).items()
        }
        for key, answer in journal.answers(number):
            seen, verdict = json.loads(outcome_json(answer.seen)), answer.verdict
            cells[key]["answers"].append([answer.vector.id, seen, verdict.marks.value, verdict.rule])
    about = {name: getattr(info, name) for name in ("argv", "provenance", "status", "begun", "ended")}
    return {**about, "cells": list(cells.values())}


def write_run(path: Path, run: dict[str, Any]) -> None:
    """A journal with one run, as ``read_run`` gave it, at the times it had; mirror, contract and judge speak anew.

    ValueError where an answer's marks or rule are no longer those that it had.
    """
    with Journal(path) as journal:
        with mock.patch("time.time", return_value=run["begun"]):
            number = journal.begin(run["argv"], run["provenance"])
        for cell in run["cells"]:
            (param,) = selection.params(cell["param"])
            answers = [_judged(cell["level"], param, *answer) for answer in cell["answers"]]
            key = CellKey(cell["level"], cell["param"], cell["host"], cell["machine"])
            journal.record(number, key, answers, cell["seconds"], cell["facts"])
        with mock.patch("time.time", return_value=run["ended"]):
            journal.end(number, run["status"])


def _judged(level: int, param: bool | None, name: str, body: dict[str, Any], marks: int, rule: str) -> Answer:
    asked, seen, had = vector(name), outcome_of(json.dumps(body)), Mark(marks)
    predicted = machine.predict(level, param, cpus.emulated(asked.machine.env.cpu_mbec), asked).outcome
    contract = _contract(level, param, asked)
    now = judge(predicted, contract, seen)
    if (now.marks | had & _GIVEN, now.rule) != (had, rule):
        raise ValueError(
            f"level {level}, parameter {param}, {name}: seen {seen}, was {had} by {rule!r}, is {now.marks} by "
            f"{now.rule!r}; the mirror says {predicted}"
        )
    return Answer(asked, seen, predicted, contract, Verdict(had, rule))


def marks(value: int) -> list[str]:
    """The names of the marks that are set in a number of the journal's."""
    return [str(mark.name) for mark in Mark(value)]


def core_run(path: Path, run: int | None) -> dict[str, Any]:
    """What a run on KVM found: totals, the table, and every finding with the vectors that meet it, cell by cell."""
    with Journal(path) as journal:
        asked = Run.open(journal, run)
        body, found = asked.as_json(), asked.findings
    timeless = [{name: value for name, value in row.items() if name != "seconds"} for row in body["levels"]]
    return {
        "status": body["status"],
        "totals": {name: value for name, value in body["totals"].items() if name != "seconds"},
        "levels": [" ".join(f"{name}={value}" for name, value in row.items()) for row in timeless],
        "findings": [finding_json(f) | {"cells": _by_cell(f)} for f in found],
    }


def _by_cell(finding: Finding) -> dict[str, int]:
    """How many vectors meet a finding in each cell, as ``15/unset``."""
    cells: dict[tuple[int, str], set[str]] = {}
    for d in finding.departures:
        cells.setdefault(d.cell, set()).add(d.vector.id)
    return {f"{level}/{param}": len(names) for (level, param), names in sorted(cells.items())}


def plainest(path: Path, run: int | None, most: int) -> list[str]:
    """Of every finding of a run on KVM: the ids of a few vectors that meet it where it first shows."""
    with Journal(path) as journal:
        found = Run.open(journal, run).findings
    names = []
    for f in found:
        first = {d.vector.id for d in f.departures if d.cell[0] == f.first_level}
        names += [asked.id for asked in f.vectors if asked.id in first][:most]
    return names


def journal() -> Path:
    """The user's own journal."""
    return default_path()


def patch_mail(number: int) -> bytes:
    """A patch of our own series as it was mailed."""
    return folder.read().patches[number - 1].path.read_bytes()
