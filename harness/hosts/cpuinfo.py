"""A machine's CPU as its own kernel describes it, and as its VMX capability MSRs do."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from harness import protocol
from harness.errors import HostError
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


_FAILED: Final = b"-" * 8 + b"N"  # what stands for an MSR that cannot be read
_RECORD: Final = 9  # bytes that the host's words write for each MSR


@dataclass(frozen=True, slots=True)
class Capabilities:
    """This is what a CPU says it can do: its VMX capability MSRs, and the width of its physical addresses in bits.

    The MSRs are 0x480 to 0x491, 64 bits each, those of them that can be read.
    """

    msrs: Mapping[int, int]
    maxphyaddr: int
    vmx: bool = True

    def cpu(self) -> Cpu:
        """This is the CPU as mirror and contract know it, from MSRs 0x48B and 0x48C (SDM A.3.3, A.10)."""
        secondary, capability = (self.msrs.get(number, 0) for number in (msr.PROCBASED_CTLS2, msr.EPT_VPID_CAP))
        return msr.described(secondary, capability, vmx=self.vmx, maxphyaddr=self.maxphyaddr)

    def as_json(self) -> dict[str, str]:
        """These are the MSRs by number, in hexadecimal."""
        return {f"{number:#x}": f"{value:#x}" for number, value in self.msrs.items()}


def numbers() -> range:
    """These are the MSRs that are read."""
    return range(protocol.MSR_FIRST, protocol.MSR_FIRST + protocol.MSR_COUNT)


def reading(run: Callable[[str], bytes], info: CpuInfo) -> Capabilities:
    """The function reads the capabilities of processor 0 of a machine; an MSR that cannot be read is left out.

    ``run`` takes a shell command to the machine and gives what it wrote.

    Raises HostError when what it wrote is no such reading.
    """
    words = " ".join(map(str, numbers()))
    told = run(
        f"for m in {words}; do dd if=/dev/cpu/0/msr bs=8 count=1 skip=$m iflag=skip_bytes 2>/dev/null && printf Y "
        f"|| printf %s {_FAILED.decode()}; done"
    )
    records = [told[at : at + _RECORD] for at in range(0, len(told), _RECORD)]
    if len(told) != _RECORD * len(numbers()):
        raise HostError(f"the host's MSRs cannot be read: it wrote {len(told)} bytes, not {_RECORD * len(numbers())}")
    found = {
        number: int.from_bytes(record[:8], "little")
        for number, record in zip(numbers(), records, strict=True)
        if record[8:] == b"Y"
    }
    return Capabilities(found, info.maxphyaddr, info.vmx)
