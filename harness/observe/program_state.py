"""L2's own paging and control registers in programs: the records that set them up, and L2's code that changes them."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from harness import protocol
from kvmodel.question.program import NO_TARGET, Control, ProgramVector
from kvmodel.question.program_layout import (
    MSR_BITMAP,
    NO_CR3,
    PAGE,
    READ_EFER,
    WRITE_EFER,
    cr3_register,
    cr3_value,
)
from kvmodel.question.program_paging import SetPdpte

_C: Final = protocol.CONSTANTS
GLA_PDPTS: Final = _C["GLA_PROGRAM"] + 5 * PAGE  # L2-linear, supervisor's: the page of the tables k0 and k1

# VMCS fields and bits (SDM 3D, appendix B; 25.6.2)
_MSR_BITMAP: Final = 0x2004
_GUEST_PDPTE0: Final = 0x280A
_GUEST_CR3: Final = 0x6802
_CR3_TARGET_COUNT: Final = 0x400A
_CR3_TARGET_VALUE0: Final = 0x6008
_CR3_LOAD_EXITING: Final = 1 << 15
_USE_MSR_BITMAPS: Final = 1 << 28
_EFER: Final = 0xC000_0080
_LMA_LME: Final = 0x500
_PDPT: Final = 32  # bytes of a page-directory-pointer table of PAE paging, and its alignment

Fields = dict[str, int | tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class CodeFrame:
    """The frame is what L2's code is made for: PAE paging in 32-bit mode or long mode, and the privilege level."""

    pae: bool = False
    cpl: int = 0

    @property
    def code_at(self) -> int:
        """The code lies at this L2-linear address."""
        return _C["GLA_PROGRAM"] + (PAGE if self.cpl else 0)


# --- records ---


def field_of(name: str) -> int:
    """The function gives the encoding of the VMCS field that ``pdptr0`` to ``pdptr3`` or ``cr3`` name."""
    return _GUEST_CR3 if name == "cr3" else _GUEST_PDPTE0 + 2 * int(name[-1])


def _field(common: Fields, encoding: int, value: int) -> Fields:
    return {**common, "access": _C["OP_FIELD"], "leaf": encoding, "upper": value}


def of_control(vector: ProgramVector, made: Control, common: Fields, now: Mapping[str, int]) -> Iterator[Fields]:
    """The function gives the records that a control step has of its own; the others wait for the VM entry."""
    if made.name == "pg" and made.value and vector.ept:
        table = cr3_value(now["cr3"], pae=True) & ~(_PDPT - 1)
        for flags in (0, _C["FLAG_VMCS_B"]):
            yield {**common, "access": _C["OP_PDPTES"], "leaf": table, "flags": flags}
    if made.name == "msrs":
        for at, exits in ((READ_EFER, made.value == 3), (WRITE_EFER, made.value == 2)):
            yield {**common, "access": _C["OP_WRITE"], "leaf": at, "upper": int(exits)}


def before_entry(vector: ProgramVector, common: Fields, now: Mapping[str, int]) -> Iterator[Fields]:
    """The function gives the fields that a VM entry of this program needs and that are no part of its own record."""
    if now["msrs"]:
        yield _field(common, _MSR_BITMAP, MSR_BITMAP)
    if not _has_targets(vector):
        return
    yield _field(common, _CR3_TARGET_COUNT, now["targets"])
    for n in range(4):
        number = now[f"target{n}"]
        value = NO_CR3 if number == NO_TARGET else cr3_value(number, pae=bool(now["pg"]))
        yield _field(common, _CR3_TARGET_VALUE0 + 2 * n, value)


def at_the_end(vector: ProgramVector, common: Fields) -> Iterator[Fields]:
    """The function gives the records that take away what a later vector's VM entry would find."""
    if _has_targets(vector):
        for flags in (0, _C["FLAG_VMCS_B"]):
            yield {**_field(common, _CR3_TARGET_COUNT, 0), "flags": flags}


def _has_targets(vector: ProgramVector) -> bool:
    return any(isinstance(made, Control) and made.name.startswith("target") for made in vector.steps)


