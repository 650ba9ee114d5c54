"""The series under test as values: its 18 patches, and a level as a set of them.

Source: "[RFC PATCH 00/18] KVM: VMX: Introduce Intel Mode-Based Execute Control (MBEC)", 13 March 2025. Nothing is
read here; ``harness.series_io`` holds patches/series.toml against these values.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Final


class Claim(Enum):
    """What a patch's message says of its effect."""

    STATED = "stated"  # "no functional change"
    IMPLIED = "implied"  # not said, but follows from what it does
    NONE = "none"  # an effect is meant


@dataclass(frozen=True, slots=True)
class MirroredPatch:
    """One patch: its number from 1, subject without the [PATCH] tag, the original's author, its claim."""

    number: int
    subject: str
    author: str
    claim: Claim = Claim.NONE

    @property
    def message_id(self) -> str:
        """The Message-ID of the mail as posted, without angle brackets."""
        return f"20250313203702.575156-{self.number + 1}-jon@nutanix.com"


_BORISOV: Final = "Nikolay Borisov <nik.borisov@suse.com>"
_CHRISTOPHERSON: Final = "Sean Christopherson <seanjc@google.com>"
_KOHLER: Final = "Jon Kohler <jon@nutanix.com>"
_SALAUN: Final = "Mickaël Salaün <mic@digikod.net>"

PATCHES: Final[tuple[MirroredPatch, ...]] = (
    MirroredPatch(1, "KVM: VMX: Remove EPT_VIOLATIONS_ACC_*_BIT defines", _BORISOV, Claim.STATED),
    MirroredPatch(
        2, "KVM: nVMX: Decouple EPT RWX bits from EPT Violation protection bits", _CHRISTOPHERSON, Claim.STATED
    ),
    MirroredPatch(3, "KVM: x86: Add module parameter for Intel MBEC", _KOHLER),
    MirroredPatch(4, "KVM: VMX: add cpu_has_vmx_mbec helper", _SALAUN),
    MirroredPatch(5, "KVM: x86: Add pt_guest_exec_control to kvm_vcpu_arch", _KOHLER),
    MirroredPatch(6, "KVM: VMX: Wire up Intel MBEC enable/disable logic", _KOHLER),
    MirroredPatch(7, "KVM: VMX: Define VMX_EPT_USER_EXECUTABLE_MASK", _SALAUN),
    MirroredPatch(8, "KVM: x86/mmu: Remove SPTE_PERM_MASK", _KOHLER, Claim.IMPLIED),
    MirroredPatch(9, "KVM: x86/mmu: Extend access bitfield in kvm_mmu_page_role", _SALAUN),
    MirroredPatch(10, "KVM: VMX: Extend EPT Violation protection bits", _KOHLER, Claim.STATED),
    MirroredPatch(11, "KVM: VMX: Enhance EPT violation handler for PROT_USER_EXEC", _SALAUN),
    MirroredPatch(12, "KVM: x86/mmu: Introduce shadow_ux_mask", _KOHLER),
    MirroredPatch(13, "KVM: x86/mmu: Adjust SPTE_MMIO_ALLOWED_MASK to understand MBEC", _KOHLER),
    MirroredPatch(14, "KVM: x86/mmu: Extend is_executable_pte to understand MBEC", _SALAUN),
    MirroredPatch(15, "KVM: x86/mmu: Extend make_spte to understand MBEC", _KOHLER),
    MirroredPatch(16, "KVM: nVMX: Setup Intel MBEC in nested secondary controls", _KOHLER),
    MirroredPatch(17, "KVM: VMX: Allow MBEC with EVMCS", _KOHLER),
    MirroredPatch(18, "KVM: x86: Enable module parameter for MBEC", _KOHLER),
)

LAST: Final = len(PATCHES)
"""The highest level."""

PARAMETER: Final = "enable_pt_guest_exec_control"
"""The module parameter of kvm.ko that patch 3 adds and patch 18 turns on."""

PARAMETER_FROM: Final = 3


@dataclass(frozen=True, slots=True)
class Level:
    """The base kernel with some of the patches applied.

    ``Level(k)`` and ``Level.of(k)`` are patches 1 to k; ``Level.having`` and ``Level.without`` are arbitrary sets.
    Equal sets are equal and hash alike, however they were made.
    """

    applied: frozenset[int]

    def __init__(self, level: int | Iterable[int]) -> None:
        if isinstance(level, int):
            if not 0 <= level <= LAST:
                raise ValueError(f"level {level} is unknown: this series has levels 0 to {LAST}")
            numbers = frozenset(range(1, level + 1))
        else:
            numbers = frozenset(level)
            if unknown := sorted(n for n in numbers if not 1 <= n <= LAST):
                raise ValueError(f"patch {unknown[0]} is unknown: this series has patches 1 to {LAST}")
        object.__setattr__(self, "applied", numbers)

    @classmethod
    def of(cls, level: int) -> Level:
        """Patches 1 to ``level``; ValueError outside 0 to 18. The same object for the same number."""
        return _level(level)

    @classmethod
    def having(cls, patches: Iterable[int]) -> Level:
        """Exactly these patches; ValueError for a number that is no patch."""
        return cls(patches)

    @classmethod
    def without(cls, level: int, *left_out: int) -> Level:
        """Patches 1 to ``level`` but for ``left_out`` (numbers above ``level`` change nothing)."""
        return cls(_level(level).applied - set(left_out))

    def has(self, patch: int) -> bool:
        """Whether patch ``patch`` (1 to 18) is applied."""
        return patch in self.applied

    @property
    def number(self) -> int | None:
        """k where the level is patches 1 to k, else None."""
        top = max(self.applied, default=0)
        return top if len(self.applied) == top else None

    @property
    def has_parameter(self) -> bool:
        """Whether kvm.ko has the module parameter."""
        return self.has(PARAMETER_FROM)

    @property
    def default_parameter(self) -> bool | None:
        """The parameter's value where nobody sets it; None where there is none."""
        return self.has(18) if self.has_parameter else None

    def __str__(self) -> str:
        if self.number is not None:
            return str(self.number)
        top = max(self.applied)
        missing = ",".join(str(n) for n in range(1, top + 1) if n not in self.applied)
        return f"{top} without {missing}"


@lru_cache(maxsize=LAST + 1)
def _level(level: int) -> Level:
    return Level(level)


def patch(number: int) -> MirroredPatch:
    """Patch ``number``; ValueError outside 1 to 18."""
    if not 1 <= number <= LAST:
        raise ValueError(f"patch {number} is unknown: this series has patches 1 to {LAST}")
    return PATCHES[number - 1]
