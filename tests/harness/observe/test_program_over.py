"""Accesses over two pages: L2's code, and the answers of both pages out of an observation."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from harness import protocol
from harness.observe import program_over
from harness.observe.program import outcome_of, records
from kvmodel.question.outcome import Kind, Outcome, Place
from kvmodel.question.program import Over, program
from kvmodel.question.program_layout import guest_linear
from kvmodel.sdm.program_tables import moved, reached

C = protocol.CONSTANTS
START = guest_linear("a3") + 0xFFA
SECOND = Outcome(Kind.VIOLATION, 0x182, gpa=Place("a4"), gla=Place("a4"))
FIRST = Outcome(Kind.VIOLATION, 0x182, gpa=Place("a3", 0xFFA), gla=Place("a3", 0xFFA))
UNREACHED = Outcome(Kind.UNREACHED)


@dataclass(frozen=True)
class Seen:
    """What of an observation record tells the answers."""

    upper_after: int = 0
    gpte_after: int = 0
    target_gpa: int = 0
    target_gla: int = 0
    gpt_gpa: int = 0
    leaf_address: int = 0


def written(first: tuple[int, int] | None, second: tuple[int, int] | None, left: int = 0) -> int:
    """The word for what was written: page and byte of each half, and RCX."""
    halves = [0 if half is None else 0x80 | half[0] | half[1] << 8 for half in (first, second)]
    return halves[0] | halves[1] << 16 | left << 32


def test_the_codes() -> None:
    address = START.to_bytes(8, "little")
    mark = bytes([0x5A] * 8)
    assert program_over.code(Over("writex", "a3"), 0) == b"\x48\xbf" + address + b"\x48\xb8" + mark + b"\x48\x89\x07"
    assert program_over.code(Over("stos", "a3"), 0).endswith(bytes.fromhex("b908000000b05af3aa"))
    assert program_over.code(Over("movs", "a3", "b5"), 0).endswith(bytes.fromhex("b908000000f3a4"))
    read = program_over.code(Over("readx", "a3"), 7)
    assert int.from_bytes(read[-4:], "little") + 7 + len(read) == C["PROGRAM_RESULTS"] + 8
    jump = program_over.code(Over("fetchx", "a3"), 0)
    assert jump == b"\x48\xbf" + (START - 1).to_bytes(8, "little") + bytes.fromhex("31c0ffe7")


@pytest.mark.parametrize(
    ("op", "seen", "found"),
    [
        (Over("readx", "a3"), Seen(leaf_address=0x8A << 56 | 0x83), [reached(3), reached(10)]),
        (Over("fetchx", "a3"), Seen(upper_after=0x83, gpt_gpa=0xC1010F00000084B8), [reached(3), reached(4)]),
        (Over("writex", "a3"), Seen(gpte_after=written((3, 0x5A), (4, 0x5A))), [reached(3), reached(4)]),
        (Over("rmwx", "a3"), Seen(gpte_after=written((3, 0xA3), (4, 0xA4))), [reached(3), reached(4)]),
        (
            Over("stos", "a3"),
            Seen(gpte_after=written((3, 0x5A), (4, 0x5A)), target_gla=START + 8),
            [reached(3), reached(4)],
        ),
        (
            Over("movs", "a3", "b5"),
            Seen(
                gpte_after=written((3, 0x85), (4, 0x86)),
                target_gla=START + 8,
                target_gpa=guest_linear("b5") + 0xFFA + 8,
            ),
            [moved(3, 5), moved(4, 6)],
        ),
    ],
)
def test_what_completes(op: Over, seen: Seen, found: list[Outcome]) -> None:
    assert program_over.answers(op, seen, None) == found


def test_what_is_undone_and_what_is_torn() -> None:
    write = Over("writex", "a3")
    assert program_over.answers(write, Seen(), SECOND) == [UNREACHED, SECOND]
    assert program_over.answers(write, Seen(), FIRST) == [FIRST, UNREACHED]
    assert program_over.answers(write, Seen(gpte_after=written((3, 0x5A), None)), SECOND) == [reached(3), SECOND]
    lost = program_over.answers(write, Seen(gpte_after=written((3, 0x5A), None)), None)
    assert lost[0] == reached(3) and lost[1].code == 0xFF
    other = program_over.answers(write, Seen(gpte_after=written((3, 0x77), (4, 0x5A))), None)[0]
    assert not reached(3).matches(other) and "other bytes" in other.note


def test_the_registers_say_how_far_a_string_came() -> None:
    half = written((3, 0x5A), None, left=2)
    op = Over("stos", "a3")
    assert program_over.answers(op, Seen(gpte_after=half, target_gla=START + 6), SECOND) == [reached(3), SECOND]
    for wrong in (
        Seen(gpte_after=half, target_gla=START),
        Seen(gpte_after=written((3, 0x5A), None, left=8), target_gla=START + 6),
    ):
        first = program_over.answers(op, wrong, SECOND)[0]
        assert not reached(3).matches(first) and "registers" in first.note
    none = program_over.answers(op, Seen(target_gla=START, gpte_after=8 << 32), FIRST)
    assert none == [FIRST, UNREACHED]
    ahead = program_over.answers(op, Seen(target_gla=START + 6, gpte_after=8 << 32), FIRST)[1]
    assert ahead.kind is Kind.DONE and "registers" in ahead.note


def test_a_fetch_ends_in_the_page_itself() -> None:
    op = Over("fetchx", "a3")
    assert program_over.is_at(op, START - 1) and program_over.is_at(op, START + 4)
    assert not program_over.is_at(op, START) and not program_over.is_at(Over("stos", "a3"), START - 1)
    assert program_over.answers(op, Seen(upper_after=0x83), SECOND) == [reached(3), SECOND]


def test_a_program_tells_both_pages() -> None:
    asked = program("prog+cpl=3+read.a1,writex.a3")

    @dataclass(frozen=True)
    class Row(Seen):
        verdict: int = 1
        vector: int = 0
        reason: int = 18
        error: int = 0
        qualification: int = 0
        gpa: int = 0
        gla: int = 0
        rip: int = 0
        value: int = 0
        leaf_after: int = 0
        astray: int = 0

    rows = [Row()] * (len(records(asked, 0)) - 1)
    last = Row(value=0x81, gpte_after=written((3, 0x5A), (4, 0x5A)))
    assert outcome_of(asked, [*rows, last]).turns == (reached(1), reached(3), reached(4))
    failed = Row(verdict=4, error=7)
    kinds = [turn.kind for turn in outcome_of(asked, [*rows, failed]).turns]
    assert kinds == [Kind.ENTRY_FAIL, Kind.UNREACHED, Kind.UNREACHED]
