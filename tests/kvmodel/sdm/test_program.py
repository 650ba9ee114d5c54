"""What the manual allows of programs: paths that share a table, what may be cached and until when."""

from __future__ import annotations

import pytest

from kvmodel import sdm
from kvmodel.cpu import Cpu
from kvmodel.question.outcome import Kind, NotApplicable, Outcome, Place, of_turns
from kvmodel.question.program import program
from kvmodel.sdm import program as programs
from kvmodel.sdm.program_tables import moved, reached
from tests.kvmodel.sdm.programs import allows, plain

P3, P5, P4 = reached(3), reached(5), reached(4)
DONE = Outcome(Kind.DONE)


def violation(page: str, qualification: int, offset: int = 0) -> Outcome:
    return Outcome(Kind.VIOLATION, qualification, gpa=Place(page, offset), gla=Place(page, offset))


def test_each_path_to_a_shared_table_has_its_own_permissions() -> None:
    a, b = plain("prog+m1=t0.r-x-+write.a3+write.b3")
    assert a == P3
    # write, readable and executable, translation of a user-mode writable linear address
    assert (b.kind, b.code & b.defined, b.gpa) == (Kind.VIOLATION, 0x7AA & ~0x40, Place("b3", 64))


def test_a_large_page_maps_its_own_pages() -> None:
    assert [str(o) for o in plain("prog+m0=g1+invept1.r0+read.a3,write.a4")] == ["done", "done (q3)", "done (q4)"]


@pytest.mark.parametrize("invept", ["invept1.r0", "invept2.r0"])
def test_a_translation_may_be_cached_until_invept(invept: str) -> None:
    stale = "prog+read.a3+t03=p5+read.a3"
    assert allows(stale, P3, P5)
    assert allows(stale, P3, P3)
    assert not allows(stale, P3, P4)
    fresh = f"prog+read.a3+t03=p5+{invept}+read.a3"
    assert allows(fresh, P3, DONE, P5)
    assert not allows(fresh, P3, DONE, P3)


def test_invept_of_another_table_takes_nothing_away() -> None:
    assert allows("prog+read.a3+t03=p5+invept1.r1+read.a3", P3, DONE, P3)


def test_a_table_that_l2_never_ran_on_is_not_cached() -> None:
    text = "prog+read.a3+d2a=m1+t13=p5+root=1+read.a3"
    assert allows(text, P3, P5)
    assert not allows(text, P3, P3)


def test_a_cached_upper_entry_leads_to_the_table_as_it_is_now() -> None:
    text = "prog+read.a3+m0=t1+t03=p4+read.a3"
    assert allows(text, P3, P3)  # the cached translation
    assert allows(text, P3, P4)  # the cached upper entry, the leaf from memory
    assert not allows(text, P3, P5)


def test_a_violation_makes_the_cpu_forget_the_address() -> None:
    text = "prog+read.a3+t03=p5.r---+write.a3+t03=p4+read.a3"
    seen = plain(text)[1]
    assert seen.kind is Kind.VIOLATION
    assert allows(text, P3, seen, P4)
    assert not allows(text, P3, seen, P5)
    assert not allows(text, P3, seen, P3)


def test_what_the_guests_tables_gave_is_forgotten_at_a_vm_entry_without_a_vpid() -> None:
    assert not allows("prog+read.a3+g.a3=a4+read.a3", P3, P3)
    assert allows("prog+vpid=1+read.a3+g.a3=a4+read.a3", P3, P3)
    assert not allows("prog+vpid=1+read.a3+g.a3=a4+vpid=2+read.a3", P3, P3)
    for gone in ("invvpid0.1.a3", "invvpid1.1.a0", "invvpid2.0.a0", "invvpid3.1.a0", "invept1.r0"):
        assert not allows(f"prog+vpid=1+read.a3+g.a3=a4+{gone}+read.a3", P3, DONE, P3), gone
    assert allows("prog+vpid=1+read.a3+g.a3=a4+invvpid1.2.a0+read.a3", P3, DONE, P3)


def test_l2_sees_its_own_change_after_invlpg_or_cr3() -> None:
    assert allows("prog+read.a3,pte.a3=b5,read.a3", P3, P3)
    for flush in ("invlpg.a3", "cr3"):
        assert not allows(f"prog+read.a3,pte.a3=b5,{flush},read.a3", P3, P3)
    assert allows("prog+read.a3,pte.a3=b5,invlpg.b5,read.a3", P3, P3)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("prog+g.a3=a3.urx+write.a3", 0x3),
        ("prog+cpl=3+g.a3=a3.swx+read.a3", 0x5),
        ("prog+g.a3=none+write.a3", 0x2),
        ("prog+g.a3=a3.uwn+fetch.a3", 0x11),
        ("prog+smep=1+fetch.a3", 0x11),
        ("prog+smap1,read.a3", 0x1),
        ("prog+nxe=0+g.a3=a3.uwn+read.a3", 0x9),
        ("prog+nxe=0+gu.a=uwn+g.a3=none+read.a3", 0x9),
        ("prog.noept+gu.a=swx+cpl=3+write.a3", 0x7),
    ],
)
def test_the_guests_own_paging(text: str, error: int) -> None:
    seen = plain(text)[-1]
    assert (seen.kind, seen.number, seen.code) == (Kind.EXCEPTION, 14, error)


