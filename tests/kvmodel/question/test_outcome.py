"""Answers match where both voices vouch for the bits."""

from kvmodel.question.outcome import Kind, Outcome, Place, Step


def test_undefined_bits_do_not_count() -> None:
    known = Outcome(Kind.VIOLATION, 0x184, gpa=Place("target"), defined=~0x40 & 0xFFFF)
    assert known.matches(Outcome(Kind.VIOLATION, 0x1C4, gpa=Place("target")))
    assert not known.matches(Outcome(Kind.VIOLATION, 0x18C, gpa=Place("target")))
    assert not known.matches(Outcome(Kind.VIOLATION, 0x184, gpa=Place("gpt")))
    assert not known.matches(Outcome(Kind.DONE))


def test_a_place_that_is_not_named_is_not_compared() -> None:
    assert Outcome(Kind.MISCONFIG).matches(Outcome(Kind.MISCONFIG, gpa=Place("target")))
    assert not Outcome(Kind.MISCONFIG, gla=Place("target")).matches(Outcome(Kind.MISCONFIG))


def test_numbers_are_compared() -> None:
    assert not Outcome(Kind.EXCEPTION, 4, 14).matches(Outcome(Kind.EXCEPTION, 4, 13))


def test_text_names_what_matters() -> None:
    assert str(Outcome(Kind.EXCEPTION, 4, 14)) == "exception #PF(0x4)"
    assert str(Outcome(Kind.VIOLATION, 0x184, gpa=Place("target", 8), gla=Place("target"), defined=~0x40 & 0x1FFF)) == (
        "violation q=0x184 (any of 0x40) gpa=target+0x8 gla=target"
    )
    assert str(Outcome(Kind.VIOLATION, 0x1C4)) == "violation q=0x1c4"
    assert str(Outcome(Kind.ENTRY_FAIL, 7)) == "entry-fail error 7"
    assert str(Outcome(Kind.EXIT, 1, 10)) == "exit reason 10 q=0x1"
    assert str(Outcome(Kind.VALUE, 0xFF, defined=0xF)) == "value 0xf"
    assert str(Outcome(Kind.LIVELOCK, note="X never comes")) == "livelock (X never comes)"
    assert str(Step("mmu/spte.c make_spte", "X set", 15)) == "mmu/spte.c make_spte: X set [patch 15]"
    assert str(Step("SDM 29.3.3.2", "not present")) == "SDM 29.3.3.2: not present"
    assert str(Step("mmu/mmu.c f", "g", 0)).endswith("[base]")
