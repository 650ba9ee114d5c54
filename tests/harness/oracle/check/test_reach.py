"""Every mirrored function that a check names is called by it, and none is called by neither check nor vector."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.oracle.check import reach
from harness.oracle.check.check import seeded
from harness.oracle.specs.catalogue import SPECS
from harness.oracle.specs.spec import answers
from kvmodel.series import LAST, Level

CASES = 900  # of a check


@pytest.fixture(scope="module")
def by_checks() -> set[tuple[str, str]]:
    """What the checks call."""
    with reach.called() as seen:
        for spec in SPECS:
            each = -(-CASES // len(spec.states))
            for number, state in enumerate(spec.states):
                rows, _ = spec.space.rows(each, seeded(spec, number, 1))
                answers(spec, state.side(Level.of(LAST)), rows)
    return seen


def test_what_the_checks_name_is_called(by_checks: set[tuple[str, str]]) -> None:
    python = reach.mirrored()
    named = reach.reached(SPECS) & python.keys()
    assert not [name for name in named if tuple(python[name].rpartition(".")[::2]) not in by_checks]


def test_no_mirrored_function_is_left_to_neither_check_nor_vector(by_checks: set[tuple[str, str]]) -> None:
    assert reach.nowhere(by_checks | reach.by_vectors()) == []


def test_a_function_that_nothing_reaches_is_named(by_checks: set[tuple[str, str]], tmp_path: Path) -> None:
    (tmp_path / "mmu").mkdir()
    (tmp_path / "mmu" / "spte.py").write_text(
        'def make_spte():\n    """mmu/spte.c make_spte."""\n\n\n'
        'def kvm_never_called():\n    """mmu/spte.c kvm_never_called: mirrored, and asked by nobody."""\n\n\n'
        'def helper():\n    """No C function."""\n'
    )
    assert reach.nowhere(by_checks, tmp_path) == ["mmu/spte.c kvm_never_called (mmu.spte.kvm_never_called)"]


def test_what_a_check_says_it_reaches_is_mirrored() -> None:
    known = reach.mirrored()
    assert not [name for name in reach.reached(SPECS) if name.split(" ")[0].startswith("mmu/") and name not in known]
