"""Where a program's CR3 leads: PAE paging's PDPTEs in memory, in the VMCS and in the CPU (SDM 4.4.1, 27.3.2.4, 28.3.4).

The CPU translates by four registers, PDPTE0 to PDPTE3. MOV to CR3 loads them from memory, and so does a MOV to CR0 or
CR4 that modifies one of some bits; a VM entry loads them from memory or, with EPT, from the VMCS. A write to memory
changes none of them. An entry with P set and a reserved bit is not loaded: #GP(0), or the VM entry fails.
"""

from __future__ import annotations

from typing import Final

from kvmodel.bits import GENMASK
from kvmodel.cpu import Cpu
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.program import WINDOWS
from kvmodel.question.program_layout import PTE_P, directory_of, pdpte, pdpte_of
from kvmodel.question.program_paging import DIRECTORIES, PDPTES, SetPdpte

_ADDRESS: Final = GENMASK(51, 12)
_IN_USE: Final = PTE_P | GENMASK(4, 3) | _ADDRESS  # P, PWT, PCD, the address: bits 11:9 are ignored
LOADS_PDPTES: Final = ("pge", "pse", "smep")  # CR4.PAE, CR0.CD, CR0.NW and CR0.PG do too

Pdptes = tuple[int, ...]


def told_pdpte(entry: int, defined: int = GENMASK(63, 0)) -> Outcome:
    """The outcome of a look that finds the page-directory-pointer-table ``entry``, 64 bits."""
    known = {pdpte(name) & _ADDRESS: name for name in DIRECTORIES}
    note = f"leads to {known.get(entry & _ADDRESS, 'nothing known')}" if entry & PTE_P else "not present"
    return Outcome(Kind.VALUE, entry, defined=defined, note=note)


class GuestRoots:
    """PAE paging's PDPTEs, 64 bits each: in memory, in the fields of both VMCSs, and in the CPU's registers.

    A field of None is one that an exit has left undefined, or of CR3 one that no VM entry has written.
    """

    def __init__(self, cpu: Cpu) -> None:
        self._reserved = GENMASK(2, 1) | GENMASK(8, 5) | GENMASK(63, cpu.maxphyaddr)
        self.memory = {f"g.k{k}{n}": pdpte(f"e{k}") for k in (0, 1) for n in range(PDPTES)}
        self.fields: dict[int, Pdptes | None] = {0: None, 1: None}
        self.registers: Pdptes = ()
        self.cr3s: dict[int, int | None] = {0: None, 1: None}  # the field of CR3 in both VMCSs

    def write(self, made: SetPdpte, vmcs: int) -> None:
        """Somebody writes an entry in memory, or L1 a field of the current VMCS."""
        if not made.in_field:
            self.memory[f"g.{made.table}{made.number}"] = pdpte_of(made)
            return
        held = self.fields[vmcs]
        if held is not None:
            self.fields[vmcs] = (*held[: made.number], pdpte_of(made), *held[made.number + 1 :])

    def table(self, cr3: int) -> Pdptes:
        """The four entries in memory that a value of CR3 points at."""
        return tuple(self.memory[f"g.k{min(cr3, 1)}{n}"] for n in range(PDPTES))

    def begin(self, cr3: int) -> None:
        """L1 fills the fields of both VMCSs with what is in memory."""
        self.fields = dict.fromkeys(self.fields, self.table(cr3))

    def load(self, entries: Pdptes) -> bool:
        """Loads the registers; False, and no register is changed, where an entry has a reserved bit."""
        if any(entry & PTE_P and entry & self._reserved for entry in entries):
            return False
        self.registers = entries
        return True

    def directory(self, window: str) -> str:
        """The page directory that the registers have for a window; empty where there is none."""
        return directory_of(self.registers[WINDOWS.index(window)])

    def exited(self, vmcs: int, *, saved: bool) -> None:
        """A VM exit: it saves the registers into the VMCS, or leaves its fields undefined."""
        self.fields[vmcs] = self.registers if saved else None

    def look(self, name: str, vmcs: int) -> Outcome:
        """What L1 finds in memory, or in a field of the current VMCS: of that, what the CPU uses of an entry."""
        if name == "cr3":
            cr3 = self.cr3s[vmcs]
            return Outcome(Kind.VALUE, cr3 or 0, defined=0 if cr3 is None else GENMASK(63, 0))
        if name in self.memory:
            return told_pdpte(self.memory[name])
        held = self.fields[vmcs]
        if held is None:
            return told_pdpte(0, 0)
        entry = held[int(name[-1])]
        return told_pdpte(entry, _IN_USE if entry & PTE_P else PTE_P)


def rotated(window: str, directory: str) -> str:
    """The window whose page table a page directory has for ``window``."""
    return WINDOWS[(WINDOWS.index(window) + DIRECTORIES.index(directory)) % len(WINDOWS)]
