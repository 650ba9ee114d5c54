"""What L2 does after a VM entry until it exits, and what the exit tells (SDM 26, 27.6 and 28.2).

L2 has a few instructions, CPL 0 and no handler: an event that is to be delivered meets a fault at the IDT. The model
is one instruction after the other. It gives up (``None``) where the manual leaves more open than a mask of bits can
say, or where it has no description.
"""

from __future__ import annotations

from typing import Final

from kvmodel.bits import BIT, GENMASK
from kvmodel.question.outcome import Kind, Outcome, Place
from kvmodel.question.vm_exit import TOLD, Instructed, VmExitVector
from kvmodel.question.vmcs import SCRATCH
from kvmodel.sdm import vm_exit_registers as registers
from kvmodel.sdm.vm_entry import KERNEL_GS_BASE
from kvmodel.sdm.vm_exit_events import Event, delivered, exited
from kvmodel.sdm.vm_exit_registers import RunningGuest, ToldExit, UndecidedError, raised
from kvmodel.sdm.vmcs import ALL, NMI_EVENT, OTHER, PRIVILEGED, SOFT_EXCEPTION, SOFTWARE, CheckedVmcs

BREAKPOINT, DEBUG, UNDEFINED = 3, 1, 6
MTF, TIMER, NMI_WINDOW, INTERRUPT_WINDOW, VMCALL = 37, 52, 8, 7, 18  # basic exit reasons (SDM appendix C)
EPT_VIOLATION: Final = 48
IO, RDMSR, WRMSR, IN_DIRECTION, IMMEDIATE = 30, 31, 32, BIT(3), BIT(6)
SYSENTER_CS, SYSENTER_ESP = 0x174, 0x175
PORT_BYTES: Final = {"in": 1, "out": 1, "inb": 1, "inw": 2, "inl": 4}
RUNS, SAVES = 6, 22  # the preemption timer: a bit of the pin-based controls, one of the VM-exit controls
TIMER_VALUE: Final = "vmx_preemption_timer_value"
LONG_TIME: Final = BIT(30)  # of the timer: it begins to go down, and L2 is through long before its end
ALWAYS: Final = {"cpuid": 10, "invd": 13, "vmlaunch": 20, "vmresume": 24, "vmxoff": 26, "vmcall": VMCALL}
BY_PRIMARY: Final = {  # (bit of the primary processor-based controls, exit reason)
    "hlt": (7, 12),
    "invlpg": (9, 14),
    "mwait": (10, 36),
    "rdpmc": (11, 15),
    "rdtsc": (12, 16),
    "monitor": (29, 39),
    "pause": (30, 40),
}
_BY_STI_OR_MOV_SS, _BY_NMI = GENMASK(1, 0), BIT(3)

Row = list[tuple[Outcome, str]]


def _injected(v: CheckedVmcs) -> ToldExit | None:
    """The exit that the injected event ends in; None where there is none. Raises UndecidedError."""
    if v.event < 0:
        return None
    if v.event == OTHER:
        return ToldExit(MTF)
    if v["guest_activity_state"] or v["guest_interruptibility_info"] & _BY_STI_OR_MOV_SS:
        raise UndecidedError
    info = v["vm_entry_intr_info_field"]
    given = bool(info & BIT(11))
    soft = v.event in (SOFTWARE, PRIVILEGED, SOFT_EXCEPTION)
    event = Event(
        v.event,
        v.vector,
        v["vm_entry_exception_error_code"] if given else None,
        v["vm_entry_instruction_len"] if soft else None,
    )
    return delivered(v, event, v.ia32e)


