"""One instruction of L2's: its code for the probe, and what ended it.

An exit that an instruction causes has its RIP and its length (SDM 28.2.5, 28.3.3); where one is otherwise, that is the
answer. Of an injected event the row has what its delivery ended in, then the exit's IDT-vectoring information.
"""

from __future__ import annotations

from typing import Final, Protocol

from harness import protocol
from harness.observe import astray
from kvmodel.question.instruction import MOST, VMCALL, InstructionVector
from kvmodel.question.outcome import Kind, Outcome, of_turns
from kvmodel.question.vector import UWX, GuestPerm

_C: Final = protocol.CONSTANTS
_TIMER_EXPIRED: Final = 52  # basic exit reason: no instruction's
_READ_ONLY: Final = GuestPerm(False, False, True)
_WORDS: Final = ("leaf", "upper", "gp", "gu")  # of the record, 8 bytes of code each


class Ended(Protocol):
    """This is what of an observation record L2's end is told by."""

    @property
    def reason(self) -> int: ...
    @property
    def rip(self) -> int: ...
    @property
    def leaf_address(self) -> int: ...
    @property
    def upper_after(self) -> int: ...
    @property
    def gpte_after(self) -> int: ...


def record(vector: InstructionVector) -> dict[str, int | tuple[int, ...]]:
    """The function gives the record that has L2's code."""
    code = vector.asked.code.ljust(MOST, b"\0")
    words: dict[str, int | tuple[int, ...]] = {
        name: int.from_bytes(code[8 * n : 8 * n + 8], "little") for n, name in enumerate(_WORDS)
    }
    return words | {"kind": _C["KIND_CODE"]}


def page_of(vector: InstructionVector) -> GuestPerm:
    """The function gives the permissions of the page that L2 has in RDI."""
    return _READ_ONLY if vector.asked.writes else UWX


def outcome_of(vector: InstructionVector, o: Ended, seen: Outcome) -> Outcome:
    """The function gives the answer; ``seen`` is what the record says by its verdict."""
    if seen.kind not in (Kind.EXIT, Kind.EXCEPTION, Kind.VALUE):
        return seen
    if vector.injects:
        return of_turns((seen, Outcome(Kind.VALUE, o.upper_after)))
    if vector.timed:
        return of_turns((_at_its_place(vector, o, seen), Outcome(Kind.VALUE, o.gpte_after)))
    return _at_its_place(vector, o, seen)


def _at_its_place(vector: InstructionVector, o: Ended, seen: Outcome) -> Outcome:
    """The function gives ``seen``, or that the exit of an instruction has another RIP or length."""
    asked = vector.asked
    at, length = len(asked.before), len(asked.itself)
    if seen.kind is Kind.VALUE:
        at, length = len(asked.code) - len(VMCALL), len(VMCALL)
    if (seen.kind, seen.number) == (Kind.EXIT, _TIMER_EXPIRED):
        return seen
    if seen.kind is not Kind.EXCEPTION and (o.rip, o.leaf_address) != (_C["GLA_ASKED"] + at, length):
        return astray.outcome(_C["ASTRAY_LENGTH"], o.reason)
    return seen
