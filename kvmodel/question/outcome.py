"""The answer: what L1 or L2 saw, in one form for all three voices, and how two answers are compared.

Addresses are given as a place and an offset, since where the probe put its tables is not part of the
question: ``target`` (the page L2 accesses), ``gpt`` (the guest paging structure whose EPT entries are under test),
``mmio`` (the other operand of an instruction that KVM emulates).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

THEN = " > "
BETWEEN: Final = "; "  # the reports of the kernel's log that one outcome stands for

_LOG: Final = "the kernel's log: "  # and where its log says something beside the answer
_WARN: Final = "WARN: "  # how the note of a HOST outcome begins where the kernel warned


class Kind(Enum):
    """The kinds of answers. SCAFFOLD and BLOCKED are an observer's own and never the contract's, nor is HOST.

    NOT_MIRRORED is the mirror's own.
    """

    DONE = "done"  # the access completed
    EXCEPTION = "exception"  # L2 took an exception: vector, error code
    VIOLATION = "violation"  # L1 saw an EPT violation: qualification, guest-physical and guest-linear address
    MISCONFIG = "misconfig"  # L1 saw an EPT misconfiguration: guest-physical address
    ENTRY_FAIL = "entry-fail"  # VMLAUNCH failed: VM-instruction error number
    ENTRY_EXIT = "entry-exit"  # VM entry ended in an exit with bit 31 of the reason
    VMFAIL = "vm-fail"  # an instruction of L1's other than a VM entry failed: VM-instruction error number
    UNREACHED = "unreached"  # L2 exited before it came to this access of its run
    EXIT = "exit"  # any other VM exit to L1
    ASTRAY = "astray"  # an exit or a failed VM entry left L1 or its VMCS otherwise than the manual has it
    VALUE = "value"  # an MSR's or a host file's value
    LIVELOCK = "livelock"  # no progress: the same exit for ever
    BYPASS = "mitigation-bypassed"  # the host's own rule is broken: an entry gives what it must not
    HOST = "host"  # host trouble: KVM_RUN failed, a WARN, L1 died
    SCAFFOLD = "scaffold-failed"  # the probe's own frame broke: the vector said nothing
    BLOCKED = "blocked"  # never ran: its host or L1 died first
    SEQUENCE = "sequence"  # several, one a turn; it ends where L1 died
    NOT_MIRRORED = "not-mirrored"  # the mirror's alone: it does not follow the code behind this question


@dataclass(frozen=True, slots=True)
class Place:
    """A guest address: ``base`` names what is there, ``offset`` in bytes."""

    base: str
    offset: int = 0

    def __str__(self) -> str:
        return f"{self.base}+{self.offset:#x}" if self.offset else self.base


@dataclass(frozen=True, slots=True)
class Outcome:
    """One answer.

    ``code``: VIOLATION the exit qualification (64 bits; MISCONFIG too, where it is 0), EXCEPTION the error code,
    ENTRY_FAIL the VM-instruction error (VMFAIL too), ENTRY_EXIT and EXIT the qualification, ASTRAY the probe's bits
    for what is astray, VALUE the value, BYPASS the SPTE's bits 0, 1, 2 and 10, DONE of a program's access the number
    of the page that it came to. ``number``: EXCEPTION the vector, ENTRY_EXIT, EXIT and ASTRAY the basic exit reason,
    BYPASS the SPTE's level. ``defined``: the bits of ``code`` that this voice vouches
    for. ``note``: HOST and LIVELOCK, a few words; NOT_MIRRORED, the C file and function that is not followed.
    ``turns``: SEQUENCE, the turns' outcomes.
    """

    kind: Kind
    code: int = 0
    number: int = 0
    gpa: Place | None = None
    gla: Place | None = None
    defined: int = 0xFFFF_FFFF_FFFF_FFFF
    note: str = ""
    turns: tuple[Outcome, ...] = ()

    @property
    def last(self) -> Outcome:
        """What came of it in the end: a sequence's last turn, else the outcome itself."""
        return self.turns[-1] if self.turns else self

    def turn(self, index: int) -> Outcome | None:
        """The outcome of turn ``index`` from 0; a single access has turn 0 only. None where it never came to it."""
        each = self.turns or (self,)
        return each[index] if index < len(each) else None

    def mirrors(self, turn: int) -> bool:
        """Whether the mirror, whose answer this is, follows the code behind turn ``turn`` from 0."""
        return self.last.kind is not Kind.NOT_MIRRORED or turn < len(self.turns) - 1

    @property
    def warned(self) -> bool:
        """Whether a WARN of the host's kernel is what came of it."""
        return self.kind is Kind.HOST and self.note.startswith(_WARN)

    @property
    def logged(self) -> str:
        """What the log of the host's kernel said beside the answer; empty where this is no such outcome."""
        return self.note.removeprefix(_LOG) if self.kind is Kind.HOST and self.note.startswith(_LOG) else ""

    def matches(self, seen: Outcome) -> bool:
        """Whether ``seen`` is this answer, as far as this voice vouches for it (a place of None is not compared).

        NOT_MIRRORED vouches for nothing, as the last turn for none of those that follow.
        """
        if self.kind is Kind.NOT_MIRRORED:
            return True
        if self.turns and self.last.kind is Kind.NOT_MIRRORED:
            both = zip(self.turns, seen.turns, strict=False)
            return self.kind is seen.kind and all(a.matches(b) for a, b in both)
        return (
            self.kind is seen.kind
            and self.number == seen.number
            and (self.code ^ seen.code) & self.defined & seen.defined == 0
            and (self.gpa is None or self.gpa == seen.gpa)
            and (self.gla is None or self.gla == seen.gla)
            and len(self.turns) == len(seen.turns)
            and all(a.matches(b) for a, b in zip(self.turns, seen.turns, strict=True))
        )

    def __str__(self) -> str:
        if self.turns:
            return "; ".join(f"{i}: {outcome}" for i, outcome in enumerate(self.turns, 1))
        text = self.kind.value
        match self.kind:
            case Kind.VIOLATION:
                text += f" q={self.code & self.defined:#x}"
                if unknown := ~self.defined & 0x1FFF:
                    text += f" (any of {unknown:#x})"
            case Kind.EXCEPTION:
                text += f" #{ {6: 'UD', 8: 'DF', 13: 'GP', 14: 'PF'}.get(self.number, self.number) }({self.code:#x})"
            case Kind.ENTRY_FAIL | Kind.VMFAIL:
                text += f" error {self.code}"
            case Kind.ENTRY_EXIT | Kind.EXIT:
                text += f" reason {self.number} q={self.code:#x}"
            case Kind.BYPASS:
                text += f" level {self.number} SPTE bits {self.code:#x}"
            case Kind.VALUE:
                text += f" {self.code & self.defined:#x}"
        if self.gpa is not None:
            text += f" gpa={self.gpa}"
        if self.gla is not None:
            text += f" gla={self.gla}"
        return f"{text} ({self.note})" if self.note else text