def of_entry(now: Mapping[str, int]) -> Fields:
    """The function gives the part of a VM entry's record that says how L2 pages and what of its registers exits."""
    controls = (_CR3_LOAD_EXITING if now["cr3exit"] else 0) | (_USE_MSR_BITMAPS if now["msrs"] else 0)
    names = ("wp", "smep", "smap", "nxe", "pge", "pse")
    return {
        "paging": _C["PAGING_PAE"] if now["pg"] else _C["PAGING_64"],
        "upper": controls,
        "gu": cr3_value(now["cr3"], pae=bool(now["pg"])),
        "cr": sum(now[name] * _C[f"CR_{name.upper()}"] for name in names),
    }


# --- L2's code ---


def address(value: int, frame: CodeFrame) -> bytes:
    """The function gives the code that loads a linear address into RDI, in 32-bit mode into EDI."""
    return b"\xbf" + struct.pack("<I", value) if frame.pae else b"\x48\xbf" + struct.pack("<Q", value)


def store(where: int, value: int, frame: CodeFrame) -> bytes:
    """The function gives the code that writes 8 bytes; in 32-bit mode bit 0 is clear until the rest is written."""
    head = address(where, frame)
    if not frame.pae:
        return head + b"\x48\xb8" + struct.pack("<Q", value) + b"\x48\x89\x07"  # mov $value, %rax; mov %rax, (%rdi)
    low, high = struct.pack("<I", value & 0xFFFF_FFFF), struct.pack("<I", value >> 32)
    clear, upper = b"\xc7\x07" + bytes(4), b"\xc7\x47\x04" + high  # movl $0, (%edi); movl $high, 4(%edi)
    return head + clear + upper + b"\xc7\x07" + low  # movl $low, (%edi)


def result(place: int, at: int, frame: CodeFrame) -> bytes:
    """The function gives the code, ``at`` bytes into L2's, that leaves AL as what the part ``place`` read."""
    to = _C["PROGRAM_RESULTS"] + place
    if frame.pae:
        return b"\x88\x05" + struct.pack("<I", frame.code_at + to)  # mov %al, address
    return b"\x88\x05" + struct.pack("<i", to - (at + 6))  # mov %al, rel(%rip)


_BITS: Final = {"wp": (0xC2, 16), "smep": (0xE2, 20), "smap": (0xE2, 21), "pge": (0xE2, 7), "pse": (0xE2, 4)}


def bit(name: str, on: int, frame: CodeFrame) -> bytes:
    """The function gives the code that makes one bit of CR0 or CR4 other than it was, or EFER what it is with NXE."""
    if name == "nxe":
        value = (0 if frame.pae else _LMA_LME) | on << 11
        head = b"\xb9" + struct.pack("<I", _EFER) + b"\xb8" + struct.pack("<I", value)  # mov to %ecx, %eax
        return head + b"\x31\xd2\x0f\x30"  # xor %edx, %edx; wrmsr
    register, number = _BITS[name]
    wide = b"" if frame.pae else b"\x48"
    change = wide + b"\x0f\xba" + bytes((0xEA if on else 0xF2, number))  # bts/btr $bit, %rdx
    return b"\x0f\x20" + bytes((register,)) + change + b"\x0f\x22" + bytes((register,))


def load_cr3(number: int | None, frame: CodeFrame) -> bytes:
    """The function gives the code that loads CR3: with what it has where ``number`` is None."""
    register = cr3_register(number, pae=frame.pae)
    move = bytes((0xD8 | register & 7,))  # ModRM: CR3, the register
    if number is None:
        return b"\x0f\x20" + move + b"\x0f\x22" + move  # mov %cr3, %rdx; mov %rdx, %cr3
    value, load = cr3_value(number, pae=frame.pae), bytes((0xB8 | register & 7,))
    if frame.pae:
        return load + struct.pack("<I", value) + b"\x0f\x22" + move  # mov $value, %esi; mov %esi, %cr3
    return b"\x49" + load + struct.pack("<Q", value) + b"\x41\x0f\x22" + move  # mov $value, %r9; mov %r9, %cr3


def pdpte_linear(made: SetPdpte) -> int:
    """The function gives the L2-linear address of a page-directory-pointer-table entry in memory."""
    return GLA_PDPTS + _PDPT * int(made.table[1]) + 8 * made.number
