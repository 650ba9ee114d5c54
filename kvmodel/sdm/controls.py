"""VM entry's checks on the controls a vector asks for (SDM 27.2.1.1)."""

from __future__ import annotations

from kvmodel.cpu import Cpu
from kvmodel.question.outcome import Kind, Outcome

INVALID_CONTROLS = 7  # VM-instruction error: VM entry with invalid control fields


VPID = 5  # the secondary control
FOUR_LEVELS = 6  # the bit of MSR 0x48C


def entry_failure(
    cpu: Cpu, *, ept: bool, mbec: bool, ad: bool, unrestricted: bool = False, vpid: bool = False
) -> str | None:
    """The rule by which VM entry refuses these controls, None where it accepts them.

    Every refusal is a VMfail with error 7. ``ad`` is EPTP bit 6 and only looked at with ``ept``; ``vpid`` comes with a
    VPID that is not 0.
    """
    asked = ((ept, cpu.ept), (mbec, cpu.mbec), (unrestricted, cpu.unrestricted), (vpid, cpu.may_set(VPID)))
    if any(wanted and not offered for wanted, offered in asked):
        return "entry-control-not-allowed"
    if mbec and not ept:
        return "entry-mbec-needs-ept"
    if unrestricted and not ept:
        return "entry-unrestricted-needs-ept"
    return eptp_refused(cpu, ad=ad) if ept else None


def eptp_refused(cpu: Cpu, *, ad: bool) -> str | None:
    """The rule by which an EPT pointer is refused that is write-back, of four levels, with bit 6 as ``ad`` says."""
    if ad and not cpu.ept_ad:
        return "entry-eptp-ad"
    return None if cpu.has_ept_vpid(FOUR_LEVELS) else "entry-ept-pointer"


def failed(error: int = INVALID_CONTROLS) -> Outcome:
    """A VMfail with VM-instruction ``error``."""
    return Outcome(Kind.ENTRY_FAIL, code=error)
