"""From a vector to the mirror's prediction: the KVM of one level, on one CPU, with one guest.

KVM is the mirror (``kvmodel.vmx`` and what it imports), the CPU is ``kvmodel.sdm.ept`` walking the entries that
KVM made (EPT02), not L1's. One access of L2 is: CPU walk, exit, KVM, and again, until the access completes, L1 is
given an exit, KVM_RUN fails, or an exit changes nothing at all (then the next is the same: a livelock).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Final

from kvmodel import machine_client, mmutrace
from kvmodel.bits import BIT, GENMASK
from kvmodel.cpu import Cpu
from kvmodel.hyperv import nested_evmcs_filter_control_msr
from kvmodel.kvm_host import Kvm, Vcpu, hv_enlightened_vmcs, hv_vp_assist_page, kvm_memory_slot
from kvmodel.mmu import hardware_entries
from kvmodel.mmu_fault import EMULATE
from kvmodel.mmu_roots import kvm_mmu_free_roots, mmu_alloc_shadow_roots
from kvmodel.mmu_spte import shadow_walk
from kvmodel.mmu_track import write_guest_table
from kvmodel.nested import (
    handle_invept,
    nested_release_vmcs12,
    nested_vmx_run,
    vmcs12_eptp,
    vmx_get_msr,
    vmx_get_vmx_msr,
)
from kvmodel.nested_ctls import LEAST, MOST, nested_vmx_setup_ctls_msrs
from kvmodel.outcome import Kind, Outcome, Place, Prediction, Step, of_turns
from kvmodel.sdm import ept as sdm_ept
from kvmodel.sdm import guest_paging
from kvmodel.sdm.access import PAGING_OFF, Linear, Use
from kvmodel.sequence import SequenceVector
from kvmodel.series import Level
from kvmodel.vector import (
    ENVIRONMENTS,
    Access,
    AccessVector,
    ClientSequence,
    ClientVector,
    EntryVector,
    Evmcs,
    GuestPerm,
    HostVector,
    Machine,
    Mbec,
    MmioVector,
    MsrVector,
    NxVector,
    Paging,
    UserMsrVector,
    Vector,
)
from kvmodel.vmx import (
    HostMsrs,
    handle_ept_misconfig,
    handle_ept_violation,
    load,
    vcpu_create,
)
from kvmodel.vmx_ept import construct_eptp
from kvmodel.vmx_h import (
    EXIT_REASON_EPT_VIOLATION,
    SECONDARY_EXEC_ENABLE_EPT,
    SECONDARY_EXEC_ENABLE_VPID,
    SECONDARY_EXEC_MODE_BASED_EPT_EXEC,
    SECONDARY_EXEC_UNRESTRICTED_GUEST,
    VMX_EPT_1GB_PAGE_BIT,
    VMX_EPT_2MB_PAGE_BIT,
    VMX_EPT_AD_BIT,
    VMX_EPT_EXECUTABLE_MASK,
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

MSR_PROCBASED_CTLS2: Final = 0x48B
MSR_EPT_VPID_CAP: Final = 0x48C
MSR_VMFUNC: Final = 0x491

# How a host file's value is written into Outcome.code.
PARAM_ABSENT: Final = 0
PARAM_Y: Final = ord("Y")
PARAM_N: Final = ord("N")

# Bits of an MSR that the mirror vouches for, where the CPU's share and QEMU's are not all known.
DEFINED: Final = {
    MSR_PROCBASED_CTLS2: GENMASK(31, 0) | BIT(33) | BIT(39) | BIT(54),
    MSR_EPT_VPID_CAP: BIT(0) | BIT(6) | BIT(14) | BIT(16) | BIT(17) | BIT(20) | BIT(21) | BIT(22),
    MSR_VMFUNC: GENMASK(63, 1),
}

# Where the probe's things lie in this model; any address does, none of them 2 MiB-aligned but the large leaves.
_GPA: Final = 1 << 30 | 2 << 21 | 11 << 12 | 0x18  # the L2-physical address under test, or of the entry under test
_TABLES: Final = {4: 0x11000, 3: 0x12000, 2: 0x13000, 1: 0x15000}
_LEAF_ADDRESS: Final = {1: 0x2345_6000, 2: 0x2340_0000, 3: 0}
_RAM_GFNS: Final = 1 << 20
_FULL: Final = 0x407 | 0x300  # the scaffold's leaf entries: R, W, X, bit 10, A, D
_NONLEAF: Final = 0x407 | 0x100  # the scaffold's upper entries: R, W, X, bit 10, A
_SCAFFOLD: Final = 0x0100_0000  # the probe's code and guest paging structures, L2-physical as L1-physical
_SCAFFOLD_TABLES: Final = {2: 0x16000, 1: 0x17000}  # EPT12 below the level-3 table, which the page under test shares
_L1_GPA: Final = 0x0800_0000
_MMIO_GPA: Final = 0xFEB0_0000
_EVMCS_GPA: Final = 0x0900_0000

FRAME: Final = "the probe's own"  # how the note of an outcome begins that the access under test never came to

_TARGET: Final = Place("target")
_GPT: Final = Place("gpt")
_DONE: Final = Outcome(Kind.DONE)

_USE: Final = {
    Access.READ: Use.READ,
    Access.WRITE: Use.WRITE,
    Access.RMW: Use.RMW,
    Access.FETCH: Use.FETCH,
    Access.WALK: Use.READ,
    Access.WALKA: Use.READ,
    Access.WALKD: Use.WRITE,
}


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


def _mask_by_user_space(vcpu: Vcpu, machine: Machine) -> None:
    """What QEMU takes from the nested capability MSRs by its CPU properties (KVM_SET_MSRS on MSRs 0x48B, 0x48C)."""
    msrs = vcpu.nested_msrs
    if not machine.mbec_offered:
        msrs.secondary_ctls_high &= ~SECONDARY_EXEC_MODE_BASED_EPT_EXEC
    if not machine.execonly_offered:
        msrs.ept_caps &= ~VMX_EPT_EXECUTE_ONLY_BIT
    vcpu.guest_cpuid_has_evmcs = machine.evmcs_offered


def _ask(vcpu: Vcpu, evmcs: Evmcs, control: int, eptp: int, *, second: bool = False) -> None:
    """What L1 writes before a VM entry: secondary controls and EPT pointer, to a vmcs12 or to an enlightened VMCS.

    Like the probe's, this L1 calls no field of an enlightened VMCS clean.
    """
    if evmcs is Evmcs.USED:
        gpa = _EVMCS_GPA + (0x1000 if second else 0)
        vcpu.hv.vp_assist_page = hv_vp_assist_page(enlighten_vmentry=True, current_nested_vmcs=gpa)
        page = vcpu.hv.pages.setdefault(gpa, hv_enlightened_vmcs())
        page.secondary_vm_exec_control, page.ept_pointer, page.hv_clean_fields = control, eptp, 0
    else:
        vcpu.hv.vp_assist_page = None
        vcpu.vmcs12.secondary_vm_exec_control, vcpu.vmcs12.ept_pointer = control, eptp


class _Run:
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
            if isinstance(walked, sdm_ept.Completed):
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
                reason, qualification, _ = vcpu.injected
                if reason == EXIT_REASON_EPT_VIOLATION:
                    undefined = ~walked.defined & 7 if isinstance(walked, sdm_ept.Violation) else 0
                    return Outcome(
                        Kind.VIOLATION, qualification, gpa=place, gla=_TARGET, defined=GENMASK(63, 0) & ~undefined
                    )
                return Outcome(Kind.MISCONFIG, gpa=place)
            if r == EMULATE:
                if steps is not None:
                    steps.append(Step("x86.c x86_emulate_instruction", "KVM emulates the access", 0))
                return Outcome(Kind.HOST, note="internal error: nothing to emulate") if use is Use.FETCH else None
            if vcpu.version == before:
                note = "the same exit again and again, no SPTE changes"
                return Outcome(Kind.LIVELOCK, note=note)

    def _set_accessed_dirty(self, gpa: int, after: tuple[tuple[int, int], ...]) -> None:
        for (sp, index, spte), (_, entry) in zip(tuple(shadow_walk(self.vcpu, gpa)), after, strict=True):
            if spte != entry:
                sp.spt[index] = entry


@lru_cache(maxsize=256)
def _loaded(level: Level, param: bool | None, cpu: Cpu, env: str) -> Kvm:
    """The modules as loaded for environment ``env``; a CPU model without MBEC is part of the environment."""
    e = ENVIRONMENTS[env]
    if not e.cpu_mbec:
        cpu = replace(cpu, mbec=False)
    return load(level, param, host_msrs(cpu), ept=e.ept, eptad=e.eptad, nx_huge_pages=e.nx_huge_pages)


def _slot(env: str) -> kvm_memory_slot:
    return kvm_memory_slot({"4k": 1, "2m": 2, "1g": 3}[ENVIRONMENTS[env].backing])


def _l1_run(level: Level, param: bool | None, cpu: Cpu, env: str) -> _Run:
    """A fresh L1 vCPU on KVM's own EPT."""
    vcpu = vcpu_create(_loaded(level, param, cpu, env))
    vcpu.slot = _slot(env)
    vcpu.ram_gfns = _RAM_GFNS
    mbec = vcpu.vmcs01_secondary & SECONDARY_EXEC_MODE_BASED_EPT_EXEC != 0
    ad = construct_eptp(vcpu, 0, 4) & VMX_EPTP_AD_ENABLE_BIT != 0
    return _Run(vcpu, cpu, mbec=mbec, ad=ad)


