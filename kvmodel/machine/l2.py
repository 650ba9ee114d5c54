"""L2 under the L1 of the probe: VM entries as L1 asks, EPT12 in its memory, one access or several.

A guest is entered once and reused by every vector that asks the same; what a vector leaves behind is taken away
before the next (``Guest.reset``), and stays from turn to turn within a sequence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Final

from kvmodel.bits import BIT
from kvmodel.cpu import Cpu
from kvmodel.include.asm.hyperv_tlfs import hv_enlightened_vmcs, hv_vp_assist_page
from kvmodel.include.asm.kvm_host import Vcpu
from kvmodel.include.asm.vmx import (
    SECONDARY_EXEC_ENABLE_EPT,
    SECONDARY_EXEC_MODE_BASED_EPT_EXEC,
    SECONDARY_EXEC_UNRESTRICTED_GUEST,
    VMX_EPT_EXECUTABLE_MASK,
    VMX_EPT_EXECUTE_ONLY_BIT,
    VMX_EPTP_AD_ENABLE_BIT,
)
from kvmodel.machine.vcpu import DONE, GPT, RAM_GFNS, TARGET, VcpuRun, l1_trouble, loaded, slot
from kvmodel.mmu.mmu_page import kvm_mmu_free_roots, mmu_alloc_shadow_roots
from kvmodel.mmu.mmu_sync import write_guest_table
from kvmodel.question import taken
from kvmodel.question.outcome import Kind, Outcome, Place, Prediction, Step, of_turns
from kvmodel.question.sequence import SequenceVector
from kvmodel.question.taken import Taken
from kvmodel.question.vector import Access, AccessVector, EntryVector, Evmcs, GuestPerm, Machine, Mbec, NxVector, Paging
from kvmodel.sdm import guest_paging
from kvmodel.sdm.access import Linear, Use
from kvmodel.sdm.contract import FINAL_USE
from kvmodel.sdm.vmcs import GUEST_STATE
from kvmodel.series import Level
from kvmodel.vmx.nested import handle_invept, nested_release_vmcs12, nested_vmx_run, vmcs12_eptp
from kvmodel.vmx.vmx import construct_eptp, vcpu_create
from kvmodel.x86_emulate import kvm_fetch_guest_virt, vcpu_mmio_gva_to_gpa

# Where the probe's things lie in this model; any address does, none of them 2 MiB-aligned but the large leaves.
_GPA: Final = 1 << 30 | 2 << 21 | 11 << 12 | 0x18  # the L2-physical address under test, or of the entry under test
_TABLES: Final = {4: 0x11000, 3: 0x12000, 2: 0x13000, 1: 0x15000}
_LEAF_ADDRESS: Final = {1: 0x2345_6000, 2: 0x2340_0000, 3: 0}
_FULL: Final = 0x407 | 0x300  # the scaffold's leaf entries: R, W, X, bit 10, A, D
_NONLEAF: Final = 0x407 | 0x100  # the scaffold's upper entries: R, W, X, bit 10, A
_SCAFFOLD: Final = 0x0100_0000  # the probe's code and guest paging structures, L2-physical as L1-physical
_SCAFFOLD_TABLES: Final = {2: 0x16000, 1: 0x17000}  # EPT12 below the level-3 table, which the page under test shares
_MMIO_PAGE: Final = 2  # of the scaffold's pages, the one that L1 maps to an address without memory
_EVMCS_GPA: Final = 0x0900_0000

MMIO: Final = Place("mmio")  # the linear address of the operand without memory


def mask_by_user_space(vcpu: Vcpu, machine: Machine) -> None:
    """What QEMU takes from the nested capability MSRs by its CPU properties (KVM_SET_MSRS on MSRs 0x48B, 0x48C)."""
    msrs = vcpu.nested_msrs
    if not machine.mbec_offered:
        msrs.secondary_ctls_high &= ~SECONDARY_EXEC_MODE_BASED_EPT_EXEC
    if not machine.execonly_offered:
        msrs.ept_caps &= ~VMX_EPT_EXECUTE_ONLY_BIT
    match machine.env.taken:
        case Taken(msr=taken.PROC2, bits=bits):
            msrs.secondary_ctls_high &= ~sum(map(BIT, bits))
        case Taken(msr=taken.EPT_VPID, bits=bits):
            gone = sum(map(BIT, bits))
            msrs.ept_caps &= ~gone
            msrs.vpid_caps &= ~(gone >> 32)
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


class Guest:
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
        vcpu = vcpu_create(loaded(level, param, cpu, machine.env.name))
        vcpu.slot = slot(machine.env.name)
        vcpu.ram_gfns = RAM_GFNS
        mask_by_user_space(vcpu, machine)
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

    def l2_run(self) -> VcpuRun:
        """L2 on the vmcs02 that the last VM entry made."""
        vcpu = self.vcpu
        mbec = vcpu.vmcs02_secondary & SECONDARY_EXEC_MODE_BASED_EPT_EXEC != 0
        return VcpuRun(vcpu, self.cpu, mbec=mbec, ad=construct_eptp(vcpu, 0, 4) & VMX_EPTP_AD_ENABLE_BIT != 0)

    def enter(self, v: AccessVector, *, second: bool = False) -> int:
        """VM entry as ``v`` asks, on the ``second`` vmcs12 or the first; its error number, 0 where L2 runs."""
        control = SECONDARY_EXEC_ENABLE_EPT
        control |= SECONDARY_EXEC_MODE_BASED_EPT_EXEC if v.mbec is Mbec.ON else 0
        return self.enter_with(v.ev, control, vmcs12_eptp(_TABLES[4], ad=v.ad), second=second)

    def enter_with(self, evmcs: Evmcs, control: int, eptp: int, *, second: bool = False) -> int:
        """VM entry with these secondary controls and this EPT pointer; its error number, 0 where L2 runs."""
        vcpu = self.vcpu
        vcpu.injected = None
        _ask(vcpu, evmcs, control, eptp, second=second)
        if not (error := nested_vmx_run(vcpu)):
            self.run = self.l2_run()
        return error

    def reset(self, memory: dict[int, int], steps: list[Step] | None, *, entered: bool = True) -> None:
        """EPT02 is empty again, EPT12 is ``memory``; with ``entered`` it has a root, as if L2 had just been entered."""
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
        if entered:
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
                if trouble := self.run.access(_GPA, use, linear, TARGET):
                    note = f"the probe's own {use.value}: {trouble.note}"
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


class Context:
    """One level, parameter and CPU: the guests that ran on it, by what they ask, and what stops L1, by environment."""

    __slots__ = ("cpu", "guests", "level", "param", "sequences", "trouble")

    def __init__(self, level: Level, param: bool | None, cpu: Cpu) -> None:
        self.level = level
        self.param = param
        self.cpu = cpu
        self.guests: dict[tuple[str, bool, Evmcs, bool, bool, bool, bool], Guest] = {}
        self.sequences: dict[Machine, Guest] = {}
        self.trouble: dict[str, Outcome | None] = {}

    def blocked(self, env: str) -> Outcome | None:
        """Why L1 cannot run here, None where it can."""
        if env not in self.trouble:
            self.trouble[env] = l1_trouble(self.level, self.param, self.cpu, env)
        return self.trouble[env]

    def guest(self, v: AccessVector | EntryVector, *, ad: bool, ept: bool) -> Guest:
        """The guest that asks for what ``v`` asks."""
        on = v.mbec is Mbec.ON
        key = (v.env, v.xo, v.ev, on, v.mbec is Mbec.NA, ad, ept)
        guest = self.guests.get(key)
        if guest is None:
            guest = Guest(self.level, self.param, self.cpu, v.machine, mbec=on, ad=ad, ept=ept, evmcs=v.ev)
            self.guests[key] = guest
        return guest

    def several(self, v: AccessVector) -> Guest:
        """A guest on ``v``'s machine that each turn of a sequence enters as it asks."""
        return self.several_on(v.machine)

    def several_on(self, machine: Machine) -> Guest:
        """The same on a ``machine``."""
        if machine not in self.sequences:
            self.sequences[machine] = Guest(self.level, self.param, self.cpu, machine, mbec=False, ad=False, ept=True)
        return self.sequences[machine]


