"""What validate runs saw, as a measure for mutants: few vectors that take every way the mirror knows.

Read from journals. Vectors whose prediction takes the same steps to the same kind of answer stand for each other; a
few of each way are kept. Of a number in a step counts how many bits it has: an entry with a reserved bit above an
address goes another way than one with a reserved bit below it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.errors import InputError
from harness.oracle.mutate.mutation import Asked
from harness.questions import Setting
from harness.results import KVM_HOST, Journal, Mark, cpus, judge, of_series
from kvmodel import machine
from kvmodel.question.outcome import Kind

EACH: Final = 2  # vectors kept of one way
_NUMBER: Final = re.compile(r"0x[0-9a-f]+|\d+")


def _bits(number: re.Match[str]) -> str:
    """The function gives what a way has in place of a number."""
    word = number[0]
    return f"#{int(word, 16 if word.startswith('0x') else 10).bit_length()}"


@dataclass(frozen=True, slots=True)
class Observed:
    """The record has the vectors kept (``asked``), how many answers the runs gave at those levels (``rows``), and how
    many of them the mirror as it is gets wrong (``drift``), which measure nothing.
    """

    runs: tuple[int, ...]
    asked: tuple[Asked, ...]
    rows: int
    drift: int


def read(journals: Iterable[Path], levels: Collection[int]) -> Observed:
    """The function reads the answers at ``levels`` on KVM of each journal's newest run.

    Raises InputError where one holds no run.
    """
    runs: list[int] = []
    kept: list[Asked] = []
    ways: Counter[object] = Counter()
    rows = drift = 0
    for path in journals:
        with Journal(path) as journal:
            runs.append(journal.latest(KVM_HOST))
            if not of_series.of_run(journal.provenance(runs[-1])).mirrored:
                raise InputError(f"{path}: run {runs[-1]} is of another series than the one that is mirrored")
            for one in _asked(journal, runs[-1], levels):
                rows += 1
                said = machine.predict(one.level, one.param, cpus.emulated(one.mbec), one.vector, steps=True)
                if judge(said.outcome, None, one.seen).marks & Mark.DRIFT:
                    drift += 1
                    continue
                steps = tuple((step.where, _NUMBER.sub(_bits, step.what), step.patch) for step in said.steps)
                asked = steps or _NUMBER.sub("#", one.vector.id)  # what takes no steps is known by its name
                way = (one.level, one.param, one.vector.machine.env.name, one.seen.kind, asked)
                ways[way] += 1
                if ways[way] <= EACH:
                    kept.append(one)
    return Observed(tuple(runs), tuple(kept), rows, drift)


def _asked(journal: Journal, run: int, levels: Collection[int]) -> Iterator[Asked]:
    """The function gives a run's answers at ``levels`` on KVM, but for those of which the mirror said nothing: rows of
    the kernel's log are among these.
    """
    for level in sorted(levels):
        for key, answer in journal.answers(run, level=level, host=KVM_HOST):
            if answer.predicted is not None and answer.predicted.kind is Kind.NOT_MIRRORED:
                continue
            cpu_mbec = answer.vector.machine.env.cpu_mbec
            yield Asked(level, Setting.parse(key.param).own, cpu_mbec, answer.vector, answer.seen)