@lru_cache(maxsize=256)
def _l1_trouble(level: Level, param: bool | None, cpu: Cpu, env: str) -> Outcome | None:
    """What keeps L1 from getting anywhere: its first instruction fetch with paging off, then a read and a write.

    None where L1 runs. Without EPT L1 runs on shadow paging, which this model does not follow: MBEC has no part there.
    """
    if not _loaded(level, param, cpu, env).enable_ept:
        return None
    run = _l1_run(level, param, cpu, env)
    for use in (Use.FETCH, Use.READ, Use.WRITE):
        if trouble := run.access(_L1_GPA + (0x10000 if use is not Use.FETCH else 0), use, PAGING_OFF, _TARGET):
            return Outcome(
                Kind.BLOCKED, note=f"L1's first {use.value} with paging off: {trouble.kind.value} ({trouble.note})"
            )
    return None


class _Guest:
    """An L1 that runs, with the vmcs12 it asks for: entered once, reused for every vector that asks the same."""

    __slots__ = ("cpu", "entry", "error", "frames", "run", "vcpu")

    def __init__(
        self,
        level: Level,
        param: bool | None,
        cpu: Cpu,
        machine: Machine,
        *,
        mbec: bool,
        ad: bool,
        ept: bool,
        evmcs: Evmcs = Evmcs.ABSENT,
    ) -> None:
        vcpu = vcpu_create(_loaded(level, param, cpu, machine.env.name))
        vcpu.slot = _slot(machine.env.name)
        vcpu.ram_gfns = _RAM_GFNS
        _mask_by_user_space(vcpu, machine)
        control = SECONDARY_EXEC_MODE_BASED_EPT_EXEC if mbec else 0
        control |= SECONDARY_EXEC_ENABLE_EPT if ept else 0
        _ask(vcpu, evmcs, control, vmcs12_eptp(_TABLES[4], ad=ad) if ept else 0)
        self.vcpu = vcpu
        self.cpu = cpu
        vcpu.steps = []
        self.error = nested_vmx_run(vcpu)
        self.entry = tuple(vcpu.steps)
        vcpu.steps = None
        self.frames: dict[int, Outcome | None] = {}
        self.run = self.l2_run()

    def l2_run(self) -> _Run:
        """L2 on the vmcs02 that the last VM entry made."""
        vcpu = self.vcpu
        mbec = vcpu.vmcs02_secondary & SECONDARY_EXEC_MODE_BASED_EPT_EXEC != 0
        return _Run(vcpu, self.cpu, mbec=mbec, ad=construct_eptp(vcpu, 0, 4) & VMX_EPTP_AD_ENABLE_BIT != 0)

    def enter(self, v: AccessVector, *, second: bool = False) -> int:
        """VM entry as ``v`` asks, on the ``second`` vmcs12 or the first; its error number, 0 where L2 runs."""
        vcpu = self.vcpu
        vcpu.injected = None
        control = SECONDARY_EXEC_ENABLE_EPT
        control |= SECONDARY_EXEC_MODE_BASED_EPT_EXEC if v.mbec is Mbec.ON else 0
        _ask(vcpu, v.ev, control, vmcs12_eptp(_TABLES[4], ad=v.ad), second=second)
        if not (error := nested_vmx_run(vcpu)):
            self.run = self.l2_run()
        return error

    def reset(self, memory: dict[int, int], steps: list[Step] | None) -> None:
        """EPT02 is empty again, EPT12 is ``memory``."""
        vcpu = self.vcpu
        vcpu.memory = memory
        vcpu.pages = {}
        vcpu.hash = {}
        vcpu.indirect = {}
        vcpu.next_pa = 1 << 36
        vcpu.injected = None
        vcpu.warns = []
        vcpu.steps = None
        kvm_mmu_free_roots(vcpu.guest_mmu)
        mmu_alloc_shadow_roots(vcpu)
        vcpu.steps = steps
        self.run.exits = 0

    def frame(self, code_user: bool, paging: bool) -> Outcome | None:
        """What stops the probe's own frame, if anything: its code and tables, whose EPT12 entries permit everything."""
        key = code_user | paging << 1
        if key not in self.frames:
            self.frames[key] = None
            uses = [(Use.FETCH, Linear(user=code_user))] + ([(Use.WALK, Linear())] if paging else [])
            for use, linear in uses:
                self.reset(_ept12(1, _FULL | 6 << 3, 2, _NONLEAF), None)
                if trouble := self.run.access(_GPA, use, linear, _TARGET):
                    note = f"{FRAME} {use.value}: {trouble.note}"
                    self.frames[key] = replace(trouble, gpa=None, gla=None, note=note)
                    break
        return self.frames[key]


