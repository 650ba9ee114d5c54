"""The capability MSRs of controls, EPT and VM functions: which values are consistent (SDM A.2 to A.5, A.10, A.11).

A value is judged by itself: any capability may be missing, since advertising less is policy.
"""

from __future__ import annotations

from kvmodel.bits import BIT, GENMASK
from kvmodel.cpu import Cpu
from kvmodel.question.outcome import Kind, Outcome

PROCBASED_CTLS2 = 0x48B
EPT_VPID_CAP = 0x48C
TRUE_FIRST = 0x48D  # then as from 0x481 on
TRUE_LAST = 0x490
VMFUNC = 0x491
GENERAL_PROTECTION = 13

ENABLE_EPT = BIT(32 + 1)
UNRESTRICTED_GUEST = BIT(32 + 7)
MODE_BASED_EXECUTE = BIT(32 + 22)
ALLOWED_0 = GENMASK(31, 0)
EPTP_SWITCHING = BIT(0)
DEFAULT_1 = {  # controls that a processor without the TRUE MSRs demands to be 1 (A.2 and the control's section)
    0x481: BIT(1) | BIT(2) | BIT(4),
    0x482: BIT(1) | GENMASK(6, 4) | BIT(8) | GENMASK(16, 13) | BIT(26),
    0x483: GENMASK(8, 0) | GENMASK(11, 10) | GENMASK(14, 13) | GENMASK(17, 16),
    0x484: GENMASK(8, 0) | BIT(12),
}

EXECUTE_ONLY = BIT(0)
CAPABILITY = (
    EXECUTE_ONLY
    | BIT(6)  # page-walk length 4
    | BIT(7)  # page-walk length 5
    | BIT(8)  # paging-structure memory type UC
    | BIT(14)  # WB
    | BIT(16)  # 2 MiB pages
    | BIT(17)  # 1 GiB pages
    | BIT(20)  # INVEPT
    | BIT(21)  # accessed and dirty flags
    | BIT(22)  # advanced VM-exit information for EPT violations
    | BIT(23)  # supervisor shadow-stack control
    | GENMASK(26, 25)  # INVEPT types
    | BIT(32)  # INVVPID
    | GENMASK(43, 40)  # INVVPID types
    | GENMASK(53, 48)  # largest HLAT prefix size
)
CAPABILITY_RESERVED = GENMASK(63, 0) & ~CAPABILITY


def _value(value: int, defined: int) -> Outcome:
    return Outcome(Kind.VALUE, code=value, defined=defined)


def values(msr: int) -> tuple[tuple[Outcome, str], ...]:
    """The consistent values of ``msr``, with the rule of each; empty for an MSR not described here."""
    if msr == PROCBASED_CTLS2:
        dependent = UNRESTRICTED_GUEST | MODE_BASED_EXECUTE
        return (
            (_value(ENABLE_EPT, ALLOWED_0 | ENABLE_EPT), "msr-value"),
            (_value(0, ALLOWED_0 | ENABLE_EPT | dependent), "msr-mbec-needs-ept"),
        )
    if msr == EPT_VPID_CAP:
        return ((_value(0, CAPABILITY_RESERVED), "msr-ept-cap"),)
    if msr in DEFAULT_1:
        both = DEFAULT_1[msr] | DEFAULT_1[msr] << 32
        return ((_value(both, both), "msr-default1"),)
    if TRUE_FIRST <= msr <= TRUE_LAST:
        may_be_1 = DEFAULT_1[msr - TRUE_FIRST + min(DEFAULT_1)] << 32
        return ((_value(may_be_1, may_be_1), "msr-true-default1"),)
    if msr == VMFUNC:
        return ((_value(0, GENMASK(63, 0) & ~EPTP_SWITCHING), "msr-vmfunc"),)
    return ()


def readings(cpu: Cpu, msr: int) -> tuple[tuple[Outcome, str], ...]:
    """What RDMSR of ``msr`` may give on ``cpu``: a consistent value, or #GP(0) where the MSR may be missing.

    0x48C exists where EPT or VPID is allowed; VPID is not part of ``Cpu``, so without EPT it may be either. Nor are
    VM functions and bit 55 of MSR 0x480: 0x491 and the TRUE MSRs may be either.
    """
    absent = (Outcome(Kind.EXCEPTION, number=GENERAL_PROTECTION, defined=ALLOWED_0), "msr-absent")
    consistent = values(msr)
    if not consistent:
        return ()
    if not cpu.vmx:
        return (absent,)
    if msr >= TRUE_FIRST or (msr == EPT_VPID_CAP and not cpu.ept):
        return (*consistent, absent)
    return consistent
