"""An event whose delivery fails: which exit comes of it, and what IDT-vectoring information it has (SDM 28.2, 6.15).

L2's IDT is too short, or lies where L2's own tables or EPT12 have no page. So each event that is delivered meets
another one, which exits or is delivered in turn; two that make a double fault do, and a triple fault is the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kvmodel.bits import BIT, GENMASK
from kvmodel.sdm.vm_exit_registers import (
    DOUBLE_FAULT,
    GENERAL_PROTECTION,
    PAGE_FAULT,
    ToldExit,
    UndecidedError,
    absent_page,
    information,
    intercepted,
    page_fault,
)
from kvmodel.sdm.vmcs import CR0_PE, EXCEPTION, PRIVILEGED, SOFT_EXCEPTION, SOFTWARE, CheckedVmcs

TRIPLE_FAULT: Final = 2  # basic exit reason
CONTRIBUTORY: Final = frozenset({0, 10, 11, 12, 13})
OPEN: Final = frozenset({20, 21})  # virtualisation and control-protection exceptions: what they make is not described
EXT, IDT = BIT(0), BIT(1)  # of an error code


@dataclass(frozen=True, slots=True)
class Event:
    """What is delivered: its interruption type, vector, error code and, of a software event, instruction length."""

    kind: int
    vector: int
    error: int | None = None
    length: int | None = None

    @property
    def info(self) -> int:
        """The event as interruption information has it."""
        return information(self.kind, self.vector, self.error)


def _fault(v: CheckedVmcs, event: Event, ia32e: bool) -> ToldExit:
    """The fault or EPT violation that delivery of ``event`` meets at the IDT, as the exit that it were by itself."""
    size = 16 if ia32e else 8
    last = event.vector * size + size - 1
    if last > v["guest_idtr_limit"]:
        code = event.vector << 3 | IDT | (0 if event.kind in (SOFTWARE, SOFT_EXCEPTION) else EXT)
        found = ToldExit.exception(GENERAL_PROTECTION, code)
        if event.kind == PRIVILEGED:
            found.blank_error(EXT)  # whether INT1 is external to the program
        return found
    address = v["guest_idtr_base"] + event.vector * size
    return absent_page(v, address) or page_fault(address)


def _double(event: Event, second: int) -> bool:
    """Whether a fault in the delivery of ``event`` makes a double fault of both (SDM 6.15, table 6-5)."""
    if event.kind != EXCEPTION:
        return False
    if event.vector in OPEN:
        raise UndecidedError
    if event.vector == PAGE_FAULT:
        return second in CONTRIBUTORY | {PAGE_FAULT}
    return event.vector in CONTRIBUTORY and second in CONTRIBUTORY


def delivered(v: CheckedVmcs, event: Event, ia32e: bool) -> ToldExit:
    """The exit that delivery of ``event`` ends in. Raises UndecidedError."""
    if not v["guest_cr0"] & CR0_PE:
        raise UndecidedError
    fault = _fault(v, event, ia32e)
    vector = fault.interruption & 0xFF
    if not fault.is_exception or intercepted(v, vector, fault.error or 0):
        fault.vectoring, fault.vectoring_error = event.info, event.error
        fault.vectoring_defined = GENMASK(11, 0) | GENMASK(31, 13)
        fault.length = event.length
        if not fault.is_exception:
            fault.blank(BIT(12))
        else:
            fault.interruption_defined &= ~BIT(12)
        return fault
    if event.kind == EXCEPTION and event.vector == DOUBLE_FAULT:
        return ToldExit(TRIPLE_FAULT)
    if not _double(event, vector):
        return delivered(v, Event(EXCEPTION, vector, fault.error), ia32e)
    if intercepted(v, DOUBLE_FAULT, 0):
        double = ToldExit.exception(DOUBLE_FAULT, 0)
        double.interruption_defined &= ~BIT(12)
        return double
    return delivered(v, Event(EXCEPTION, DOUBLE_FAULT, 0), ia32e)


def exited(event: Event) -> ToldExit:
    """The exit that an exception is itself."""
    found = ToldExit.exception(event.vector, event.error)
    found.interruption = event.info
    found.length = event.length
    return found