def _entry_gpa(level: int) -> int:
    """Where the entry of EPT12 for ``_GPA`` at ``level`` lies."""
    return _TABLES[level] + (_GPA >> 12 + (level - 1) * 9 & 511) * 8


def _leaf_entry(level: int, leaf: int) -> int:
    return leaf | _LEAF_ADDRESS[level] | (0x80 if level > 1 else 0)


def _ept12(leaf_level: int, leaf: int, upper_level: int, upper: int) -> dict[int, int]:
    """EPT12 for ``_GPA``: address of each entry and the entry, the leaf without its address and bit 7."""
    memory: dict[int, int] = {}
    for level in range(4, leaf_level - 1, -1):
        if level == leaf_level:
            entry = _leaf_entry(level, leaf)
        else:
            entry = (upper if level == upper_level else _NONLEAF) | _TABLES[level - 1]
        memory[_entry_gpa(level)] = entry
    return memory


def _leaf_bits(v: AccessVector) -> int:
    return v.leaf.bits | v.memtype << 3 | v.leaf_bits


def _upper_bits(v: AccessVector) -> int:
    return v.upper.bits | v.upper_bits


class _Context:
    """One level, parameter and CPU: the guests that ran on it, by what they ask, and what stops L1, by environment."""

    __slots__ = ("cpu", "guests", "level", "param", "sequences", "trouble")

    def __init__(self, level: Level, param: bool | None, cpu: Cpu) -> None:
        self.level = level
        self.param = param
        self.cpu = cpu
        self.guests: dict[tuple[str, bool, Evmcs, bool, bool, bool, bool], _Guest] = {}
        self.sequences: dict[Machine, _Guest] = {}
        self.trouble: dict[str, Outcome | None] = {}

    def blocked(self, env: str) -> Outcome | None:
        """Why L1 cannot run here, None where it can."""
        if env not in self.trouble:
            self.trouble[env] = _l1_trouble(self.level, self.param, self.cpu, env)
        return self.trouble[env]

    def guest(self, v: AccessVector | EntryVector, *, ad: bool, ept: bool) -> _Guest:
        """The guest that asks for what ``v`` asks."""
        on = v.mbec is Mbec.ON
        key = (v.env, v.xo, v.ev, on, v.mbec is Mbec.NA, ad, ept)
        guest = self.guests.get(key)
        if guest is None:
            guest = _Guest(self.level, self.param, self.cpu, v.machine, mbec=on, ad=ad, ept=ept, evmcs=v.ev)
            self.guests[key] = guest
        return guest

    def several(self, v: AccessVector) -> _Guest:
        """A guest on ``v``'s machine that each turn of a sequence enters as it asks."""
        machine = v.machine
        if machine not in self.sequences:
            self.sequences[machine] = _Guest(self.level, self.param, self.cpu, machine, mbec=False, ad=False, ept=True)
        return self.sequences[machine]


