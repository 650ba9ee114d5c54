"""Programs under the mirror: KVM's shadow of tables that are shared, moved and invalidated."""

from __future__ import annotations

import pytest

from kvmodel import machine, sdm
from kvmodel.cpu import Cpu
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.program import program

CPU = Cpu()


def predicted(text: str, level: int = 0, param: bool | None = None) -> Outcome:
    return machine.predict(level, param, CPU, program(text)).outcome


def told(text: str, level: int = 0, param: bool | None = None) -> str:
    return str(predicted(text, level, param))


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        ("prog+read.a3+t03=p5+read.a3", "1: done (p3); 2: done (p3)"),  # its shadow page is out of step, and may be
        ("prog+read.a3+t03=p5+invept1.r0+read.a3", "1: done (p3); 2: done; 3: done (p5)"),
        ("prog+read.a3+m0=t1+t13=p5+read.a3", "1: done (p3); 2: done (p5)"),  # an upper table's write is seen at once
        ("prog+m0=g1+read.a3,write.a4,fetch.a5", "1: done (q3); 2: done (q4); 3: done (q5)"),
        ("prog+root=1+read.a3+root=0+read.b4", "1: done (p3); 2: done (p4)"),
        ("prog+r0c=d2+read.c3", "1: done (p3)"),
        ("prog+t03=none+read.a3,read.a4", "1: violation q=0x181 gpa=a3 gla=a3; 2: unreached"),
        ("prog+smep1,fetch.a3", "1: exception #PF(0x11) gla=a3"),
        ("prog+invept3.r0+read.a0", "1: vm-fail error 28; 2: done (p0)"),
        ("prog+invept1.r0.walk+read.a0", "1: vm-fail error 28; 2: done (p0)"),
        ("prog+mbec=on+read.a0", "1: entry-fail error 7"),
        ("prog+ad=1+t03=p3.clean+read.a3+look.t03", "1: done (p3); 2: value 0x1213537 (accessed)"),
        ("prog+ad=1+t03=p3.clean+write.a3+look.t03", "1: done (p3); 2: value 0x1213737 (accessed, dirty)"),
        ("prog+t03=p3.clean+write.a3+look.t03", "1: done (p3); 2: value 0x1213437 (neither accessed nor dirty)"),
        ("prog+ad=1+m0=t0.clean+read.a3+look.m0", "1: done (p3); 2: value 0x8507 (accessed)"),
        ("prog+vmcs=1+read.a0+vmcs=0+read.a1", "1: done (p0); 2: done (p1)"),
    ],
)
def test_answers_at_the_base(text: str, answers: str) -> None:
    assert told(text) == answers


def test_what_the_tlb_holds_of_the_guests_tables_is_not_mirrored() -> None:
    found = predicted("prog+read.a3,pte.a3=b5,read.a3+read.a3")
    assert [o.kind for o in found.turns] == [Kind.DONE, Kind.NOT_MIRRORED]
    flushed = predicted("prog+read.a3,pte.a3=b5,invlpg.a3,read.a3+read.a3")
    assert [o.kind for o in flushed.turns] == [Kind.DONE, Kind.DONE, Kind.DONE]


def test_the_flags_of_the_guests_own_entries_are_not_mirrored() -> None:
    assert [o.kind for o in predicted("prog+read.a3+look.g.a3").turns] == [Kind.DONE, Kind.NOT_MIRRORED]


@pytest.mark.parametrize(
    "text", ["prog+read.a3,save,read.a3", "prog+read.a3+host.save+read.a3", "prog+read.a3,readx.a3"]
)
def test_what_is_saved_or_goes_over_two_pages_is_not_mirrored(text: str) -> None:
    assert [o.kind for o in predicted(text).turns] == [Kind.DONE, Kind.NOT_MIRRORED]


def test_a_program_without_ept_is_not_mirrored() -> None:
    assert predicted("prog.noept+read.a3").last.kind is Kind.NOT_MIRRORED


def test_the_base_does_what_the_manual_allows() -> None:
    from harness.questions.programs import sampled

    for vector in sampled(7, 150):
        seen = machine.predict(0, None, CPU, vector).outcome
        if seen.last.kind is Kind.NOT_MIRRORED or vector.wants_mbec:
            continue
        cpu = machine.virtual_cpu(0, None, CPU, vector.machine)
        allowed = sdm.allowed_beside(cpu, vector, seen)
        assert isinstance(allowed, tuple)
        assert any(a.outcome.matches(seen) for a in allowed), vector.id


def test_the_series_lets_a_supervisor_fetch_where_only_bit_10_is_set() -> None:
    # patch 18's KVM with its parameter on and L1 without MBEC: a finding of the series, seen on real KVM
    assert told("prog+m1=t0.r--u+fetch.b3", 18, True) == "1: done (p3)"
    assert told("prog+m1=t0.r--u+fetch.b3", 10, False) == "1: violation q=0x18c gpa=b3 gla=b3"


def test_the_steps_say_what_l1_did() -> None:
    found = machine.predict(0, None, CPU, program("prog+m0=t1+read.a3"), steps=True).steps
    assert [s.what for s in found if s.where == "L1"] == ["m0=t1", "read.a3"]


def test_where_kvm_has_no_vpids_l1_has_none() -> None:
    found = machine.predict(0, None, CPU, program("prog.env=vpid0+invvpid1.1.a0+vpid=1+read.a3+vpid=0+read.a3")).outcome
    undefined, refused, read = found.turns
    assert (undefined.kind, undefined.number) == (Kind.EXCEPTION, 6)
    assert (refused.kind, refused.code, str(read)) == (Kind.ENTRY_FAIL, 7, "done (p3)")
