"""What one instruction of L2's, or an event handed to it, ends in (SDM 26.1, 26.3, 27.6, 28.2).

Everything follows from the VMCS as VM entry read it. None where it rests on what is not described.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kvmodel.bits import BIT, GENMASK
from kvmodel.question.instruction import INFORMATION, NONE, TIMER, Instruction
from kvmodel.question.outcome import Kind, Outcome, of_turns
from kvmodel.sdm.vmcs import CR0_WP, EXCEPTION, EXTERNAL, NMI_EVENT, OTHER, SOFT_EXCEPTION, SOFTWARE, CheckedVmcs

Ends = tuple[Outcome, str]  # an answer and the name of its rule

GENERAL_PROTECTION, PAGE_FAULT = 13, 14
CR0_PE, CR0_TS = BIT(0), BIT(3)
CR0_LOADED: Final = 0x8005_002F  # PE, MP, EM, TS, NE, WP, AM, PG: VM entry leaves the others (27.3.2.1)
CR0_FREE: Final = BIT(1) | BIT(2) | CR0_TS | CR0_WP | BIT(18)  # MP, EM, TS, WP, AM: MOV to CR0 may change them
CR4_FREE: Final = BIT(2) | BIT(4) | BIT(7)  # TSD, PSE, PGE
SYSENTER: Final = {0x174: "guest_sysenter_cs", 0x175: "guest_sysenter_esp", 0x176: "guest_sysenter_eip"}
CR_ACCESS, IO, RDMSR, WRMSR, DR_ACCESS, TRAP_FLAG = 28, 30, 31, 32, 29, 37  # basic exit reasons (appendix C)
BENIGN: Final = frozenset((1, 3, 4, 5, 6, 7, 9, 16, 17, 19))  # exceptions that no second one makes a double fault of
IDT_ERROR: Final = BIT(1)  # of an error code: the descriptor is the IDT's
EXTERNAL_ERROR: Final = BIT(0)
VALID: Final = BIT(31)
TOLD: Final = VALID | GENMASK(11, 0)  # of IDT-vectoring information; bit 12 is undefined, the others are 0
TIMER_EXPIRED: Final = 52
SAVE_TIMER: Final = 22  # of the VM-exit controls
TIMER_VALUE: Final = "vmx_preemption_timer_value"
MODELLED: Final = frozenset(
    (
        "pin_based_vm_exec_control",
        "vm_exit_controls",
        TIMER_VALUE,
        "cpu_based_vm_exec_control",
        "secondary_vm_exec_control",
        "io_bitmap_a",
        "io_bitmap_b",
        "msr_bitmap",
        "cr0_guest_host_mask",
        "cr0_read_shadow",
        "cr4_guest_host_mask",
        "cr4_read_shadow",
        "guest_cr0",
        "guest_cr4",
        "guest_sysenter_esp",
        "guest_sysenter_eip",
        INFORMATION,
        "vm_entry_exception_error_code",
        "vm_entry_instruction_len",
    )
)
"""The fields that what is here goes by; with another one changed nothing is said of an entry that succeeds."""
_SECONDARY: Final = {1, 7, 22}  # of the secondary controls: EPT, unrestricted guest, mode-based execute control
_PRIMARY: Final = {7, 9, 12, 15, 16, 23, 24, 25, 28, 30, 31}
# Instructions that exit where a control says so: its bit, or None for those that always do; the basic exit reason.
_BY_CONTROL: Final[dict[str, tuple[int | None, int]]] = {
    "rdtsc": (12, 16),
    "pause": (30, 40),
    "hlt": (7, 12),
    "invlpg": (9, 14),
    "cpuid": (None, 10),
    "invd": (None, 13),
}


def _exit(reason: int, qualification: int = 0) -> Ends:
    return Outcome(Kind.EXIT, code=qualification, number=reason), "exit-instruction"


def _done(value: int = 0, known: int = 0) -> Ends:
    return Outcome(Kind.VALUE, code=value & known, defined=known), "instruction-completes"


def _seen(v: CheckedVmcs, register: str, actual: int) -> int:
    """What MOV from a control register gives: of the bits that L1 owns the read shadow's (26.3)."""
    mask = v[f"{register}_guest_host_mask"]
    return actual & ~mask | v[f"{register}_read_shadow"] & mask


def _written(v: CheckedVmcs, register: str, value: int, free: int) -> int | None:
    """CR0 or CR4 after MOV of ``value``, which leaves the bits that L1 owns; None where others than ``free`` change."""
    was, mask = v[f"guest_{register}"], v[f"{register}_guest_host_mask"]
    now = was & mask | value & ~mask
    return None if (now ^ was) & ~free else now


