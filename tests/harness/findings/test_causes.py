"""The patch that causes a departure is found by leaving patches out of the mirror."""

from dataclasses import replace

import pytest

from harness.findings.causes import NOT_ASKED, NOT_FOLLOWED, NOT_SHOWN, Cause, find_cause, find_errata
from harness.findings.departures import Departure
from kvmodel import machine, sdm
from kvmodel.cpu import Cpu
from kvmodel.question.outcome import Kind, NotApplicable, Outcome, not_mirrored
from kvmodel.question.vector import Access, AccessVector, ClientVector, Evmcs, Mbec, Perm, Vector
from kvmodel.sdm.errata import LARGE_BIT12

CPU = Cpu()
PLAIN = AccessVector(Mbec.OFF, leaf=Perm(True, True, True, False), access=Access.FETCH, cpl=3)
DONE, LOOP = Outcome(Kind.DONE), Outcome(Kind.LIVELOCK)


def departure(level: int, param: str, vector: Vector, legal: tuple[Outcome, ...] = (DONE,)) -> Departure:
    """As the mirror shows it."""
    value = {"unset": None, "0": False, "1": True}[param]
    seen = machine.predict(level, value, CPU, vector).outcome
    return Departure(vector, (level, param), "kvm", seen, legal, "rule", "1.2", seen)


def test_what_the_base_shows_is_the_bases() -> None:
    never = (Outcome(Kind.EXCEPTION, number=6),)  # a manual that forbids what every level does
    cause = find_cause(departure(18, "0", AccessVector(Mbec.OFF), never))
    assert cause.in_base and str(cause) == "the base has it"


def test_an_l1_that_cannot_run_is_traced_to_the_patch_that_turns_the_control_on() -> None:
    cause = find_cause(departure(12, "1", ClientVector()))
    assert 6 in cause.patches
    assert not {1, 2, 7, 8, 10} & set(cause.patches)


def test_the_patch_that_adds_the_parameter_is_a_switch_and_no_cause() -> None:
    cause = find_cause(departure(12, "1", ClientVector()))
    assert 3 not in (*cause.patches, *cause.needs)


def test_a_default_is_a_switch_too() -> None:
    unset, on = (find_cause(departure(18, p, PLAIN)) for p in ("unset", "1"))
    assert unset == on and 18 not in unset.needs


def test_a_patch_without_which_l1_cannot_run_is_no_cause() -> None:
    d = departure(18, "1", PLAIN)
    assert d.seen.kind is Kind.LIVELOCK
    cause = find_cause(d)
    assert 6 in cause.patches
    assert not {12, 15} & set(cause.patches)
    assert str(cause).startswith("caused by patch ")


def test_what_l1_is_offered_and_does_not_get_is_the_offers() -> None:
    """Where no patch put a rule on the way, the one by which L1 may ask at all is behind it."""
    vector = AccessVector(Mbec.ON, leaf=Perm(False, False, False, True), access=Access.FETCH)
    cause = find_cause(departure(18, "1", vector))
    assert cause.patches == (16,)
    assert cause.place == "is_present_gpte"


def test_two_halves_are_both_said() -> None:
    vector = AccessVector(Mbec.OFF, leaf=Perm(True, False, False, True), access=Access.FETCH)
    contract = sdm.allowed(machine.virtual_cpu(18, True, CPU, vector.machine), vector)
    assert not isinstance(contract, NotApplicable)
    cause = find_cause(departure(18, "1", vector, tuple(a.outcome for a in contract)))
    assert cause.patches == (11,) and 6 in cause.needs
    assert "as does leaving out patch 6" in str(cause)


def test_an_enlightened_vmcs_is_another_way_to_the_same_cause() -> None:
    vector = AccessVector(Mbec.ON, leaf=Perm(False, False, False, True), access=Access.FETCH)
    used = replace(vector, ev=Evmcs.USED)
    assert find_cause(departure(18, "1", used)) == find_cause(departure(18, "1", vector))


def test_an_l1_that_turns_the_control_on_is_another_way_to_the_same_cause() -> None:
    """The emulator's walk names the wrong address and is a read too, whatever L1 asks for."""
    found = []
    for level, mbec in ((0, Mbec.OFF), (16, Mbec.ON)):
        vector = AccessVector(mbec, leaf=Perm(False, False, False, False), access=Access.EMUWRITE)
        answers = sdm.allowed(machine.virtual_cpu(level, level >= 3 or None, CPU, vector.machine), vector)
        assert isinstance(answers, tuple)
        d = departure(level, "1" if level else "unset", vector, tuple(a.outcome for a in answers))
        found.append(find_cause(d))
    assert found[0] == found[1]
    assert found[0].in_base and found[0].place == "translate_nested_gpa"


def test_what_the_mirror_does_not_show_has_no_known_cause() -> None:
    d = Departure(PLAIN, (0, "unset"), "kvm", LOOP, (DONE,), "rule", "1.2", DONE)
    assert find_cause(d) is NOT_SHOWN
    assert "unknown" in str(NOT_SHOWN)
    assert "no single patch" in str(Cause())


@pytest.mark.parametrize(("level", "predicted"), [(0, None), (40, DONE)])
def test_without_a_mirror_there_is_no_cause(level: int, predicted: Outcome | None) -> None:
    d = Departure(PLAIN, (level, "unset"), "kvm", LOOP, (DONE,), "rule", "1.2", predicted)
    assert find_cause(d) is NOT_ASKED
    assert "no mirror" in str(NOT_ASKED)


def test_what_the_mirror_does_not_follow_has_no_known_cause() -> None:
    d = replace(departure(18, "1", PLAIN), predicted=not_mirrored("vmx/nested.c nested_vmx_check_controls"))
    cause = find_cause(d)
    assert cause == NOT_FOLLOWED and not cause.known
    assert str(cause) == "the mirror does not follow it: cause unknown"


def test_errata_of_a_bare_cpu_are_named() -> None:
    vector = AccessVector(leaf_level=2, upper_level=3, leaf_bits=1 << 12)
    legal = (Outcome(Kind.MISCONFIG),)
    known = find_errata(Departure(vector, (0, "unset"), "bare", DONE, legal, "ept-reserved", "29.3.3.1"), CPU)
    assert str(known) == f"erratum {LARGE_BIT12}"
    new = find_errata(Departure(vector, (0, "unset"), "bare", LOOP, legal, "ept-reserved", "29.3.3.1"), CPU)
    assert "not known yet" in str(new)