@lru_cache(maxsize=128)
def _context(level: Level, param: bool | None, cpu: Cpu) -> _Context:
    return _Context(level, param, cpu)


@lru_cache(maxsize=8192)
def _guest_view(
    paging: Paging, cpl: int, flags: int, gp: int, gu: int, access: Access
) -> tuple[Linear, guest_paging.PageFault | None]:
    """What the guest's own paging makes of an access: ``flags`` WP 1, SMEP 2, SMAP 4, NXE 8; entries U 1, W 2, X 4."""
    mode = guest_paging.Mode(paging, cpl, bool(flags & 1), bool(flags & 2), bool(flags & 4), bool(flags & 8))
    entries = [GuestPerm(bool(e & 1), bool(e & 2), bool(e & 4)) for e in (gp, gu)]
    return guest_paging.linear(mode, entries), guest_paging.fault(mode, entries, _USE[access])


def _view(v: AccessVector) -> tuple[Linear, guest_paging.PageFault | None]:
    """``_guest_view`` of a vector."""
    gp, gu = v.gp, v.gu
    return _guest_view(
        v.paging,
        v.cpl,
        v.wp | v.smep << 1 | v.smap << 2 | v.nxe << 3,
        gp.u | gp.w << 1 | gp.x << 2,
        gu.u | gu.w << 1 | gu.x << 2,
        v.access,
    )