def _before_the_first(v: CheckedVmcs) -> ToldExit | None:
    """An exit that is pending as soon as L2 is entered (SDM 27.7). Raises UndecidedError."""
    if v.pin(RUNS) and v[TIMER_VALUE] != LONG_TIME:
        if v[TIMER_VALUE]:
            raise UndecidedError  # who is first is open
        return ToldExit(TIMER)
    blocking = v["guest_interruptibility_info"]
    windows = (v.proc(22), v.proc(2))
    if any(windows) and blocking & _BY_STI_OR_MOV_SS:
        raise UndecidedError
    if windows[0] and not blocking & _BY_NMI:
        return ToldExit(NMI_WINDOW)
    return ToldExit(INTERRUPT_WINDOW) if windows[1] and v["guest_rflags"] & BIT(9) else None


def _word(v: CheckedVmcs, address: int) -> int:
    word = v.memory(address & ~7)
    if word is None:
        raise UndecidedError
    return word >> 8 * (address & 7)


def _port(v: CheckedVmcs, port: int) -> bool:
    """Whether an access of one byte to an I/O port exits (SDM 26.1.3): bitmap A is of the ports below 0x8000."""
    if not v.proc(25):
        return v.proc(24)
    at, bit = divmod(port & 0x7FFF, 8)
    return bool(_word(v, v["io_bitmap_b" if port >> 15 else "io_bitmap_a"] + at) >> bit & 1)


def _io(v: CheckedVmcs, g: RunningGuest, one: Instructed) -> ToldExit | None:
    """IN or OUT, which exits where one of its bytes' ports does (SDM 26.1.3)."""
    size, reads = PORT_BYTES[one.what], one.what != "out"
    ports = range(one.operand, one.operand + size)
    if ports.stop > 1 << 16:
        raise UndecidedError
    if any(_port(v, port) for port in ports):
        how = (IN_DIRECTION if reads else 0) | (IMMEDIATE if one.what in ("in", "out") else 0)
        return ToldExit(IO, one.operand << 16 | how | size - 1, length=len(one.code))
    if reads:  # whatever lies behind the port; 32 bits clear the others
        g.rax, g.rax_defined = (0, ~GENMASK(31, 0)) if size == 4 else (g.rax, g.rax_defined & ~GENMASK(8 * size - 1, 0))
        g.rax_defined &= ALL
    return None


def _msr_exits(v: CheckedVmcs, msr: int, *, write: bool) -> bool:
    """Whether RDMSR or WRMSR exits (SDM 26.1.3): of MSR bitmaps the first quarter is of reads of low MSRs."""
    if not v.proc(28):
        return True
    high = msr >> 13 == 0xC000_0000 >> 13
    if msr >> 13 and not high:
        return True
    at = v["msr_bitmap"] + (1024 if high else 0) + (2048 if write else 0) + (msr & 0x1FFF) // 8
    return bool(_word(v, at) >> (msr & 7) & 1)


def _read_msr(v: CheckedVmcs, g: RunningGuest, msr: int) -> int:
    if msr in g.sysenter:
        return g.sysenter[msr]
    listed = v["vm_entry_msr_load_addr"]
    if msr == KERNEL_GS_BASE and v["vm_entry_msr_load_count"] == 1 and _word(v, listed) == msr:
        return _word(v, listed + 8)
    raise UndecidedError


def _write_msr(g: RunningGuest, msr: int) -> None:
    """WRMSR that does not exit, of EDX:EAX to one of SYSENTER's MSRs. Raises UndecidedError."""
    if msr not in g.sysenter or g.rdx is None or g.rax_defined & GENMASK(31, 0) != GENMASK(31, 0):
        raise UndecidedError
    value = g.rdx << 32 & ALL | g.rax & GENMASK(31, 0)
    if value >> (32 if msr == SYSENTER_CS else 47):
        raise UndecidedError  # beyond what is kept, or not canonical with some widths
    g.sysenter[msr] = value


def _goes_on(v: CheckedVmcs, g: RunningGuest, what: str) -> None:
    """PAUSE, INVLPG or RDTSC that no control makes exit. Raises UndecidedError for what waits, or is not described."""
    if what not in ("pause", "invlpg", "rdtsc") or v.proc2(10):
        raise UndecidedError
    if what == "rdtsc":
        g.rax, g.rax_defined, g.rdx = 0, GENMASK(63, 32), None


