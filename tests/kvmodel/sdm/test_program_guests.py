"""What the manual allows of L2's own paging registers: PDPTEs, CR3 and its exits, EFER.NXE."""

from __future__ import annotations

import pytest

from kvmodel.cpu import Cpu
from kvmodel.question.outcome import Allowed, Kind, NotApplicable, Outcome, Place
from kvmodel.question.program import program
from kvmodel.question.program_layout import pdpte
from kvmodel.sdm import program as programs
from kvmodel.sdm.program_tables import reached
from tests.kvmodel.sdm.programs import allows, plain

P3, P4, Q3 = reached(3), reached(4), reached(11)
APART = "prog+t13=q3+t23=p6+pg=pae"  # page 3 of window a is p3, of b q3, of c p6
P6 = reached(6)
GP = Outcome(Kind.EXCEPTION, number=13)
NOT_THERE = Outcome(Kind.EXCEPTION, number=14, gla=Place("b3"))


def test_each_window_has_a_pdpte_and_each_directory_another_table() -> None:
    assert plain(f"{APART}+read.a3,read.b3,read.c3") == (P3, Q3, P6)
    assert plain(f"{APART}+pdptr1=e1+pdptr2=e1+read.a3,read.b3,read.c3") == (P3, P6, P3)
    assert plain(f"{APART}+pdptr1=e2+read.b3") == (P3,)
    assert plain("prog+t13=q3+t23=p6+cr3.1,read.a3,read.b3,read.c3") == (Q3, P6, P3)


def test_a_write_to_memory_changes_no_pdpte_until_it_is_loaded() -> None:
    assert plain(f"{APART}+read.a3,pte.k01=e1,read.b3") == (P3, Q3)
    for load in ("cr3", "cr3.0", "pge1", "pse1", "smep1"):
        assert plain(f"{APART}+read.a3,pte.k01=e1,{load},read.b3") == (P3, P6)
        assert plain(f"{APART}+read.a3,pte.k01=e0.x2,{load},read.b3") == (P3, GP)
    assert plain(f"{APART}+pge=1+read.a3,pte.k01=e1,pge1,read.b3") == (P3, Q3)  # no bit is modified
    assert plain(f"{APART}+read.a3,pte.k01=e0.x2,invlpg.b3,read.b3") == (P3, Q3)


def test_what_is_not_listed_as_loading_pdptes_is_put_aside() -> None:
    for other in ("smap1", "wp0"):
        found = programs.answers(Cpu(), program(f"{APART}+read.a3,pte.k01=e1,{other},read.b3"))
        assert isinstance(found, NotApplicable) and found.rule == "na-pdptes-undecided"
    assert plain(f"{APART}+read.a3,wp0,read.b3") == (P3, Q3)  # loaded or not, it is the same


def test_what_a_pdpte_led_to_may_be_cached_but_not_that_it_led_nowhere() -> None:
    stale = f"{APART}+read.b3,pte.k01=e1,pse1,read.b3"
    assert allows(stale, Q3, Q3) and allows(stale, Q3, P6)
    flushed = f"{APART}+read.b3,pte.k01=e1,pge1,read.b3"
    assert not allows(flushed, Q3, Q3) and allows(flushed, Q3, P6)
    fresh = "prog+t13=q3+t23=p6+g.k01=none+pg=pae+read.a3,pte.k01=e1,pse1,read.b3"
    assert allows(fresh, P3, P6) and not allows(fresh, P3, Q3) and not allows(fresh, P3, NOT_THERE)


@pytest.mark.parametrize("bits", ["2", "4", "20", "100", "10000000000000", "8000000000000000"])
def test_a_reserved_bit_is_refused_where_p_is_set(bits: str) -> None:
    failed = Outcome(Kind.ENTRY_EXIT, 2, number=33)
    assert plain(f"{APART}+pdptr3=e0.x{bits}+read.a3") == (failed,)
    assert plain(f"prog.noept+g.k03=e0.x{bits}+pg=pae+read.a3") == (failed,)
    assert plain(f"{APART}+g.k13=e0.x{bits}+cr3.1,read.a3") == (GP,)
    assert plain(f"{APART}+pdptr3=none.x{bits}+read.a3") == (P3,)


def test_bits_that_are_no_reserved_ones() -> None:
    for bits in ("8", "10", "200", "800"):
        assert plain(f"{APART}+pdptr1=e1.x{bits}+read.b3") == (P6,)


def test_with_ept_a_vm_entry_loads_the_fields_without_it_memory() -> None:
    assert plain(f"{APART}+g.k01=e1+read.b3") == (Q3,)
    assert plain("prog.noept+g.b3=q3+g.c3=p6+pg=pae+g.k01=e1+read.b3") == (P6,)
    assert plain(f"{APART}+cr3=1+read.b3+read.b3,cr3,read.b3") == (Q3, Q3, P6)


def test_an_exit_saves_the_pdptes_in_use() -> None:
    seen = plain(f"{APART}+read.a3,pte.k01=e2,cr3,read.a3+look.pdptr1+read.b3")
    assert seen[2].code == pdpte("e2") and seen[3] == P3
    assert not seen[2].matches(Outcome(Kind.VALUE, pdpte("e0")))
    assert seen[2].matches(Outcome(Kind.VALUE, pdpte("e2", 0x200)))  # an ignored bit
    unsaved = plain(f"{APART}+pdptr1=e1.x2+read.a3+look.pdptr1")  # a VM entry that failed saves nothing
    assert unsaved[1].code == pdpte("e1", 2)
    gone = plain(f"{APART}+read.a3+pg=64+read.a3+pg=pae+look.pdptr1+read.b3")
    assert gone[2].code == pdpte("e0") and gone[3] == Q3