def _entry_failure(guest: _Guest) -> Outcome:
    return Outcome(Kind.ENTRY_FAIL, guest.error)


def _access(context: _Context, v: AccessVector, want_steps: bool) -> Prediction:
    if trouble := context.blocked(v.env):
        return Prediction(trouble)
    guest = context.guest(v, ad=v.ad, ept=True)
    if guest.error:
        return Prediction(_entry_failure(guest), guest.entry if want_steps else ())
    off = v.paging is Paging.OFF
    if trouble := guest.frame(off or v.cpl == 3, not off):
        return Prediction(trouble)
    linear, fault = _view(v)
    steps: list[Step] | None = list(guest.entry) if want_steps else None
    guest.reset(_ept12(v.leaf_level, _leaf_bits(v), v.upper_level, _upper_bits(v)), steps)
    if guest.vcpu.trace is not None:
        _scaffold(guest, v)
    outcome = _l2(guest, v, linear, fault) or _DONE
    return Prediction(outcome, tuple(steps or ()), guest.run.exits)


def _scaffold(guest: _Guest, v: AccessVector) -> None:
    """What L2 touches before the access, untraced: its code, its paging structures; the tables on the way are shared.

    Not where the entry under test is the root's: then the probe puts it under a root entry of its own.
    """
    vcpu = guest.vcpu
    if v.upper_level == 4 and v.paging is Paging.LONG and guest.run.cpu.maxphyaddr > 39:
        return
    vcpu.memory[_TABLES[3]] = _SCAFFOLD_TABLES[2] | _NONLEAF
    vcpu.memory[_SCAFFOLD_TABLES[2] + (_SCAFFOLD >> 21) * 8] = _SCAFFOLD_TABLES[1] | _NONLEAF
    trace, vcpu.trace = vcpu.trace, None
    off = v.paging is Paging.OFF
    for page, use, linear in ((0, Use.FETCH, Linear(user=off or v.cpl == 3)), (1, Use.WALK, Linear())):
        vcpu.memory[_SCAFFOLD_TABLES[1] + page * 8] = _SCAFFOLD + (page << 12) | _FULL | 6 << 3
        if use is Use.FETCH or not off:
            guest.run.access(_SCAFFOLD + (page << 12), use, linear, _TARGET)
    vcpu.trace = trace


def _turns(guest: _Guest, v: SequenceVector) -> Iterator[tuple[Outcome, int]]:
    """Turn by turn what came of it, and the exits: L1 writes the entries that differ, says INVEPT or not, enters."""
    vcpu = guest.vcpu
    before = v.turns[0]
    for number, turn in enumerate(v.turns, 1):
        a = turn.access
        if vcpu.steps is not None:
            what = f"turn {number}: {a.access.value}, leaf {a.leaf}, upper {a.upper}, MBEC {a.mbec.value}"
            vcpu.steps.append(Step("L1", what))
        if _upper_bits(a) != _upper_bits(before.access):
            write_guest_table(vcpu, _entry_gpa(a.upper_level), _upper_bits(a) | _TABLES[a.upper_level - 1])
        if _leaf_bits(a) != _leaf_bits(before.access):
            write_guest_table(vcpu, _entry_gpa(a.leaf_level), _leaf_entry(a.leaf_level, _leaf_bits(a)))
        if turn.second is not before.second and a.ev is not Evmcs.USED:
            nested_release_vmcs12(vcpu)
        if turn.invept:
            handle_invept(vcpu)
        before = turn
        if error := guest.enter(a, second=turn.second):
            yield Outcome(Kind.ENTRY_FAIL, error), 0
        else:
            yield _l2(guest, a, *_view(a)) or _DONE, guest.run.exits


