"""A VM entry with VMCS fields changed, a few instructions of L2's, and all that the exit behind them tells L1.

    vmexit.clts+getcr0.cr0_guest_host_mask=8+cr0_read_shadow=8.mbec=off
    vmexit.none.vm_entry_intr_info_field=80000b0d+vm_entry_exception_error_code=1234.mbec=off

The answer is a row: the exit (or the VM entry that failed), then the fields of ``TOLD``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from kvmodel.question.vector import Common, Evmcs, Paging, VectorError
from kvmodel.question.vm_entry import UNCHANGED
from kvmodel.question.vm_entry import changes as changes
from kvmodel.question.vmcs import SCRATCH, FieldChange

MOST: Final = 8  # steps of L2's
NOTHING: Final = "none"  # L2 does nothing before its VMCALL
CODE: Final = 0x100_E000  # L2-linear, L2-physical and L1-physical at once, so that paging may go and come
ABSENT_LINEAR: Final = 0x100_F000  # L2-linear: a page that L2's own tables map ...
ABSENT: Final = 0x200_0000  # ... to this L2-physical address, which EPT12 does not
READ_ONLY: Final = SCRATCH + 8  # L2-linear and L2-physical: ``mem1``, which L2's own tables let it read alone
WRITTEN: Final = 0x5A5A  # what L2 writes there, 32 bits
CALL: Final = b"\x0f\x01\xc1"  # VMCALL
RDX: Final = 2  # the register that MOV to a control register, or to DR7, takes
TOLD: Final = (
    "the exit",
    "interruption information",
    "IDT-vectoring information",
    "RIP",
    "instruction length",
    "interruptibility",
    "RAX",
    "CR0",
    "CR3",
    "CR4",
    "EFER",
    "memory",
    "preemption timer",
)
"""What each turn of the answer is; information has the error code as bits 63:32, ``memory`` is ``mem1``, the timer is
its field."""


@dataclass(frozen=True, slots=True)
class Instructed:
    """One instruction of L2's: what it is, its operand, and its machine code."""

    what: str
    operand: int
    code: bytes


Instructions = tuple[Instructed, ...]


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "little")


def _move(what: str, register: int, general: int) -> Instructed:
    """MOV from a control register (``peek`` to RDX, ``get`` to RAX) or to it (``put``, of RDX)."""
    opcode = 0x22 if what == "put" else 0x20
    return Instructed(what, register, bytes((0x0F, opcode, 0xC0 | register << 3 | general)))


def _changed(m: re.Match[str], wide: bool) -> Instructions:
    register = int(m["register"])
    flips = []
    for how, number in re.findall(r"([sc])(\d+)", m["bits"]):
        if int(number) > (63 if wide else 31):
            raise VectorError(f"{m.string!r}: a control register has bits 0 to {63 if wide else 31} here")
        code = bytes((0x0F, 0xBA, 0xEA if how == "s" else 0xF2, int(number)))  # bts, btr
        flips.append(Instructed("set" if how == "s" else "clear", int(number), (b"\x48" if wide else b"") + code))
    return (_move("peek", register, RDX), *flips, _move("put", register, RDX))


def _with_index(what: str, m: re.Match[str]) -> Instructions:
    number = int(m["number"], 16)
    opcode = b"\x0f\x32" if what == "rdmsr" else b"\x0f\x30"
    return Instructed("ecx", number, b"\xb9" + _u32(number)), Instructed(what, number, opcode)


def _lmsw(m: re.Match[str]) -> Instructions:
    number = int(m["number"], 16)
    return _eax(number), Instructed("lmsw", 0, b"\x0f\x01\xf0")


def _eax(value: int) -> Instructed:
    return Instructed("eax", value, b"\xb8" + _u32(value))


def _edx(value: int) -> Instructed:
    return Instructed("edx", value, b"\xba" + _u32(value))


def _put_dr7() -> Instructions:
    return _edx(0x400), Instructed("putdr7", 7, bytes((0x0F, 0x23, 0xF8 | RDX)))


def _in_of_dx(m: re.Match[str]) -> Instructions:
    """IN of 8, 16 or 32 bits from the port in DX."""
    port = int(m["port"], 16)
    return _edx(port), Instructed(m["what"], port, _IN_OF_DX[m["what"]])


def _write(wide: bool) -> Instructions:
    """MOV of an immediate to an address that is part of the instruction."""
    code = (b"\xc7\x04\x25" if wide else b"\xc7\x05") + _u32(READ_ONLY) + _u32(WRITTEN)
    return (Instructed("write", READ_ONLY, code),)


def _byte(what: str, opcode: int) -> Callable[[re.Match[str], bool], Instructions]:
    def made(m: re.Match[str], _: bool) -> Instructions:
        return (Instructed(what, int(m["number"], 16), bytes((opcode, int(m["number"], 16)))),)

    return made