@lru_cache(maxsize=128)
def context_of(level: Level, param: bool | None, cpu: Cpu) -> Context:
    return Context(level, param, cpu)


@lru_cache(maxsize=8192)
def _guest_view(
    paging: Paging, cpl: int, flags: int, gp: int, gu: int, access: Access
) -> tuple[Linear, guest_paging.PageFault | None]:
    """What the guest's own paging makes of an access: ``flags`` WP 1, SMEP 2, SMAP 4, NXE 8; entries U 1, W 2, X 4."""
    mode = guest_paging.Mode(paging, cpl, bool(flags & 1), bool(flags & 2), bool(flags & 4), bool(flags & 8))
    entries = [GuestPerm(bool(e & 1), bool(e & 2), bool(e & 4)) for e in (gp, gu)]
    return guest_paging.linear(mode, entries), guest_paging.fault(mode, entries, FINAL_USE[access])


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


def _entry_failure(guest: Guest) -> Outcome:
    return Outcome(Kind.ENTRY_FAIL, guest.error)


def _l2(guest: Guest, v: AccessVector, linear: Linear, fault: guest_paging.PageFault | None) -> Outcome | None:
    """L2's access on the CPU: the guest entry's read, the guest's own paging, its A/D update, the page."""
    run = guest.run
    access = v.access
    walk = access.is_walk
    if walk and (trouble := run.access(_GPA, Use.WALK, linear, GPT)):
        return trouble
    if fault:
        if guest.vcpu.steps is not None:
            guest.vcpu.steps.append(Step("CPU", f"guest paging: #PF({fault.error:#x}), {fault.rule}"))
        return Outcome(Kind.EXCEPTION, fault.error, number=guest_paging.PAGE_FAULT, gla=TARGET)
    if access.is_emulated:
        return _emulated(guest, v, linear)
    if not walk:
        return run.access(_GPA, FINAL_USE[access], linear, TARGET)
    if access is Access.WALK:
        return None
    return run.access(_GPA, Use.UPDATE, linear, GPT)