def _sequence(context: _Context, v: SequenceVector, want_steps: bool) -> Prediction:
    first = v.turns[0].access
    if trouble := context.blocked(first.env):
        return Prediction(trouble)
    for turn in v.turns:
        a = turn.access
        guest = context.guest(a, ad=a.ad, ept=True)
        off = a.paging is Paging.OFF
        if not guest.error and (trouble := guest.frame(off or a.cpl == 3, not off)):
            return Prediction(trouble)
    guest = context.several(first)
    steps: list[Step] | None = [] if want_steps else None
    if guest.error:
        return Prediction(of_turns([_entry_failure(guest)] * len(v.turns)), guest.entry if want_steps else ())
    guest.reset(_ept12(first.leaf_level, _leaf_bits(first), first.upper_level, _upper_bits(first)), steps)
    outcomes = []
    exits = 0
    for outcome, more in _turns(guest, v):
        outcomes.append(outcome)
        exits += more
        if outcome.kind is Kind.HOST:
            break
    return Prediction(of_turns(outcomes), tuple(steps or ()), exits)


def _l2(guest: _Guest, v: AccessVector, linear: Linear, fault: guest_paging.PageFault | None) -> Outcome | None:
    """L2's access on the CPU: the guest entry's read, the guest's own paging, its A/D update, the page."""
    run = guest.run
    access = v.access
    walk = access.is_walk
    if walk and (trouble := run.access(_GPA, Use.WALK, linear, _GPT)):
        return trouble
    if fault:
        if guest.vcpu.steps is not None:
            guest.vcpu.steps.append(Step("CPU", f"guest paging: #PF({fault.error:#x}), {fault.rule}"))
        return Outcome(Kind.EXCEPTION, fault.error, number=guest_paging.PAGE_FAULT, gla=_TARGET)
    if not walk:
        return run.access(_GPA, _USE[access], linear, _TARGET)
    if access is Access.WALK:
        return None
    return run.access(_GPA, Use.UPDATE, linear, _GPT)


def _nx(context: _Context, v: NxVector, want_steps: bool) -> Prediction:
    """What the access makes KVM install: a huge SPTE that the CPU may execute from, or none (DONE)."""
    prediction = _access(context, v.asked, want_steps)
    if prediction.outcome.kind in (Kind.BLOCKED, Kind.HOST, Kind.ENTRY_FAIL, Kind.SCAFFOLD):
        return prediction
    guest = context.guest(v.asked, ad=v.asked.ad, ept=True)
    execute = VMX_EPT_EXECUTABLE_MASK | (BIT(10) if guest.run.mbec else 0)
    outcome = _DONE
    for name, args in _traced(context, v.asked):
        if name == "kvm_mmu_set_spte" and args[0] > 1 and args[2] & execute:
            outcome = Outcome(Kind.BYPASS, args[2] & 0x407, number=args[0])
            break
    return replace(prediction, outcome=outcome)


def _traced(context: _Context, v: AccessVector) -> list[tuple[str, tuple[int, ...]]]:
    """The tracepoints of an access that L2 gets to make, with their arguments."""
    vcpu = context.guest(v, ad=v.ad, ept=True).vcpu
    _access(context, v, False)  # the probe's frame is set up, and emits what it emits
    found: list[tuple[str, tuple[int, ...]]] = []
    vcpu.trace = found
    try:
        _access(context, v, False)
    finally:
        vcpu.trace = None
    return found


def _entry(context: _Context, v: EntryVector, want_steps: bool) -> Prediction:
    if trouble := context.blocked(v.env):
        return Prediction(trouble)
    guest = context.guest(v, ad=False, ept=v.ept)
    return Prediction(_entry_failure(guest) if guest.error else _DONE, guest.entry if want_steps else ())


def _l1_msrs(level: Level, param: bool | None, cpu: Cpu, machine: Machine) -> Vcpu:
    vcpu = vcpu_create(_loaded(level, param, cpu, machine.env.name))
    _mask_by_user_space(vcpu, machine)
    return vcpu


def _reading(vcpu: Vcpu, msr: int) -> Outcome:
    """``msr`` as L1 reads it, with the bits that the mirror vouches for.

    Of the controls other than secondary the CPU's share is not known: a bit counts where it is the same with the
    least and with the most that KVM takes from a CPU. What the eVMCS filter clears counts whatever was there.
    """
    values = []
    for conf in (LEAST, MOST):
        nested_vmx_setup_ctls_msrs(vcpu.kvm, conf, vcpu.nested_msrs)
        value = vmx_get_msr(vcpu, msr)
        if value is None:
            raise ValueError(f"MSR {msr:#x} is not modelled: use 0x481 to 0x484 or 0x48b to 0x491")
        values.append(value)
    least, most = values
    defined = DEFINED.get(msr, GENMASK(63, 0) & ~(least ^ most))
    if vcpu.guest_cpuid_has_evmcs:
        defined |= GENMASK(63, 0) & ~nested_evmcs_filter_control_msr(vcpu, msr, GENMASK(63, 0))
    return Outcome(Kind.VALUE, least, defined=defined)