def of_turns(outcomes: Iterable[Outcome]) -> Outcome:
    """The outcome of a sequence; where L1 died, or the mirror follows no longer, no turn follows."""
    turns = []
    for outcome in outcomes:
        turns.append(outcome)
        if outcome.kind in (Kind.HOST, Kind.NOT_MIRRORED):
            break
    return Outcome(Kind.SEQUENCE, turns=tuple(turns))


def warning(where: str, number: int = 0) -> Outcome:
    """The outcome of an access at which the host's kernel warns, ``where`` as its log names the place."""
    return Outcome(Kind.HOST, number=number, note=f"{_WARN}{where}")


def logged(texts: Iterable[str]) -> Outcome:
    """The outcome that stands for reports of the host's kernel in its log."""
    return Outcome(Kind.HOST, note=_LOG + BETWEEN.join(texts))


def text_value(texts: Iterable[str]) -> Outcome:
    """Texts as a value that can be compared: their checksum, and what they are."""
    text = " ".join(texts)
    return Outcome(Kind.VALUE, zlib.crc32(text.encode()), note=text)


def vmfail(error: int) -> Outcome:
    """An instruction of L1's that failed with a VM-instruction error, or without one, 0, for want of a current VMCS."""
    return Outcome(Kind.VMFAIL, error, note="" if error else "no current VMCS")


def not_mirrored(where: str) -> Outcome:
    """The mirror's answer to what it does not follow; ``where``: the C file and function that it stops at."""
    return Outcome(Kind.NOT_MIRRORED, note=where)


def parameter(value: bool | None) -> Outcome:
    """A module parameter as sysfs shows it: ``Y``, ``N``, or absent, which is 0."""
    if value is None:
        return Outcome(Kind.VALUE, 0, note="absent")
    text = "NY"[value]
    return Outcome(Kind.VALUE, ord(text), note=text)


def parameter_lost(before: bool, after: bool) -> Outcome:
    """The answer to ``host.reload`` where the parameter is another behind it."""
    return Outcome(Kind.VALUE, ord("NY"[after]), note=f"{'NY'[before]} before, {'NY'[after]} behind")


@dataclass(frozen=True, slots=True)
class Step:
    """One step on the way to an answer: what happened, and the rule behind it.

    ``where``: the C file and function (``mmu/spte.c make_spte``) or the SDM section; ``patch``: the number of the
    patch that put the rule there, 0 for the base, None for the manual or the CPU.
    """

    where: str
    what: str
    patch: int | None = None

    def __str__(self) -> str:
        origin = "" if self.patch is None else (f" [patch {self.patch}]" if self.patch else " [base]")
        return f"{self.where}: {self.what}{origin}"


@dataclass(frozen=True, slots=True)
class Prediction:
    """The mirror's answer with its steps; ``exits`` counts the exits KVM handled on the way.

    ``reached``: whether it came to the access under test, and was not stopped in the probe's own part of L2.
    """

    outcome: Outcome
    steps: tuple[Step, ...] = ()
    exits: int = 0
    reached: bool = True


@dataclass(frozen=True, slots=True)
class Allowed:
    """One answer the manual allows, with the named rule and its SDM section.

    A sequence's rule and section are those of its turns, joined by ``THEN``.
    """

    outcome: Outcome
    rule: str
    section: str


@dataclass(frozen=True, slots=True)
class NotApplicable:
    """The vector cannot be decided here; ``rule`` names why (the rules are listed in the report)."""

    rule: str
    reason: str