def _emulated(guest: Guest, v: AccessVector, linear: Linear) -> Outcome | None:
    """A MOVS of which KVM makes the access to the page, once the CPU has come as far as the operand without memory.

    In the CPU's order: a MOVS in the page is fetched first, and the source is read before the destination is written.
    """
    run, vcpu = guest.run, guest.vcpu
    if v.access is not Access.EMUWRITE and (trouble := run.access(_GPA, FINAL_USE[v.access], linear, TARGET)):
        return trouble
    use = Use.WRITE if v.access is Access.EMUREAD else Use.READ
    mmio = run.access(_SCAFFOLD + (_MMIO_PAGE << 12), use, Linear(), MMIO)
    assert mmio is None, f"the probe's entries permit everything there: {mmio}"
    if v.access is Access.EMUFETCH:
        reached = kvm_fetch_guest_virt(vcpu, _GPA, v.cpl)
    else:
        reached = vcpu_mmio_gva_to_gpa(vcpu, _GPA, v.cpl, v.access is Access.EMUWRITE)
    return None if reached else run.told_l1(TARGET, MMIO)


def access(context: Context, v: AccessVector, want_steps: bool) -> Prediction:
    if trouble := context.blocked(v.env):
        return Prediction(trouble)
    guest = context.guest(v, ad=v.ad, ept=True)
    if guest.error:
        return Prediction(_entry_failure(guest), guest.entry if want_steps else ())
    off = v.paging is Paging.OFF
    if off and not guest.vcpu.nested_msrs.secondary_ctls_high & SECONDARY_EXEC_UNRESTRICTED_GUEST:
        return Prediction(Outcome(Kind.ENTRY_EXIT, number=GUEST_STATE))
    if trouble := guest.frame(off or v.cpl == 3, not off):
        return Prediction(trouble, reached=False)
    linear, fault = _view(v)
    steps: list[Step] | None = list(guest.entry) if want_steps else None
    guest.reset(_ept12(v.leaf_level, _leaf_bits(v), v.upper_level, _upper_bits(v)), steps)
    if v.access.is_emulated:
        _map_scaffold(guest.vcpu, _MMIO_PAGE, RAM_GFNS << 12 | _FULL)
    if guest.vcpu.trace is not None:
        _scaffold(guest, v)
    outcome = _l2(guest, v, linear, fault) or DONE
    return Prediction(outcome, tuple(steps or ()), guest.run.exits)


