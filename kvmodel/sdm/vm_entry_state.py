"""The VMCS as the probe fills it for a harmless L2, before a vector changes it (images/probe/vmx.c).

Fields whose values nobody asks about (addresses of L1's own tables) have stand-ins that are as legal as the real ones.
"""

from __future__ import annotations

from typing import Final

from kvmodel.bits import BIT, GENMASK
from kvmodel.cpu import Cpu
from kvmodel.question.vector import Mbec, Paging
from kvmodel.question.vm_entry import VmEntryVector
from kvmodel.question.vm_exit import CODE as EXIT_CODE
from kvmodel.question.vm_exit import VmExitVector
from kvmodel.sdm.vmcs import CR0_PE, CR0_PG, CR0_WP, CR4_PAE, EFER_LMA, EFER_LME, CheckedVmcs, governing

CR0_ET_NE: Final = BIT(4) | BIT(5)
CR4_VMXE: Final = BIT(13)
EFER_NXE: Final = BIT(11)
PAT_AT_RESET: Final = 0x0007_0406_0007_0406
SOMEWHERE: Final = 0x10_0000  # stands for an address in the probe's image
ROOTS: Final = {Paging.LONG: 0x100_1000, Paging.PAE: 0x100_3000, Paging.BITS32: 0x100_7000, Paging.OFF: 0x100_7000}
CODE, CODE_WITHOUT_PAGING = 0x40_0040, 0x100_0040
PDPTE0: Final = 0x100_4001
EPT_POINTER: Final = 0x300_0000 | 3 << 3 | 6  # write-back, four levels; the table's place stands in
UNUSABLE: Final = BIT(16)


def _adjusted(cpu: Cpu, which: int, want: int) -> int:
    """What the probe makes of the controls it wants: as far as they are allowed, and what is demanded."""
    msr = governing(cpu, which)
    return (want | msr & GENMASK(31, 0)) & msr >> 32


def _controls(cpu: Cpu, vector: VmEntryVector | VmExitVector) -> dict[str, int]:
    secondary = cpu.msr(0x48B) or 0
    wanted = BIT(1) | (BIT(7) & secondary >> 32) | (BIT(22) if vector.mbec is Mbec.ON else 0)
    long = vector.paging is Paging.LONG
    return {
        "pin_based_vm_exec_control": _adjusted(cpu, 0, BIT(0)),
        "cpu_based_vm_exec_control": _adjusted(cpu, 1, 0) | BIT(31),
        "secondary_vm_exec_control": secondary & GENMASK(31, 0) | wanted,
        "vm_exit_controls": _adjusted(cpu, 2, BIT(9) | BIT(15) | BIT(21)),
        "vm_entry_controls": _adjusted(cpu, 3, BIT(15) | (BIT(9) if long else 0)),
        "ept_pointer": EPT_POINTER,
        "exception_bitmap": GENMASK(31, 0),
    }


def _host(cpu: Cpu) -> dict[str, int]:
    return {
        "host_cr0": (cpu.msr(0x486) or 0) | CR0_PG | CR0_WP | CR0_ET_NE | CR0_PE,
        "host_cr3": SOMEWHERE,
        "host_cr4": (cpu.msr(0x488) or 0) | CR4_PAE | CR4_VMXE,
        "host_ia32_efer": EFER_LMA | EFER_LME,
        "host_ia32_pat": PAT_AT_RESET,
        **{f"host_{name}_selector": 0x10 for name in ("es", "ss", "ds")},
        "host_cs_selector": 0x08,
        "host_tr_selector": 0x18,
        **{f"host_{name}_base": SOMEWHERE for name in ("tr", "gdtr", "idtr")},
        "host_rip": SOMEWHERE,
    }


def _guest(cpu: Cpu, paging: Paging) -> dict[str, int]:
    long, paged = paging is Paging.LONG, paging is not Paging.OFF
    wide = CR4_PAE if paging in (Paging.LONG, Paging.PAE) else 0
    fixed = (cpu.msr(0x486) or 0) & ~(CR0_PE | CR0_PG)
    return {
        "guest_cr0": fixed | CR0_PE | CR0_ET_NE | CR0_WP | (CR0_PG if paged else 0),
        "guest_cr3": ROOTS[paging],
        "probe_cr3": ROOTS[paging],
        "guest_cr4": (cpu.msr(0x488) or 0) | CR4_VMXE | wide,
        "guest_ia32_efer": EFER_NXE | (EFER_LMA | EFER_LME if long else 0),
        "guest_ia32_pat": PAT_AT_RESET,
        "guest_pdptr0": PDPTE0 if paging is Paging.PAE else 0,
        "guest_cs_selector": 0x08,
        **{f"guest_{name}_selector": 0x10 for name in ("ss", "ds", "es")},
        "guest_tr_selector": 0x18,
        "guest_cs_ar_bytes": 0xA09B if long else 0xC09B,
        **{f"guest_{name}_ar_bytes": 0xC093 for name in ("ss", "ds", "es")},
        **{f"guest_{name}_ar_bytes": UNUSABLE for name in ("fs", "gs", "ldtr")},
        "guest_tr_ar_bytes": 0x8B,
        **{f"guest_{name}_limit": GENMASK(31, 0) for name in ("es", "cs", "ss", "ds", "fs", "gs", "ldtr")},
        "guest_tr_limit": 0x67,
        "guest_dr7": 0x400,
        "guest_rip": CODE if paged else CODE_WITHOUT_PAGING,
        "guest_rflags": 0x202,
        "vmcs_link_pointer": GENMASK(63, 0),
    }


def vmcs_of(cpu: Cpu, vector: VmEntryVector | VmExitVector) -> CheckedVmcs:
    """The VMCS that L1 enters with: what the probe writes on ``cpu``, and then the vector's changes, in order."""
    fields = _controls(cpu, vector) | _host(cpu) | _guest(cpu, vector.paging)
    if isinstance(vector, VmExitVector):
        fields["guest_rip"] = EXIT_CODE
    for change in vector.changes:
        fields[change.field] = change.of(fields.get(change.field, 0))
    return CheckedVmcs(cpu, fields)
