"""One vCPU of L1 on one load of KVM: what the CPU offers, and the loop of accesses and exits.

KVM is the mirror (``kvmodel.vmx`` and what it imports), the CPU is ``kvmodel.sdm.ept`` walking the entries that
KVM made (EPT02), not L1's. One access is: CPU walk, exit, KVM, and again, until the access completes, L1 is
given an exit, KVM_RUN fails, or an exit changes nothing at all (then the next is the same: a livelock).
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Final

from kvmodel.bits import BIT, GENMASK
from kvmodel.cpu import Cpu
from kvmodel.include.asm.kvm_host import Kvm, Vcpu, kvm_memory_slot
from kvmodel.include.asm.vmx import (
    EXIT_REASON_EPT_VIOLATION,
    SECONDARY_EXEC_ENABLE_EPT,
    SECONDARY_EXEC_ENABLE_VPID,
    SECONDARY_EXEC_MODE_BASED_EPT_EXEC,
    SECONDARY_EXEC_UNRESTRICTED_GUEST,
    VMX_EPT_1GB_PAGE_BIT,
    VMX_EPT_2MB_PAGE_BIT,
    VMX_EPT_AD_BIT,
    VMX_EPT_EXECUTE_ONLY_BIT,
    VMX_EPT_EXTENT_CONTEXT_BIT,
    VMX_EPT_EXTENT_GLOBAL_BIT,
    VMX_EPT_INVEPT_BIT,
    VMX_EPT_PAGE_WALK_4_BIT,
    VMX_EPTP_AD_ENABLE_BIT,
    VMX_EPTP_WB_BIT,
    VMX_VPID_EXTENT_SUPPORTED_MASK,
    VMX_VPID_INVVPID_BIT,
)
from kvmodel.mmu.mmu import hardware_entries
from kvmodel.mmu.mmu_fault import EMULATE
from kvmodel.mmu.mmu_sync import shadow_walk
from kvmodel.question.outcome import Kind, Outcome, Place, Step
from kvmodel.question.vector import ENVIRONMENTS
from kvmodel.sdm import ept as sdm_ept
from kvmodel.sdm.access import PAGING_OFF, Linear, Use
from kvmodel.series import Level
from kvmodel.vmx.main import load
from kvmodel.vmx.vmx import HostMsrs, construct_eptp, handle_ept_misconfig, handle_ept_violation, vcpu_create

# Where things of L1 lie in this model; any address does.
RAM_GFNS: Final = 1 << 20
L1_GPA: Final = 0x0800_0000

TARGET: Final = Place("target")
GPT: Final = Place("gpt")
DONE: Final = Outcome(Kind.DONE)


def host_msrs(cpu: Cpu) -> HostMsrs:
    """The MSRs of the CPU under KVM; what ``cpu`` does not say is as on every Intel CPU since Skylake."""
    secondary = 0x00113FFF  # APIC virtualisation, VPID, RDTSCP, INVPCID, VMFUNC, RDSEED, XSAVES and the like
    secondary |= BIT(17)  # PML
    secondary &= ~(SECONDARY_EXEC_ENABLE_EPT | SECONDARY_EXEC_UNRESTRICTED_GUEST)
    ept_cap = 0
    if cpu.ept:
        secondary |= SECONDARY_EXEC_ENABLE_EPT
        ept_cap = (
            VMX_EPT_PAGE_WALK_4_BIT
            | VMX_EPTP_WB_BIT
            | VMX_EPT_INVEPT_BIT
            | VMX_EPT_EXTENT_CONTEXT_BIT
            | VMX_EPT_EXTENT_GLOBAL_BIT
            | (VMX_EPT_EXECUTE_ONLY_BIT if cpu.execonly else 0)
            | (VMX_EPT_2MB_PAGE_BIT if cpu.ept_2m else 0)
            | (VMX_EPT_1GB_PAGE_BIT if cpu.ept_1g else 0)
            | (VMX_EPT_AD_BIT if cpu.ept_ad else 0)
            | (BIT(22) if cpu.advanced_info else 0)
        )
    if cpu.unrestricted:
        secondary |= SECONDARY_EXEC_UNRESTRICTED_GUEST
    if cpu.mbec:
        secondary |= SECONDARY_EXEC_MODE_BASED_EPT_EXEC
    vpid = VMX_VPID_INVVPID_BIT | VMX_VPID_EXTENT_SUPPORTED_MASK if secondary & SECONDARY_EXEC_ENABLE_VPID else 0
    return HostMsrs(secondary, ept_cap, vpid, cpu.maxphyaddr)


@lru_cache(maxsize=256)
def _loaded(level: Level, param: bool | None, cpu: Cpu, env: str) -> Kvm:
    """What ``loaded`` copies; nobody else is given it."""
    e = ENVIRONMENTS[env]
    if not e.cpu_mbec:
        cpu = replace(cpu, mbec=False)
    return load(
        level,
        param,
        host_msrs(cpu),
        ept=e.ept,
        eptad=e.eptad,
        nx_huge_pages=e.nx_huge_pages,
        others=e.parameters,
    )


def loaded(level: Level, param: bool | None, cpu: Cpu, env: str) -> Kvm:
    """The modules as loaded for environment ``env``, the caller's own; a CPU without MBEC is part of it."""
    return _loaded(level, param, cpu, env).copy()


def slot(env: str) -> kvm_memory_slot:
    return kvm_memory_slot({"4k": 1, "2m": 2, "1g": 3}[ENVIRONMENTS[env].backing])