def _msr(level: Level, param: bool | None, cpu: Cpu, v: MsrVector, want_steps: bool) -> Prediction:
    if trouble := _l1_trouble(level, param, cpu, v.machine.env.name):
        return Prediction(trouble)
    vcpu = _l1_msrs(level, param, cpu, v.machine)
    outcome = _reading(vcpu, v.msr)
    steps = (Step("vmx/nested.c vmx_get_vmx_msr", str(outcome), 0),) if want_steps else ()
    return Prediction(outcome, steps)


def _mmio(level: Level, param: bool | None, cpu: Cpu, v: MmioVector, want_steps: bool) -> Prediction:
    env = v.machine.env.name
    if trouble := _l1_trouble(level, param, cpu, env):
        return Prediction(trouble)
    if not _loaded(level, param, cpu, env).enable_ept:
        return Prediction(_DONE)
    run = _l1_run(level, param, cpu, env)
    run.vcpu.ram_gfns = _MMIO_GPA >> 12
    run.vcpu.steps = [] if want_steps else None
    outcome = run.access(_MMIO_GPA, _USE[v.access], Linear(user=False), _TARGET) or _DONE
    return Prediction(outcome, tuple(run.vcpu.steps or ()), run.exits)


def _client(level: Level, param: bool | None, cpu: Cpu, v: ClientVector, want_steps: bool) -> Prediction:
    if not _loaded(level, param, cpu, v.env).enable_ept:
        return Prediction(_DONE)
    run = _l1_run(level, param, cpu, v.env)
    run.vcpu.steps = [] if want_steps else None
    paging = v.mode == "long"
    code = Linear(user=False) if paging else PAGING_OFF
    page = Linear(user=v.page == "u") if paging else PAGING_OFF
    outcome = run.access(_L1_GPA, Use.FETCH, code, _TARGET)
    if outcome is None and paging:
        outcome = run.access(_L1_GPA + 0x10000, Use.WALK, page, _GPT)
    if outcome is None:
        outcome = run.access(_L1_GPA + 0x20000, _USE[v.access], page, _TARGET)
    return Prediction(outcome or _DONE, tuple(run.vcpu.steps or ()), run.exits)


def _client_sequence(level: Level, param: bool | None, cpu: Cpu, v: ClientSequence, want_steps: bool) -> Prediction:
    if not _loaded(level, param, cpu, v.env).enable_ept:
        return Prediction(replace(_DONE, defined=0))  # shadow paging is not followed, nor what it counts
    run = _l1_run(level, param, cpu, v.env)
    run.vcpu.steps = [] if want_steps else None
    outcome = machine_client.sequence(run.vcpu, run.access, v)
    return Prediction(outcome, tuple(run.vcpu.steps or ()), run.exits)


def _user_msr(level: Level, param: bool | None, cpu: Cpu, v: UserMsrVector, want_steps: bool) -> Prediction:
    vcpu = vcpu_create(_loaded(level, param, cpu, v.env))
    vcpu.steps = [] if want_steps else None
    value, refused = machine_client.user_msr(vcpu, v)
    known = DEFINED[v.msr] | GENMASK(63, 0) << 64
    return Prediction(Outcome(Kind.VALUE, value | refused << 64, defined=known), tuple(vcpu.steps or ()))


def text_value(texts: Iterable[str]) -> Outcome:
    """Texts as a value that can be compared: their checksum, and what they are."""
    text = " ".join(texts)
    return Outcome(Kind.VALUE, zlib.crc32(text.encode()), note=text)


def _host(level: Level, param: bool | None, cpu: Cpu, v: HostVector) -> Prediction:
    kvm = _loaded(level, param, cpu, v.env)
    if v.what == "param":
        if not level.has(3):
            return Prediction(Outcome(Kind.VALUE, PARAM_ABSENT, note="absent"))
        on = kvm.enable_pt_guest_exec_control
        return Prediction(Outcome(Kind.VALUE, PARAM_Y if on else PARAM_N, note="Y" if on else "N"))
    if v.what in ("taccess", "tspte"):
        return Prediction(
            text_value(
                mmutrace.access_strings(kvm) if v.what == "taccess" else (mmutrace.kvm_mmu_set_spte_format(kvm),)
            )
        )
    msr = MSR_PROCBASED_CTLS2 if v.what == "m48b" else MSR_EPT_VPID_CAP
    value = vmx_get_vmx_msr(kvm.vmcs_config.nested, msr)
    assert value is not None
    return Prediction(Outcome(Kind.VALUE, value, defined=DEFINED[msr]))