def test_a_bit_of_cr0_counts_at_once() -> None:
    assert [o.kind for o in plain("prog+g.a3=a3.urx+wp0,write.a3,wp1,write.a3+write.a3")] == [
        Kind.DONE,
        Kind.EXCEPTION,
        Kind.EXCEPTION,
    ]


UNREACHED = Outcome(Kind.UNREACHED)


@pytest.mark.parametrize("what", ["readx", "writex", "rmwx"])
def test_an_access_over_two_pages_is_made_in_both_or_in_none(what: str) -> None:
    assert plain(f"prog+{what}.a3") == (P3, P4)
    first, second = plain(f"prog+t04=none+{what}.a3")
    assert (first.kind, second.kind, second.gpa, second.gla) == (
        Kind.UNREACHED,
        Kind.VIOLATION,
        Place("a4"),
        Place("a4"),
    )
    assert not allows(f"prog+t04=none+{what}.a3", P3, second)  # torn
    at = Place("a3", 0xFFA)
    first, second = plain(f"prog+t03=none+{what}.a3")
    assert (first.kind, first.gla, second.kind) == (Kind.VIOLATION, at, Kind.UNREACHED)
    both = f"prog+t03=none+t04=none+{what}.a3"
    other = plain(f"prog+t04=none+{what}.a3")[1]
    assert allows(both, first, UNREACHED) and allows(both, UNREACHED, other)
    assert not allows(both, first, other)


def test_what_goes_in_steps_stays_done_in_the_first_page() -> None:
    for what in ("stos.a3", "fetchx.a3"):
        first, second = plain(f"prog+t04=none+{what}")
        assert (first, second.kind, second.gla) == (P3, Kind.VIOLATION, Place("a4"))
        assert not allows(f"prog+t04=none+{what}", UNREACHED, second)
        both = plain(f"prog+t03=none+t04=none+{what}")
        assert [o.kind for o in both] == [Kind.VIOLATION, Kind.UNREACHED]
        assert not allows(f"prog+t03=none+t04=none+{what}", UNREACHED, second)
    assert plain("prog+t03=none+fetchx.a3")[0].gla == Place("a3", 0xFF9)


def test_movs_reads_one_place_and_writes_another() -> None:
    assert plain("prog+movs.b5.a3") == (moved(3, 5), moved(4, 6))
    assert plain("prog+t16=none+movs.b5.a3")[1].gla == Place("b6")  # the source's second page
    read = plain("prog+t15=none+movs.b5.a3")[0]
    assert (read.gla, read.code & 0x3) == (Place("b5", 0xFFA), 1)
    wrote = plain("prog+t04=p4.r---+movs.b5.a3")
    assert (wrote[0], wrote[1].gla, wrote[1].code & 0x3) == (moved(3, 5), Place("a4"), 2)


def test_the_guests_tables_may_forbid_one_of_two_pages() -> None:
    for head in ("prog+g.a4=a4.urx", "prog.noept+g.a4=p4.urx"):
        first, second = plain(f"{head}+writex.a3")
        assert first.kind is Kind.UNREACHED
        assert (second.kind, second.code, second.gla) == (Kind.EXCEPTION, 3, Place("a4"))


def test_what_the_host_saves_and_restores_changes_nothing() -> None:
    for text in ("prog+wp0,save,write.a3+read.a3", "prog+vpid=1+read.a3+g.a3=a4+host.save+read.a3"):
        without = text.replace("save,", "").replace("+host.save", "")
        assert plain(text) == plain(without)
    assert [o.kind for o in plain("prog+vmclear.c+vmptrld.c+vmwrite.681e=10+host.save+vmread.681e+read.a0")[-2:]] == [
        Kind.VALUE,
        Kind.DONE,
    ]


def test_after_an_exit_the_rest_of_a_run_is_not_reached() -> None:
    kinds = [o.kind for o in plain("prog+t03=none+read.a3,read.a4+read.a4")]
    assert kinds == [Kind.VIOLATION, Kind.UNREACHED, Kind.DONE]


