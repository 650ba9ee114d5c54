"""What exits tell by the manual, on the capability MSRs of a real CPU model: each expectation from a clause of it."""

from __future__ import annotations

import pytest

from kvmodel import sdm
from kvmodel.question.outcome import THEN, NotApplicable, Outcome
from kvmodel.question.reading import parse
from kvmodel.question.vm_exit import TOLD
from kvmodel.sdm.rules import RULES
from tests.kvmodel.sdm.test_vm_entry import CPU

PF, GP, DF = 0x8000_0B0E, 0x8000_0B0D, 0x8000_0B08
IDT = "guest_idtr_base=600000+guest_idtr_limit=fff"
ABSENT = "guest_idtr_base=100f000+guest_idtr_limit=fff"
EPT_OFF = "secondary_vm_exec_control:c1+secondary_vm_exec_control:c7"
PORTS = "cpu_based_vm_exec_control:s25+io_bitmap_a=101d000+io_bitmap_b=101d000"


def rows(text: str) -> list[dict[str, Outcome]]:
    """The rows that the contract allows ``vmexit.text``, each by the names of its turns."""
    found = sdm.allowed(CPU, parse(f"vmexit.{text}.mbec=off"))
    assert not isinstance(found, NotApplicable), found
    return [dict(zip(TOLD, one.outcome.turns, strict=True)) for one in found]


def told(text: str) -> dict[str, int]:
    """The one row: what each turn has as far as it is defined, and the exit's number as ``reason``."""
    (row,) = rows(text)
    return {"reason": row["the exit"].number, **{name: one.code & one.defined for name, one in row.items()}}


@pytest.mark.parametrize(
    ("mask", "shadow", "reason", "saved"),
    [(0, 0, 18, 0), (8, 0, 18, 8), (8, 8, 28, 8), (0, 8, 18, 0)],
)
def test_clts_goes_by_mask_and_shadow(mask: int, shadow: int, reason: int, saved: int) -> None:
    """SDM 26.1.3 and 26.3: it exits where both have TS, and leaves TS alone where the mask has it."""
    row = told(f"clts+getcr0.guest_cr0:s3+cr0_guest_host_mask={mask:x}+cr0_read_shadow={shadow:x}")
    assert (row["reason"], row["CR0"] & 8) == (reason, saved)
    assert row["the exit"] == (0x20 if reason == 28 else 0)
    if reason == 18:
        assert row["RAX"] & 8 == (shadow if mask else saved)


def test_lmsw_sets_and_never_clears_protection() -> None:
    assert told("lmsw0.cr0_guest_host_mask=1+cr0_read_shadow=1")["reason"] == 18
    exits = told("lmswf.cr0_guest_host_mask=1")
    assert (exits["reason"], exits["the exit"]) == (28, 0xF0030)
    assert told("lmswe.cr0_guest_host_mask=1+cr0_read_shadow=1")["CR0"] & 0xF == 0xF


@pytest.mark.parametrize(
    ("steps", "interruption"),
    [("cr0s30", 0), ("cr0s29", GP), ("cr0s30s29", 0), ("cr0s30s29+cr0c30", GP), ("cr0c31", GP), ("cr0c0", GP)],
)
def test_cr0_in_64_bit_mode(steps: str, interruption: int) -> None:
    """SDM 2.5: NW without CD is #GP(0); PG and PE stay in 64-bit mode."""
    row = told(steps)
    assert row["interruption information"] == interruption
    assert row["reason"] == (0 if interruption else 18)


def test_paging_goes_and_comes_with_unrestricted_guest_alone() -> None:
    assert told("cr0c31+cr0s31+getcr0.pgpae")["CR0"] >> 31 == 1
    assert told("cr0c31+cr0c0+getcr0.pgpae")["CR0"] & (1 << 31 | 1) == 0
    assert told("cr0c31.secondary_vm_exec_control:c7.pgpae")["interruption information"] == GP
    assert told(f"cr0c31.{EPT_OFF}.pgpae")["interruption information"] == GP


