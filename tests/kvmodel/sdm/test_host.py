"""What the host removes is not present for a CPU."""

import pytest

from kvmodel.question.outcome import Kind, Outcome
from kvmodel.sdm.host import left_behind

USER = 1 << 10


@pytest.mark.parametrize("mbec", [False, True])
def test_empty_entries_are_not_present(mbec: bool) -> None:
    assert left_behind([(1, 0), (2, 1 << 63), (3, 0xFFFF_F000 | 1 << 7)], mbec=mbec) == Outcome(Kind.DONE)
    assert left_behind([], mbec=mbec) == Outcome(Kind.DONE)


def test_bit_10_counts_with_mode_based_execute_control_only() -> None:
    assert left_behind([(1, USER)], mbec=False) == Outcome(Kind.DONE)
    found = left_behind([(1, USER)], mbec=True)
    assert (found.kind, found.number, found.code) == (Kind.BYPASS, 1, USER)


@pytest.mark.parametrize("bit", [1, 2, 4])
def test_any_permission_makes_an_entry_present(bit: int) -> None:
    found = left_behind([(3, USER | bit), (2, 1 << 63 | bit), (2, 0)], mbec=False)
    assert (found.kind, found.number, found.code) == (Kind.BYPASS, 2, bit)
    assert f"{1 << 63 | bit:#x}" in found.note
