"""A VMCS as VM entry reads it, what its checks have in common, and what a check is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from kvmodel.bits import BIT, GENMASK
from kvmodel.cpu import Cpu
from kvmodel.question.vmcs import SCRATCH, WORDS

CONTROLS: Final = 7  # VM-instruction error numbers (SDM 32.4)
HOST_STATE: Final = 8
GUEST_STATE: Final = 33  # basic exit reasons (SDM appendix C)
ALL: Final = GENMASK(63, 0)
CR0_PE, CR0_WP, CR0_NW, CR0_CD, CR0_PG = BIT(0), BIT(16), BIT(29), BIT(30), BIT(31)
CR4_PAE, CR4_PCIDE, CR4_CET = BIT(5), BIT(17), BIT(23)
EFER_LME, EFER_LMA = BIT(8), BIT(10)
EFER_DEFINED: Final = BIT(0) | EFER_LME | EFER_LMA | BIT(11)
RFLAGS_TF, RFLAGS_IF, RFLAGS_VM = BIT(8), BIT(9), BIT(17)
SEGMENTS: Final = ("cs", "ss", "ds", "es", "fs", "gs")
EXTERNAL, NMI_EVENT, EXCEPTION, SOFTWARE, PRIVILEGED, SOFT_EXCEPTION, OTHER = 0, 2, 3, 4, 5, 6, 7

Tri = bool | None  # whether a check fails; None where that is open


def either(*answers: Tri) -> Tri:
    """Whether one of ``answers`` is True; None where that is not known."""
    return True if True in answers else None if None in answers else False


class CheckedVmcs:
    """A VMCS as VM entry reads it on ``cpu``: fields by name, the ones not named are 0; bits by what they control."""

    def __init__(self, cpu: Cpu, fields: Mapping[str, int]) -> None:
        self.cpu = cpu
        self._fields = fields

    def __getitem__(self, name: str) -> int:
        return self._fields.get(name, 0)

    def msr(self, number: int) -> int:
        """A capability MSR as L1 read it; 0 where it cannot be read."""
        return self.cpu.msr(number) or 0

    def pin(self, bit: int) -> bool:
        """Bit ``bit`` of the pin-based controls."""
        return bool(self["pin_based_vm_exec_control"] >> bit & 1)

    def proc(self, bit: int) -> bool:
        """Bit ``bit`` of the primary processor-based controls."""
        return bool(self["cpu_based_vm_exec_control"] >> bit & 1)

    def proc2(self, bit: int) -> bool:
        """Bit ``bit`` of the secondary controls, which are all 0 where the primary ones do not activate them."""
        return self.proc(31) and bool(self["secondary_vm_exec_control"] >> bit & 1)

    def exit(self, bit: int) -> bool:
        """Bit ``bit`` of the primary VM-exit controls."""
        return bool(self["vm_exit_controls"] >> bit & 1)

    def entry(self, bit: int) -> bool:
        """Bit ``bit`` of the VM-entry controls."""
        return bool(self["vm_entry_controls"] >> bit & 1)

    @property
    def ept(self) -> bool:
        """Enable EPT."""
        return self.proc2(1)

    @property
    def unrestricted(self) -> bool:
        """Unrestricted guest."""
        return self.proc2(7)

    @property
    def ia32e(self) -> bool:
        """IA-32e mode guest."""
        return self.entry(9)

    @property
    def host64(self) -> bool:
        """Host address-space size."""
        return self.exit(9)

    @property
    def v8086(self) -> bool:
        """Whether the guest is in virtual-8086 mode."""
        return bool(self["guest_rflags"] & RFLAGS_VM)

    @property
    def event(self) -> int:
        """The interruption type of the event to be injected; -1 where there is none."""
        info = self["vm_entry_intr_info_field"]
        return info >> 8 & 7 if info >> 31 else -1

    @property
    def vector(self) -> int:
        """The vector of the event to be injected."""
        return self["vm_entry_intr_info_field"] & 0xFF

    def rights(self, segment: str) -> int:
        """The access-rights field of ``segment``."""
        return self[f"guest_{segment}_ar_bytes"]

    def usable(self, segment: str) -> bool:
        """Whether ``segment`` is usable: bit 16 of its access rights is clear."""
        return not self.rights(segment) >> 16 & 1

    def type(self, segment: str) -> int:
        """The type of ``segment``: bits 3:0 of its access rights."""
        return self.rights(segment) & 0xF

    def dpl(self, segment: str) -> int:
        """The DPL of ``segment``: bits 6:5 of its access rights."""
        return self.rights(segment) >> 5 & 3

    def rpl(self, segment: str) -> int:
        """The RPL of ``segment``: bits 1:0 of its selector."""
        return self[f"guest_{segment}_selector"] & 3

    def memory(self, address: int) -> int | None:
        """The 64-bit word of L1's memory at ``address``; None where nobody described it."""
        at, rest = divmod(address - SCRATCH, 8)
        if rest or not 0 <= at < 512:
            return None
        return self[f"mem{at}"] if at < WORDS else 0


@dataclass(frozen=True, slots=True)
class Check:
    """One clause of the manual: the section that has it, what it demands, and whether a VMCS fails by it.

    ``number``: the VM-instruction error, or basic exit reason 33; ``qualification`` is the exit's. ``optional``: some
    processors make it, others do not. ``spare``: a further qualification that the manual leaves room for.
    """

    section: str
    text: str
    fails: Callable[[CheckedVmcs], Tri]
    number: int
    qualification: int = 0
    optional: bool = False
    spare: int | None = None


def not_physical(vmcs: CheckedVmcs, address: int, low: int = 12) -> bool:
    """Whether ``address`` is no physical address with bits ``low`` - 1 to 0 clear."""
    return bool(address & (BIT(low) - 1) or address >> vmcs.cpu.maxphyaddr)


def noncanonical(address: int) -> Tri:
    """Whether ``address`` is not canonical; None where that depends on the CPU's linear-address width (48 or 57)."""
    fits = [address >> (width - 1) in (0, ALL >> (width - 1)) for width in (48, 57)]
    return not fits[0] if fits[0] == fits[1] else None


def governing(cpu: Cpu, which: int) -> int:
    """The MSR of pin-based (0), primary processor-based (1), VM-exit (2) or VM-entry (3) controls: its TRUE form
    where bit 55 of MSR 0x480 says that there is one (SDM A.2)."""
    true = (cpu.msr(0x480) or 0) >> 55 & 1
    return cpu.msr((0x48D if true else 0x481) + which) or 0


def bits(*numbers: int) -> int:
    """The bits ``numbers``, set."""
    return sum(BIT(n) for n in numbers)


def fixed(v: CheckedVmcs, value: int, first: int, free: int = 0) -> bool:
    """Whether a control register has a bit that MSRs ``first`` and ``first`` + 1 do not let it have, ``free`` aside."""
    return bool((~value & v.msr(first) | value & ~v.msr(first + 1)) & ~free)


def cr3_beyond(v: CheckedVmcs, value: int) -> Tri:
    """Whether a CR3 has a bit beyond MAXPHYADDR; None where that may be one of LAM's."""
    above = value >> v.cpu.maxphyaddr << v.cpu.maxphyaddr
    if not above:
        return False
    return True if above & ~bits(61, 62) else None


def pat_invalid(value: int) -> bool:
    """Whether a byte of a PAT is no memory type."""
    return any(value >> shift & 0xFF not in (0, 1, 4, 5, 6, 7) for shift in range(0, 64, 8))


def efer_reserved(value: int) -> bool:
    """Whether an EFER has a reserved bit."""
    return bool(value & ~EFER_DEFINED)