def _iret(v: CheckedVmcs, g: RunningGuest) -> ToldExit:
    """IRET of an L2 whose stack is nowhere: it may have unblocked NMIs all the same (SDM 26.3, 28.2.1, 28.2.2)."""
    blocked = bool(v["guest_interruptibility_info"] & _BY_NMI)
    fault = registers.stack_fault(v, g)
    if v.pin(3) and not v.pin(5):
        fault.blank(BIT(12))
    elif blocked:
        fault.add(BIT(12))
    if blocked:
        fault.open_nmi = True
    return fault


def _executed(v: CheckedVmcs, g: RunningGuest, one: Instructed) -> ToldExit | None:
    """One instruction of L2's: the exit that it ends in; None where it completes. Raises UndecidedError."""
    length = len(one.code)
    match one.what:
        case what if what in ALWAYS:
            return ToldExit(ALWAYS[what], length=length)
        case what if what in BY_PRIMARY:
            bit, reason = BY_PRIMARY[what]
            if not v.proc(bit):
                _goes_on(v, g, what)
                return None
            return ToldExit(reason, g.rax if what == "invlpg" else 0, length=length)
        case "wbinvd" if v.proc2(6):
            return ToldExit(54, length=length)
        case "nop" | "wbinvd":
            return None
        case "ud2":
            return raised(v, UNDEFINED)
        case "int3":
            return _soft(v, g, Event(SOFT_EXCEPTION, BREAKPOINT, None, length))
        case "int1":
            return _soft(v, g, Event(PRIVILEGED, DEBUG, None, length))
        case "int":
            return delivered(v, Event(SOFTWARE, one.operand, None, length), g.ia32e)
        case "iret":
            return _iret(v, g)
        case what if what in PORT_BYTES:
            return _io(v, g, one)
        case "ecx":
            return None
        case "rdmsr":
            if _msr_exits(v, one.operand, write=False):
                return ToldExit(RDMSR, length=length)
            value = _read_msr(v, g, one.operand)
            g.rax, g.rax_defined, g.rdx = value & GENMASK(31, 0), ALL, value >> 32
            return None
        case "wrmsr":
            if _msr_exits(v, one.operand, write=True):
                return ToldExit(WRMSR, length=length)
            _write_msr(g, one.operand)
            return None
        case _:
            return registers.executed(v, g, one)


def _soft(v: CheckedVmcs, g: RunningGuest, event: Event) -> ToldExit:
    """INT3 and INT1: the exception itself exits where the bitmap says so, else it is delivered."""
    if v["exception_bitmap"] >> event.vector & 1:
        found = exited(event)
        if event.vector == DEBUG:
            found.defined = 0
        return found
    return delivered(v, event, g.ia32e)


def _run(v: CheckedVmcs, vector: VmExitVector) -> tuple[ToldExit, RunningGuest]:
    guest = RunningGuest.entered(v)
    if v["guest_activity_state"] or v["guest_pending_dbg_exceptions"] or v["guest_rflags"] & BIT(8):
        raise UndecidedError
    if v["guest_rip"] != guest.rip or v.proc2(18):
        raise UndecidedError
    found = _injected(v)
    pending = any((v.pin(RUNS), v.proc(22), v.proc(2), v.proc(27)))
    if found is not None:
        if found.reason == MTF and pending:
            raise UndecidedError
        return found, guest
    if (found := _before_the_first(v)) is not None:
        return found, guest
    for one in vector.instructions:
        if (found := _executed(v, guest, one)) is not None:
            return found, guest
        guest.rip += len(one.code)
        guest.began = True
        if v.proc(27):
            return ToldExit(MTF), guest
    raise UndecidedError


def told(v: CheckedVmcs, vector: VmExitVector) -> list[Row]:
    """What the exit tells, field by field as ``TOLD`` has them, each with its rule; none where that is open.

    The fault of an IRET that had unblocked NMIs may as well be told as that of one that was never begun: L1 comes to
    the same when it goes on.
    """
    try:
        found, guest = _run(v, vector)
        rows = [_told(v, found, guest)]
        if found.open_nmi:
            found.drop(BIT(12))
            found.open_nmi = False
            rows.append(_told(v, found, guest))
        return rows
    except UndecidedError:
        return []