class VcpuRun:
    """The loop of one vCPU: accesses, exits, and what became of them."""

    __slots__ = ("ad", "cache", "cpu", "exits", "linear", "mbec", "vcpu")

    def __init__(self, vcpu: Vcpu, cpu: Cpu, *, mbec: bool, ad: bool) -> None:
        self.vcpu = vcpu
        self.cpu = cpu
        self.mbec = mbec
        self.ad = ad
        self.exits = 0
        self.cache: dict[tuple[tuple[tuple[int, int], ...], int, int], sdm_ept.Walked] = {}

    def walk(self, entries: tuple[tuple[int, int], ...], use: Use, linear: Linear) -> sdm_ept.Walked:
        """The CPU's walk of ``entries``; members of ``Use`` live for ever, so that their id is a key."""
        key = (entries, id(use), linear.user | linear.writable << 1 | linear.execute_disable << 2)
        walked = self.cache.get(key)
        if walked is None:
            if len(self.cache) > 4096:
                self.cache.clear()
            walked = sdm_ept.walk(self.cpu, entries, use, mbec=self.mbec, ad=self.ad, linear=linear)
            self.cache[key] = walked
        return walked

    def access(self, gpa: int, use: Use, linear: Linear, place: Place) -> Outcome | None:
        """One access of the guest to ``gpa``; None when it completed."""
        vcpu = self.vcpu
        while True:
            entries = hardware_entries(vcpu, gpa)
            walked = self.walk(entries, use, linear)
            steps = vcpu.steps
            if isinstance(walked, sdm_ept.Translated):
                if steps is not None:
                    steps.append(Step("CPU", f"{use.value}: EPT permits it ({walked.rule})"))
                if self.ad and walked.after != entries:
                    self._set_accessed_dirty(gpa, walked.after)
                return None
            self.exits += 1
            before = vcpu.version
            if isinstance(walked, sdm_ept.Violation):
                if steps is not None:
                    what = f"{use.value}: EPT violation at level {walked.level}, {walked.rule}"
                    steps.append(Step("CPU", f"{what}, qualification {walked.qualification:#x}"))
                r = handle_ept_violation(vcpu, gpa, walked.qualification)
            else:
                if steps is not None:
                    what = f"{use.value}: EPT misconfiguration at level {walked.level}, {walked.rule}"
                    steps.append(Step("CPU", what))
                r = handle_ept_misconfig(vcpu, gpa)
            if r < 0:
                return Outcome(Kind.HOST, code=-r, defined=0, note=f"KVM_RUN fails with errno {-r}")
            if vcpu.injected is not None:
                undefined = ~walked.defined & 7 if isinstance(walked, sdm_ept.Violation) else 0
                return self.told_l1(place, TARGET, undefined)
            if r == EMULATE:
                if steps is not None:
                    steps.append(Step("x86.c x86_emulate_instruction", "KVM emulates the access", 0))
                return Outcome(Kind.HOST, note="internal error: nothing to emulate") if use is Use.FETCH else None
            if vcpu.version == before:
                note = "the same exit again and again, no SPTE changes"
                return Outcome(Kind.LIVELOCK, note=note)

    def told_l1(self, gpa: Place, gla: Place, undefined: int = 0) -> Outcome:
        """The exit that KVM gave L1; ``undefined``: qualification bits that the CPU's own exit left open."""
        assert self.vcpu.injected is not None
        reason, qualification, _ = self.vcpu.injected
        if reason == EXIT_REASON_EPT_VIOLATION:
            return Outcome(Kind.VIOLATION, qualification, gpa=gpa, gla=gla, defined=GENMASK(63, 0) & ~undefined)
        return Outcome(Kind.MISCONFIG, gpa=gpa)

    def _set_accessed_dirty(self, gpa: int, after: tuple[tuple[int, int], ...]) -> None:
        for (sp, index, spte), (_, entry) in zip(tuple(shadow_walk(self.vcpu, gpa)), after, strict=True):
            if spte != entry:
                sp.spt[index] = entry


def l1_run(level: Level, param: bool | None, cpu: Cpu, env: str) -> VcpuRun:
    """A fresh L1 vCPU on KVM's own EPT."""
    vcpu = vcpu_create(loaded(level, param, cpu, env))
    vcpu.slot = slot(env)
    vcpu.ram_gfns = RAM_GFNS
    mbec = vcpu.vmcs01_secondary & SECONDARY_EXEC_MODE_BASED_EPT_EXEC != 0
    ad = construct_eptp(vcpu, 0, 4) & VMX_EPTP_AD_ENABLE_BIT != 0
    return VcpuRun(vcpu, cpu, mbec=mbec, ad=ad)


@lru_cache(maxsize=256)
def l1_trouble(level: Level, param: bool | None, cpu: Cpu, env: str) -> Outcome | None:
    """What keeps L1 from getting anywhere: its first instruction fetch with paging off, then a read and a write.

    None where L1 runs. Without EPT L1 runs on shadow paging, which this model does not follow: MBEC has no part there.
    """
    if not loaded(level, param, cpu, env).enable_ept:
        return None
    run = l1_run(level, param, cpu, env)
    for use in (Use.FETCH, Use.READ, Use.WRITE):
        if trouble := run.access(L1_GPA + (0x10000 if use is not Use.FETCH else 0), use, PAGING_OFF, TARGET):
            return Outcome(
                Kind.BLOCKED, note=f"L1's first {use.value} with paging off: {trouble.kind.value} ({trouble.note})"
            )
    return None
