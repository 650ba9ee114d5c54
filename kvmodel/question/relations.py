"""What is asked of the VMX capability MSRs together: the name of each relation, and the MSRs that it looks at.

What a relation says the contract knows (``kvmodel.sdm.relations``). The answer is a bitmap of the bits that break it,
0 where the MSRs go together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kvmodel.question.outcome import Kind, Outcome

FIRST: Final = 0x480
LAST: Final = 0x491
BASIC: Final = 0x480
PIN, PROC, EXIT, ENTRY = 0x481, 0x482, 0x483, 0x484
TRUE: Final = 0x48D - 0x481  # from the plain form of a control MSR to its TRUE form
MISC: Final = 0x485
CR0_FIXED0, CR0_FIXED1, CR4_FIXED0, CR4_FIXED1 = 0x486, 0x487, 0x488, 0x489
VMCS_ENUM: Final = 0x48A
PROC2: Final = 0x48B
EPT_VPID_CAP: Final = 0x48C
VMFUNC: Final = 0x491
PROC3: Final = 0x492
EXIT2: Final = 0x493


def governing(*controls: int) -> tuple[int, ...]:
    """The MSRs that say which of ``controls`` (plain forms, or MSR 0x48B) VM entry takes: bit 55 of 0x480 decides."""
    forms = [msr for one in controls for msr in ((one,) if one == PROC2 else (one, one + TRUE))]
    return (*([BASIC] if any(one != PROC2 for one in controls) else []), *sorted(forms))


RELATIONS: Final[dict[str, tuple[int, ...]]] = {
    "basic": (BASIC,),
    "misc": (MISC, PROC2),
    "fixed": (CR0_FIXED0, CR0_FIXED1, CR4_FIXED0, CR4_FIXED1),
    "enum": (VMCS_ENUM, *governing(PIN, PROC), PROC2),
    **{f"allowed-{msr:x}": (msr,) for msr in (PIN, PROC, EXIT, ENTRY, PROC2, *range(PIN + TRUE, ENTRY + TRUE + 1))},
    **{f"default1-{msr:x}": (msr,) for msr in (PIN, PROC, EXIT, ENTRY)},
    **{f"true-{msr + TRUE:x}": (BASIC, msr, msr + TRUE) for msr in (PIN, PROC, EXIT, ENTRY)},
    "true-exist": (BASIC, *range(PIN + TRUE, ENTRY + TRUE + 1)),
    "secondary-exist": (*governing(PROC), PROC2),
    "ept-vpid-exist": (PROC2, EPT_VPID_CAP),
    "vmfunc-exist": (PROC2, VMFUNC),
    "tertiary-exist": (*governing(PROC), PROC3),
    "secondary-exit-exist": (*governing(EXIT), EXIT2),
    "ept-usable": (PROC2, EPT_VPID_CAP),
    "invept-types": (EPT_VPID_CAP,),
    "invvpid-types": (EPT_VPID_CAP,),
    "unrestricted-needs-ept": (PROC2,),
    "mbec-needs-ept": (PROC2,),
    "pml-needs-ept": (PROC2,),
    "spp-needs-ept": (PROC2,),
    "pt-needs-ept": (*governing(EXIT, ENTRY), PROC2),
    "eptp-switching-needs-ept": (PROC2, VMFUNC),
    "x2apic-needs-tpr-shadow": (*governing(PROC), PROC2),
    "apic-registers-need-tpr-shadow": (*governing(PROC), PROC2),
    "vid-needs-tpr-shadow": (*governing(PROC), PROC2),
    "vid-needs-extint-exiting": (*governing(PIN), PROC2),
    "posted-need-vid": (*governing(PIN), PROC2),
    "posted-need-ack": governing(PIN, EXIT),
    "virtual-nmis-need-nmi-exiting": governing(PIN),
    "nmi-window-needs-virtual-nmis": governing(PIN, PROC),
    "save-timer-needs-timer": governing(PIN, EXIT),
}

EXISTENCE: Final = frozenset(name for name in RELATIONS if name.endswith("-exist"))
"""Which MSRs there are: asked of L1's RDMSR alone, since KVM_GET_MSRS is KVM's own interface."""

OF_KVM: Final = EXISTENCE | {name for name in RELATIONS if name.startswith(("allowed-", "default1-", "true-"))}
"""Relations that KVM makes or breaks by itself whatever user space takes from L1: which MSRs there are, and the plain
form of an MSR of controls, which follows from the TRUE one. The others are of capabilities side by side: of these user
space may take any, and keep what rests on it."""


def outcome(offenders: int, values: Mapping[int, int | None]) -> Outcome:
    """The answer: the ``offenders``, and for a reader what each MSR read; None is one that could not be read."""
    told = (f"{msr:#x} {'absent' if value is None else f'{value:#x}'}" for msr, value in values.items())
    return Outcome(Kind.VALUE, offenders, note=", ".join(told))