def test_pdptes_are_loaded_where_paging_begins() -> None:
    memory = "guest_cr3=101d000+mem0=1004001+guest_pdptr0=1004001"
    assert told(f"cr0c31+cr0s31.{memory}+mem1=3.pgpae")["interruption information"] == GP  # bit 1 is reserved
    assert told(f"cr0c31+cr0s31.{memory}+mem1=2.pgpae")["reason"] == 18  # not present
    assert told(f"cr4s7+getcr4.{memory}+mem1=3.pgpae")["interruption information"] == GP


def test_long_mode_begins_with_paging() -> None:
    wide = "guest_cr3=1001000+guest_ia32_efer:s8+vm_exit_controls:s20"
    row = told(f"cr4s5+cr0s31.{wide}.pgoff")
    assert (row["reason"], row["EFER"]) == (18, 0xD00)
    assert told(f"cr0s31.{wide}.pgoff")["interruption information"] == GP  # without PAE
    assert told("none.guest_ia32_efer:c11")["EFER"] == 0x500  # not saved: as L1 wrote it


@pytest.mark.parametrize(("bit", "faults"), [(5, True), (13, True), (7, False), (20, False)])
def test_cr4_bits_cleared(bit: int, faults: bool) -> None:
    """PAE in 64-bit mode, and VMXE, which VMX operation fixes."""
    assert (told(f"cr4c{bit}")["interruption information"] == GP) is faults


@pytest.mark.parametrize(("bit", "faults"), [(12, True), (15, True), (31, True), (9, False), (17, False)])
def test_cr4_bits_set(bit: int, faults: bool) -> None:
    """LA57, a reserved bit and one that the CPU lacks are not in MSR 0x489."""
    assert (told(f"cr4s{bit}")["interruption information"] == GP) is faults


def test_pcide_wants_long_mode_and_a_clean_cr3() -> None:
    assert told("cr4s17.pgpae")["interruption information"] == GP
    assert told("cr3s3+cr4s17")["interruption information"] == GP
    assert told("cr3s63")["interruption information"] == GP
    assert told("cr4s17+cr3s63+getcr3")["RAX"] == 0x100_1000


@pytest.mark.parametrize(
    ("event", "vectoring", "error", "length"),
    [
        ("80000020", 0x8000_0020, 0x103, None),
        ("80000202", 0x8000_0202, 0x13, None),
        ("80000306", 0x8000_0306, 0x33, None),
        ("80000b0d+vm_entry_exception_error_code=1234", 0x1234_8000_0B0D, 0x6B, None),
        ("80000420+vm_entry_instruction_len=2", 0x8000_0420, 0x102, 2),
        ("80000603+vm_entry_instruction_len=1", 0x8000_0603, 0x1A, 1),
    ],
)
def test_an_event_that_cannot_be_delivered(event: str, vectoring: int, error: int, length: int | None) -> None:
    """SDM 28.2.2, 28.2.4, 28.2.5, 6.13: #GP of the IDT entry, EXT but for software events, and the event itself."""
    (row,) = rows(f"none.vm_entry_intr_info_field={event}")
    assert row["interruption information"].code == error << 32 | GP
    assert row["IDT-vectoring information"].code == vectoring
    assert row["RIP"].code == 0x100_E000
    assert row["instruction length"].defined == (0 if length is None else 0xFFFF_FFFF)
    assert length is None or row["instruction length"].code == length


def test_the_idt_lies_on_a_page_that_is_not_there() -> None:
    assert told(f"none.vm_entry_intr_info_field=80000306+{IDT}")["the exit"] == 0x60_0060
    assert told(f"none.vm_entry_intr_info_field=80000306+{IDT}.pgpae")["the exit"] == 0x60_0030
    (row,) = rows(f"none.vm_entry_intr_info_field=80000306+{ABSENT}")
    found = row["the exit"]
    assert (found.number, found.code & ~0xE00, str(found.gpa)) == (48, 0x181, "l2+0x2000060")
    assert row["IDT-vectoring information"].code == 0x8000_0306


def test_double_and_triple_faults() -> None:
    """SDM 6.15: of two contributory exceptions; neither has IDT-vectoring information (28.2.4)."""
    double = told("none.vm_entry_intr_info_field=80000b0d+exception_bitmap=ffffdfff")
    assert (double["interruption information"], double["IDT-vectoring information"]) == (DF, 0)
    assert told("none.vm_entry_intr_info_field=80000b0d+exception_bitmap=ffffdeff")["reason"] == 2
    benign = told("none.vm_entry_intr_info_field=80000306+exception_bitmap=ffffdfff")
    assert benign["interruption information"] == DF  # #UD, then #GP and #GP
    serial = told(f"none.vm_entry_intr_info_field=80000b0d+{IDT}+exception_bitmap=ffffbfff")
    assert serial["IDT-vectoring information"] & 0xFF == 0  # #GP then #PF are handled one by one: #PF then #PF double
    assert serial["interruption information"] == DF