def predict(level: Level | int, param: bool | None, cpu: Cpu, vector: Vector, *, steps: bool = False) -> Prediction:
    """The mirror's answer to ``vector`` at ``level`` with the parameter unset, 0 or 1, on the CPU under KVM.

    ``cpu`` is the hardware (its errata included); the vector's environment may take features from it.
    ``steps=True`` asks for the rules used on the way. A HostVector's parameter is VALUE 'Y', 'N' or 0 (absent).
    """
    lv = Level.of(level) if isinstance(level, int) else level
    match vector:
        case AccessVector():
            return _access(_context(lv, param, cpu), vector, steps)
        case SequenceVector():
            return _sequence(_context(lv, param, cpu), vector, steps)
        case NxVector():
            return _nx(_context(lv, param, cpu), vector, steps)
        case EntryVector():
            return _entry(_context(lv, param, cpu), vector, steps)
        case MsrVector():
            return _msr(lv, param, cpu, vector, steps)
        case MmioVector():
            return _mmio(lv, param, cpu, vector, steps)
        case ClientVector():
            return _client(lv, param, cpu, vector, steps)
        case ClientSequence():
            return _client_sequence(lv, param, cpu, vector, steps)
        case UserMsrVector():
            return _user_msr(lv, param, cpu, vector, steps)
        case _:
            return _host(lv, param, cpu, vector)


def events(level: Level | int, param: bool | None, cpu: Cpu, vector: AccessVector) -> tuple[tuple[str, str], ...]:
    """(tracepoint, its text) that KVM emits for ``vector``'s access, in order; empty where L2 never gets so far.

    From the entry's root table on, of L2's exits at the address under test. Texts are those of mmutrace.h and trace.h;
    addresses of tables and pages are this model's own: compare with them normalised.
    """
    lv = Level.of(level) if isinstance(level, int) else level
    context = _context(lv, param, cpu)
    if context.blocked(vector.env) or context.guest(vector, ad=vector.ad, ept=True).error:
        return ()
    vcpu = context.guest(vector, ad=vector.ad, ept=True).vcpu
    return tuple((name, mmutrace.text(vcpu, name, args)) for name, args in _traced(context, vector))


def warns(level: Level | int, param: bool | None, cpu: Cpu, vector: AccessVector) -> tuple[str, ...]:
    """The WARNs that KVM hits for ``vector``'s access, each by its C file and function, once."""
    lv = Level.of(level) if isinstance(level, int) else level
    context = _context(lv, param, cpu)
    if context.blocked(vector.env) or context.guest(vector, ad=vector.ad, ept=True).error:
        return ()
    _access(context, vector, False)
    return tuple(dict.fromkeys(context.guest(vector, ad=vector.ad, ept=True).vcpu.warns))


def virtual_cpu(level: Level | int, param: bool | None, cpu: Cpu, machine: Machine) -> Cpu:
    """The CPU as L1 reads it on this level, parameter and machine: what the contract is held against.

    KVM offers L1 no errata: those of the hardware reach L1 only by what KVM makes of them.
    """
    lv = Level.of(level) if isinstance(level, int) else level
    vcpu = _l1_msrs(lv, param, cpu, machine)
    secondary = (vmx_get_msr(vcpu, MSR_PROCBASED_CTLS2) or 0) >> 32
    caps = vmx_get_msr(vcpu, MSR_EPT_VPID_CAP) or 0
    return Cpu(
        vmx=True,
        ept=secondary & SECONDARY_EXEC_ENABLE_EPT != 0,
        mbec=secondary & SECONDARY_EXEC_MODE_BASED_EPT_EXEC != 0,
        execonly=caps & VMX_EPT_EXECUTE_ONLY_BIT != 0,
        ept_2m=caps & VMX_EPT_2MB_PAGE_BIT != 0,
        ept_1g=caps & VMX_EPT_1GB_PAGE_BIT != 0,
        ept_ad=caps & VMX_EPT_AD_BIT != 0,
        advanced_info=caps & BIT(22) != 0,
        unrestricted=secondary & SECONDARY_EXEC_UNRESTRICTED_GUEST != 0,
        maxphyaddr=cpu.maxphyaddr,
    )
