"""Exits that are told in full: their ids, L2's code, and what no id may say."""

import pytest

from harness.questions.vm_exits import VM_EXITS
from kvmodel.question.ids import named_fields, short
from kvmodel.question.reading import parse
from kvmodel.question.vector import Mbec, Paging, VectorError
from kvmodel.question.vm_exit import MOST, VmExitVector, instructions

TYPED = "vmexit.clts+getcr0.cr0_guest_host_mask=8.mbec=off"


def test_an_id_is_read_and_printed() -> None:
    vector = parse(TYPED)
    assert isinstance(vector, VmExitVector)
    assert vector.id == "vmexit.clts+getcr0.cr0_guest_host_mask=8.pg64.mbec=off.xo1.ev0.env=std"
    assert parse(vector.id) == vector
    assert short(vector.id) == TYPED
    assert ("steps", "clts+getcr0") in named_fields(vector.id)
    assert parse("vmexit.none.pgpae.mbec=off") == VmExitVector(Mbec.OFF, paging=Paging.PAE)


def test_every_vector_of_the_parts_is_its_id() -> None:
    for part in VM_EXITS.values():
        asked = list(part())
        assert len(asked) > 50
        for vector in asked:
            assert parse(vector.id) == vector == parse(short(vector.id))


def test_no_question_is_asked_twice() -> None:
    asked = [vector.id for part in VM_EXITS.values() for vector in part()]
    assert len(asked) == len(set(asked))


def test_code_is_that_of_the_mode() -> None:
    """The bytes are the manual's (SDM volume 2): a MOV to CR0 that sets CD, as 64-bit and as 32-bit code."""
    wide = b"".join(one.code for one in instructions("cr0s30", wide=True))
    assert wide == bytes.fromhex("0f20c2 480fbaea1e 0f22c2".replace(" ", ""))
    assert b"".join(one.code for one in instructions("cr4c5", wide=False)) == bytes.fromhex("0f20e20fbaf2050f22e2")
    assert b"".join(one.code for one in instructions("lmswf", wide=True)) == bytes.fromhex("b80f0000000f01f0")
    assert b"".join(one.code for one in instructions("rdmsr175", wide=True)) == bytes.fromhex("b9750100000f32")
    assert b"".join(one.code for one in instructions("inw0708", wide=True)) == bytes.fromhex("ba08070000 66ed")
    assert b"".join(one.code for one in instructions("putdr7", wide=True)) == bytes.fromhex("ba000400000f23fa")
    written = bytes.fromhex("08d001015a5a0000")
    assert instructions("write", wide=True)[0].code == bytes.fromhex("c70425") + written
    assert instructions("write", wide=False)[0].code == bytes.fromhex("c705") + written
    vector = parse("vmexit.int20.mbec=off")
    assert isinstance(vector, VmExitVector)
    assert vector.code == bytes.fromhex("cd200f01c1")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("none.pg32.mbec=off", "pg32"),
        ("none.ev2.mbec=off", "write ev0 or ev1"),
        ("cr0s32.pgpae.mbec=off", "has bits 0 to 31 here"),
        ("+".join(["nop"] * (MOST + 1)) + ".mbec=off", f"at most {MOST}"),
        ("jmp.mbec=off", "no field of"),
        ("inw708.mbec=off", "no field of"),
        ("eax.mbec=off", "no field of"),
        ("nop.guest_activity_state=2.mbec=off", "nothing ends an L2"),
    ],
)
def test_what_is_no_question_is_refused(text: str, said: str) -> None:
    with pytest.raises(VectorError, match=said):
        parse(f"vmexit.{text}")
