"""Accesses over two pages: L2's code for them, and what each page answered.

The 8 bytes begin at OVER_AT, where a page has its own number; the last of them is the number at the next one's start.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Final, Protocol

from harness import protocol
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.program import Over
from kvmodel.question.program_layout import OVER, OVER_AT, PAGE, guest_linear
from kvmodel.sdm.program_tables import moved, over_offset, reached

_C: Final = protocol.CONSTANTS
_IN_FIRST: Final = PAGE - OVER_AT  # bytes of the 8 that lie in the first page
_BYTE: Final = 0x5A  # what is written; it is no page's number
_ADDED: Final = 0x20  # what LOCK ADD adds to the first byte and to the last
_TORN: Final = 1 << 16  # in an outcome's code: a wrong byte, or registers that do not fit


class OverRecord(Protocol):
    """This is what of an observation record an access over two pages is told by."""

    @property
    def upper_after(self) -> int: ...
    @property
    def gpte_after(self) -> int: ...
    @property
    def target_gpa(self) -> int: ...
    @property
    def target_gla(self) -> int: ...
    @property
    def gpt_gpa(self) -> int: ...
    @property
    def leaf_address(self) -> int: ...


def _load(opcode: bytes, value: int) -> bytes:
    return opcode + struct.pack("<Q", value)


def code(op: Over, at: int) -> bytes:
    """The function gives L2's code for an access that begins ``at`` bytes into the code."""
    head = _load(b"\x48\xbf", guest_linear(op.page) + over_offset(op))  # mov $address, %rdi
    count = b"\xb9" + struct.pack("<I", OVER)  # mov $8, %ecx
    match op.what:
        case "readx":
            body = head + b"\x48\x8b\x07\x48\x89\x05"  # mov (%rdi), %rax; mov %rax, rel(%rip)
            return body + struct.pack("<i", _C["PROGRAM_RESULTS"] + 8 - (at + len(body) + 4))
        case "writex":
            return (
                head + _load(b"\x48\xb8", int.from_bytes(bytes([_BYTE] * OVER))) + b"\x48\x89\x07"
            )  # mov %rax, (%rdi)
        case "rmwx":
            return head + _load(b"\x48\xb8", _ADDED | _ADDED << 56) + b"\xf0\x48\x01\x07"  # lock add %rax, (%rdi)
        case "fetchx":
            return head + b"\x31\xc0\xff\xe7"  # xor %eax, %eax; jmp *%rdi
        case "stos":
            return head + count + bytes((0xB0, _BYTE, 0xF3, 0xAA))  # mov $byte, %al; rep stosb
        case _:
            source = _load(b"\x48\xbe", guest_linear(op.source) + OVER_AT)  # mov $address, %rsi
            return head + source + count + b"\xf3\xa4"  # rep movsb


def is_at(op: Over, rip: int) -> bool:
    """The function says whether ``rip`` is in the page that ``fetchx`` runs: at its first instruction or the next."""
    start = guest_linear(op.page) + over_offset(op)
    return op.what == "fetchx" and rip in (start, start + 5)


def answers(op: Over, o: OverRecord, trouble: Outcome | None) -> list[Outcome]:
    """The function gives what became of the access in each of its two pages; ``trouble`` is what ended it, if anything
    did.
    """
    done = [_fits(op, o, trouble, _done(op, o, n)) for n in (0, 1)]
    if trouble is None:
        return [each or Outcome(Kind.DONE, 0xFF, note="no page of the program") for each in done]
    at = _page_of(trouble)
    kept = done[1 - at] if op.writes or op.what == "fetchx" else None
    other = kept or Outcome(Kind.UNREACHED)
    return [other, trouble] if at else [trouble, other]


def _page_of(trouble: Outcome) -> int:
    """Whether it was in the first page (0) or in the second, at whose very start it is then."""
    place = trouble.gla or trouble.gpa
    return int(place is not None and place.offset < OVER_AT - 1)


def _number(byte: int) -> int | None:
    number = byte & ~_C["PROGRAM_KNOWN"]
    return number if byte & _C["PROGRAM_KNOWN"] and number < _C["PROGRAM_PAGES"] else None


def _done(op: Over, o: OverRecord, n: int) -> Outcome | None:
    """What was done in a page; None where nothing was."""
    if op.what == "readx":
        page = _number(o.leaf_address >> 56 * n & 0xFF)
        return None if page is None else reached(page)
    if op.what == "fetchx":
        page = _number((o.gpt_gpa >> 8 if n else o.upper_after) & 0xFF)
        return None if page is None else reached(page)
    where, byte = (o.gpte_after >> 16 * n + shift & 0xFF for shift in (0, 8))
    if (page := _number(where)) is None:
        return None
    if op.what == "movs":
        source = _number(byte)
        return _torn(page) if source is None else moved(page, source)
    wanted = where + _ADDED if op.what == "rmwx" else _BYTE
    return reached(page) if byte == wanted else _torn(page)


def _torn(page: int) -> Outcome:
    return Outcome(Kind.DONE, page | _TORN, note=f"{reached(page).note}, other bytes than were written")


def _fits(op: Over, o: OverRecord, trouble: Outcome | None, done: Outcome | None) -> Outcome | None:
    """``done``, or that RDI, RSI or RCX of a string instruction do not say how far it came (SDM, REP)."""
    if op.what not in ("stos", "movs"):
        return done
    far = OVER if trouble is None else _IN_FIRST * _page_of(trouble)
    wrong = o.target_gla != guest_linear(op.page) + OVER_AT + far or o.gpte_after >> 32 != OVER - far
    wrong |= op.what == "movs" and o.target_gpa != guest_linear(op.source) + OVER_AT + far
    if not wrong:
        return done
    base = done or Outcome(Kind.DONE)
    return replace(base, code=base.code | _TORN, note="its registers do not say how far it came")