def test_each_vmcs_has_its_own_fields() -> None:
    assert plain(f"{APART}+pdptr1=e1+vmcs=1+read.b3+vmcs=0+read.b3") == (Q3, P6)


def test_a_page_fault_in_pae_paging() -> None:
    assert plain(f"{APART}+pdptr1=none+read.b3") == (NOT_THERE,)
    assert plain(f"{APART}+nxe=0+g.b3=b3.uwn+read.b3")[0].code == 9
    assert plain(f"{APART}+pdptr1=none+nxe=0+gu.b=uwn+read.b3") == (NOT_THERE,)


def test_wrmsr_to_efer_exits_without_a_bitmap_that_lets_it_pass() -> None:
    exit_ = Outcome(Kind.EXIT, number=32)
    assert plain("prog+nxe0,read.a3") == (exit_,)
    assert plain("prog+msrs=write+nxe0,read.a3") == (exit_,)
    for bitmap in ("pass", "read"):
        seen = plain(f"prog+msrs={bitmap}+g.a3=a3.uwn+read.a4,nxe0,read.a3+read.a3+nxe1,read.a3")
        assert [turn.code for turn in seen] == [4, 9, 9, 3]


def test_what_nxe_allowed_may_be_cached_what_it_forbade_not() -> None:
    head = "prog+msrs=pass+vpid=1+g.a3=a3.uwn"
    reserved = Outcome(Kind.EXCEPTION, 9, number=14, gla=Place("a3"))
    assert allows(f"{head}+read.a3,nxe0,read.a3", P3, P3) and allows(f"{head}+read.a3,nxe0,read.a3", P3, reserved)
    assert not allows(f"{head}+nxe=0+read.a3+nxe1,read.a3", reserved, reserved)
    assert not allows(f"{head}+nxe0,invlpg.a3,cr3,read.a3", P3)


def test_where_efer_is_not_loaded_nxe_is_l1s() -> None:
    assert [turn.code for turn in plain("prog+g.a3=a3.uwn+efer=0+read.a3+efer=1+read.a3")] == [9, 3]


def test_mov_to_cr3_exits_unless_its_value_is_a_target() -> None:
    offered = Cpu(msrs=tuple(4 << 16 if n == 5 else -1 & (1 << 64) - 1 for n in range(18)))
    head = "prog+t13=q3+cr3exit=1"
    assert plain(f"{head}+read.a3,cr3,read.b3")[1] == Outcome(Kind.EXIT, 0x203, number=28)
    assert plain(f"{head}+pg=pae+cr3.1,read.b3")[0] == Outcome(Kind.EXIT, 0x603, number=28)
    exit_ = Outcome(Kind.EXIT, 0x903, number=28)
    assert plain(f"{head}+targets=1+target0=1+cr3.1,read.a3", offered) == (Q3,)
    assert plain(f"{head}+targets=1+target0=1+cr3.2,read.a3", offered) == (exit_,)  # the same table, another value
    assert plain(f"{head}+targets=1+target1=1+cr3.1,read.a3", offered) == (exit_,)  # beyond the count
    assert plain(f"{head}+targets=5+target1=1+read.a3", offered) == (Outcome(Kind.ENTRY_FAIL, 7),)
    none = Cpu(msrs=(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -1 & (1 << 64) - 1, -1 & (1 << 64) - 1, 0, 0, 0, 0, 0))
    assert plain(f"{head}+targets=1+read.a3", none) == (Outcome(Kind.ENTRY_FAIL, 7),)
    unread = programs.answers(Cpu(), program(f"{head}+targets=1+read.a3"))
    assert isinstance(unread, NotApplicable) and unread.rule == "na-msrs-not-read"


def test_the_flags_of_the_table_that_was_used() -> None:
    text = f"{APART}+pdptr1=e1+g.c3=c3.clean+g.b3=b3.clean+write.b3+look.g.c3+look.g.b3"
    seen = plain(text)
    assert seen[1].code & 0x60 == 0x60 and seen[1].defined & 0x60 == 0x60
    assert seen[2].code & 0x60 == 0 and seen[2].defined & 0x40  # A may be set for a speculated access, D may not


def test_an_exit_saves_cr3_as_l2_left_it() -> None:
    for head, tables in (("prog", (0x100_1000, 0x102_2008)), ("prog.noept+pg=pae", (0x102_4000, 0x102_4028))):
        seen = plain(f"{head}+read.a3+look.cr3+cr3.2,read.a3+look.cr3")
        assert (seen[1].code, seen[3].code) == tables
        assert not seen[3].matches(Outcome(Kind.VALUE, tables[0]))
    faulted = plain(f"{APART}+g.k11=e0.x2+cr3.1,read.a3+look.cr3")
    assert faulted[0] == GP and faulted[1].code == 0x102_4000


@pytest.mark.parametrize(
    "look, rule, section",
    [
        ("cr3", "exit-saves-cr3", "28.3.1"),
        ("pdptr1", "exit-saves-pdptes", "28.3.4"),
        ("g.k01", "guest-flags", "4.8"),
        ("g.a3", "guest-flags", "4.8"),
        ("m0", "ept-flags", "29.3.5"),
    ],
)
def test_what_l1_reads_back_has_the_rule_of_its_place(look: str, rule: str, section: str) -> None:
    (row,) = programs.answers(Cpu(), program(f"{APART}+read.a3+look.{look}"))
    assert isinstance(row, Allowed)
    assert (row.rule.split(" > ")[-1], row.section.split(" > ")[-1]) == (rule, section)
