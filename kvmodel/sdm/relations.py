"""What the manual says of the VMX capability MSRs together (SDM 27.2.1.1 and appendix A).

Each relation gives the bits that break it, in the place that they have in their MSR, so that 0 says that it holds. An
MSR that is not there allows nothing to be 1 and demands nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from kvmodel.bits import BIT, GENMASK
from kvmodel.question.outcome import Outcome
from kvmodel.question.relations import (
    BASIC,
    CR0_FIXED0,
    CR0_FIXED1,
    CR4_FIXED0,
    CR4_FIXED1,
    ENTRY,
    EPT_VPID_CAP,
    EXIT,
    EXIT2,
    MISC,
    PIN,
    PROC,
    PROC2,
    PROC3,
    RELATIONS,
    TRUE,
    VMCS_ENUM,
    VMFUNC,
    outcome,
)
from kvmodel.sdm.msrs import DEFAULT_1

LOW: Final = GENMASK(31, 0)
TRUE_CONTROLS: Final = BIT(55)  # of MSR 0x480

# of MSR 0x480 (A.1)
BASIC_ZERO: Final = BIT(31) | GENMASK(47, 45) | BIT(48) | GENMASK(63, 59) | BIT(57)
REGION_SIZE: Final = GENMASK(44, 32)
MEMORY_TYPE: Final = GENMASK(53, 50)

# of MSR 0x485 (A.6)
MISC_ZERO: Final = GENMASK(13, 9) | BIT(31)
STORES_LMA: Final = BIT(5)
CR3_TARGETS: Final = GENMASK(24, 16)

# of MSR 0x48C (A.10)
WALK_LENGTH: Final = GENMASK(7, 6)
TABLE_TYPE: Final = BIT(8) | BIT(14)
INVEPT: Final = BIT(20)
INVEPT_TYPES: Final = GENMASK(26, 25)
INVVPID: Final = BIT(32)
INVVPID_TYPES: Final = GENMASK(43, 40)

VMXE: Final = BIT(13)  # of CR4


@dataclass(frozen=True, slots=True)
class Offered:
    """A control: the plain form of the MSR that offers it, and its bit."""

    msr: int
    bit: int


EXTINT_EXITING = Offered(PIN, 0)
NMI_EXITING = Offered(PIN, 3)
VIRTUAL_NMIS = Offered(PIN, 5)
PREEMPTION_TIMER = Offered(PIN, 6)
POSTED_INTERRUPTS = Offered(PIN, 7)
TPR_SHADOW = Offered(PROC, 21)
NMI_WINDOW_EXITING = Offered(PROC, 22)
SECONDARY = Offered(PROC, 31)
TERTIARY = Offered(PROC, 17)
SECONDARY_EXIT = Offered(EXIT, 31)
ACK_ON_EXIT = Offered(EXIT, 15)
SAVE_PREEMPTION_TIMER = Offered(EXIT, 22)
CLEAR_RTIT = Offered(EXIT, 25)
LOAD_RTIT = Offered(ENTRY, 18)
EPT = Offered(PROC2, 1)
X2APIC_MODE = Offered(PROC2, 4)
VPID = Offered(PROC2, 5)
UNRESTRICTED_GUEST = Offered(PROC2, 7)
APIC_REGISTERS = Offered(PROC2, 8)
VIRTUAL_INTERRUPT_DELIVERY = Offered(PROC2, 9)
VM_FUNCTIONS = Offered(PROC2, 13)
PML = Offered(PROC2, 17)
XSAVES = Offered(PROC2, 20)
MBEC = Offered(PROC2, 22)
SUB_PAGES = Offered(PROC2, 23)
PT_GUEST_PHYSICAL = Offered(PROC2, 24)
TSC_SCALING = Offered(PROC2, 25)

LEAST_INDEX: Final = 21  # guest IA32_SYSENTER_CS, encoding 0x482A, which every CPU has
FIELD_OF: Final = (  # a control and the index of the field that comes with it (appendix B)
    (PREEMPTION_TIMER, 23),  # its value, 0x482E
    (VM_FUNCTIONS, 12),  # VM-function controls, 0x2018
    (XSAVES, 22),  # XSS-exiting bitmap, 0x202C
    (SUB_PAGES, 24),  # SPP table pointer, 0x2030
    (TSC_SCALING, 25),  # TSC multiplier, 0x2032
)


class Msrs:
    """The MSRs as they were read."""

    def __init__(self, values: Mapping[int, int | None]) -> None:
        self._values = values

    def there(self, msr: int) -> bool:
        """Whether it could be read."""
        return self._values[msr] is not None

    def __getitem__(self, msr: int) -> int:
        return self._values[msr] or 0

    def allowed(self, control: Offered) -> bool:
        """Whether VM entry takes the control as 1: by the TRUE form of its MSR where bit 55 of MSR 0x480 says so."""
        msr = control.msr
        if msr != PROC2 and self[BASIC] & TRUE_CONTROLS:
            msr += TRUE
        return bool(self[msr] >> 32 + control.bit & 1)


Offenders = Callable[[Msrs], int]


@dataclass(frozen=True, slots=True)
class Relation:
    """A relation: its section, what it says in our words, and the bits that break it."""

    section: str
    text: str
    offenders: Offenders


def _basic(msrs: Msrs) -> int:
    value = msrs[BASIC]
    found = value & BASIC_ZERO
    if not 1 <= (value & REGION_SIZE) >> 32 <= 4096:
        found |= REGION_SIZE
    return found | (MEMORY_TYPE if (value & MEMORY_TYPE) >> 50 not in (0, 6) else 0)


def _misc(msrs: Msrs) -> int:
    value = msrs[MISC]
    found = value & MISC_ZERO
    if (value & CR3_TARGETS) >> 16 > 256:
        found |= CR3_TARGETS
    return found | (STORES_LMA if msrs.allowed(UNRESTRICTED_GUEST) and not value & STORES_LMA else 0)


def _fixed(msrs: Msrs) -> int:
    cr0 = msrs[CR0_FIXED0] & ~msrs[CR0_FIXED1]
    return cr0 | msrs[CR4_FIXED0] & ~msrs[CR4_FIXED1] | VMXE & ~msrs[CR4_FIXED1]


def _enum(msrs: Msrs) -> int:
    value = msrs[VMCS_ENUM]
    wanted = max([LEAST_INDEX, *(index for control, index in FIELD_OF if msrs.allowed(control))])
    return value & ~GENMASK(9, 1) | (GENMASK(9, 1) if (value & GENMASK(9, 1)) >> 1 < wanted else 0)


def _allowed(msr: int) -> Offenders:
    return lambda msrs: msrs[msr] & LOW & ~(msrs[msr] >> 32)


def _default1(msr: int) -> Offenders:
    both = DEFAULT_1[msr] | DEFAULT_1[msr] << 32
    return lambda msrs: both & ~msrs[msr]


def _true(msr: int) -> Offenders:
    def offenders(msrs: Msrs) -> int:
        return (msrs[msr] ^ msrs[msr + TRUE]) & ~DEFAULT_1[msr] if msrs[BASIC] & TRUE_CONTROLS else 0

    return offenders


def _true_exist(msrs: Msrs) -> int:
    wanted = bool(msrs[BASIC] & TRUE_CONTROLS)
    return sum(BIT(i) for i, msr in enumerate(range(PIN + TRUE, ENTRY + TRUE + 1)) if msrs.there(msr) is not wanted)


def _exists(msr: int, *controls: Offered) -> Offenders:
    """Whether ``msr`` is there exactly where one of ``controls`` is allowed: 1 where it is not so."""
    return lambda msrs: int(msrs.there(msr) is not any(map(msrs.allowed, controls)))


def _ept_usable(msrs: Msrs) -> int:
    if not msrs.allowed(EPT):
        return 0
    capability = msrs[EPT_VPID_CAP]
    return sum(bits for bits in (WALK_LENGTH, TABLE_TYPE) if not capability & bits)


def _needs(one: Offered, *others: Offered) -> Offenders:
    """The bit of ``one`` where it is allowed and not all ``others`` are."""
    return lambda msrs: BIT(32 + one.bit) if msrs.allowed(one) and not all(map(msrs.allowed, others)) else 0


def _needing(section: str, what: str, one: Offered, *others: Offered) -> Relation:
    return Relation(section, f"{what}: VM entry takes the one only with the other.", _needs(one, *others))


CONTROLS: Final = "27.2.1.1"
SDM: Final[dict[str, Relation]] = {
    "basic": Relation(
        "A.1",
        "MSR 0x480: bits 31, 47:45, 48, 57 and 63:59 are 0, a VMCS has 1 to 4096 bytes, its memory type is UC or WB.",
        _basic,
    ),
    "misc": Relation(
        "A.6",
        "MSR 0x485: bits 13:9 and 31 are 0, at most 256 CR3-target values, and bit 5 with unrestricted guest.",
        _misc,
    ),
    "fixed": Relation(
        "A.7",
        "What CR0 or CR4 must have in VMX operation (MSRs 0x486, 0x488) it may have (0x487, 0x489), CR4.VMXE among it.",
        _fixed,
    ),
    "enum": Relation(
        "A.9",
        "MSR 0x48A: bits 9:1 are no lower than the index of any field that there is, all others are 0.",
        _enum,
    ),
    **{
        f"allowed-{msr:x}": Relation("A.3.1", f"What MSR {msr:#x} demands to be 1 it allows to be 1.", _allowed(msr))
        for msr in (PIN, PROC, EXIT, ENTRY, PROC2, *range(PIN + TRUE, ENTRY + TRUE + 1))
    },
    **{
        f"default1-{msr:x}": Relation(
            "A.2", f"Controls of the default1 class are 1 in both halves of MSR {msr:#x}.", _default1(msr)
        )
        for msr in (PIN, PROC, EXIT, ENTRY)
    },
    **{
        f"true-{msr + TRUE:x}": Relation(
            "A.2", f"MSRs {msr:#x} and {msr + TRUE:#x} say the same of controls outside the default1 class.", _true(msr)
        )
        for msr in (PIN, PROC, EXIT, ENTRY)
    },
    "true-exist": Relation(
        "A.2", "MSRs 0x48D to 0x490 are there exactly where bit 55 of MSR 0x480 is set.", _true_exist
    ),
    "secondary-exist": Relation(
        "A.3.3", "MSR 0x48B is there exactly where secondary controls may be activated.", _exists(PROC2, SECONDARY)
    ),
    "ept-vpid-exist": Relation(
        "A.10", "MSR 0x48C is there exactly where EPT or VPID may be enabled.", _exists(EPT_VPID_CAP, EPT, VPID)
    ),
    "vmfunc-exist": Relation(
        "A.11", "MSR 0x491 is there exactly where VM functions may be enabled.", _exists(VMFUNC, VM_FUNCTIONS)
    ),
    "tertiary-exist": Relation(
        "A.3.4", "MSR 0x492 is there exactly where tertiary controls may be activated.", _exists(PROC3, TERTIARY)
    ),
    "secondary-exit-exist": Relation(
        "A.4.2",
        "MSR 0x493 is there exactly where secondary VM-exit controls may be activated.",
        _exists(EXIT2, SECONDARY_EXIT),
    ),
    "ept-usable": Relation(
        CONTROLS,
        "EPT is allowed with a page-walk length and a memory type of tables that the EPT pointer may have.",
        _ept_usable,
    ),
    "invept-types": Relation(
        "A.10",
        "A type of INVEPT is supported only where INVEPT is.",
        lambda msrs: 0 if msrs[EPT_VPID_CAP] & INVEPT else msrs[EPT_VPID_CAP] & INVEPT_TYPES,
    ),
    "invvpid-types": Relation(
        "A.10",
        "A type of INVVPID is supported only where INVVPID is.",
        lambda msrs: 0 if msrs[EPT_VPID_CAP] & INVVPID else msrs[EPT_VPID_CAP] & INVVPID_TYPES,
    ),
    "unrestricted-needs-ept": _needing(CONTROLS, "Unrestricted guest needs EPT", UNRESTRICTED_GUEST, EPT),
    "mbec-needs-ept": _needing(CONTROLS, "Mode-based execute control needs EPT", MBEC, EPT),
    "pml-needs-ept": _needing(CONTROLS, "Page-modification logging needs EPT", PML, EPT),
    "spp-needs-ept": _needing(CONTROLS, "Sub-page write permissions need EPT", SUB_PAGES, EPT),
    "pt-needs-ept": _needing(
        CONTROLS,
        "Guest-physical addresses of Intel PT need EPT, loading IA32_RTIT_CTL on entry and clearing it on exit",
        PT_GUEST_PHYSICAL,
        EPT,
        LOAD_RTIT,
        CLEAR_RTIT,
    ),
    "eptp-switching-needs-ept": Relation(
        CONTROLS,
        "EPTP switching needs EPT: VM entry takes the one only with the other.",
        lambda msrs: 0 if msrs.allowed(EPT) else msrs[VMFUNC] & 1,
    ),
    "x2apic-needs-tpr-shadow": _needing(CONTROLS, "x2APIC mode needs the TPR shadow", X2APIC_MODE, TPR_SHADOW),
    "apic-registers-need-tpr-shadow": _needing(
        CONTROLS, "APIC-register virtualization needs the TPR shadow", APIC_REGISTERS, TPR_SHADOW
    ),
    "vid-needs-tpr-shadow": _needing(
        CONTROLS, "Virtual-interrupt delivery needs the TPR shadow", VIRTUAL_INTERRUPT_DELIVERY, TPR_SHADOW
    ),
    "vid-needs-extint-exiting": _needing(
        CONTROLS,
        "Virtual-interrupt delivery needs external-interrupt exiting",
        VIRTUAL_INTERRUPT_DELIVERY,
        EXTINT_EXITING,
    ),
    "posted-need-vid": _needing(
        CONTROLS,
        "Posted interrupts need virtual-interrupt delivery",
        POSTED_INTERRUPTS,
        VIRTUAL_INTERRUPT_DELIVERY,
    ),
    "posted-need-ack": _needing(
        CONTROLS, "Posted interrupts need acknowledgement of interrupts on exit", POSTED_INTERRUPTS, ACK_ON_EXIT
    ),
    "virtual-nmis-need-nmi-exiting": _needing(CONTROLS, "Virtual NMIs need NMI exiting", VIRTUAL_NMIS, NMI_EXITING),
    "nmi-window-needs-virtual-nmis": _needing(
        CONTROLS, "NMI-window exiting needs virtual NMIs", NMI_WINDOW_EXITING, VIRTUAL_NMIS
    ),
    "save-timer-needs-timer": _needing(
        "27.2.1.2",
        "Saving the preemption timer on exit needs the preemption timer",
        SAVE_PREEMPTION_TIMER,
        PREEMPTION_TIMER,
    ),
}


def judged(relation: str, values: Mapping[int, int | None]) -> Outcome:
    """The answer to ``relation`` that the MSRs as read make: the bits that break it. None: it could not be read."""
    looked = {msr: values[msr] for msr in RELATIONS[relation]}
    return outcome(SDM[relation].offenders(Msrs(looked)), looked)
