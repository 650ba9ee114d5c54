"""The mirror's constants against the compiler's, name by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType

from kvmodel import mmu_h
from kvmodel.include.asm import hyperv_tlfs, kvm_host, kvm_host_role
from kvmodel.include.asm import vmx as asm_vmx
from kvmodel.include.asm.kvm_host import Kvm
from kvmodel.mmu import mmu, mmu_internal, mmu_page, mmu_role, paging_tmpl, spte, spte_h
from kvmodel.series import Level
from kvmodel.virt import kvm_main
from kvmodel.vmx import hyperv, hyperv_evmcs_h, nested, nested_ctls, nested_evmcs, nested_h, vmx, vmx_h

MODULES: tuple[ModuleType, ...] = (
    asm_vmx,
    kvm_host,
    kvm_host_role,
    hyperv_tlfs,
    kvm_main,
    mmu_h,
    mmu_internal,
    spte_h,
    spte,
    mmu,
    mmu_role,
    paging_tmpl,
    vmx,
    vmx_h,
    nested,
    nested_h,
    nested_ctls,
    nested_evmcs,
    mmu_page,
    hyperv,
    hyperv_evmcs_h,
)


@dataclass(frozen=True, slots=True)
class ConstantDifference:
    """A name whose value differs; ``mirror`` is where the mirror has it."""

    level: int
    name: str
    c: int | None
    mirror: int
    where: str


def compare(level: Level, c: Mapping[str, int]) -> tuple[int, list[ConstantDifference]]:
    """The function says how many of the level's constants ``c`` the mirror has as well, and gives those that differ."""
    kvm = Kvm(level, asm_vmx.vmx_h(level), spte_h.spte_h(level))
    number = level.number if level.number is not None else -1
    same, wrong = 0, []
    for name, value in c.items():
        for where, mine in _values(name, kvm):
            if mine & 0xFFFF_FFFF_FFFF_FFFF == value:
                same += 1
            else:
                wrong.append(ConstantDifference(number, name, value, mine, where))
    return same, wrong


def _values(name: str, kvm: Kvm) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    for where, owner in (("vmx_h", kvm.h), ("spte_h", kvm.s)):
        value = getattr(owner, name, None)
        if isinstance(value, int):
            found.append((where, value))
    for module in MODULES:
        value = getattr(module, name, None)
        if callable(value) and getattr(value, "__module__", "") == module.__name__:
            value = value(kvm)  # a constant that patches change is a function of the module's state
        if isinstance(value, int):
            found.append((module.__name__, value))
    return found
