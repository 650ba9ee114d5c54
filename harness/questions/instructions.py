"""What one instruction of L2's exits by, and what an injected event leaves: the answers are the contract's.

Bits of CR0 and CR4 that L1 owns, with each value of them and of their read shadows; I/O and MSR bitmaps at, beside and
across what is asked; each instruction with its control set and clear; events that end in their delivery.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Final

from kvmodel.question.instruction import NONE, InstructionVector
from kvmodel.question.vector import Mbec
from kvmodel.question.vm_entry import changes
from kvmodel.question.vmcs import SCRATCH

_PROC, _PROC2 = "cpu_based_vm_exec_control", "secondary_vm_exec_control"
_BITMAPS: Final = f"{_PROC}:s25+io_bitmap_a={SCRATCH:x}+io_bitmap_b={SCRATCH:x}"
_MSRS: Final = f"{_PROC}:s28+msr_bitmap={SCRATCH:x}"
CR0: Final = 0x8001_0031  # PG, WP, NE, ET, PE: what L2 is entered with
CR4: Final = 0x2020  # VMXE, PAE
_MP, _EM, _TS, _WP, _AM = 1 << 1, 1 << 2, 1 << 3, 1 << 16, 1 << 18
_TSD, _PSE, _PGE = 1 << 2, 1 << 4, 1 << 7
_EVENTS: Final = (0x20, 0xFF, 0x202, 0x301, 0x303, 0x306, 0x307, 0x310, 0xB11, 0x313, 0x420, 0x480, 0x4FF, 0x603, 0x604)
_TRAP_FLAG: Final = 0x700


def _asked(name: str, text: str = "asis") -> InstructionVector:
    return InstructionVector(Mbec.OFF, changes=changes(text), name=name)


def _owned(register: str, mask: int, shadow: int) -> str:
    return f"{register}_guest_host_mask={mask:x}+{register}_read_shadow={shadow:x}"


def owned_bits() -> Iterator[InstructionVector]:
    """L1 owns bits of CR0 and CR4: MOV, CLTS and LMSW exit by the read shadow, and leave what L1 owns as it is."""
    for has, mask, shadow in product((CR0, CR0 | _TS), (0, _TS, _TS | 1), (0, _TS, _TS | 1, CR0)):
        state = f"guest_cr0={has:x}+{_owned('cr0', mask, shadow)}"
        yield _asked("clts", state)
        yield _asked("readcr0", state)
    for source, mask, shadow in product((0, 1, 3, 8, 9, 0xFFF1), (0, 1, 2, 8, 0xF), (0, 1, 8, 9)):
        yield _asked(f"lmsw-{source:x}", _owned("cr0", mask, shadow))
    for bit, mask, shadow, flipped in product((_WP, _AM, _TS, _MP), (0, 1), (0, 1), (0, 1)):
        text = _owned("cr0", bit * mask, bit * shadow)
        value = CR0 & ~bit | bit * flipped
        yield _asked(f"cr0-{value:x}", text)
        yield _asked(f"cr0-{value ^ _EM:x}", text)  # a bit beside it that is L2's own
    for shadow, value, beside in product((0, _WP), (CR0, CR0 & ~_WP), (0, _AM, _MP | _AM)):
        for mask, has in product((0, _WP), (CR0, CR0 & ~_WP)):
            yield _asked(f"wp-{value | beside:x}", f"guest_cr0={has:x}+{_owned('cr0', mask, shadow)}")
    for bit, mask, shadow, flipped in product((_PGE, _PSE, _TSD), (0, 1), (0, 1), (0, 1)):
        yield _asked(f"cr4-{CR4 | bit * flipped:x}", _owned("cr4", bit * mask, bit * shadow))
        yield _asked("readcr4", f"guest_cr4={CR4 | bit * flipped:x}+{_owned('cr4', bit * mask, bit * shadow)}")


def instruction_exits() -> Iterator[InstructionVector]:
    """Each instruction that a control makes exit is asked with the control set and clear; some always exit."""
    for name, control in (
        ("rdtsc", 12),
        ("pause", 30),
        ("invlpg-800000", 9),
        ("cr3", 15),
        ("readcr3", 16),
        ("dr7", 23),
        ("readdr7", 23),
    ):
        yield _asked(name)
        yield _asked(name, f"{_PROC}:s{control}")
    yield _asked("hlt", f"{_PROC}:s7")
    for name in ("cpuid", "invd"):
        yield _asked(name)
    yield _asked("wbinvd")
    yield _asked("wbinvd", f"{_PROC2}:s6")


def bitmaps() -> Iterator[InstructionVector]:
    """I/O and MSR bitmaps have a bit set: that of the port or MSR, its neighbours, of accesses over several ports."""
    for name, (word, bit) in product(
        ("in8-707", "in8-708", "in8-709", "in16-707", "in16-708", "in32-706", "in32-707", "in32-708", "in32-709"),
        ((28, 7), (28, 8), (28, 9)),
    ):
        yield _asked(name, f"{_BITMAPS}+mem{word}={1 << bit:x}")
    for name in ("in8-708", "in16-708", "in32-708"):
        yield _asked(name)
        yield _asked(name, f"{_PROC}:s24")
        yield _asked(name, f"{_BITMAPS}")
        yield _asked(name, f"{_BITMAPS}+{_PROC}:s24")  # with bitmaps it counts for nothing
    for name, bit in product(("in8-8000", "in8-8001", "in16-7fff", "in32-7ffe", "in32-7fff"), (0, 1, 2)):
        yield _asked(name, f"{_BITMAPS}+mem0={1 << bit:x}")
    for name, bit in product(("rdmsr-174", "rdmsr-175", "rdmsr-176", "wrmsr-174"), (51, 52, 53, 54)):
        yield _asked(name, f"{_MSRS}+mem5={1 << bit:x}")
    for name in ("rdmsr-174", "wrmsr-174", "rdmsr-c0000080", "rdmsr-2000", "wrmsr-c0002000"):
        yield _asked(name)
        yield _asked(name, _MSRS)


def injected_events() -> Iterator[InstructionVector]:
    """An event is injected whose delivery ends in an exit: what that is, and which event it says it was."""
    for event in _EVENTS:
        info = f"vm_entry_intr_info_field={event | 1 << 31:x}"
        length = "+vm_entry_instruction_len=2" if event >> 8 & 7 in (4, 6) else ""
        yield _asked(NONE, info + length)
        if event >> 11 & 1:
            yield _asked(NONE, f"{info}+vm_entry_exception_error_code=7ff8")
    trap = f"vm_entry_intr_info_field={_TRAP_FLAG | 1 << 31:x}"
    yield _asked(NONE, trap)
    yield _asked("cpuid", trap)


def preemption_timer() -> Iterator[InstructionVector]:
    """The preemption timer runs, expired from the start or with long to go, and its field is saved or left alone."""
    timer = "pin_based_vm_exec_control:s6+vmx_preemption_timer_value"
    for name in (NONE, "cpuid", "readcr0", "rdtsc"):
        yield _asked(name, f"{timer}=0")
        for save in ("", "+vm_exit_controls:s22"):
            yield _asked(name, f"{timer}={1 << 30:x}{save}")


INSTRUCTIONS: Final[dict[str, Callable[[], Iterator[InstructionVector]]]] = {
    part.__name__: part for part in (owned_bits, instruction_exits, bitmaps, injected_events, preemption_timer)
}
