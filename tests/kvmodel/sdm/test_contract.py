"""Whole vectors: the order of events, what is put aside, and the shape of every answer."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from kvmodel import sdm
from kvmodel.cpu import Cpu
from kvmodel.question.outcome import Allowed, Kind, NotApplicable, Outcome, Place
from kvmodel.question.reading import parse
from kvmodel.question.vector import (
    Access,
    AccessVector,
    ClientVector,
    EntryVector,
    GuestPerm,
    HostVector,
    Mbec,
    MmioVector,
    MsrVector,
    NxVector,
    Paging,
    Perm,
    Vector,
)
from kvmodel.sdm import contract
from kvmodel.sdm.after import Flags, flags
from kvmodel.sdm.errata import BIT6_DATA, ERRATA, UPDATE_UNCHECKED, WALK_AD_BIT0
from kvmodel.sdm.rules import RULES

CPU = Cpu()
SWX = GuestPerm(False, True, True)
NONE = Perm(False, False, False, False)
R = Perm(True, False, False, False)
RX = Perm(True, False, True, False)
RU = Perm(True, False, False, True)


def one(vector: Vector, cpu: Cpu = CPU) -> Allowed:
    answers = sdm.allowed(cpu, vector)
    assert isinstance(answers, tuple) and len(answers) == 1
    return answers[0]


def aside(vector: Vector, cpu: Cpu = CPU) -> str:
    answer = sdm.allowed(cpu, vector)
    assert isinstance(answer, NotApplicable)
    assert answer.reason == RULES[answer.rule].text
    return answer.rule


def test_a_plain_read_completes() -> None:
    assert one(AccessVector()) == Allowed(Outcome(Kind.DONE, defined=0), "ept-permitted", "29.3.3")


@pytest.mark.parametrize(
    ("vector", "qualification"),
    [
        (AccessVector(leaf=NONE), 0x781),
        (AccessVector(leaf=R, access=Access.WRITE), 0x78A),
        (AccessVector(leaf=R, access=Access.FETCH, gp=SWX), 0x58C),
        (AccessVector(leaf=RU, access=Access.FETCH, gp=SWX), 0x5CC),
        (AccessVector(leaf=RX, access=Access.FETCH), 0x7AC),
        (AccessVector(leaf=RX, access=Access.FETCH, paging=Paging.OFF), 0x7AC),
        (AccessVector(leaf=RU, access=Access.WRITE, gp=GuestPerm(True, False, False), wp=False), 0xBCA),
    ],
)
def test_qualifications_worked_out_by_hand(vector: AccessVector, qualification: int) -> None:
    outcome = one(vector).outcome
    assert outcome.kind is Kind.VIOLATION
    assert outcome.code == qualification
    assert (outcome.gpa, outcome.gla) == (Place("target"), Place("target"))


def test_user_execute_is_undefined_without_the_control() -> None:
    for mbec in (Mbec.OFF, Mbec.NA):
        outcome = one(AccessVector(mbec, leaf=RU, access=Access.WRITE)).outcome
        for bit6 in (0, 0x40):
            assert outcome.matches(Outcome(Kind.VIOLATION, code=0x78A | bit6, gpa=Place("target"), gla=Place("target")))
        assert not outcome.matches(Outcome(Kind.VIOLATION, code=0x278A, gpa=Place("target"), gla=Place("target")))


def test_the_guest_fault_hides_the_final_page() -> None:
    for leaf in Perm.all():
        got = one(AccessVector(leaf=leaf, access=Access.READ, gp=SWX, cpl=3))
        assert got.outcome == Outcome(Kind.EXCEPTION, code=5, number=14, gla=Place("target"), defined=0xFFFF_FFFF)
        assert got.rule == "guest-protection"


def test_the_walk_comes_before_the_guest_fault() -> None:
    hidden = AccessVector(leaf=NONE, access=Access.WALK, gp=SWX, cpl=3)
    got = one(hidden)
    assert got.outcome.kind is Kind.VIOLATION and got.outcome.gpa == Place("gpt")
    assert got.outcome.gla == Place("target")
    assert got.outcome.code & got.outcome.defined == 0x81
    assert one(replace(hidden, leaf=R)).outcome.number == 14


def test_walks_without_flags_read_and_updates_write() -> None:
    for access, answer in ((Access.WALK, Kind.DONE), (Access.WALKA, Kind.VIOLATION), (Access.WALKD, Kind.VIOLATION)):
        for mbec in Mbec:
            assert one(AccessVector(mbec, leaf=R, access=access, cpl=3)).outcome.kind is answer
    outcome = one(AccessVector(leaf=R, access=Access.WALKA)).outcome
    assert outcome.code == 0x8A and outcome.defined & 0x1FF == 0x1FE
    assert one(AccessVector(leaf=Perm(True, True, False, False), access=Access.WALKD)).outcome.kind is Kind.DONE


def test_walks_with_flags_count_as_writes() -> None:
    for access in (Access.WALK, Access.WALKA, Access.WALKD):
        outcome = one(AccessVector(leaf=R, access=access, ad=True)).outcome
        assert outcome.kind is Kind.VIOLATION and outcome.code == 0x8B and outcome.defined & 0x1FF == 0x1FF


def test_an_accessed_flag_and_a_fault_may_come_in_either_order() -> None:
    answers = sdm.allowed(CPU, AccessVector(leaf=R, access=Access.WALKA, gp=SWX, cpl=3))
    assert isinstance(answers, tuple)
    assert [(a.outcome.kind, a.rule) for a in answers] == [
        (Kind.EXCEPTION, "guest-protection"),
        (Kind.VIOLATION, "guest-accessed-before-fault"),
    ]
    # a dirty flag is set by a write that is permitted, never before
    assert one(AccessVector(leaf=R, access=Access.WALKD, gp=SWX, cpl=3)).outcome.kind is Kind.EXCEPTION
    writable = Perm(True, True, False, False)
    assert one(AccessVector(leaf=writable, access=Access.WALKA, gp=SWX, cpl=3)).outcome.kind is Kind.EXCEPTION


def test_a_reserved_bit_ends_the_guest_walk_at_its_level() -> None:
    xd = GuestPerm(True, True, False)
    for access, paging in product((Access.WALK, Access.WALKA, Access.WALKD), (Paging.PAE, Paging.LONG)):
        above = AccessVector(leaf=NONE, access=access, paging=paging, gu=xd, nxe=False)
        assert one(above).rule == "guest-reserved"
        below = replace(above, gu=GuestPerm(True, True, True), gp=xd)
        assert one(below).outcome.kind is Kind.VIOLATION
        # the entry is read, found reserved, and its accessed flag stays as it is
        assert one(replace(below, leaf=R)).rule == "guest-reserved"


def test_misconfigurations_have_an_address_and_no_qualification() -> None:
    got = one(AccessVector(leaf=Perm(False, True, False, False)))
    assert got.rule == "ept-write-without-read"
    assert got.outcome == Outcome(Kind.MISCONFIG, code=0, gpa=Place("target"))


def test_entries_are_laid_out_from_the_top() -> None:
    vector = AccessVector(leaf_level=2, leaf=R, upper_level=4, upper=RX, leaf_bits=1 << 52, upper_bits=8, memtype=4)
    assert contract.entries(vector) == ((4, 0xD), (3, 0x707), (2, 0xA1 | 1 << 52))
    assert [lvl for lvl, _ in contract.entries(AccessVector())] == [4, 3, 2, 1]
    assert contract.entries(AccessVector())[-1] == (1, 0x437)


def test_controls_that_are_not_offered_fail_the_entry() -> None:
    for cpu, vector, rule in (
        (Cpu(mbec=False), AccessVector(Mbec.ON), "entry-control-not-allowed"),
        (Cpu(ept=False), AccessVector(Mbec.OFF), "entry-control-not-allowed"),
        (Cpu(ept_ad=False), AccessVector(Mbec.OFF, ad=True), "entry-eptp-ad"),
        (Cpu(mbec=False), EntryVector(Mbec.ON), "entry-control-not-allowed"),
        (Cpu(), EntryVector(Mbec.ON, ept=False), "entry-mbec-needs-ept"),
    ):
        got = one(vector, cpu)
        assert (got.outcome, got.rule) == (Outcome(Kind.ENTRY_FAIL, code=7), rule)
    for mbec, ept in ((Mbec.ON, True), (Mbec.OFF, True), (Mbec.OFF, False), (Mbec.NA, False)):
        assert one(EntryVector(mbec, ept=ept)).outcome.kind is Kind.DONE
    assert one(AccessVector(Mbec.OFF), Cpu(mbec=False)).outcome.kind is Kind.DONE


def test_what_is_put_aside() -> None:
    assert aside(HostVector("param")) == "na-not-architectural"
    assert aside(AccessVector(), Cpu(vmx=False)) == "na-no-vmx"
    assert aside(EntryVector(), Cpu(vmx=False)) == "na-no-vmx"
    assert aside(AccessVector(access=Access.WALK, paging=Paging.OFF)) == "na-walk-without-paging"
    assert aside(AccessVector(paging=Paging.OFF), Cpu(unrestricted=False)) == "na-needs-unrestricted-guest"
    assert aside(MsrVector(msr=0x480)) == "na-other-msr"


def test_msrs_by_their_own_consistency() -> None:
    for msr, what in ((0x48B, "m48b"), (0x48C, "m48c")):
        by_guest = sdm.allowed(CPU, MsrVector(msr=msr))
        assert by_guest == sdm.allowed(CPU, HostVector(what))
        assert isinstance(by_guest, tuple) and all(a.outcome.kind is Kind.VALUE for a in by_guest)


def test_l1s_own_accesses_complete() -> None:
    vectors: list[Vector] = [MmioVector()]
    vectors += [ClientVector(mode, access) for mode, access in product(("real", "long"), Access)]
    for vector in vectors:
        assert one(vector).outcome.kind is Kind.DONE


def test_every_answer_is_well_formed() -> None:
    levels = ((1, 2), (3, 4))
    for access, leaf, (ll, ul), paging, mbec in product(Access, Perm.all(), levels, Paging, Mbec):
        for gp, cpl, ad in product((GuestPerm(True, False, True), SWX), (0, 3), (False, True)):
            vector = AccessVector(
                mbec, leaf_level=ll, leaf=leaf, upper_level=ul, access=access, paging=paging, gp=gp, cpl=cpl, ad=ad
            )
            answers = sdm.allowed(CPU, vector)
            if isinstance(answers, NotApplicable):
                assert answers.rule == "na-walk-without-paging"
                continue
            assert answers and len(set(answers)) == len(answers)
            for answer in answers:
                assert answer.section == RULES[answer.rule].section
                outcome = answer.outcome
                assert outcome.kind in (Kind.DONE, Kind.EXCEPTION, Kind.VIOLATION, Kind.MISCONFIG)
                assert outcome.code & ~outcome.defined == 0
                structure = access.is_walk and outcome.kind in (Kind.VIOLATION, Kind.MISCONFIG)
                if outcome.gpa is not None:
                    assert (outcome.gpa == Place("gpt")) == structure
    assert parse(AccessVector().id) == AccessVector()


def test_answers_do_not_depend_on_bits_the_manual_ignores() -> None:
    for mbec, leaf, access in product(Mbec, Perm.all(), (Access.READ, Access.WRITE, Access.FETCH, Access.WALKD)):
        plain = AccessVector(mbec, leaf=leaf, access=access)
        if mbec is not Mbec.ON:
            other = replace(plain, leaf=replace(leaf, u=not leaf.u))
            assert sdm.allowed(CPU, other) == sdm.allowed(CPU, plain)
        for bit in (6, 7, 8, 9, 11, 52, 63):
            assert sdm.allowed(CPU, replace(plain, leaf_bits=1 << bit)) == sdm.allowed(CPU, plain)


@pytest.mark.parametrize(
    ("vector", "seen", "leaf", "upper"),
    [
        (AccessVector(), Kind.DONE, (0, 0), (0, 0)),
        (AccessVector(ad=True), Kind.DONE, (0x100, 0x100), (0x100, 0x100)),
        (AccessVector(ad=True, access=Access.FETCH), Kind.DONE, (0x100, 0x100), (0x100, 0x100)),
        (AccessVector(ad=True, access=Access.WRITE), Kind.DONE, (0x300, 0x300), (0x100, 0x100)),
        (AccessVector(ad=True, access=Access.RMW), Kind.DONE, (0x300, 0x300), (0x100, 0x100)),
        (AccessVector(ad=True, access=Access.WRITE), Kind.VIOLATION, (0, 0x100), (0, 0x100)),
        (AccessVector(ad=True, access=Access.WRITE), Kind.EXCEPTION, (0, 0x100), (0, 0x100)),
        (AccessVector(ad=True, access=Access.WALK), Kind.DONE, (0x300, 0x300), (0x100, 0x100)),
        (AccessVector(ad=True, access=Access.WALK), Kind.EXCEPTION, (0x300, 0x300), (0x100, 0x100)),
        (AccessVector(ad=True, access=Access.WALK), Kind.VIOLATION, (0, 0x100), (0, 0x100)),
        (
            AccessVector(ad=True, access=Access.WALK, gu=GuestPerm(True, True, False), nxe=False),
            Kind.EXCEPTION,
            (0, 0x100),
            (0, 0x100),
        ),
    ],
)
def test_flags_after_the_run(vector: AccessVector, seen: Kind, leaf: tuple[int, int], upper: tuple[int, int]) -> None:
    assert flags(vector, Outcome(seen)) == (Flags(*leaf), Flags(*upper))


def test_flags_admit() -> None:
    must = Flags(0x100, 0x100)
    assert must.admits(0x7, 0x107) and not must.admits(0x7, 0x7) and not must.admits(0x7, 0x307)
    assert must.admits(0x200, 0x300) and not must.admits(0x300, 0x100)
    assert Flags(0, 0x100).admits(0, 0x100) and Flags(0, 0x100).admits(0, 0)
    assert not Flags(0, 0).admits(0, 0x200)


def test_errata_are_no_excuse_but_explain() -> None:
    sick = Cpu(errata=frozenset(ERRATA))
    update = AccessVector(leaf=R, access=Access.WALKA)
    assert sdm.allowed(sick, update) == sdm.allowed(CPU, update)
    found = contract.answers(sick, update)
    assert isinstance(found, tuple) and found[0].outcome.kind is Kind.DONE
    assert sdm.explaining(CPU, update, Outcome(Kind.DONE)) == frozenset({UPDATE_UNCHECKED})
    walk = AccessVector(leaf=RU, access=Access.WALK, ad=True)
    seen = Outcome(Kind.VIOLATION, code=0x208A, gpa=Place("gpt"), gla=Place("target"))
    assert sdm.explaining(CPU, walk, seen) == frozenset({BIT6_DATA, WALK_AD_BIT0})
    assert sdm.explaining(CPU, walk, replace(seen, code=0xCB)) == frozenset()
    assert sdm.explaining(CPU, walk, replace(seen, code=0xCC)) is None
    assert sdm.explaining(CPU, HostVector("param"), Outcome(Kind.VALUE)) is None


def test_huge_pages_stay_non_executable_whatever_becomes_of_the_access() -> None:
    asked = NxVector().asked
    found = contract.answers(CPU, NxVector(asked))
    assert isinstance(found, tuple) and [a.rule for a in found] == ["host-nx-spte"]
    assert not found[0].outcome.matches(Outcome(Kind.BYPASS, 0x403, number=2))
    refused = contract.answers(replace(CPU, mbec=False), NxVector(replace(asked, mbec=Mbec.ON)))
    assert isinstance(refused, tuple) and refused[0].outcome.kind is Kind.ENTRY_FAIL
    assert isinstance(contract.answers(replace(CPU, vmx=False), NxVector(asked)), NotApplicable)


def test_what_the_host_removes_is_to_be_not_present() -> None:
    found = sdm.allowed(Cpu(), HostVector("removed"))
    assert isinstance(found, tuple)
    assert [(a.outcome.kind, a.rule) for a in found] == [(Kind.DONE, "host-removed-entry")]