def test_iret_may_have_unblocked_nmis() -> None:
    """Bit 12, or an L2 that is as if IRET had not begun."""
    begun, not_begun = rows("iret.guest_interruptibility_info=8+guest_rsp=100f100")
    assert [row["the exit"].code >> 12 & 1 for row in (begun, not_begun)] == [1, 0]
    assert not_begun["interruptibility"].defined == 0xFFFF_FFFF
    assert not begun["interruptibility"].defined & 8
    assert len(rows("iret.guest_rsp=100f100")) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("out80", 18),
        ("out80.cpu_based_vm_exec_control:s24", 30),
        (f"out80.{PORTS}+mem2=1", 30),
        (f"out80.{PORTS}+mem2=2", 18),
        (f"out80.{PORTS}+cpu_based_vm_exec_control:s24+mem2=2", 18),  # the bitmaps rule
        ("rdmsr175", 31),
        ("rdmsr175.cpu_based_vm_exec_control:s28+msr_bitmap=101d000+mem5=20000000000000", 31),
        ("rdmsr175.cpu_based_vm_exec_control:s28+msr_bitmap=101d000", 18),
        ("rdmsr2000.cpu_based_vm_exec_control:s28+msr_bitmap=101d000", 31),  # beyond both ranges
        ("cpuid", 10),
        ("nop.cpu_based_vm_exec_control:s27", 37),
        ("none.cpu_based_vm_exec_control:s27", 18),  # VMCALL exits first
        ("nop.pin_based_vm_exec_control:s6", 52),
        ("nop.cpu_based_vm_exec_control:s2", 7),
        ("nop.cpu_based_vm_exec_control:s2+guest_rflags:c9", 18),
        ("nop.vm_entry_intr_info_field=80000700", 37),
    ],
)
def test_reasons(text: str, reason: int) -> None:
    assert told(text)["reason"] == reason


@pytest.mark.parametrize(
    ("text", "reason", "qualification"),
    [
        (f"inb0708.{PORTS}+mem28=100", 30, 0x708_0008),
        (f"inb0707.{PORTS}+mem28=100", 18, 0),
        (f"inl0706.{PORTS}+mem28=200", 30, 0x706_000B),
        (f"inl0706.{PORTS}+mem28=400", 18, 0),
        (f"inw7fff.{PORTS}+mem0=1", 30, 0x7FFF_0009),  # the second port is bitmap B's
        (f"inb8001.{PORTS}+mem0=1", 18, 0),
        (f"inb0708.{PORTS}+cpu_based_vm_exec_control:s24", 18, 0),
        ("inw0708.cpu_based_vm_exec_control:s24", 30, 0x708_0009),
        ("getdr7.cpu_based_vm_exec_control:s23", 29, 0x17),
        ("putdr7.cpu_based_vm_exec_control:s23", 29, 0x207),
        ("eax800000+invlpg.cpu_based_vm_exec_control:s9", 14, 0x80_0000),
        ("eax800000+invlpg", 18, 0),
        ("pause", 18, 0),
        ("cr0c3.cr0_guest_host_mask=8+cr0_read_shadow=8", 28, 0x200),  # by the read shadow, not by the register
        ("cr0s2c16.cr0_guest_host_mask=10000", 18, 0),
        ("lmsw9.cr0_guest_host_mask=9+cr0_read_shadow=1", 28, 0x9_0030),
    ],
)
def test_reasons_with_their_qualification(text: str, reason: int, qualification: int) -> None:
    row = told(text)
    assert (row["reason"], row["the exit"]) == (reason, qualification)