_IN_OF_DX: Final = {"inb": b"\xec", "inw": b"\x66\xed", "inl": b"\xed"}
_PLAIN: Final = {
    "nop": b"\x90",
    "clts": b"\x0f\x06",
    "smsw": b"\x0f\x01\xe0",
    "cpuid": b"\x0f\xa2",
    "invd": b"\x0f\x08",
    "wbinvd": b"\x0f\x09",
    "hlt": b"\xf4",
    "pause": b"\xf3\x90",
    "rdtsc": b"\x0f\x31",
    "rdpmc": b"\x0f\x33",
    "monitor": b"\x0f\x01\xc8",
    "mwait": b"\x0f\x01\xc9",
    "invlpg": b"\x0f\x01\x38",
    "vmxoff": b"\x0f\x01\xc4",
    "vmlaunch": b"\x0f\x01\xc2",
    "vmresume": b"\x0f\x01\xc3",
    "ud2": b"\x0f\x0b",
    "int3": b"\xcc",
    "int1": b"\xf1",
    "getdr7": b"\x0f\x21\xf8",
}
_GRAMMAR: Final[tuple[tuple[re.Pattern[str], Callable[[re.Match[str], bool], Instructions]], ...]] = (
    (re.compile(r"getcr(?P<number>[034])"), lambda m, _: (_move("get", int(m["number"]), 0),)),
    (re.compile(r"cr(?P<register>[034])(?P<bits>(?:[sc]\d{1,2})+)"), _changed),
    (re.compile(r"putdr7"), lambda _m, _w: _put_dr7()),
    (re.compile(r"write"), lambda _, wide: _write(wide)),
    (re.compile(r"eax(?P<number>[0-9a-f]{1,8})"), lambda m, _: (_eax(int(m["number"], 16)),)),
    (re.compile(r"(?P<what>in[bwl])(?P<port>[0-9a-f]{4})"), lambda m, _: _in_of_dx(m)),
    (re.compile(r"lmsw(?P<number>[0-9a-f]{1,4})"), lambda m, _: _lmsw(m)),
    (re.compile(r"in(?P<number>[0-9a-f]{2})"), _byte("in", 0xE4)),
    (re.compile(r"out(?P<number>[0-9a-f]{2})"), _byte("out", 0xE6)),
    (re.compile(r"int(?P<number>[0-9a-f]{2})"), _byte("int", 0xCD)),
    (re.compile(r"rdmsr(?P<number>[0-9a-f]{1,8})"), lambda m, _: _with_index("rdmsr", m)),
    (re.compile(r"wrmsr(?P<number>[0-9a-f]{1,8})"), lambda m, _: _with_index("wrmsr", m)),
    (re.compile(r"iret"), lambda _, wide: (Instructed("iret", 0, b"\x48\xcf" if wide else b"\xcf"),)),
)
STEP: Final = (
    r"(?:nop|clts|smsw|cpuid|invd|wbinvd|hlt|pause|rdtsc|rdpmc|monitor|mwait|invlpg|vmxoff|vmlaunch|vmresume|ud2|int3|"
    r"int1|write|getdr7|putdr7|eax[0-9a-f]{1,8}|in[bwl][0-9a-f]{4}|getcr[034]|cr[034](?:[sc]\d{1,2})+|lmsw[0-9a-f]{1,4}|in[0-9a-f]{2}|out[0-9a-f]{2}|int[0-9a-f]{2}|"
    r"rdmsr[0-9a-f]{1,8}|wrmsr[0-9a-f]{1,8}|iret)"
)
_MEANT: Final = (
    "clts, lmsw1, smsw, getcr0, cr0s30c29, cr4s17, cr3s63, cpuid, hlt, pause, rdtsc, rdpmc, invd, wbinvd, invlpg, "
    "monitor, mwait, vmxoff, vmlaunch, vmresume, ud2, int3, int1, int20, in80, out80, inw0708, getdr7, putdr7, eax1, "
    "write, rdmsr175, wrmsr175, iret, nop"
)


def instructions(step: str, *, wide: bool) -> Instructions:
    """The instructions of a step, in 64-bit code (``wide``) or 32-bit code. VectorError where it is none."""
    if step in _PLAIN:
        return (Instructed(step, 0, _PLAIN[step]),)
    for pattern, made in _GRAMMAR:
        if m := pattern.fullmatch(step):
            return made(m, wide)
    raise VectorError(f"{step!r} is nothing that L2 does before its exit: write {_MEANT}, joined by '+'")


def steps(text: str) -> tuple[str, ...]:
    """The steps that a word of an id says: none, or several joined by ``+``."""
    return () if text == NOTHING else tuple(text.split("+"))


@dataclass(frozen=True)
class VmExitVector(Common):
    """A VM entry with ``changes`` made to the fields that the probe wrote, then L2's ``steps`` and VMCALL.

    L2 has EPT unless a change takes it, CPL 0, no IDT and no stack of its own; every exception exits. 32-bit paging
    is not asked: its tables do not map L2's code where it lies.
    """

    steps: tuple[str, ...] = ()
    changes: tuple[FieldChange, ...] = ()
    paging: Paging = Paging.LONG

    def __post_init__(self) -> None:
        if self.ev is Evmcs.USED:
            raise VectorError("what an exit tells is asked of a plain VMCS: write ev0 or ev1")
        if self.paging is Paging.BITS32:
            raise VectorError("what an exit tells is asked with pg64, pgpae or pgoff: 32-bit paging maps no such code")
        if len(self.steps) > MOST:
            raise VectorError(f"{len(self.steps)} steps of L2's; at most {MOST} go before one exit")
        if not self.code:  # of which a step that is none would have been told
            raise VectorError("L2 has no code")

    @property
    def wide(self) -> bool:
        """Whether L2's code is 64-bit code."""
        return self.paging is Paging.LONG

    @cached_property
    def instructions(self) -> Instructions:
        """What L2 executes, VMCALL at the end. VectorError where a step is none."""
        made = [one for step in self.steps for one in instructions(step, wide=self.wide)]
        return (*made, Instructed("vmcall", 0, CALL))

    @property
    def code(self) -> bytes:
        """L2's machine code."""
        return b"".join(one.code for one in self.instructions)

    @cached_property
    def id(self) -> str:
        """The name to print and type."""
        said = "+".join(map(str, self.changes)) or UNCHANGED
        return ".".join(["vmexit", "+".join(self.steps) or NOTHING, said, f"pg{self.paging.value}", *self._tail()])
