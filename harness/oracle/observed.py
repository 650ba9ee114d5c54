"""What a validate run saw, as a measure for mutants: few vectors that take every way the mirror knows.

Read from a journal. Vectors whose prediction takes the same steps (numbers aside) to the same kind of answer stand
for each other; a few of each way are kept.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from harness import cpus
from harness.compare import Mark, judge
from harness.journal import Journal
from harness.oracle.mutation import Asked
from harness.selection import PARAM_VALUES
from kvmodel import machine
from kvmodel.vector import parse

KVM: Final = "kvm"  # the journal's name of the host that runs KVM
EACH: Final = 4  # vectors kept of one way
_NUMBER: Final = re.compile(r"0x[0-9a-f]+|\d+")


@dataclass(frozen=True, slots=True)
class Observed:
    """``asked``: the vectors kept; ``rows``: answers of the run at those levels; ``drift``: those the mirror as it
    is gets wrong, which measure nothing."""

    run: int
    asked: tuple[Asked, ...]
    rows: int
    drift: int


def read(journal: Journal, levels: Collection[int]) -> Observed:
    """The newest run's answers at ``levels`` on KVM. InputError where the journal holds no run."""
    run = journal.latest(KVM)
    kept: list[Asked] = []
    ways: Counter[object] = Counter()
    rows = drift = 0
    for level in sorted(levels):
        for row in journal.results(run, level=level, host=KVM):
            rows += 1
            vector = parse(row["vector"])
            param = PARAM_VALUES[row["param"]]
            mbec = vector.machine.env.cpu_mbec
            said = machine.predict(level, param, cpus.emulated(mbec), vector, steps=True)
            if judge(said, None, row["seen"]).marks & Mark.DRIFT:
                drift += 1
                continue
            steps = tuple((step.where, _NUMBER.sub("#", step.what), step.patch) for step in said.steps)
            way = (level, param, vector.machine.env.name, row["seen"].kind, steps)
            ways[way] += 1
            if ways[way] <= EACH:
                kept.append(Asked(level, param, mbec, vector, row["seen"]))
    return Observed(run, tuple(kept), rows, drift)
