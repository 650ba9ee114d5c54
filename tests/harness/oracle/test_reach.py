"""Every mirrored function is called by a check of the kernel's C or by a vector that validate asks."""

from __future__ import annotations

from harness.oracle import coverage
from harness.oracle.catalogue import SPECS
from harness.oracle.check import seeded
from harness.oracle.spec import answers
from kvmodel.series import LAST, Level

CASES = 900  # of a check


def test_every_mirrored_function_is_reached() -> None:
    seen = coverage.by_vectors()
    with coverage.called() as called:
        for spec in SPECS:
            each = -(-CASES // len(spec.states))
            for number, state in enumerate(spec.states):
                rows, _ = spec.space.rows(each, seeded(spec, number, 1))
                answers(spec, state.side(Level.of(LAST)), rows)
    seen |= called
    unreached = [c for c, python in coverage.mirrored().items() if tuple(python.split(".")) not in seen]
    assert not unreached


def test_what_a_check_says_it_reaches_is_mirrored() -> None:
    known = coverage.mirrored()
    assert not [name for name in coverage.reached(SPECS) if name.split(" ")[0].startswith("mmu/") and name not in known]
