"""Every mirrored function that a check names is called by it."""

from __future__ import annotations

from harness.oracle import coverage
from harness.oracle.catalogue import SPECS
from harness.oracle.check import seeded
from harness.oracle.spec import answers
from kvmodel.series import LAST, Level

CASES = 900  # of a check


def test_what_the_checks_name_is_called() -> None:
    with coverage.called() as seen:
        for spec in SPECS:
            each = -(-CASES // len(spec.states))
            for number, state in enumerate(spec.states):
                rows, _ = spec.space.rows(each, seeded(spec, number, 1))
                answers(spec, state.side(Level.of(LAST)), rows)
    python = coverage.mirrored()
    named = coverage.reached(SPECS) & python.keys()
    assert not [name for name in named if tuple(python[name].split(".")) not in seen]


def test_what_a_check_says_it_reaches_is_mirrored() -> None:
    known = coverage.mirrored()
    assert not [name for name in coverage.reached(SPECS) if name.split(" ")[0].startswith("mmu/") and name not in known]
