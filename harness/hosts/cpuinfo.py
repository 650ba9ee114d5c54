"""A machine's CPU as its own kernel describes it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from kvmodel.cpu import Cpu
from kvmodel.question import msr


@dataclass(frozen=True, slots=True)
class CpuInfo:
    """The record has the first processor of ``/proc/cpuinfo``: its lines by name, empty where the machine
    showed none.
    """

    lines: dict[str, str]

    @classmethod
    def parse(cls, text: str) -> CpuInfo:
        """The function reads the file's text."""
        first = text.strip().split("\n\n", 1)[0]
        pairs = (line.partition(":") for line in first.splitlines() if ":" in line)
        return cls({name.strip(): value.strip() for name, _, value in pairs})

    @property
    def vendor(self) -> str:
        """The text is like ``GenuineIntel``."""
        return self.lines.get("vendor_id", "unknown")

    @property
    def vmx(self) -> bool:
        """The kernel sees VMX: True."""
        return "vmx" in self.lines.get("flags", "").split()

    @property
    def maxphyaddr(self) -> int:
        """A physical address has this many bits."""
        found = re.search(r"(\d+) bits physical", self.lines.get("address sizes", ""))
        return int(found[1]) if found else Cpu().maxphyaddr

    @property
    def provenance(self) -> dict[str, Any]:
        """The provenance has what tells one CPU from another in a report."""
        names = ("model name", "vendor_id", "cpu family", "model", "stepping", "microcode")
        return {name: self.lines[name] for name in names if name in self.lines}


def features(info: CpuInfo, secondary: int, capability: int) -> Cpu:
    """The function gives the CPU under KVM from MSRs 0x48B and 0x48C (SDM A.3.3, A.10)."""
    return msr.described(secondary, capability, vmx=info.vmx, maxphyaddr=info.maxphyaddr)
