"""The two capability MSRs that decide what is asked here, and what their bits say of a CPU (SDM A.3.3, A.10)."""

from __future__ import annotations

from typing import Final

from kvmodel.cpu import Cpu

PROCBASED_CTLS2: Final = 0x48B  # secondary processor-based controls: the allowed-1 settings are bits 63:32
EPT_VPID_CAP: Final = 0x48C

ENABLE_EPT: Final = 1 << 1  # of the secondary controls
UNRESTRICTED_GUEST: Final = 1 << 7
MBEC: Final = 1 << 22  # mode-based execute control

_EXECUTE_ONLY: Final = 1 << 0
_LARGE_2M: Final = 1 << 16
_LARGE_1G: Final = 1 << 17
_ACCESSED_DIRTY: Final = 1 << 21
_ADVANCED_INFO: Final = 1 << 22


def allowed(secondary: int) -> int:
    """The controls that MSR 0x48B (64 bits) allows to be 1."""
    return secondary >> 32


def described(secondary: int, capability: int, *, vmx: bool, maxphyaddr: int) -> Cpu:
    """The CPU whose MSRs 0x48B and 0x48C (64 bits each) read so."""
    controls = allowed(secondary)
    return Cpu(
        vmx=vmx,
        ept=bool(controls & ENABLE_EPT),
        mbec=bool(controls & MBEC),
        execonly=bool(capability & _EXECUTE_ONLY),
        ept_2m=bool(capability & _LARGE_2M),
        ept_1g=bool(capability & _LARGE_1G),
        ept_ad=bool(capability & _ACCESSED_DIRTY),
        advanced_info=bool(capability & _ADVANCED_INFO),
        unrestricted=bool(controls & UNRESTRICTED_GUEST),
        maxphyaddr=maxphyaddr,
    )
