"""VM entry's checks on the controls a vector asks for (SDM 27.2.1.1)."""

from __future__ import annotations

from kvmodel.cpu import Cpu
from kvmodel.question.outcome import Kind, Outcome

INVALID_CONTROLS = 7  # VM-instruction error: VM entry with invalid control fields


VPID = 5  # the secondary control


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
    if ept and ad and not cpu.ept_ad:
        return "entry-eptp-ad"
    return None


def failed(error: int = INVALID_CONTROLS) -> Outcome:
    """A VMfail with VM-instruction ``error``."""
    return Outcome(Kind.ENTRY_FAIL, code=error)
