"""A CPU as the mirror and the contract need to know it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cpu:
    """A CPU's paging and VMX features.

    For the contract it is the virtual CPU as L1 reads it; for the mirror the CPU under KVM. ``errata`` names
    departures from the manual that were measured on it (harness's bare run), empty for a sound one.
    """

    vmx: bool = True
    ept: bool = True
    mbec: bool = True  # MSR 0x48B bit 54
    execonly: bool = True  # MSR 0x48C bit 0
    ept_2m: bool = True  # MSR 0x48C bit 16
    ept_1g: bool = True  # MSR 0x48C bit 17
    ept_ad: bool = True  # MSR 0x48C bit 21
    advanced_info: bool = True  # MSR 0x48C bit 22
    unrestricted: bool = True  # MSR 0x48B bit 39
    maxphyaddr: int = 40  # CPUID 0x80000008 EAX 7:0
    msrs: tuple[int | None, ...] = ()  # MSRs 0x480 to 0x491 as L1 read them, None where it faulted; empty: not read
    errata: frozenset[str] = field(default_factory=frozenset)

    def msr(self, number: int) -> int | None:
        """MSR ``number`` (0x480 to 0x491), 64 bits; None where nobody read it, or the reading faulted."""
        return self.msrs[number - 0x480] if self.msrs else None

    def may_set(self, bit: int) -> bool:
        """Whether MSR 0x48B lets secondary control ``bit`` be 1; where nobody read it, True."""
        return not self.msrs or bool((self.msr(0x48B) or 0) >> (32 + bit) & 1)

    def has_ept_vpid(self, bit: int) -> bool:
        """Whether bit ``bit`` of MSR 0x48C is 1; where nobody read it, True."""
        return not self.msrs or bool((self.msr(0x48C) or 0) >> bit & 1)