def _owned(v: CheckedVmcs, register: str, value: int) -> int:
    """The bits that L1 owns and that ``value`` has otherwise than the read shadow: with one of them MOV exits."""
    return v[f"{register}_guest_host_mask"] & (value ^ v[f"{register}_read_shadow"])


def _cr0(v: CheckedVmcs, asked: Instruction) -> Ends | None:
    if _owned(v, "cr0", asked.operand):
        return _exit(CR_ACCESS)
    now = _written(v, "cr0", asked.operand, CR0_FREE)
    if now is None:
        return None
    if not asked.writes:
        return _done(_seen(v, "cr0", now), CR0_LOADED)
    if now & CR0_WP:
        return Outcome(Kind.EXCEPTION, code=3, number=PAGE_FAULT), "guest-protection"
    return _done()


def _clts(v: CheckedVmcs, _: Instruction) -> Ends:
    if v["cr0_guest_host_mask"] & v["cr0_read_shadow"] & CR0_TS:
        return _exit(CR_ACCESS, 2 << 4)
    now = v["guest_cr0"] & ~(CR0_TS & ~v["cr0_guest_host_mask"])
    return _done(_seen(v, "cr0", now), CR0_LOADED)


def _lmsw(v: CheckedVmcs, asked: Instruction) -> Ends:
    low = GENMASK(3, 0)
    source, mask, shadow = asked.operand & low, v["cr0_guest_host_mask"], v["cr0_read_shadow"]
    differs = mask & (source ^ shadow) & low
    if differs & ~CR0_PE or differs & source & CR0_PE:  # it can set PE and not clear it
        return _exit(CR_ACCESS, 3 << 4 | asked.operand << 16)
    was = v["guest_cr0"]
    now = was & ~(low & ~CR0_PE & ~mask) | source & ~mask
    return _done(_seen(v, "cr0", now), CR0_LOADED)


def _cr4(v: CheckedVmcs, asked: Instruction) -> Ends | None:
    if _owned(v, "cr4", asked.operand):
        return _exit(CR_ACCESS, 4)
    now = _written(v, "cr4", asked.operand, CR4_FREE)
    return None if now is None else _done(_seen(v, "cr4", now), GENMASK(31, 0))


def _cr3(v: CheckedVmcs, asked: Instruction) -> Ends:
    load = asked.what == "cr3"
    if v.proc(15 if load else 16):
        return _exit(CR_ACCESS, 3 | (0 if load else 1 << 4))
    return _done()


def _dr7(v: CheckedVmcs, asked: Instruction) -> Ends:
    return _exit(DR_ACCESS, 7 | (asked.what == "readdr7") << 4) if v.proc(23) else _done()


