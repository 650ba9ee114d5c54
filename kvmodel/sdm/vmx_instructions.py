"""VMCLEAR, VMPTRLD, VMLAUNCH, VMRESUME, VMREAD and VMWRITE: when each fails and with which number (SDM 31.3, 31.4).

The state is which VMCS is current and whether each is launched. What a program cannot know of it, because an earlier
one may have left it, is not decided: the answer is then either.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from kvmodel.cpu import Cpu
from kvmodel.question.outcome import Kind, Outcome, vmfail
from kvmodel.question.program import Vmx

VMCLEAR_ADDRESS: Final = 2
VMCLEAR_VMXON: Final = 3
VMLAUNCH_LAUNCHED: Final = 4
VMRESUME_CLEAR: Final = 5
INVALID_CONTROLS: Final = 7
VMPTRLD_ADDRESS: Final = 9
VMPTRLD_VMXON: Final = 10
VMPTRLD_REVISION: Final = 11
UNSUPPORTED_FIELD: Final = 12
READ_ONLY_FIELD: Final = 13
WRITES_ANY_FIELD: Final = 29  # the bit of MSR 0x485: VMWRITE goes to read-only fields as well

DONE: Final = Outcome(Kind.DONE, defined=0)
_OWN: Final = ("c", "d")  # the regions that programs alone use: no VM entry's state was ever written to them

# Fields that every CPU with VMX has, by their encodings (SDM appendix B): 16, 32 and 64 bits wide, natural-width; and
# those of them that are read-only.
_WIDTHS: Final = (16, 64, 32, 64)  # by bits 14:13 of the encoding
_EVERYWHERE: Final = frozenset(
    {
        *range(0x0800, 0x0810, 2),
        *range(0x0C00, 0x0C0E, 2),
        *range(0x4000, 0x401E, 2),
        *range(0x4800, 0x482C, 2),
        0x4C00,
        *range(0x6000, 0x6010, 2),
        *range(0x6800, 0x6828, 2),
        *range(0x6C00, 0x6C18, 2),
        0x2000,
        0x2001,
        0x2010,
        0x2011,
        0x2800,
        0x2801,
        0x2802,
        0x2803,
    }
    - {0x401C}  # the TPR threshold is there where the TPR shadow is
)
_READ_ONLY: Final = frozenset({*range(0x4400, 0x4410, 2), 0x6400, 0x640A})


def exists(encoding: int) -> bool | None:
    """Whether the field is there on every CPU; None where that is the CPU's own affair.

    Reserved bits of the encoding are bit 12 and bits 31:15, and bit 0 is for fields of 64 bits alone. No field has
    index 127.
    """
    if encoding >> 15 or encoding >> 12 & 1 or (encoding & 1 and encoding >> 13 & 3 != 1):
        return False
    if encoding >> 1 & 0x1FF == 0x7F:
        return False
    return True if encoding in _EVERYWHERE or encoding in _READ_ONLY else None


def kept(encoding: int) -> int:
    """The bits of a written value that a VMREAD must give back.

    Of the access rights (0x4814 to 0x4822, then read as 32 bits) bits 11:8 and 31:17 are reserved, and there are CPUs
    that drop them (SDM 25.4.1).
    """
    bits = (1 << width(encoding)) - 1
    return bits & 0x1_F0FF if encoding in range(0x4814, 0x4824, 2) else bits


def width(encoding: int) -> int:
    """The bits of a field that VMREAD and VMWRITE carry: those of the upper half alone where bit 0 is set."""
    return 32 if encoding & 1 else _WIDTHS[encoding >> 13 & 3]


@dataclass
class VmcsState:
    """Which VMCS is current, which are launched (True), clear (False) or not known (None), and what was written."""

    cpu: Cpu
    current: str | None = "a"
    launched: dict[str, bool | None] = field(default_factory=dict)
    entered: set[str] = field(default_factory=set)  # those that L2 ran on in this program
    values: dict[tuple[str, int], int] = field(default_factory=dict)

    def _fail(self, error: int) -> Outcome:
        return vmfail(error if self.current else 0)

    def run(self, name: str) -> None:
        """A VM entry on a VMCS of the probe's, which it made current."""
        self.current = name
        self.launched[name] = True
        self.entered.add(name)

    def answers(self, made: Vmx) -> tuple[tuple[Outcome, str], ...]:
        """Each allowed outcome with its rule; the state becomes what the first of them leaves."""
        match made.what:
            case "vmclear":
                return (self._vmclear(made.region),)
            case "vmptrld":
                return (self._vmptrld(made.region),)
            case "vmlaunch" | "vmresume":
                return tuple(self._enter(resume=made.what == "vmresume"))
            case _:
                return tuple(self._field(made))

    def _vmclear(self, region: str) -> tuple[Outcome, str]:
        if region in ("odd", "far"):
            return self._fail(VMCLEAR_ADDRESS), "vmcs-address"
        if region == "on":
            return self._fail(VMCLEAR_VMXON), "vmcs-vmxon"
        self.launched[region] = False
        if region == self.current:
            self.current = None
        return DONE, "vmcs-done"

    def _vmptrld(self, region: str) -> tuple[Outcome, str]:
        if region in ("odd", "far"):
            return self._fail(VMPTRLD_ADDRESS), "vmcs-address"
        if region == "on":
            return self._fail(VMPTRLD_VMXON), "vmcs-vmxon"
        if region == "rev":
            return self._fail(VMPTRLD_REVISION), "vmcs-revision"
        self.current = region
        return DONE, "vmcs-done"

    def _enter(self, *, resume: bool) -> Iterator[tuple[Outcome, str]]:
        if self.current is None:
            yield vmfail(0), "vmcs-none"
            return
        wrong = (vmfail(VMRESUME_CLEAR if resume else VMLAUNCH_LAUNCHED), "vmcs-launch-state")
        launched = self.launched.get(self.current)
        if launched is resume or launched is None:
            if self.current in _OWN:
                yield vmfail(INVALID_CONTROLS), "entry-control-not-allowed"
            elif self.current in self.entered:
                self.launched[self.current] = True
                yield DONE, "vmcs-done"
            else:  # what the probe's VMCS holds from before this program is not known
                yield from (
                    (DONE, "vmcs-done"),
                    (vmfail(INVALID_CONTROLS), "entry-control-not-allowed"),
                    (vmfail(8), "vmcs-done"),
                )
        if launched is not resume:
            yield wrong

    def _field(self, made: Vmx) -> Iterator[tuple[Outcome, str]]:
        if self.current is None:
            yield vmfail(0), "vmcs-none"
            return
        there = exists(made.field)
        if there is not False:
            yield from self._access(made)
        if there is not True:
            yield vmfail(UNSUPPORTED_FIELD), "vmcs-field"

    def _access(self, made: Vmx) -> Iterator[tuple[Outcome, str]]:
        assert self.current is not None
        key = (self.current, made.field)
        if made.what == "vmread":
            known = self.values.get(key)
            dropped = (1 << width(made.field)) - 1 & ~kept(made.field)
            defined = 0 if known is None else ~dropped & (1 << 64) - 1
            yield Outcome(Kind.VALUE, known or 0, defined=defined), "vmcs-value"
            return
        any_field = bool((self.cpu.msr(0x485) or 0) >> WRITES_ANY_FIELD & 1) if self.cpu.msrs else None
        if made.field in _READ_ONLY and any_field is False:
            yield vmfail(READ_ONLY_FIELD), "vmcs-read-only"
            return
        self.values[key] = made.value & kept(made.field)
        yield DONE, "vmcs-done"
        if made.field in _READ_ONLY or exists(made.field) is None:
            self.values.pop(key)
            if not any_field:
                yield vmfail(READ_ONLY_FIELD), "vmcs-read-only"
