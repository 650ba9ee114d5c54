"""Accessed and dirty flags of a program's entries: set for sure, set perhaps, and left alone."""

from __future__ import annotations

from itertools import product

import pytest

from kvmodel import sdm
from kvmodel.cpu import Cpu
from kvmodel.question.outcome import Kind, Outcome, of_turns
from kvmodel.question.program import Look, program
from kvmodel.sdm.program_flags import told
from kvmodel.sdm.program_tables import reached

NOTHING, A, D = "", "a", "d"
LEAF, NONLEAF, GUEST = 0x437, 0x407, 0x7  # RWXU and write-back, RWXU, P W U; without flags
T0 = 8 << 12  # the ninth of L1's tables
P3, A3 = 0x121_3000, 0x4101_3000


def looks(text: str, *flags: str) -> bool:
    """Whether the manual allows that each look of the program finds these flags, all else as the manual has it."""
    vector, left = program(text), list(flags)
    plain = sdm.allowed_beside(Cpu(), vector, None)
    assert isinstance(plain, tuple)
    turns = []
    looked = iter(step for step in vector.steps if isinstance(step, Look))
    for turn in plain[0].outcome.turns:
        if turn.kind is not Kind.VALUE:
            turns.append(turn)
            continue
        guest = next(looked).is_guest
        accessed, dirty = (1 << 5, 1 << 6) if guest else (1 << 8, 1 << 9)
        now = left.pop(0)
        entry = turn.code & ~(accessed | dirty) | (accessed if "a" in now else 0) | (dirty if "d" in now else 0)
        turns.append(told(entry, guest=guest))
    assert not left
    seen = of_turns(turns)
    allowed = sdm.allowed_beside(Cpu(), vector, seen)
    assert isinstance(allowed, tuple)
    return any(a.outcome.matches(seen) for a in allowed)


def only(text: str, *flags: str) -> bool:
    """Whether these flags of the last look are allowed and no others are, those of the looks before as given."""
    *before, last = flags
    return {now for now in (NOTHING, A, D, A + D) if looks(text, *before, now)} == {last}


@pytest.mark.parametrize(("access", "found"), [("read", A), ("fetch", A), ("write", A + D), ("rmw", A + D)])
def test_an_access_sets_the_flags(access: str, found: str) -> None:
    assert only(f"prog+ad=1+t03=p3.clean+{access}.a3+look.t03", found)
    assert only(f"prog+ad=1+m0=g0.clean+{access}.a3+look.m0", found)
    assert only(f"prog+ad=1+m0=t0.clean+{access}.a3+look.m0", A)
    for ept in ("prog", "prog.noept"):
        to = "a3" if ept == "prog" else "p3"
        assert only(f"{ept}+g.a3={to}.clean+{access}.a3+look.g.a3", found)
        assert only(f"{ept}+gu.a=uwx.clean+{access}.a3+look.gu.a", A)


@pytest.mark.parametrize("access", ["read", "write"])
def test_without_eptp_bit_6_no_flag_of_ept_changes(access: str) -> None:
    assert only(f"prog+t03=p3.clean+{access}.a3+look.t03", NOTHING)
    assert only(f"prog+{access}.a3+look.t03", A + D)  # as L1 wrote them


def test_what_is_not_used_may_be_foreseen_but_not_written() -> None:
    text = "prog+ad=1+t04=p4.clean+write.a3+look.t04"
    assert looks(text, A) and looks(text, NOTHING)
    assert not looks(text, D) and not looks(text, A + D)
    assert only("prog+ad=1+t14=p4.clean+root=1+d2b=none+write.a3+look.t14", NOTHING)  # no walk comes there


def test_a_write_over_two_pages_may_set_both_dirty_flags() -> None:
    text = "prog+ad=1+t04=p4.clean+writex.a3+look.t04"
    assert looks(text, A + D)
    assert not looks("prog+ad=1+t04=p4.clean+readx.a3+look.t04", D)


