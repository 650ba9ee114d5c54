"""Departures with one cause become one finding, the smallest vector first."""

from dataclasses import replace

import pytest

from harness.findings.causes import Cause, find_cause
from harness.findings.departures import Departure
from harness.findings.group import common, effective, group, weight
from kvmodel import machine, sdm
from kvmodel.cpu import Cpu
from kvmodel.question.outcome import Kind, NotApplicable, Outcome
from kvmodel.question.vector import Access, AccessVector, ClientVector, Mbec, Perm

CPU = Cpu()
LOOP = Outcome(Kind.LIVELOCK)
DONE = Outcome(Kind.DONE)
VIOLATION = Outcome(Kind.VIOLATION, 0x18C)


def departure(vector: AccessVector, cell: tuple[int, str], seen: Outcome = LOOP, allowed: Outcome = DONE) -> Departure:
    return Departure(vector, cell, "kvm", seen, (allowed,), "ept-permitted", "29.3.3")


def real(vector: AccessVector, cell: tuple[int, str]) -> Departure:
    """What the mirror shows at that cell, which the contract does not allow."""
    level, param = cell[0], {"unset": None, "0": False, "1": True}[cell[1]]
    seen = machine.predict(level, param, CPU, vector).outcome
    contract = sdm.allowed(machine.virtual_cpu(level, param, CPU, vector.machine), vector)
    assert not isinstance(contract, NotApplicable)
    legal = tuple(a.outcome for a in contract)
    assert not any(a.matches(seen) for a in legal)
    return Departure(vector, cell, "kvm", seen, legal, contract[0].rule, contract[0].section, seen)


def test_one_cause_is_one_finding_with_its_smallest_vector() -> None:
    plain, far = AccessVector(access=Access.FETCH), AccessVector(access=Access.FETCH, cpl=3, smep=True)
    (finding,) = group(departure(v, c) for v in (far, plain) for c in ((15, "1"), (16, "1")))
    assert finding.name == "F1"
    assert finding.smallest.vector == plain
    assert finding.smallest.cell == (15, "1")
    assert (finding.first_level, len(finding.vectors)) == (15, 2)
    assert finding.depends_on_parameter() == "only with the parameter on"


def test_the_smallest_is_of_the_level_that_first_shows_it() -> None:
    plain, far = AccessVector(access=Access.FETCH), AccessVector(access=Access.FETCH, cpl=3)
    (finding,) = group([departure(plain, (16, "1")), departure(far, (15, "1"))])
    assert finding.smallest.vector == far


def test_the_levels_of_a_run_do_not_change_the_cause() -> None:
    vector = AccessVector(Mbec.OFF, leaf=Perm(True, False, False, True), access=Access.FETCH)
    cells = [(level, "0") for level in range(11, 19)]
    (whole,) = group([real(vector, c) for c in cells], find_cause)
    (last,) = group([real(vector, cells[-1])], find_cause)
    assert whole.cause == last.cause
    assert (whole.first_level, last.first_level) == (11, 18)
    assert 11 in whole.origin.patches


def test_one_defect_is_one_finding_whatever_the_vectors_level_or_parameter() -> None:
    leaf = Perm(False, False, True, True)  # bit 10 is set, and L2 reads
    vectors = [AccessVector(mbec, leaf=leaf, cpl=cpl) for mbec in Mbec for cpl in (0, 3)]
    found = [real(v, (18, "1")) for v in vectors] + [real(v, (11, "0")) for v in vectors if v.mbec is Mbec.OFF]
    (finding,) = group(found, find_cause)
    assert finding.first_level == 11
    assert finding.depends_on_parameter() == "with the parameter off and on"


def test_causes_that_look_alike_are_told_apart() -> None:
    fetch = AccessVector(Mbec.OFF, leaf=Perm(True, True, True, False), access=Access.FETCH)
    read = AccessVector(Mbec.OFF, leaf=Perm(False, False, True, True))
    assert len({f.cause for f in group([real(fetch, (18, "1")), real(read, (18, "1"))], find_cause)}) == 2


def test_where_no_mirror_was_asked_rule_and_environment_tell_causes_apart() -> None:
    one = departure(AccessVector(), (0, "unset"))
    other = replace(one, rule="ept-permission")
    found = [one, other, replace(other, vector=AccessVector(env="huge"), rule="another")]
    assert [f.origin.asked for f in group(found)] == [False] * 3


def test_the_hash_of_a_cause_does_not_depend_on_the_order() -> None:
    found = [departure(AccessVector(cpl=c), (level, "1")) for c in (0, 3) for level in (1, 2)]
    assert group(found)[0].cause == group(reversed(found))[0].cause


def test_errata_with_one_name_are_one_whatever_the_rule() -> None:
    known = Cause(asked=False, errata=("large-page-bit12",))
    found = [departure(AccessVector(), (0, "unset")), replace(departure(AccessVector(cpl=3), (0, "unset")), rule="r")]
    (finding,) = group(found, lambda _: known)
    assert str(finding.origin) == "erratum large-page-bit12"


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ([(3, "0")], "with the parameter off"),
        ([(0, "unset"), (18, "unset")], "with the parameter off and on"),
        ([(18, "unset")], "only with the parameter on"),
    ],
)
def test_the_parameter_counts_by_its_value(cells: list[tuple[int, str]], words: str) -> None:
    (finding,) = group(departure(AccessVector(), c) for c in cells)
    assert finding.depends_on_parameter() == words


def test_an_unset_parameter_of_an_unknown_series_counts_as_off() -> None:
    assert effective(40, "unset") == "off"


def test_weight_counts_fields_off_the_plainest() -> None:
    assert weight(AccessVector())[0] == 0
    assert weight(AccessVector(cpl=3, smep=True))[0] == 2
    assert weight(ClientVector())[0] == 0


def test_a_title_says_what_all_vectors_have_in_common() -> None:
    leaf = Perm(True, False, False, True)
    names = [AccessVector(Mbec.OFF, leaf=leaf, access=a) for a in (Access.READ, Access.FETCH)]
    assert common(names) == " (fetch or read, MBEC off, bit 10 set in the leaf, bit 2 clear in an entry)"
    assert common([ClientVector()]) == ""
    assert common([AccessVector(m, leaf=Perm(r, r, r, r), access=a) for m in Mbec for r in (True, False)
                   for a in Access]) == ""  # fmt: skip