def _map_scaffold(vcpu: Vcpu, page: int, entry: int) -> None:
    """EPT12 for a page of the probe's own: its leaf ``entry``, and the tables on the way to it."""
    vcpu.memory[_TABLES[3]] = _SCAFFOLD_TABLES[2] | _NONLEAF
    vcpu.memory[_SCAFFOLD_TABLES[2] + (_SCAFFOLD >> 21) * 8] = _SCAFFOLD_TABLES[1] | _NONLEAF
    vcpu.memory[_SCAFFOLD_TABLES[1] + page * 8] = entry


def _scaffold(guest: Guest, v: AccessVector) -> None:
    """What L2 touches before the access, untraced: its code, its paging structures; the tables on the way are shared.

    Not where the entry under test is the root's: then the probe puts it under a root entry of its own.
    """
    vcpu = guest.vcpu
    if v.upper_level == 4 and v.paging is Paging.LONG and guest.run.cpu.maxphyaddr > 39:
        return
    trace, vcpu.trace = vcpu.trace, None
    off = v.paging is Paging.OFF
    for page, use, linear in ((0, Use.FETCH, Linear(user=off or v.cpl == 3)), (1, Use.WALK, Linear())):
        _map_scaffold(vcpu, page, _SCAFFOLD + (page << 12) | _FULL | 6 << 3)
        if use is Use.FETCH or not off:
            guest.run.access(_SCAFFOLD + (page << 12), use, linear, TARGET)
    vcpu.trace = trace


def _turns(guest: Guest, v: SequenceVector) -> Iterator[tuple[Outcome, int]]:
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
            yield _l2(guest, a, *_view(a)) or DONE, guest.run.exits


def sequence(context: Context, v: SequenceVector, want_steps: bool) -> Prediction:
    first = v.turns[0].access
    if trouble := context.blocked(first.env):
        return Prediction(trouble)
    for turn in v.turns:
        a = turn.access
        guest = context.guest(a, ad=a.ad, ept=True)
        off = a.paging is Paging.OFF
        if not guest.error and (trouble := guest.frame(off or a.cpl == 3, not off)):
            return Prediction(trouble, reached=False)
    guest = context.several(first)
    steps: list[Step] | None = [] if want_steps else None
    if guest.error:
        return Prediction(of_turns([_entry_failure(guest)] * len(v.turns)), guest.entry if want_steps else ())
    tables = _ept12(first.leaf_level, _leaf_bits(first), first.upper_level, _upper_bits(first))
    guest.reset(tables, steps, entered=False)  # an earlier guest's root is no part of the sequence
    outcomes = []
    exits = 0
    for outcome, more in _turns(guest, v):
        outcomes.append(outcome)
        exits += more
        if outcome.kind is Kind.HOST:
            break
    return Prediction(of_turns(outcomes), tuple(steps or ()), exits)


def traced(context: Context, v: AccessVector) -> list[tuple[str, tuple[int, ...]]]:
    """The tracepoints of an access that L2 gets to make, with their arguments."""
    vcpu = context.guest(v, ad=v.ad, ept=True).vcpu
    access(context, v, False)  # the probe's frame is set up, and emits what it emits
    found: list[tuple[str, tuple[int, ...]]] = []
    vcpu.trace = found
    try:
        access(context, v, False)
    finally:
        vcpu.trace = None
    return found


def nx(context: Context, v: NxVector, want_steps: bool) -> Prediction:
    """What the access makes KVM install: a huge SPTE that the CPU may execute from, or none (DONE)."""
    prediction = access(context, v.asked, want_steps)
    if prediction.outcome.kind in (Kind.BLOCKED, Kind.HOST, Kind.ENTRY_FAIL, Kind.SCAFFOLD):
        return prediction
    guest = context.guest(v.asked, ad=v.asked.ad, ept=True)
    execute = VMX_EPT_EXECUTABLE_MASK | (BIT(10) if guest.run.mbec else 0)
    outcome = DONE
    for name, args in traced(context, v.asked):
        if name == "kvm_mmu_set_spte" and args[0] > 1 and args[2] & execute:
            outcome = Outcome(Kind.BYPASS, args[2] & 0x407, number=args[0])
            break
    return replace(prediction, outcome=outcome)


def entry(context: Context, v: EntryVector, want_steps: bool) -> Prediction:
    if trouble := context.blocked(v.env):
        return Prediction(trouble)
    guest = context.guest(v, ad=False, ept=v.ept)
    return Prediction(_entry_failure(guest) if guest.error else DONE, guest.entry if want_steps else ())
