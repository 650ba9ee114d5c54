"""What an instruction of L2's, or an injected event, ends in, on the capability MSRs of a real CPU model."""

from __future__ import annotations

import pytest

from harness.questions.instructions import INSTRUCTIONS
from harness.results.verdict import departing
from kvmodel import sdm
from kvmodel.question.outcome import Kind, NotApplicable, Outcome, of_turns
from kvmodel.question.reading import parse
from tests.kvmodel.sdm.test_vm_entry import CPU

PROC = "cpu_based_vm_exec_control"
PORTS = f"{PROC}:s25+io_bitmap_a=101d000+io_bitmap_b=101d000"
MSRS = f"{PROC}:s28+msr_bitmap=101d000"


def said(name: str, text: str = "asis") -> str:
    found = sdm.allowed(CPU, parse(f"vmdo.{name}.{text}.mbec=off"))
    if isinstance(found, NotApplicable):
        return found.rule
    (one,) = found
    return str(one.outcome)


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        # 26.1.3: LMSW sets PE and cannot clear it
        ("lmsw-1", "cr0_guest_host_mask=1", "exit reason 28 q=0x10030"),
        ("lmsw-0", "cr0_guest_host_mask=1+cr0_read_shadow=1", "value 0x80010021"),
        ("lmsw-1", "cr0_guest_host_mask=1+cr0_read_shadow=1", "value 0x80010021"),
        ("lmsw-9", "cr0_guest_host_mask=8", "exit reason 28 q=0x90030"),
        ("lmsw-9", "cr0_guest_host_mask=8+cr0_read_shadow=8", "value 0x80010029"),
        ("lmsw-9", "asis", "value 0x80010029"),
        # CLTS exits where L1 owns TS and shows it as set
        ("clts", "cr0_guest_host_mask=8+cr0_read_shadow=8", "exit reason 28 q=0x20"),
        ("clts", "guest_cr0=80010039+cr0_guest_host_mask=8", "value 0x80010021"),
        ("clts", "guest_cr0=80010039", "value 0x80010021"),
        # MOV to CR0 by the read shadow, not by the register; 26.3: it leaves what L1 owns
        ("cr0-80000031", "cr0_guest_host_mask=10000", "value 0x80000021"),
        ("cr0-80010031", "cr0_guest_host_mask=10000", "exit reason 28 q=0x0"),
        ("wp-80040031", "cr0_guest_host_mask=10000", "exception #PF(0x3)"),
        ("wp-80040031", "asis", "value 0x0"),
        ("wp-80010031", "asis", "exception #PF(0x3)"),
        ("wp-80050031", "guest_cr0=80000031+cr0_guest_host_mask=10000+cr0_read_shadow=10000", "value 0x0"),
        ("cr0-31", "asis", "na-vmcs-undecided"),  # paging would end
        ("cr4-20a0", "cr4_guest_host_mask=80", "exit reason 28 q=0x4"),
        ("cr4-20a0", "cr4_guest_host_mask=80+cr4_read_shadow=80", "value 0x20a0"),
        # I/O: any of the ports; without bitmaps the one control
        ("in8-708", f"{PORTS}+mem28=100", "exit reason 30 q=0x7080008"),
        ("in8-707", f"{PORTS}+mem28=100", "value 0x0"),
        ("in32-706", f"{PORTS}+mem28=200", "exit reason 30 q=0x706000b"),
        ("in32-706", f"{PORTS}+mem28=400", "value 0x0"),
        ("in16-7fff", f"{PORTS}+mem0=1", "exit reason 30 q=0x7fff0009"),
        ("in8-708", f"{PORTS}+{PROC}:s24", "value 0x0"),
        ("in8-708", f"{PROC}:s24", "exit reason 30 q=0x7080008"),
        ("in8-708", f"{PROC}:s25+io_bitmap_a=200000+io_bitmap_b=200000", "na-vmcs-undecided"),
        ("rdmsr-174", "asis", "exit reason 31 q=0x0"),
        ("rdmsr-174", MSRS, "value 0x0"),
        ("rdmsr-174", f"{MSRS}+mem5=10000000000000", "exit reason 31 q=0x0"),
        ("wrmsr-174", f"{MSRS}+mem5=10000000000000", "value 0x0"),
        ("rdmsr-2000", MSRS, "exit reason 31 q=0x0"),
        ("hlt", f"{PROC}:s7", "exit reason 12 q=0x0"),
        ("rdtsc", "asis", "value 0x0"),
        ("rdtsc", f"{PROC}:s12", "exit reason 16 q=0x0"),
        ("readdr7", f"{PROC}:s23", "exit reason 29 q=0x17"),
        ("invlpg-800000", f"{PROC}:s9", "exit reason 14 q=0x800000"),
        # 28.2.4
        ("none", "vm_entry_intr_info_field=80000020", "1: exception #GP(0x103); 2: value 0x80000020"),
        (
            "none",
            "vm_entry_intr_info_field=80000480+vm_entry_instruction_len=2",
            "1: exception #GP(0x402); 2: value 0x80000480",
        ),
        (
            "none",
            "vm_entry_intr_info_field=80000b11+vm_entry_exception_error_code=7ff8",
            "1: exception #GP(0x8b); 2: value 0x7ff880000b11",
        ),
        ("none", "vm_entry_intr_info_field=80000308", "entry-fail error 7"),
        ("none", "vm_entry_intr_info_field=80000b0d", "na-vmcs-undecided"),  # a double fault, or not
        ("none", "vm_entry_intr_info_field=80000700", "1: exit reason 37 q=0x0; 2: value 0x0"),
        # what is not followed
        ("cpuid", "guest_rflags:s8", "na-vmcs-undecided"),
        ("cpuid", f"{PROC}:s27", "na-vmcs-undecided"),
    ],
)  # fmt: skip
def test_an_end_is_the_manuals(name: str, text: str, wanted: str) -> None:
    assert said(name, text) == wanted


def test_the_parts_are_decided_and_of_all_kinds() -> None:
    kinds = set()
    for part in INSTRUCTIONS.values():
        found = [sdm.allowed(CPU, vector) for vector in part()]
        decided = [answers for answers in found if not isinstance(answers, NotApplicable)]
        assert len(decided) >= len(found) - 1
        kinds |= {one.outcome.kind for answers in decided for one in answers}
    assert kinds == {Kind.EXIT, Kind.VALUE, Kind.EXCEPTION, Kind.SEQUENCE}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("vmx_preemption_timer_value=0", "1: exit reason 52 q=0x0; 2: value 0x0"),
        ("vmx_preemption_timer_value=40000000", "1: exit reason 10 q=0x0; 2: value 0x40000000"),
        ("vmx_preemption_timer_value=40000000+vm_exit_controls:s22", "1: exit reason 10 q=0x0; 2: value 0x20000000"),
        ("vmx_preemption_timer_value=5", "na-vmcs-undecided"),  # who is first is open
    ],
)
def test_the_preemption_timer_ends_l2_or_goes_down(text: str, wanted: str) -> None:
    assert said("cpuid", f"pin_based_vm_exec_control:s6+{text}") == wanted


def test_each_answer_of_a_row_has_its_rule() -> None:
    found = sdm.allowed(CPU, parse("vmdo.none.vm_entry_intr_info_field=80000020.mbec=off"))
    assert not isinstance(found, NotApplicable)
    assert found[0].rule == "injected-event > injected-event"
    seen = of_turns((found[0].outcome.turns[0], Outcome(Kind.VALUE, 0x8000_0021)))
    assert departing(found, seen)[0] == 1
