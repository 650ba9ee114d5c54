"""Programs: how they are written, and what is refused."""

from __future__ import annotations

import pytest

from harness.questions import core
from kvmodel.question.program import (
    Control,
    Invept,
    L2Run,
    Over,
    ProgramVector,
    SetEntry,
    Touch,
    answers_of,
    program,
    program_of_file,
)
from kvmodel.question.reading import parse
from kvmodel.question.vector import Access, Perm, VectorError


def test_every_program_of_the_space_is_read_back() -> None:
    asked = core.named("programs")
    assert asked is not None and len(asked) > 2000
    for vector in asked:
        assert parse(vector.id) == vector


def test_the_steps_are_what_they_say() -> None:
    vector = program("prog+mbec=on+m0=t1.r-x-+invept1.r0+cpl=3+read.a3,fetch.b0")
    assert vector.steps == (
        Control("mbec", 1),
        SetEntry("m0", "t1", Perm.parse("r-x-")),
        Invept(1, "r0"),
        Control("cpl", 3),
        L2Run((Touch(Access.READ, "a3"), Touch(Access.FETCH, "b0"))),
    )
    assert vector.outcomes == 3
    assert [answers_of(step) for step in vector.steps] == [0, 0, 1, 0, 2]
    assert vector.wants_mbec and not program("prog+mbec=off+read.a3").wants_mbec


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("prog+read.d3", "'read.d3' is nothing that a program does"),
        ("prog+t03=t1", "an entry at level 1 leads to one of p, q"),
        ("prog+m0=t1.mt3+read.a0", "only an entry that maps a page has a memory type"),
        ("prog+mbec=1+read.a0", "mbec is one of off, on"),
        ("prog+cpl=2+read.a0", "cpl is one of 0, 3"),
        ("prog+cpl=3+wp0,read.a0", "at CPL 3 L2 can only access pages"),
        ("prog+cpl=3+save,read.a0", "at CPL 3 L2 can only access pages"),
        ("prog+save", "L2 accesses nothing"),
        ("prog+wp0", "L2 accesses nothing"),
        ("prog+fetch.a0,read.a0", "a fetch is L2's last part"),
        ("prog+writex.a0,read.a0", "so it is L2's last part"),
        ("prog+read.a0,cr3", "is told at the access behind it"),
        ("prog+read.a0,nxe0", "is told at the access behind it"),
        ("prog+pg=32+read.a0", "pg is one of 64, pae"),
        ("prog+target0=3+read.a0", "target0 is one of 0, 1, 2, none"),
        ("prog+pdptr1=e1+read.a0", "write pg=pae"),
        ("prog.noept+pg=pae+pdptr1=e1+read.a0", "L2 with EPT in PAE paging"),
        ("prog+pg=pae+stos.a3", "made in long mode; write pg=64"),
        ("prog+pg=pae+g.k00=none+read.a0", "entry 0 leads to L2's own code"),
        ("prog+pg=pae+g.k01=e1.x1000+read.a0", "of bits 11:1 and 63:52 only"),
        ("prog+pg=pae+g.k01=e1.x1+read.a0", "of bits 11:1 and 63:52 only"),
        ("prog+g.k01=e1,read.a0", "L2's own write is pte.k01"),
        ("prog+pte.k01=e1", "L2 accesses nothing"),
        ("prog+g.k21=e1+read.a0", "is nothing that a program does"),
        ("prog+readx.a7", "'readx.a7' is nothing that a program does"),
        ("prog+movs.a3", "'movs.a3' is nothing that a program does"),
        ("prog+g.a3=b5,read.a0", "is a step of its own"),
        ("prog+g.a3=p5+read.a3", "the guest's entries lead to L2's pages"),
        ("prog.noept+g.a3=b5+read.a3", "the guest's entries lead to L1's pages"),
        ("prog.noept+m0=t1+read.a0", "there is no EPT12"),
        ("prog.noept+mbec=on+read.a0", "there is no EPT pointer"),
        ("prog.noept+look.t03+read.a0", "there is no EPT12"),
        ("prog+look.t3+read.a0", "'look.t3' is nothing that a program does"),
        ("prog+t03=none.clean+read.a0", "write 'prog+t03=none+read.a0'"),
        ("prog.env=moon+read.a0", "environment 'moon' is not known"),
        ("prog+m0=t1.rwxu+read.a0", "write 'prog+m0=t1+read.a0'"),
        ("prog+mbec=on", "shows nothing"),
        ("prog+" + "+".join(["read.a0"] * 65), "1 to 64 steps"),
        ("prog+" + ",".join(["read.a0"] * 9), "8 things in a row"),
        ("prog+invept99999999999999999999.r0+read.a0", "64 bits"),
    ],
)
def test_what_is_no_program_is_refused_with_the_reason(text: str, told: str) -> None:
    with pytest.raises(VectorError) as caught:
        parse(text)
    assert told in str(caught.value)