def _bit(v: CheckedVmcs, bitmap: int, number: int) -> bool | None:
    word = v.memory(bitmap + number // 64 * 8)
    return None if word is None else bool(word >> number % 64 & 1)


def _port(v: CheckedVmcs, port: int) -> bool | None:
    return _bit(v, v["io_bitmap_b" if port >> 15 else "io_bitmap_a"], port & GENMASK(14, 0))


def _in(v: CheckedVmcs, asked: Instruction) -> Ends | None:
    size = int(asked.what.removeprefix("in")) // 8
    if v.proc(25):
        found = [_port(v, port) for port in range(asked.operand, asked.operand + size)]
        if None in found or asked.operand + size > 1 << 16:
            return None
        exits = any(found)
    else:
        exits = v.proc(24)
    return _exit(IO, size - 1 | BIT(3) | asked.operand << 16) if exits else _done()


def _msr(v: CheckedVmcs, asked: Instruction) -> Ends | None:
    reads, msr = asked.what == "rdmsr", asked.operand
    exits: bool | None = True
    if v.proc(28):
        if msr >> 13 not in (0, 0xC000_0000 >> 13):
            exits = True
        else:
            at = v["msr_bitmap"] + (0 if reads else 2048) + (1024 if msr >> 31 else 0)
            exits = _bit(v, at, msr & GENMASK(12, 0))
    if exits is None or (not exits and msr not in SYSENTER):
        return None
    if exits:
        return _exit(RDMSR if reads else WRMSR)
    return _done(v[SYSENTER[msr]] & GENMASK(31, 0), ALL) if reads else _done()


def _controlled(v: CheckedVmcs, asked: Instruction) -> Ends:
    control, reason = _BY_CONTROL[asked.what]
    if control is None or v.proc(control):
        return _exit(reason, asked.operand)
    return _done()


def _wbinvd(v: CheckedVmcs, _: Instruction) -> Ends:
    return _exit(54) if v.proc2(6) else _done()


ALL: Final = GENMASK(63, 0)
_OF: Final[dict[str, Callable[[CheckedVmcs, Instruction], Ends | None]]] = {
    NONE: lambda _v, _a: _done(),
    "clts": _clts,
    "lmsw": _lmsw,
    "cr0": _cr0,
    "wp": _cr0,
    "readcr0": lambda v, _: _done(_seen(v, "cr0", v["guest_cr0"]), CR0_LOADED),
    "cr4": _cr4,
    "readcr4": lambda v, _: _done(_seen(v, "cr4", v["guest_cr4"]), GENMASK(31, 0)),
    **dict.fromkeys(("cr3", "readcr3"), _cr3),
    **dict.fromkeys(("dr7", "readdr7"), _dr7),
    **dict.fromkeys(("in8", "in16", "in32"), _in),
    **dict.fromkeys(("rdmsr", "wrmsr"), _msr),
    **dict.fromkeys(_BY_CONTROL, _controlled),
    "wbinvd": _wbinvd,
}


def _delivered(v: CheckedVmcs) -> Ends | None:
    """What an injected event ends in where L2 has no IDT: each exception of L2's is an exit (27.6, 28.2.4)."""
    kind, number, info = v.event, v.vector, v[INFORMATION]
    if kind == OTHER:  # the monitor trap flag's exit, whatever the control says; no event was being delivered
        return of_turns(
            (Outcome(Kind.EXIT, number=TRAP_FLAG), Outcome(Kind.VALUE, defined=VALID))
        ), "injected-trap-flag"
    if kind not in (EXTERNAL, NMI_EVENT, EXCEPTION, SOFTWARE, SOFT_EXCEPTION):
        return None
    if kind == EXCEPTION and number not in BENIGN:
        return None
    error = number << 3 | IDT_ERROR | (0 if kind in (SOFTWARE, SOFT_EXCEPTION) else EXTERNAL_ERROR)
    code, told = info & TOLD, TOLD
    if info & BIT(11):
        code |= v["vm_entry_exception_error_code"] << 32
        told |= GENMASK(63, 32)
    fault = Outcome(Kind.EXCEPTION, code=error, number=GENERAL_PROTECTION)
    return of_turns((fault, Outcome(Kind.VALUE, code=code, defined=told))), "injected-event"


def _timed(v: CheckedVmcs, asked: Instruction) -> Ends | None:
    """The same with the preemption timer (26.5.1): at 0 it ends L2 before any instruction.

    A long time, of 2**30 units and no more, has begun to go down and is far from its end: bit 30 clear, bit 29 set,
    where it is saved (28.3.4).
    """
    value, saved = v[TIMER_VALUE], v.exit(SAVE_TIMER)
    if not value:
        expired = Outcome(Kind.EXIT, number=TIMER_EXPIRED)
        return of_turns((expired, Outcome(Kind.VALUE))), "preemption-timer"
    found = _OF[asked.what](v, asked)
    if found is None or value != BIT(30):
        return None
    left = Outcome(Kind.VALUE, code=BIT(29), defined=GENMASK(63, 29)) if saved else Outcome(Kind.VALUE, code=value)
    return of_turns((found[0], left)), "preemption-timer"


def _known(v: CheckedVmcs, plain: CheckedVmcs) -> bool:
    """Whether the controls that ``v`` has otherwise than ``plain`` are those that what is here goes by."""
    pairs = (
        ("cpu_based_vm_exec_control", _PRIMARY),
        ("secondary_vm_exec_control", _SECONDARY | {6}),
        ("pin_based_vm_exec_control", {TIMER}),
        ("vm_exit_controls", {SAVE_TIMER}),
    )
    return not any((v[field] ^ plain[field]) >> bit & 1 for field, known in pairs for bit in set(range(32)) - known)


def ends(v: CheckedVmcs, plain: CheckedVmcs, asked: Instruction) -> Ends | None:
    """What an L2 that was entered with the VMCS ``v`` ends in; ``plain`` is the VMCS before the vector's changes."""
    if not _known(v, plain):
        return None
    if v.pin(TIMER):
        return _timed(v, asked) if v.event < 0 else None
    return _OF[asked.what](v, asked) if v.event < 0 else _delivered(v)
