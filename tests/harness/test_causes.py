"""The patch that causes a departure is found by leaving patches out of the mirror."""

from harness.causes import Cause, find_cause
from kvmodel import machine
from kvmodel.cpu import Cpu
from kvmodel.outcome import Kind, Outcome
from kvmodel.vector import Access, AccessVector, ClientVector, Mbec, Perm

CPU = Cpu()
PLAIN = AccessVector(Mbec.OFF, leaf=Perm(True, True, True, False), access=Access.FETCH, cpl=3)


def test_a_base_quirk_is_the_bases() -> None:
    assert find_cause(18, False, CPU, AccessVector(Mbec.OFF), Outcome(Kind.DONE)).in_base


def test_an_l1_that_cannot_run_is_traced_to_the_patch_that_turns_the_control_on() -> None:
    cause = find_cause(12, True, CPU, ClientVector(), Outcome(Kind.LIVELOCK))
    assert 6 in cause.patches
    assert not {1, 2, 7, 8, 10} & set(cause.patches)


def test_a_patch_without_which_l1_cannot_run_is_no_cause() -> None:
    seen = machine.predict(18, True, CPU, PLAIN).outcome
    assert seen.kind is Kind.LIVELOCK
    cause = find_cause(18, True, CPU, PLAIN, seen)
    assert 6 in cause.patches
    assert not {12, 15} & set(cause.patches)
    assert str(cause).startswith("caused by patch ")


def test_what_the_mirror_does_not_show_has_no_known_cause() -> None:
    assert find_cause(0, None, CPU, PLAIN, Outcome(Kind.LIVELOCK)) == Cause((), False, False)
    assert "unknown" in str(Cause((), False, False))
    assert "no single patch" in str(Cause((), False, True))
