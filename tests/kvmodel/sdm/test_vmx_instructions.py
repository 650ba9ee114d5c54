"""When L1's instructions for VMCSs fail, and with which number."""

from __future__ import annotations

import pytest

from kvmodel.cpu import Cpu
from kvmodel.question.outcome import Kind, NotApplicable, Outcome
from kvmodel.question.program import program
from kvmodel.sdm import program as programs
from kvmodel.sdm.vmx_instructions import exists, kept, width


def answers(text: str) -> list[str]:
    found = programs.answers(Cpu(), program(text))
    assert not isinstance(found, NotApplicable)
    return [
        f"{o.kind.value} {o.code:x}" if o.kind in (Kind.VMFAIL, Kind.VALUE) else o.kind.value
        for o in found[0].outcome.turns
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("prog+vmclear.c+vmptrld.c+vmclear.on", ["done", "done", "vm-fail 3"]),
        ("prog+vmclear.c+vmptrld.c+vmclear.odd", ["done", "done", "vm-fail 2"]),
        ("prog+vmclear.c+vmptrld.c+vmclear.far", ["done", "done", "vm-fail 2"]),
        ("prog+vmclear.c+vmptrld.c+vmptrld.on", ["done", "done", "vm-fail a"]),
        ("prog+vmclear.c+vmptrld.c+vmptrld.far", ["done", "done", "vm-fail 9"]),
        ("prog+vmclear.c+vmptrld.c+vmptrld.rev", ["done", "done", "vm-fail b"]),
        # VMCLEAR of the current VMCS leaves none, and a failure has no number then
        ("prog+vmclear.c+vmptrld.c+vmclear.c+vmptrld.rev", ["done", "done", "done", "vm-fail 0"]),
        ("prog+vmclear.c+vmptrld.c+vmclear.c+vmread.6800", ["done", "done", "done", "vm-fail 0"]),
        ("prog+vmclear.c+vmptrld.c+vmlaunch", ["done", "done", "vm-fail 7"]),
        ("prog+vmclear.c+vmptrld.c+vmresume", ["done", "done", "vm-fail 5"]),
        ("prog+read.a0+vmlaunch", ["done", "vm-fail 4"]),
        ("prog+read.a0+vmresume", ["done", "done"]),
        ("prog+read.a0+vmclear.a+vmptrld.a+vmresume+vmlaunch", ["done", "done", "done", "vm-fail 5", "done"]),
        ("prog+vmcs=1+read.a0+vmclear.b+vmlaunch", ["done", "done", "vm-fail 0"]),
        # any other step makes the probe's own VMCS current again
        ("prog+vmclear.c+vmptrld.c+read.a0+vmresume", ["done", "done", "done", "done"]),
        ("prog+vmclear.c+vmptrld.c+vmwrite.681e=1234+vmread.681e", ["done", "done", "done", "value 1234"]),
        ("prog+vmclear.c+vmptrld.c+vmwrite.800=12345+vmread.800", ["done", "done", "done", "value 2345"]),
        ("prog+vmclear.c+vmptrld.c+vmwrite.6801=1+vmread.1800", ["done", "done", "vm-fail c", "vm-fail c"]),
    ],
)
def test_the_plainest_answers(text: str, told: list[str]) -> None:
    assert answers(text) == told


def test_a_read_only_field_may_be_written_or_not() -> None:
    asked = program("prog+vmclear.c+vmptrld.c+vmwrite.4402=1")
    for last in (Outcome(Kind.DONE), Outcome(Kind.VMFAIL, 13)):
        seen = Outcome(Kind.SEQUENCE, turns=(Outcome(Kind.DONE), Outcome(Kind.DONE), last))
        found = programs.answers(Cpu(), asked, seen)
        assert isinstance(found, tuple) and found[0].outcome.matches(seen)
    other = Outcome(Kind.SEQUENCE, turns=(Outcome(Kind.DONE), Outcome(Kind.DONE), Outcome(Kind.VMFAIL, 12)))
    found = programs.answers(Cpu(), asked, other)
    assert isinstance(found, tuple) and len(found) == 2


@pytest.mark.parametrize(
    ("encoding", "there"),
    [
        (0x6800, True),
        (0x2801, True),
        (0x4402, True),
        (0x401C, None),
        (0x6801, False),
        (0x68FE, False),
        (0x1_6800, False),
    ],
)
def test_which_fields_exist(encoding: int, there: bool | None) -> None:
    assert exists(encoding) is there


def test_what_a_field_keeps() -> None:
    assert [width(e) for e in (0x800, 0x2800, 0x2801, 0x4000, 0x6800)] == [16, 64, 32, 32, 64]
    assert (kept(0x4816), kept(0x4824), kept(0x6800)) == (0x1F0FF, 0xFFFF_FFFF, (1 << 64) - 1)


def test_an_entry_after_one_that_failed_launches_as_well() -> None:
    asked = program("prog+mbec=on+read.a0+mbec=off+read.a0+vmlaunch")
    found = programs.answers(Cpu(mbec=False), asked)
    assert isinstance(found, tuple)
    assert [(o.kind, o.code) for o in found[0].outcome.turns] == [
        (Kind.ENTRY_FAIL, 7),
        (Kind.DONE, 0),
        (Kind.VMFAIL, 4),
    ]
