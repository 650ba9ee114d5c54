"""VM entry's checks on a whole VMCS (SDM 27.2, 27.3, 27.4), each by itself, and what may come of them.

A check says of a VMCS whether VM entry fails by it: True, False, or None where it depends on what is not known here (a
bit that some CPUs define and others do not, memory that nobody described). Control fields and the host-state area are
checked in any order, so any check that fails may give its number; then the guest-state area, in any order; then the
MSRs of the VM-entry MSR-load area, one after the other.
"""

from __future__ import annotations

from typing import Final

from kvmodel.bits import GENMASK
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.sdm.vm_entry_controls import CONTROL_CHECKS
from kvmodel.sdm.vm_entry_guest import GUEST_CHECKS
from kvmodel.sdm.vm_entry_host import HOST_CHECKS
from kvmodel.sdm.vm_entry_segments import SEGMENT_CHECKS
from kvmodel.sdm.vmcs import GUEST_STATE, Check, CheckedVmcs, Tri, noncanonical

MSR_LOADING: Final = 34  # basic exit reason (SDM appendix C)
FS_AND_GS_BASE: Final = (0xC000_0100, 0xC000_0101)
X2APIC: Final = 8  # bits 31:8 of the x2APIC's MSRs
KERNEL_GS_BASE: Final = 0xC000_0102

EARLY: Final[dict[str, Check]] = CONTROL_CHECKS | HOST_CHECKS
LATE: Final[dict[str, Check]] = GUEST_CHECKS | SEGMENT_CHECKS
CHECKS: Final[dict[str, Check]] = EARLY | LATE  # by the name that a report prints

ENTERED: Final = Outcome(Kind.DONE, defined=0)


def _loaded(v: CheckedVmcs, index: int) -> Tri:
    """Whether entry ``index`` from 0 of the VM-entry MSR-load area fails (SDM 27.4)."""
    at = v["vm_entry_msr_load_addr"] + 16 * index
    word, value = v.memory(at), v.memory(at + 8)
    if word is None or value is None:
        return None
    msr = word & GENMASK(31, 0)
    if word >> 32 or msr in FS_AND_GS_BASE or msr >> 8 == X2APIC:
        return True
    return noncanonical(value) if msr == KERNEL_GS_BASE else None


def _refused(name: str) -> list[tuple[Outcome, str]]:
    check = CHECKS[name]
    if name in EARLY:
        return [(Outcome(Kind.ENTRY_FAIL, code=check.number), name)]
    codes = (check.qualification,) if check.spare is None else (check.qualification, check.spare)
    return [(Outcome(Kind.ENTRY_EXIT, code=code, number=GUEST_STATE), name) for code in codes]


def outcomes(vmcs: CheckedVmcs) -> list[tuple[Outcome, str]]:
    """Everything that VM entry with ``vmcs`` may end in, each with the name of its rule; empty where that is open."""
    possible = []
    for stage in (EARLY, LATE):
        said = {name: check.fails(vmcs) for name, check in stage.items()}
        sure = [name for name, fails in said.items() if fails and not stage[name].optional]
        maybe = [name for name, fails in said.items() if fails and stage[name].optional]
        unknown = [name for name, fails in said.items() if fails is None]
        if sure:
            return [pair for name in (*sure, *maybe, *unknown) for pair in _refused(name)]
        if unknown:
            return []
        possible += [pair for name in maybe for pair in _refused(name)]
    loading = _loading(vmcs)
    return [loading, *possible] if loading else []


def _loading(vmcs: CheckedVmcs) -> tuple[Outcome, str] | None:
    """What the VM-entry MSR-load area makes of an entry that nothing else stops; None where that is open."""
    for index in range(vmcs["vm_entry_msr_load_count"]):
        bad = _loaded(vmcs, index)
        if bad is None:
            return None
        if bad:
            return Outcome(Kind.ENTRY_EXIT, code=index + 1, number=MSR_LOADING), "entry-msr-loading"
    return ENTERED, "entry-succeeds"