def test_what_is_read_from_a_port_or_a_counter_is_open() -> None:
    for done, defined in (("inb0708", ~0xFF), ("inw0708", ~0xFFFF), ("inl0708", ~0xFFFF_FFFF), ("rdtsc", ~0xFFFF_FFFF)):
        (row,) = rows(f"{done}.{PORTS}")
        assert row["RAX"].defined == defined & (1 << 64) - 1
    assert told("putdr7+getdr7")["RAX"] == 0x400


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("cr0s18+write.cr0_guest_host_mask=10000", True),  # L1's WP stays 1, whatever L2 writes
        ("cr0c16+write.cr0_guest_host_mask=10000", True),
        ("cr0c16+write", False),
        ("cr0s16+write.guest_cr0:c16", True),
        ("cr0s16s18+write.guest_cr0:c16+cr0_guest_host_mask=10000+cr0_read_shadow=10000", False),
        ("cr0c31+write.pgpae", False),  # without paging there is no page that is read-only
    ],
)
def test_a_write_of_a_read_only_page_goes_by_wp(text: str, faults: bool) -> None:
    """SDM 4.6.1 and 26.3: #PF with P and W, of the address written; else the word is in memory."""
    row = told(text)
    assert row["interruption information"] == (3 << 32 | PF if faults else 0)
    assert row["the exit"] == (0x101_D008 if faults else 0)
    assert row["memory"] == (0 if faults else 0x5A5A)


def test_msrs_of_sysenter_are_written_and_read() -> None:
    passed = "cpu_based_vm_exec_control:s28+msr_bitmap=101d000"
    assert told(f"eax12345678+wrmsr174+rdmsr174.{passed}")["RAX"] == 0x1234_5678
    assert told(f"wrmsr174.{passed}+mem5=10000000000000")["reason"] == 18  # reads alone exit
    assert told(f"rdmsr174.{passed}+mem5=10000000000000")["reason"] == 31
    stored = "vm_exit_msr_store_count=1+vm_exit_msr_store_addr=101d000+mem0=175"
    assert told(f"eax1234+wrmsr175.{passed}+{stored}")["memory"] == 0x1234


@pytest.mark.parametrize(
    ("text", "reason", "left"),
    [
        ("vmx_preemption_timer_value=0", 52, 0),
        ("vmx_preemption_timer_value=40000000", 10, 0x4000_0000),
        ("vmx_preemption_timer_value=40000000+vm_exit_controls:s22", 10, 0x2000_0000),
    ],
)
def test_the_preemption_timer_ends_l2_or_goes_down(text: str, reason: int, left: int) -> None:
    """SDM 26.5.1 and 28.3.4: saved, bit 30 is clear and bit 29 set, and the low bits are open."""
    row = told(f"cpuid.pin_based_vm_exec_control:s6+{text}")
    assert (row["reason"], row["preemption timer"]) == (reason, left)


def test_the_area_of_msrs_to_store() -> None:
    stored = "vm_exit_msr_store_count=1+vm_exit_msr_store_addr=101d000+mem0=175+guest_sysenter_esp=1234"
    assert told(f"cpuid.{stored}")["memory"] == 0x1234
    assert told("cpuid.mem1=99")["memory"] == 0x99


def test_a_vm_entry_that_fails_tells_nothing_more() -> None:
    (found,) = sdm.allowed(CPU, parse("vmexit.nop.guest_cr0:c5.mbec=off"))  # type: ignore[misc]
    assert str(found.outcome) == "entry-exit reason 33 q=0x0"


def test_each_turn_has_a_rule_of_its_own() -> None:
    (found,) = sdm.allowed(CPU, parse("vmexit.none.mbec=off"))  # type: ignore[misc]
    names = found.rule.split(THEN)
    assert len(set(names)) == len(TOLD)
    assert set(names) <= RULES.keys()


@pytest.mark.parametrize(
    "text",
    [
        "hlt",
        "cr4c5.pgpae",
        "cpuid.pin_based_vm_exec_control:s6+vmx_preemption_timer_value=5",
        "rdtsc+wrmsr174.cpu_based_vm_exec_control:s28+msr_bitmap=101d000",
        "rdmsr10.cpu_based_vm_exec_control:s28+msr_bitmap=101d000",
        "nop.guest_activity_state=1",
    ],
)
def test_what_is_left_open_is_put_aside(text: str) -> None:
    found = sdm.allowed(CPU, parse(f"vmexit.{text}.mbec=off"))
    assert isinstance(found, NotApplicable)
    assert found.rule == "na-exit-undecided"