def test_a_look_is_an_answer_and_a_clean_entry_a_step() -> None:
    text = "prog+t03=p3.rw--.clean.x800+g.a3=b5.urx.clean+gu.a=srx.clean+look.t03+look.g.a3+look.gu.a+read.a3"
    vector = program(text)
    assert vector.id == text
    assert [answers_of(step) for step in vector.steps] == [0, 0, 0, 1, 1, 1, 1]
    assert program("prog+look.m0").outcomes == 1


def test_an_access_over_two_pages_has_two_answers() -> None:
    vector = program("prog+cpl=3+read.a0,movs.b5.a3+stos.c6")
    assert [answers_of(step) for step in vector.steps] == [0, 3, 2]
    last = vector.steps[1]
    assert isinstance(last, L2Run)
    assert last.ops[1] == Over("movs", "a3", "b5") and last.ops[1].pages == ("a3", "a4")
    assert last.ops[1].sources == ("b5", "b6") and Over("stos", "c6").sources is None


def test_a_program_that_is_saved_calls_the_host() -> None:
    assert program("prog+read.a3,save,read.a3").calls_host
    assert program("prog+host.save+read.a3").calls_host
    assert not program("prog+read.a3").calls_host


def test_a_file_has_a_step_a_line() -> None:
    text = "# two paths, one table\nprog.env=huge\n\nm1=t0.r-x-   # read-only by b\nwrite.a3\nwrite.b3\n"
    assert program_of_file(text).id == "prog.env=huge+m1=t0.r-x-+write.a3+write.b3"
    assert program_of_file("read.a3\n").id == "prog+read.a3"
    with pytest.raises(VectorError, match=r"line 2: 'rub\.a3'"):
        program_of_file("read.a3\nrub.a3\n")
    with pytest.raises(VectorError, match="1 to 64 steps"):
        program_of_file("# nothing\n")


def test_shorter_programs_are_sound_and_shorter() -> None:
    vector = program("prog+cpl=3+m1=t0.r-x-+write.a3,write.b3+invept1.r0")
    found = [each.id for each in vector.shorter()]
    assert found == [
        "prog+cpl=3+m1=t0.r-x-+write.a3,write.b3",
        "prog+cpl=3+m1=t0.r-x-+invept1.r0",
        "prog+cpl=3+m1=t0.r-x-+write.a3+invept1.r0",
        "prog+cpl=3+m1=t0.r-x-+write.b3+invept1.r0",
        "prog+cpl=3+write.a3,write.b3+invept1.r0",
        "prog+m1=t0.r-x-+write.a3,write.b3+invept1.r0",
    ]
    # a step that the others need stays: CPL 3 has no INVLPG, so cpl=0 cannot go
    kept = ProgramVector(program("prog+cpl=3+read.a3+cpl=0+invlpg.a3,read.a3").steps)
    assert "prog+cpl=3+read.a3+invlpg.a3,read.a3" not in [each.id for each in kept.shorter()]
