"""A VM entry with VMCS fields changed, of an L2 that executes one instruction, or is handed one event: what ends it.

    vmdo.lmsw-1.cr0_guest_host_mask=1.mbec=off
    vmdo.in8-708.cpu_based_vm_exec_control:s25+io_bitmap_a=101d000+mem28=100.mbec=off

The answer is the exit with its qualification, the fault, or what L2 has in RAX when it comes to the VMCALL behind. Of
an event that the VM entry injects it is a row of two: what its delivery ends in (L2 has no IDT), and the
IDT-vectoring information of that exit with its error code in bits 63:32. Where the preemption timer runs it is a row of
two as well: the end, and the timer's field behind it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from kvmodel.question.vector import Paging, VectorError
from kvmodel.question.vm_entry import UNCHANGED, VmEntryVector

PREFIX: Final = "vmdo"
NONE: Final = "none"  # nothing but VMCALL
VMCALL: Final = b"\x0f\x01\xc1"
MOST: Final = 32  # bytes of code
TIMER: Final = 6  # of the pin-based controls: the preemption timer
INFORMATION: Final = "vm_entry_intr_info_field"
_NAME: Final = re.compile(r"(?P<what>[a-z]+[0-9]*)(?:-(?P<operand>[0-9a-f]{1,16}))?")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of L2's: ``what`` it is, its ``operand`` (64 bits), the code before, of and behind it."""

    what: str
    operand: int = 0
    before: bytes = b""
    itself: bytes = b""
    behind: bytes = b""

    @property
    def code(self) -> bytes:
        """All that L2 runs, VMCALL at its end."""
        return self.before + self.itself + self.behind + VMCALL

    @property
    def writes(self) -> bool:
        """Whether L2 then writes a page that its tables make read-only for CR0.WP."""
        return self.what == "wp"


def _rax(value: int) -> bytes:
    return b"\x48\xb8" + value.to_bytes(8, "little")


def _ecx(value: int) -> bytes:
    return b"\xb9" + value.to_bytes(4, "little")


def _edx(value: int) -> bytes:
    return b"\xba" + value.to_bytes(4, "little")


_READ_CR0, _READ_CR4 = b"\x0f\x20\xc0", b"\x0f\x20\xe0"
_WRITE_PAGE: Final = b"\x89\x07"  # mov %eax, (%rdi)
_LOAD_CR0: Final = b"\x0f\x22\xc0"
# by name: bits of the operand (0: it has none), and the code before, of and behind the instruction
_KNOWN: Final[dict[str, tuple[int, Callable[[int], tuple[bytes, bytes, bytes]]]]] = {
    NONE: (0, lambda _: (b"", b"", b"")),
    "clts": (0, lambda _: (b"", b"\x0f\x06", _READ_CR0)),
    "lmsw": (16, lambda value: (_rax(value), b"\x0f\x01\xf0", _READ_CR0)),
    "cr0": (64, lambda value: (_rax(value), _LOAD_CR0, _READ_CR0)),
    "wp": (64, lambda value: (_rax(value), _LOAD_CR0, _WRITE_PAGE)),
    "readcr0": (0, lambda _: (b"", _READ_CR0, b"")),
    "cr4": (64, lambda value: (_rax(value), b"\x0f\x22\xe0", _READ_CR4)),
    "readcr4": (0, lambda _: (b"", _READ_CR4, b"")),
    "cr3": (0, lambda _: (b"\x0f\x20\xd8", b"\x0f\x22\xd8", b"")),  # loads what it reads
    "readcr3": (0, lambda _: (b"", b"\x0f\x20\xd8", b"")),
    "dr7": (0, lambda _: (_rax(0x400), b"\x0f\x23\xf8", b"")),
    "readdr7": (0, lambda _: (b"", b"\x0f\x21\xf8", b"")),
    "in8": (16, lambda port: (_edx(port), b"\xec", b"")),
    "in16": (16, lambda port: (_edx(port), b"\x66\xed", b"")),
    "in32": (16, lambda port: (_edx(port), b"\xed", b"")),
    "rdmsr": (32, lambda msr: (_ecx(msr), b"\x0f\x32", b"")),
    "wrmsr": (32, lambda msr: (_ecx(msr) + _rax(0) + _edx(0), b"\x0f\x30", b"")),
    "rdtsc": (0, lambda _: (b"", b"\x0f\x31", b"")),
    "pause": (0, lambda _: (b"", b"\xf3\x90", b"")),
    "hlt": (0, lambda _: (b"", b"\xf4", b"")),
    "invlpg": (32, lambda address: (b"\xbf" + address.to_bytes(4, "little"), b"\x0f\x01\x3f", b"")),
    "cpuid": (0, lambda _: (_rax(0), b"\x0f\xa2", b"")),
    "wbinvd": (0, lambda _: (b"", b"\x0f\x09", b"")),
    "invd": (0, lambda _: (b"", b"\x0f\x08", b"")),
}


def instruction(name: str) -> Instruction:
    """The instruction that a word of an id names. VectorError where it names none, or its operand does not fit."""
    m = _NAME.fullmatch(name)
    if m is None or m["what"] not in _KNOWN:
        raise VectorError(f"instruction {name!r} is not known: use one of {', '.join(_KNOWN)}")
    bits, code = _KNOWN[m["what"]]
    if bool(bits) is (m["operand"] is None):
        wants = "a hexadecimal operand, as in lmsw-1" if bits else "no operand"
        raise VectorError(f"instruction {name!r}: {m['what']} has {wants}")
    operand = int(m["operand"] or "0", 16)
    if operand >> bits:
        raise VectorError(f"instruction {name!r}: the operand of {m['what']} has {bits} bits")
    if f"{m['what']}-{operand:x}" != name and bits:
        raise VectorError(f"instruction {name!r}: write {m['what']}-{operand:x}")
    return Instruction(m["what"], operand, *code(operand))


@dataclass(frozen=True)
class InstructionVector(VmEntryVector):
    """A VM entry with ``changes`` made; L2 executes the instruction of that ``name``, in long mode at CPL 0."""

    name: str = NONE

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.paging is not Paging.LONG or self.ev:
            raise VectorError(f"{PREFIX}. is asked in long mode, of a plain vmcs12: leave paging and ev out")
        if self.asked.what == "hlt" and not any(
            (one.field, one.how, one.value) == ("cpu_based_vm_exec_control", "s", 7) for one in self.changes
        ):
            raise VectorError("nothing ends an L2 that halts: set its exit, cpu_based_vm_exec_control:s7")

    @cached_property
    def asked(self) -> Instruction:
        """The instruction. VectorError where ``name`` names none."""
        return instruction(self.name)

    @property
    def injects(self) -> bool:
        """Whether the VM entry injects an event, as far as the changes say."""
        return bool(self._changed(INFORMATION) >> 31)

    @property
    def timed(self) -> bool:
        """Whether the preemption timer is activated, as far as the changes say."""
        return bool(self._changed("pin_based_vm_exec_control") >> TIMER & 1)

    def _changed(self, field: str) -> int:
        value = 0
        for one in self.changes:
            value = one.of(value) if one.field == field else value
        return value

    @cached_property
    def id(self) -> str:
        """The name to print and type."""
        said = "+".join(map(str, self.changes)) or UNCHANGED
        return ".".join([PREFIX, self.name, said, f"pg{self.paging.value}", *self._tail()])
