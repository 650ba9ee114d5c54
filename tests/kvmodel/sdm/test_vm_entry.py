"""What VM entry makes of a VMCS, clause by clause, on the capability MSRs of a real CPU model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.questions.vm_entries import entry_checks
from kvmodel import sdm
from kvmodel.cpu import Cpu
from kvmodel.question.outcome import NotApplicable
from kvmodel.question.reading import parse
from kvmodel.question.vm_entry import VmEntryVector
from kvmodel.sdm.vm_entry import CHECKS, EARLY
from kvmodel.sdm.vm_entry_state import vmcs_of

# 0x480 to 0x491 of the emulated CPU (Ice Lake), as its bare run printed them.
MSRS = (
    0xD8100000000004, 0xFF00000016, 0xFFF9FFFE0401E172, 0x407FFFFF00036DFF, 0xFFFF000011FF, 0x600401E0, 0x80000021,
    0xFFFFFFFF, 0x2000, 0x772FFF, 0x50, 0x2D77FFF00000000, 0xF0106734141, 0xFF00000016, 0xFFF9FFFE04006172,
    0x407FFFFF00036DFB, 0xFFFF000011FB, 0x1,
)  # fmt: skip
CPU = Cpu(msrs=MSRS)
DONE, CONTROLS, HOST, GUEST = "done", "entry-fail error 7", "entry-fail error 8", "entry-exit reason 33 q=0x0"
APIC = "cpu_based_vm_exec_control:s21+virtual_apic_page_addr=101d000"
MSR_LOAD = "vm_entry_msr_load_addr=101d000"


def said(text: str, cpu: Cpu = CPU) -> set[str]:
    """What the contract allows ``vmentry.text``; the rule's name where it does not decide."""
    found = sdm.allowed(cpu, parse(f"vmentry.{text}.mbec=off"))
    return {found.rule} if isinstance(found, NotApplicable) else {str(a.outcome) for a in found}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("asis", DONE),
        ("asis.pgpae", DONE),
        ("asis.pg32", DONE),
        ("asis.pgoff", DONE),
        # 27.2.1.1
        ("pin_based_vm_exec_control:c1", CONTROLS),
        ("pin_based_vm_exec_control:s8", CONTROLS),
        ("secondary_vm_exec_control:s27", CONTROLS),
        ("cpu_based_vm_exec_control:c31+secondary_vm_exec_control:s27", DONE),
        ("cr3_target_count=4", DONE),
        ("cr3_target_count=5", CONTROLS),
        ("cpu_based_vm_exec_control:s25+io_bitmap_b=101d001", CONTROLS),
        ("io_bitmap_b=101d001", DONE),
        (f"{APIC}+tpr_threshold=1", CONTROLS),
        (f"{APIC}+tpr_threshold=5+mem16=50", DONE),
        (f"{APIC}+tpr_threshold=5+mem16=4f", CONTROLS),
        (f"{APIC}+tpr_threshold=10+mem16=ff", CONTROLS),
        ("secondary_vm_exec_control:s5", CONTROLS),
        ("secondary_vm_exec_control:s5+virtual_processor_id=1", DONE),
        ("ept_pointer:s7", CONTROLS),
        ("ept_pointer:s8", CONTROLS),
        ("ept_pointer:c3", CONTROLS),
        ("ept_pointer:c1+ept_pointer:c2", DONE),
        ("secondary_vm_exec_control:c1", CONTROLS),
        ("secondary_vm_exec_control:c1+secondary_vm_exec_control:c7", DONE),
        # 27.2.1.2 and 27.2.1.3
        ("vm_exit_controls:s22", CONTROLS),
        ("vm_exit_controls:s22+pin_based_vm_exec_control:s6", DONE),
        ("vm_entry_controls:s10", CONTROLS),
        ("vm_entry_msr_load_count=1+vm_entry_msr_load_addr=101d008", CONTROLS),
        ("vm_entry_intr_info_field=80000100", CONTROLS),
        ("vm_entry_intr_info_field=80000203", CONTROLS),
        ("vm_entry_intr_info_field=80000b0d", DONE),
        ("vm_entry_intr_info_field=80000b0d+vm_entry_exception_error_code=10000", CONTROLS),
        ("vm_entry_intr_info_field=80000480+vm_entry_instruction_len=10", CONTROLS),
        ("vm_entry_intr_info_field=80000480+vm_entry_instruction_len=f", DONE),
        # host state
        ("host_cr0:c5", HOST),
        ("host_cr4:c5", HOST),
        ("host_cr3:s60", HOST),
        ("host_ia32_efer:s1", HOST),
        ("host_ia32_efer:s1+vm_exit_controls:c21", DONE),
        ("host_ds_selector:s2", HOST),
        ("host_tr_selector=0", HOST),
        ("host_gs_base=4000000000000000", HOST),
        ("host_ss_selector=0", DONE),
        ("vm_exit_controls:c9", HOST),
        # guest state
        ("guest_cr0:c5", GUEST),
        ("guest_cr0:s29", DONE),
        ("guest_cr0:c31", GUEST),
        ("guest_cr4:c5", GUEST),
        ("vm_entry_controls:s2+guest_dr7:s32", GUEST),
        ("vm_entry_controls:c2+guest_dr7:s32", DONE),
        ("guest_ia32_efer:c8", GUEST),
        ("guest_ia32_efer:c8.pgoff", DONE),
        ("guest_cs_ar_bytes=a093", DONE),
        ("guest_cs_ar_bytes=a093+secondary_vm_exec_control:c7", GUEST),
        ("guest_ds_ar_bytes=c092", GUEST),
        ("guest_ds_ar_bytes=1c092", DONE),
        ("guest_tr_ar_bytes=83", GUEST),
        ("guest_tr_ar_bytes=83.pgpae", DONE),
        ("guest_tr_ar_bytes=1008b", GUEST),
        ("guest_ldtr_ar_bytes=82+guest_ldtr_limit=67", DONE),
        ("guest_ldtr_ar_bytes=82", GUEST),
        ("guest_idtr_limit=10000", GUEST),
        ("guest_rip=ffff000000000000", DONE),
        ("guest_rip=8000000000000000", GUEST),
        ("guest_rip:s32.pgpae", GUEST),
        ("guest_rflags:c1", GUEST),
        ("guest_rflags:s18", DONE),
        ("guest_activity_state=1", DONE),
        ("guest_activity_state=1+vm_entry_intr_info_field=80000306", GUEST),
        ("guest_activity_state=1+vm_entry_intr_info_field=80000301", DONE),
        ("guest_interruptibility_info=3", GUEST),
        ("guest_interruptibility_info=1+guest_rflags:c9", GUEST),
        ("guest_pending_dbg_exceptions:s4", GUEST),
        ("vmcs_link_pointer=101e000", "entry-exit reason 33 q=0x4"),
        ("guest_pdptr1=3.pgpae", "entry-exit reason 33 q=0x2"),
        ("guest_pdptr1=2.pgpae", DONE),
        # MSRs
        (f"vm_entry_msr_load_count=2+{MSR_LOAD}+mem0=c0000102+mem2=c0000100", "entry-exit reason 34 q=0x2"),
        (f"vm_entry_msr_load_count=1+{MSR_LOAD}+mem0=c0000102+mem1=4000000000000000", "entry-exit reason 34 q=0x1"),
        (f"vm_entry_msr_load_count=1+{MSR_LOAD}+mem0=c0000102", DONE),
    ],
)
def test_what_the_manual_says(text: str, wanted: str) -> None:
    assert said(text) == {wanted}


