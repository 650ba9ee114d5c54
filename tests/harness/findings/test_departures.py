"""What a departure looks like without its vector."""

import pytest

from harness.findings.departures import Departure, severity, symptom, symptom_of
from kvmodel.question.outcome import Kind, Outcome, Place
from kvmodel.question.program import program
from kvmodel.question.vector import (
    AccessVector,
    ClientVector,
    EntryVector,
    HostVector,
    MmioVector,
    NxVector,
    Vector,
)

DONE = Outcome(Kind.DONE)
RIGHT = Outcome(Kind.VIOLATION, 0x18C, gpa=Place("target"), defined=~0x40)


def test_wrong_bits_are_those_the_manual_defines() -> None:
    seen = Outcome(Kind.VIOLATION, 0x1C4, gpa=Place("target"))
    d = Departure(AccessVector(), (0, "1"), "kvm", seen, (RIGHT,), "ept-permission", "29.3.3.2")
    assert symptom(d).wrong == ("bits 0x8",)
    assert str(symptom(d)).endswith("wrong bits 0x8")


def test_a_wrong_address_and_a_wrong_number_are_named() -> None:
    found = symptom_of(AccessVector(), Outcome(Kind.VIOLATION, 0x18C, gpa=Place("target", 8)), (RIGHT,))
    assert found is not None and found.wrong == ("gpa",)
    found = symptom_of(AccessVector(), Outcome(Kind.EXCEPTION, number=13), (Outcome(Kind.EXCEPTION, number=14),))
    assert found is not None and found.wrong == ("number 13",)


def test_what_the_manual_allows_is_no_departure() -> None:
    assert symptom_of(AccessVector(), DONE, (RIGHT, DONE)) is None


def test_of_several_legal_answers_the_nearest_is_compared() -> None:
    near, far = Outcome(Kind.VIOLATION, 0x184), Outcome(Kind.VIOLATION, 0x7)
    found = symptom_of(AccessVector(), Outcome(Kind.VIOLATION, 0x185), (far, near))
    assert found is not None and found.wrong == ("bits 0x1",)
    found = symptom_of(AccessVector(), Outcome(Kind.LIVELOCK), (far, DONE))
    assert found is not None and found.allowed == "violation"


@pytest.mark.parametrize(
    ("vector", "seen", "allowed", "expected"),
    [
        (AccessVector(), Kind.LIVELOCK, Kind.DONE, "L2 livelock"),
        (ClientVector(), Kind.LIVELOCK, Kind.DONE, "L1 livelock or death"),
        (ClientVector(), Kind.HOST, Kind.DONE, "L1 livelock or death"),
        (MmioVector(), Kind.HOST, Kind.DONE, "L1 livelock or death"),
        (AccessVector(), Kind.HOST, Kind.DONE, "host trouble"),
        (AccessVector(), Kind.VIOLATION, Kind.VIOLATION, "wrong exit information"),
        (AccessVector(), Kind.DONE, Kind.VIOLATION, "permission not enforced"),
        (AccessVector(), Kind.VIOLATION, Kind.DONE, "exit to L1 that the manual does not have"),
        (AccessVector(), Kind.MISCONFIG, Kind.VIOLATION, "wrong exit to L1"),
        (AccessVector(), Kind.EXCEPTION, Kind.VIOLATION, "missed exit to L1"),
        (EntryVector(), Kind.ENTRY_FAIL, Kind.DONE, "VM entry refused"),
        (EntryVector(), Kind.DONE, Kind.ENTRY_FAIL, "VM entry accepted"),
        (AccessVector(), Kind.VALUE, Kind.VALUE, "wrong answer"),
        (program("prog+read.a3"), Kind.DONE, Kind.DONE, "wrong page reached"),
        (ClientVector(), Kind.DONE, Kind.DONE, "write missing in the dirty log"),
        (NxVector(), Kind.BYPASS, Kind.DONE, "mitigation bypassed"),
        (HostVector("removed"), Kind.BYPASS, Kind.DONE, "permission not enforced"),
        (HostVector("reload"), Kind.VALUE, Kind.DONE, "host trouble"),
    ],
)
def test_severity_is_in_the_fields_terms(vector: Vector, seen: Kind, allowed: Kind, expected: str) -> None:
    assert severity(vector, Outcome(seen), Outcome(allowed)) == expected
