"""Departures with one cause become one finding, the smallest vector first."""

import pytest

from harness.findings import Departure, group, severity, symptom, weight
from kvmodel.outcome import Kind, Outcome
from kvmodel.vector import Access, AccessVector, ClientVector, EntryVector

LOOP = Outcome(Kind.LIVELOCK)
DONE = Outcome(Kind.DONE)


def departure(vector: AccessVector, cell: tuple[int, str], seen: Outcome = LOOP, allowed: Outcome = DONE) -> Departure:
    return Departure(vector.id, cell, "bochs", seen, allowed, "access-allowed", "29.3.3.2")


def test_one_cause_is_one_finding_with_its_smallest_vector() -> None:
    plain, far = AccessVector(access=Access.FETCH), AccessVector(access=Access.FETCH, cpl=3, smep=True)
    (finding,) = group(departure(v, c) for v in (far, plain) for c in ((15, "1"), (16, "1")))
    assert finding.name == "F1"
    assert finding.smallest.vector == plain.id
    assert (finding.first_level, len(finding.vectors)) == (15, 2)
    assert finding.depends_on_parameter() == "parameter 1"


def test_the_cells_in_which_it_shows_tell_causes_apart() -> None:
    a, b = AccessVector(), AccessVector(cpl=3)
    found = [departure(a, (0, "unset")), departure(a, (3, "0")), departure(a, (3, "1")), departure(b, (3, "1"))]
    first, second = group(found)
    assert (first.first_level, second.first_level) == (0, 3)
    assert first.depends_on_parameter() == "shows whatever the parameter"
    assert first.cause != second.cause


def test_the_hash_of_a_cause_does_not_depend_on_the_order() -> None:
    found = [departure(AccessVector(cpl=c), (level, "1")) for c in (0, 3) for level in (1, 2)]
    assert group(found)[0].cause == group(reversed(found))[0].cause


def test_wrong_bits_are_those_the_manual_defines() -> None:
    d = departure(
        AccessVector(), (0, "1"), Outcome(Kind.VIOLATION, 0x1C4), Outcome(Kind.VIOLATION, 0x18C, defined=~0x40)
    )
    assert symptom(d).wrong_bits == 0x8
    assert str(symptom(d)).endswith("wrong bits 0x8")


@pytest.mark.parametrize(
    ("vector", "seen", "allowed", "expected"),
    [
        (AccessVector(), Kind.LIVELOCK, Kind.DONE, "L2 livelock"),
        (ClientVector(), Kind.LIVELOCK, Kind.DONE, "L1 livelock"),
        (AccessVector(), Kind.HOST, Kind.DONE, "host trouble"),
        (AccessVector(), Kind.VIOLATION, Kind.VIOLATION, "wrong exit information"),
        (AccessVector(), Kind.DONE, Kind.VIOLATION, "permission not enforced"),
        (AccessVector(), Kind.VIOLATION, Kind.DONE, "exit to L1 that the manual does not have"),
        (AccessVector(), Kind.MISCONFIG, Kind.VIOLATION, "wrong exit to L1"),
        (AccessVector(), Kind.EXCEPTION, Kind.VIOLATION, "missed exit to L1"),
        (EntryVector(), Kind.ENTRY_FAIL, Kind.DONE, "VM entry refused"),
        (EntryVector(), Kind.DONE, Kind.ENTRY_FAIL, "VM entry accepted"),
        (AccessVector(), Kind.VALUE, Kind.VALUE, "wrong answer"),
    ],
)
def test_severity_is_in_the_fields_terms(
    vector: AccessVector | ClientVector | EntryVector, seen: Kind, allowed: Kind, expected: str
) -> None:
    assert severity(vector, Outcome(seen), Outcome(allowed)) == expected


def test_weight_counts_fields_off_the_plainest() -> None:
    assert weight(AccessVector().id)[0] == 0
    assert weight(AccessVector(cpl=3, smep=True).id)[0] == 2
    assert weight(ClientVector().id)[0] == 0