def test_where_several_checks_fail_any_number_is_right_and_the_guest_comes_last() -> None:
    assert said("host_cr0:c5+cr3_target_count=5+guest_rflags:c1") == {CONTROLS, HOST}
    assert said("guest_rflags:c1+vmcs_link_pointer=101e000") == {GUEST, "entry-exit reason 33 q=0x4"}


def test_what_some_processors_do_is_allowed_and_no_more() -> None:
    assert said("guest_ds_ar_bytes=c193") == {DONE, GUEST}
    nmi = "guest_interruptibility_info=1+vm_entry_intr_info_field=80000202"
    assert said(nmi) == {DONE, GUEST, "entry-exit reason 33 q=0x3"}


def test_what_is_open_is_not_decided() -> None:
    assert said("guest_interruptibility_info:s4") == {"na-vmcs-undecided"}
    assert said("guest_rip=1000000000000") == {"na-vmcs-undecided"}  # with 57 linear-address bits it is all right
    assert said("guest_interruptibility_info:s4+host_cr0:c5") == {HOST}
    assert said("asis", Cpu()) == {"na-msrs-not-read"}
    assert said("asis", Cpu(vmx=False)) == {"na-no-vmx"}


def test_a_cpu_that_offers_less_refuses_more() -> None:
    without = list(MSRS)
    without[0x48B - 0x480] = 0x0000_0002_0000_0000  # EPT alone
    poor = replace(CPU, msrs=tuple(without))
    assert said("asis", poor) == {DONE}
    assert said("secondary_vm_exec_control:s2") == {DONE}
    assert said("secondary_vm_exec_control:s2", poor) == {CONTROLS}


def test_the_part_has_vectors_of_each_check_alone_and_neighbours_that_pass() -> None:
    """But for what this CPU does not offer at all (MPX), each clause is the only one that some vector fails."""
    alone, passing = set(), 0
    for vector in entry_checks():
        assert isinstance(vector, VmEntryVector)
        vmcs = vmcs_of(CPU, vector)
        failing = {name for name, check in CHECKS.items() if check.fails(vmcs)}
        early = failing & EARLY.keys()
        alone |= early if len(early) == 1 else failing if len(failing) == 1 else set()
        passing += not failing
    assert CHECKS.keys() - alone <= {"entry-guest-bndcfgs", "entry-host-cet", "entry-guest-cet", "entry-guest-v8086"}
    assert passing > 500
