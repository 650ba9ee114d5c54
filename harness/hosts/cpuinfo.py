"""A machine's CPU as its own kernel describes it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from kvmodel.cpu import Cpu

MSR_PROCBASED_CTLS2 = 0x48B
MSR_EPT_VPID_CAP = 0x48C


@dataclass(frozen=True, slots=True)
class CpuInfo:
    """The first processor of ``/proc/cpuinfo``: its lines by name, empty where the machine showed none."""

    lines: dict[str, str]

    @classmethod
    def parse(cls, text: str) -> CpuInfo:
        """From the file's text."""
        first = text.strip().split("\n\n", 1)[0]
        pairs = (line.partition(":") for line in first.splitlines() if ":" in line)
        return cls({name.strip(): value.strip() for name, _, value in pairs})

    @property
    def vendor(self) -> str:
        """``GenuineIntel`` and the like."""
        return self.lines.get("vendor_id", "unknown")

    @property
    def vmx(self) -> bool:
        """Whether the kernel sees VMX."""
        return "vmx" in self.lines.get("flags", "").split()

    @property
    def maxphyaddr(self) -> int:
        """Bits of a physical address."""
        found = re.search(r"(\d+) bits physical", self.lines.get("address sizes", ""))
        return int(found[1]) if found else Cpu().maxphyaddr

    @property
    def provenance(self) -> dict[str, Any]:
        """What tells one CPU from another in a report."""
        names = ("model name", "vendor_id", "cpu family", "model", "stepping", "microcode")
        return {name: self.lines[name] for name in names if name in self.lines}


def features(info: CpuInfo, secondary: int, capability: int) -> Cpu:
    """The CPU under KVM from MSRs 0x48B and 0x48C (SDM A.3.3, A.10)."""
    allowed = secondary >> 32
    return Cpu(
        vmx=info.vmx,
        ept=bool(allowed >> 1 & 1),
        mbec=bool(allowed >> 22 & 1),
        unrestricted=bool(allowed >> 7 & 1),
        execonly=bool(capability & 1),
        ept_2m=bool(capability >> 16 & 1),
        ept_1g=bool(capability >> 17 & 1),
        ept_ad=bool(capability >> 21 & 1),
        advanced_info=bool(capability >> 22 & 1),
        maxphyaddr=info.maxphyaddr,
    )