def test_a_write_that_ept_forbids_sets_nothing_for_sure() -> None:
    text = "prog+ad=1+t03=p3.r-x-.clean+write.a3+look.t03"
    assert all(looks(text, *[now]) for now in (NOTHING, A, A + D))


@pytest.mark.parametrize("invept", ["invept1.r0", "invept2.r1"])
def test_a_flag_that_l1_clears_is_set_again_only_behind_invept(invept: str) -> None:
    text = "prog+ad=1+write.a3+t03=p3.clean{}+write.a3+look.t03"
    assert all(looks(text.format(""), now) for now in (NOTHING, A, A + D))
    assert only(text.format(f"+{invept}"), A + D)
    assert looks(text.format("+invept1.r1"), NOTHING)


def test_bit_6_of_the_pointer_counts_behind_invept_alone() -> None:
    text = "prog+t03=p3.clean+read.a3+ad=1{}+write.a3+look.t03"
    assert looks(text.format(""), NOTHING)
    assert only(text.format("+invept1.r0"), A + D)
    assert only("prog+ad=1+read.a3+t03=p3.clean+invept1.r0+ad=0+write.a3+look.t03", NOTHING)


def test_a_flag_stays_until_l1_writes_the_entry() -> None:
    text = "prog+ad=1+t03=p3.clean+write.a3+look.t03+ad=0+read.a3+look.t03"
    assert only(text, A + D, A + D)
    assert only("prog+ad=1+t03=p3.clean+read.a3+look.t03+write.a3+look.t03", A, A + D)
    assert only("prog+ad=1+t03=p3.clean+write.a3+t03=p3.clean+ad=0+read.a3+look.t03", NOTHING)


def test_under_a_vpid_the_guests_flag_waits_for_a_flush() -> None:
    text = "prog+vpid=1+write.a3+g.a3=a3.clean{}+write.a3+look.g.a3"
    assert looks(text.format(""), NOTHING)
    assert only(text.format("+invvpid1.1.a0"), A + D)
    assert only(text.format("+invvpid0.1.a3"), A + D)
    assert looks(text.format("+invvpid0.1.a4"), NOTHING)
    assert only(text.format("").replace("vpid=1", "vpid=0"), A + D)
    for flush in ("cr3", "invlpg.a3"):
        assert only(f"prog+read.a3,pte.a3=a3.clean,{flush},write.a3+look.g.a3", A + D)
    assert looks("prog+read.a3,pte.a3=a3.clean,write.a3+look.g.a3", NOTHING)


def test_every_other_bit_stays_and_tables_count_from_the_first() -> None:
    text = "prog+t03=p3.r--u.clean.x800+m0=t0.clean+g.a3=a3.urx.clean+look.t03+look.m0+look.g.a3+look.gu.a"
    found = sdm.allowed_beside(Cpu(), program(text), None)
    assert isinstance(found, tuple)
    wanted = (P3 | 0xC31, T0 | NONLEAF, A3 | 0x5, 0x100_B000 | GUEST | 1 << 5)
    assert tuple(turn.code for turn in found[0].outcome.turns) == wanted
    for bit, want in product((1, 12, 51, 62), wanted[:1]):
        wrong = of_turns([told(want ^ 1 << bit, guest=False), *found[0].outcome.turns[1:]])
        rows = sdm.allowed_beside(Cpu(), program(text), wrong)
        assert isinstance(rows, tuple) and not any(a.outcome.matches(wrong) for a in rows)


def test_the_words_of_a_look() -> None:
    assert str(told(P3 | LEAF | 0x100, guest=False)) == "value 0x1213537 (accessed)"
    assert told(0x67, guest=True).note == "accessed, dirty"
    assert told(0x307, guest=True).note == "neither accessed nor dirty"


def test_an_access_that_went_elsewhere_is_no_look() -> None:
    seen = of_turns([reached(3), Outcome(Kind.DONE)])
    rows = sdm.allowed_beside(Cpu(), program("prog+read.a3+look.t03"), seen)
    assert isinstance(rows, tuple) and not any(a.outcome.matches(seen) for a in rows)
