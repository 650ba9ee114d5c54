"""Cells of another series' parameters: what they are compared with, in which order, and in which words."""

from __future__ import annotations

import pytest

from harness.findings.group import in_words
from harness.results import below

A, B = "kvm_intel.a=1", "kvm.b=2"
BOTH = f"{B},{A}"


@pytest.mark.parametrize(
    ("cell", "lower"),
    [
        ((1, "unset"), (0, "unset")),
        ((2, A), (0, "unset")),  # a comes with patch 2
        ((3, A), (2, A)),
        ((4, BOTH), (3, A)),  # b comes with patch 4
        ((4, B), (3, "unset")),
        ((6, BOTH), (4, BOTH)),  # level 5 was not asked with both, though it has both
        ((0, "unset"), None),
    ],
)
def test_a_cell_is_compared_with_the_same_setting_or_what_the_lower_level_has_of_it(
    cell: tuple[int, str], lower: tuple[int, str] | None
) -> None:
    present = {(0, "unset"), (2, "unset"), (2, A), (3, "unset"), (3, A), (4, BOTH), (4, B), (5, A), (5, B)} | {cell}
    assert below(*cell, present) == lower


@pytest.mark.parametrize(("cell", "lower"), [((3, "1"), (2, "unset")), ((5, "1"), (2, "unset")), ((5, "0"), (4, "0"))])
def test_our_own_cells_are_compared_as_ever(cell: tuple[int, str], lower: tuple[int, str]) -> None:
    assert below(*cell, {(2, "unset"), (4, "unset"), (4, "0"), cell}) == lower


def test_a_finding_says_which_parameters_were_given() -> None:
    assert in_words(["unset"]) == "with no parameter set"
    assert in_words([A, "unset", A, B]) == f"with no parameter set or {B} or {A}"
