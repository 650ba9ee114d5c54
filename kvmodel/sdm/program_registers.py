"""L2's MOVs to CR0, CR3 and CR4, its WRMSR to EFER, and the VM entry before them: what each may end in, and loads."""

from __future__ import annotations

from typing import Final

from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.program import Control, Flush, ProgramVector, Toggle
from kvmodel.question.program_layout import cr3_register
from kvmodel.question.program_paging import LoadCr3
from kvmodel.sdm import controls
from kvmodel.sdm.program_roots import LOADS_PDPTES
from kvmodel.sdm.program_tables import ProgramTables
from kvmodel.sdm.vm_entry_guest import PDPTE

GENERAL_PROTECTION: Final = 13
CR_ACCESS, WRMSR, INVALID_GUEST_STATE = 28, 32, 33  # exit reasons (SDM appendix C)
_CR3: Final = 3  # of the qualification: the register's number, bits 3:0; MOV to CR is access type 0
_EXITING_BITMAPS: Final = (0, 2)  # no MSR bitmap at all, one that has writes of EFER exit
_LOADS_PERHAPS: Final = ("wp", "smap")  # the manual names the bits that load, and of the others says nothing
_BAD_PDPTE: Final = (Outcome(Kind.EXCEPTION, number=GENERAL_PROTECTION), "guest-pdpte")

Answer = tuple[Outcome, str]  # with the rule


class PdptesUndecidedError(Exception):
    """What may load PDPTEs and need not, where it would show.

    It is a MOV to CR0 or CR4 that the manual's list lacks; without EPT also a VM entry after the interrupt that L2 may
    have had while its host saved it.
    """


def needs_msrs(vector: ProgramVector) -> bool:
    """Whether the program's answers rest on the number of CR3 targets that MSR 0x485 has."""
    return any(isinstance(made, Control) and made.name == "targets" and made.value for made in vector.steps)


def entered(m: ProgramTables) -> Answer | None:
    """A VM entry, with what it loads; the answer where it fails."""
    wanted = {name: bool(m.controls[name]) for name in ("ad", "vpid")}
    refused = controls.entry_failure(m.cpu, ept=m.with_ept, mbec=m.mbec, **wanted)
    if not refused and m.controls["targets"] > ((m.cpu.msr(0x485) or 0) >> 16 & 0x1FF):
        refused = "entry-cr3-targets"
    if refused:
        return controls.failed(), refused
    if m.pae:
        held = m.roots.fields[m.controls["vmcs"]] if m.with_ept else m.roots.table(m.controls["cr3"])
        if held is None:
            raise ValueError("a VM entry in PAE paging by fields that an exit left undefined; begin with pg=pae")
        if not m.roots.load(held):
            return Outcome(Kind.ENTRY_EXIT, PDPTE, number=INVALID_GUEST_STATE), "entry-guest-pdptes"
    if not m.controls["efer"]:
        m.controls["nxe"] = 0  # L1's own
    m.enter()
    return None


def may_load(m: ProgramTables) -> None:
    """PDPTEs are loaded from memory, or they are not. Raises PdptesUndecidedError where it would show."""
    if m.pae and m.roots.table(m.controls["cr3"]) != m.roots.registers:
        raise PdptesUndecidedError


def load_cr3(m: ProgramTables, op: Flush | LoadCr3) -> Answer | None:
    """MOV to CR3; the answer where it does not complete (SDM 25.1.3, 4.4.1)."""
    c = m.controls
    number = op.number if isinstance(op, LoadCr3) else c["cr3"]
    targets = [c[f"target{n}"] for n in range(min(c["targets"], 4))]
    if c["cr3exit"] and number not in targets:
        register = cr3_register(op.number if isinstance(op, LoadCr3) else None, pae=m.pae)
        return Outcome(Kind.EXIT, register << 8 | _CR3, number=CR_ACCESS), "exit-cr3"
    if m.pae and not m.roots.load(m.roots.table(number)):
        return _BAD_PDPTE
    c["cr3"] = number
    m.flush()
    return None


def toggle(m: ProgramTables, op: Toggle) -> Answer | None:
    """MOV to CR0 or CR4, or WRMSR to EFER; the answer where it does not complete (SDM 25.1.3, 4.4.1, 4.10.4.1)."""
    c = m.controls
    if op.name == "nxe" and c["msrs"] in _EXITING_BITMAPS:
        return Outcome(Kind.EXIT, 0, number=WRMSR), "exit-wrmsr"
    changes = c[op.name] != op.value
    if changes and op.name in _LOADS_PERHAPS:
        may_load(m)
    if changes and m.pae and op.name in LOADS_PDPTES and not m.roots.load(m.roots.table(c["cr3"])):
        return _BAD_PDPTE
    c[op.name] = op.value
    if changes and (op.name == "pge" or (op.name == "smep" and op.value)):
        m.flush()
    return None
