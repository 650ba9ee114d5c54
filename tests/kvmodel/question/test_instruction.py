"""One instruction of L2's: its id, its code, and what no id may say."""

import pytest

from kvmodel.question.ids import short
from kvmodel.question.instruction import MOST, VMCALL, InstructionVector, instruction
from kvmodel.question.reading import parse
from kvmodel.question.vector import Evmcs, Mbec, VectorError
from kvmodel.question.vm_entry import changes

TYPED = "vmdo.lmsw-1.cr0_guest_host_mask=1.mbec=off"


def test_an_id_is_read_and_printed() -> None:
    vector = parse(TYPED)
    assert vector == InstructionVector(Mbec.OFF, changes=changes("cr0_guest_host_mask=1"), name="lmsw-1")
    assert vector.id == "vmdo.lmsw-1.cr0_guest_host_mask=1.pg64.mbec=off.xo1.ev0.env=std"
    assert parse(vector.id) == vector
    assert short(vector.id) == TYPED
    assert parse("vmdo.cpuid.mbec=off") == InstructionVector(Mbec.OFF, name="cpuid")


def test_the_code_is_what_a_cpu_decodes() -> None:
    assert instruction("none").code == VMCALL
    assert instruction("in16-708").code == bytes.fromhex("ba0807000066ed") + VMCALL
    assert instruction("lmsw-9").code == bytes.fromhex("48b80900000000000000 0f01f0 0f20c0") + VMCALL
    assert instruction("wp-80010031").itself == bytes.fromhex("0f22c0")
    assert instruction("rdmsr-c0000080").code == bytes.fromhex("b9800000c0 0f32") + VMCALL
    longest = max((instruction(name) for name in ("wp-80010031", "cr4-20a0", "wrmsr-174")), key=lambda i: len(i.code))
    assert len(longest.code) <= MOST


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lmws-1", "is not known: use one of none, clts"),
        ("lmsw", "lmsw has a hexadecimal operand"),
        ("clts-1", "clts has no operand"),
        ("lmsw-10000", "the operand of lmsw has 16 bits"),
        ("lmsw-01", "write lmsw-1"),
    ],
)
def test_what_is_no_instruction_is_refused(name: str, said: str) -> None:
    with pytest.raises(VectorError, match=said):
        InstructionVector(Mbec.OFF, name=name)


def test_an_l2_that_nothing_ends_is_refused() -> None:
    with pytest.raises(VectorError, match="set its exit"):
        InstructionVector(Mbec.OFF, name="hlt")
    assert InstructionVector(Mbec.OFF, name="hlt", changes=changes("cpu_based_vm_exec_control:s7")).asked.what == "hlt"
    with pytest.raises(VectorError, match="of a plain vmcs12"):
        InstructionVector(Mbec.OFF, ev=Evmcs.USED, name="cpuid")


def test_an_event_is_injected_where_the_last_change_says_so() -> None:
    assert InstructionVector(Mbec.OFF, changes=changes("vm_entry_intr_info_field=80000020")).injects
    assert not InstructionVector(
        Mbec.OFF, changes=changes("vm_entry_intr_info_field=80000020+vm_entry_intr_info_field:c31")
    ).injects