@pytest.mark.parametrize(
    ("step", "fails"),
    [
        ("invept0.r0", True),
        ("invept1.r0", False),
        ("invept2.r0.memtype", False),
        ("invept1.r0.memtype", True),
        ("invept1.r0.reserved", True),
        ("invept3.r0", True),
        ("invvpid0.0.a0", True),
        ("invvpid0.1.a0", False),
        ("invvpid0.1.a0.noncanonical", True),
        ("invvpid1.1.a0.noncanonical", False),
        ("invvpid1.0.a0", True),
        ("invvpid2.0.a0", False),
        ("invvpid2.0.a0.reserved", True),
        ("invvpid3.0.a0", True),
        ("invvpid4.1.a0", True),
    ],
)
def test_the_operands_of_invalidations(step: str, fails: bool) -> None:
    seen = plain(f"prog+{step}+read.a0")[0]
    assert (seen.kind, seen.code) == ((Kind.VMFAIL, 28) if fails else (Kind.DONE, 0))


def test_an_ept_pointer_with_accessed_and_dirty_flags_needs_a_cpu_that_has_them() -> None:
    text = "prog+ad=1+invept1.r0+read.a0"
    assert plain(text)[0].kind is Kind.DONE
    without = plain(text, Cpu(ept_ad=False))
    assert [o.kind for o in without] == [Kind.VMFAIL, Kind.ENTRY_FAIL]


def test_the_rows_beside_a_departure_say_what_is_allowed_there() -> None:
    asked = program("prog+read.a3+t03=p5+read.a3+read.a4")
    found = sdm.allowed_beside(Cpu(), asked, of_turns((P3, P4, P4)))
    assert isinstance(found, tuple)
    assert [row.outcome.turns for row in found] == [(P3, P5), (P3, P3)]
    assert [row.rule for row in found] == ["ept-permitted > ept-permitted", "ept-permitted > cached-translation"]


def test_a_machine_that_dies_has_no_row() -> None:
    dead = Outcome(Kind.HOST, note="the virtual machine ended")
    assert not allows("prog+read.a3+read.a3", P3, dead)


def test_without_ept_the_contract_stands_aside() -> None:
    found = programs.answers(Cpu(ept=False), program("prog+read.a3"))
    assert isinstance(found, NotApplicable) and found.rule == "na-no-ept"
    assert isinstance(programs.answers(Cpu(ept=False), program("prog.noept+read.a3")), tuple)


def virtual(secondary: int, capability: int) -> Cpu:
    """A CPU whose MSRs 0x48B and 0x48C read so."""
    msrs = {0x48B: secondary << 32, 0x48C: capability}
    return Cpu(msrs=tuple(msrs.get(number, 0) for number in range(0x480, 0x492)))


EPT, VPID = 1 << 1, 1 << 5
INVEPT, INVVPID = 1 << 20, 1 << 32
POINTER = 1 << 6 | 1 << 14  # a walk of four levels, write-back: what the programs' EPT pointers name


def test_an_invalidation_that_is_not_offered_is_an_invalid_opcode() -> None:
    every = POINTER | INVEPT | 3 << 25 | INVVPID | 15 << 40
    text = "prog+invept1.r0+invvpid1.1.a0"
    for cpu, answers in (
        (virtual(EPT | VPID, every), ["done", "done"]),
        (virtual(EPT | VPID, every & ~INVEPT), ["exception #UD", "done"]),
        (virtual(EPT | VPID, every & ~INVVPID), ["done", "exception #UD"]),
        (virtual(EPT, every), ["done", "exception #UD"]),
    ):
        assert [str(o).partition("(")[0] for o in plain(text, cpu)] == answers


@pytest.mark.parametrize(
    ("step", "bit"),
    [("invept1.r0", 25), ("invept2.r0", 26), ("invvpid0.1.a0", 40), ("invvpid1.1.a0", 41), ("invvpid2.1.a0", 42),
     ("invvpid3.1.a0", 43)],
)  # fmt: skip
def test_a_type_that_is_not_offered_is_an_invalid_operand(step: str, bit: int) -> None:
    every = POINTER | INVEPT | 3 << 25 | INVVPID | 15 << 40
    assert plain(f"prog+{step}", virtual(EPT | VPID, every))[0].kind is Kind.DONE
    (seen,) = plain(f"prog+{step}", virtual(EPT | VPID, every & ~(1 << bit)))
    assert (seen.kind, seen.code) == (Kind.VMFAIL, 28)


def test_a_vpid_that_is_not_offered_is_refused_at_vm_entry() -> None:
    every = POINTER | INVEPT | 3 << 25
    seen, last = plain("prog+vpid=1+read.a3+vpid=0+read.a3", virtual(EPT, every))
    assert (seen.kind, seen.code, last) == (Kind.ENTRY_FAIL, 7, P3)
    assert plain("prog+vpid=1+read.a3", virtual(EPT | VPID, every)) == (P3,)