def _value(code: int, defined: int = ALL) -> Outcome:
    return Outcome(Kind.VALUE, code & defined, defined=defined)


def _information(info: int, error: int | None, defined: int, of_error: int = GENMASK(31, 0)) -> Outcome:
    """Interruption or IDT-vectoring information; the error code counts where bit 11 says that there is one."""
    code = info | (error or 0) << 32
    return _value(code, defined | (of_error << 32 if error is not None else 0))


def _memory(v: CheckedVmcs, g: RunningGuest) -> Outcome:
    """What the word 1 of the scratch page holds: what L2 wrote or the VM-exit MSR-store area had stored (SDM 28.4)."""
    count, area = v["vm_exit_msr_store_count"], v["vm_exit_msr_store_addr"]
    if not count:
        return _value(g.memory)
    if count > 1 or area != SCRATCH or v["mem0"] != SYSENTER_ESP:
        raise UndecidedError
    return _value(g.sysenter[SYSENTER_ESP])


def _timer(v: CheckedVmcs) -> Outcome:
    """What the field of the preemption timer holds (SDM 26.5.1, 28.3.4): its value where the exit saves it.

    A long time has begun to go down: bit 30 clear, bit 29 set.
    """
    if not v.msr(0x481) >> 32 + RUNS & 1:
        return _value(0, 0)  # there is no such field
    value = v[TIMER_VALUE]
    if not (v.pin(RUNS) and v.exit(SAVES)):
        return _value(value, GENMASK(31, 0))
    if value not in (0, LONG_TIME):
        raise UndecidedError
    return _value(LONG_TIME >> 1, GENMASK(31, 29)) if value else _value(0, GENMASK(31, 0))


def _told(v: CheckedVmcs, found: ToldExit, g: RunningGuest) -> Row:
    gpa = None if found.gpa is None else Place("l2", found.gpa)
    gla = None if found.gla is None else Place("linear", found.gla)
    exit_ = Outcome(Kind.EXIT, found.qualification & found.defined, found.reason, gpa, gla, found.defined)
    blocking = v["guest_interruptibility_info"]
    open_blocking = _BY_STI_OR_MOV_SS if g.began else 0
    if found.open_nmi or v.event == NMI_EVENT:
        open_blocking |= _BY_NMI
    saved = g.efer if v.exit(20) else v["guest_ia32_efer"]
    event = _information(found.interruption, found.error, found.interruption_defined, found.error_defined)
    row = (
        (exit_, "exit-reason"),
        (event, "exit-interruption"),
        (_information(found.vectoring, found.vectoring_error, found.vectoring_defined), "exit-vectoring"),
        (_value(g.rip), "exit-rip"),
        (_value(found.length or 0, 0 if found.length is None else GENMASK(31, 0)), "exit-length"),
        (_value(blocking, GENMASK(31, 0) & ~open_blocking), "exit-interruptibility"),
        (_value(g.rax, g.rax_defined), "exit-read-back"),
        (_value(g.cr0, g.cr0_defined), "exit-saves-cr0"),
        (_value(g.cr3), "exit-saves-cr3"),
        (_value(g.cr4), "exit-saves-cr4"),
        (_value(saved), "exit-saves-efer"),
        (Outcome(Kind.VALUE, defined=0) if found.reason == EPT_VIOLATION else _memory(v, g), "exit-memory"),
        (_timer(v), "exit-saves-timer"),
    )
    assert len(row) == len(TOLD)
    return [(outcome if not n else _named(outcome, TOLD[n]), rule) for n, (outcome, rule) in enumerate(row)]


def _named(outcome: Outcome, name: str) -> Outcome:
    return Outcome(outcome.kind, outcome.code, defined=outcome.defined, note=name)
