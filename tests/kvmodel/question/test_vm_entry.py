"""VM entries with changed fields: their ids, and what no id may say."""

import pytest

from kvmodel.question.ids import named_fields, short
from kvmodel.question.reading import parse
from kvmodel.question.vector import Evmcs, Mbec, Paging, VectorError
from kvmodel.question.vm_entry import MOST, VmEntryVector, changes
from kvmodel.question.vmcs import FIELDS, FieldChange, width

TYPED = "vmentry.guest_rflags:c1+vm_exit_msr_load_addr=101d008.mbec=off"


def test_an_id_is_read_and_printed() -> None:
    vector = parse(TYPED)
    assert isinstance(vector, VmEntryVector)
    assert vector.id == "vmentry.guest_rflags:c1+vm_exit_msr_load_addr=101d008.pg64.mbec=off.xo1.ev0.env=std"
    assert parse(vector.id) == vector
    assert short(vector.id) == TYPED
    assert ("changes", "guest_rflags:c1+vm_exit_msr_load_addr=101d008") in named_fields(vector.id)
    assert parse("vmentry.asis.pgpae.mbec=off") == VmEntryVector(Mbec.OFF, paging=Paging.PAE)


def test_a_change_sets_clears_or_replaces() -> None:
    assert FieldChange.parse("guest_cr0:s31").of(1) == 1 << 31 | 1
    assert FieldChange.parse("guest_cr0:c0").of(0x21) == 0x20
    assert FieldChange.parse("guest_cr0=5").of(0xFF00) == 5
    assert (FieldChange.parse("guest_cr0=5").encoding, FieldChange.parse("mem3=0").encoding) == (0x6800, 0x10003)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("guest_rflgs:c1", "did you mean guest_rflags"),
        ("guest_rflags:x1", "write field=hex"),
        ("guest_rflags=zz", "write field=hex"),
        ("guest_tr_selector=10000", "has 16 bits, too few for 10000"),
        ("tpr_threshold:s32", "has bits 0 to 31"),
        ("guest_activity_state=3", "nothing ends an L2"),
        ("guest_activity_state:s1", "nothing ends an L2"),
        ("+".join(["guest_dr7:s1"] * (MOST + 1)), f"at most {MOST}"),
    ],
)
def test_what_is_no_change_is_refused(text: str, said: str) -> None:
    with pytest.raises(VectorError, match=said):
        parse(f"vmentry.{text}.mbec=off")


def test_a_field_that_an_enlightened_vmcs_has_not_is_refused() -> None:
    with pytest.raises(VectorError, match="pml_address is not to be had of an enlightened VMCS: ask"):
        parse("vmentry.guest_dr7:s1+pml_address=1000.mbec=off.ev2")
    assert VmEntryVector(ev=Evmcs.USED).ev is Evmcs.USED


def test_fields_are_where_the_manual_has_them() -> None:
    """SDM appendix B, a field of each kind."""
    assert len(set(FIELDS.values())) == len(FIELDS)
    wanted = {
        "guest_tr_selector": (0x080E, 16),
        "host_tr_selector": (0x0C0C, 16),
        "ept_pointer": (0x201A, 64),
        "guest_pdptr3": (0x2810, 64),
        "vm_entry_instruction_len": (0x401A, 32),
        "guest_idtr_limit": (0x4812, 32),
        "guest_tr_ar_bytes": (0x4822, 32),
        "guest_idtr_base": (0x6818, 64),
        "host_ia32_sysenter_eip": (0x6C12, 64),
    }
    assert {name: (FIELDS[name], width(FIELDS[name])) for name in wanted} == wanted
    assert changes("asis") == ()
