"""A program under the mirror: L1 writes, invalidates and enters, L2 accesses, on KVM's shadow of EPT12.

KVM's shadow MMU is followed, and the CPU that walks what it made; what the CPU holds of the guest's own tables is not:
the answer is "not mirrored" from the first access on that rests on it, and for all of a program without EPT12.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from kvmodel.bits import GENMASK
from kvmodel.cpu import Cpu
from kvmodel.include.asm.vmx import (
    SECONDARY_EXEC_ENABLE_EPT,
    SECONDARY_EXEC_MODE_BASED_EPT_EXEC,
)
from kvmodel.machine.l2 import Context, Guest
from kvmodel.machine.vcpu import DONE
from kvmodel.mmu.mmu import hardware_entries
from kvmodel.mmu.mmu_sync import write_guest_table
from kvmodel.question import relations
from kvmodel.question.outcome import Kind, Outcome, Place, Prediction, Step, not_mirrored, of_turns
from kvmodel.question.program import (
    CONTROLS,
    FIRST,
    PAGES,
    Control,
    Flush,
    HostStep,
    Invept,
    Invvpid,
    L2Run,
    Look,
    Over,
    ProgramVector,
    Saved,
    SetEntry,
    SetGuest,
    SetGuestUpper,
    Toggle,
    Touch,
    Vmx,
    answers_of,
)
from kvmodel.question.program import Step as Does
from kvmodel.question.program_layout import (
    EPTP_WRONG,
    entry_address,
    guest_physical,
    page_address,
    table_address,
    target_address,
)
from kvmodel.question.program_paging import LoadCr3, SetPdpte
from kvmodel.question.relations import EPT_VPID_CAP, PROC2
from kvmodel.question.vector import Evmcs
from kvmodel.sdm import guest_paging, invalidation
from kvmodel.sdm.controls import INVALID_CONTROLS, VPID
from kvmodel.sdm.program import UNDEFINED, USES, invvpid
from kvmodel.sdm.program_flags import told
from kvmodel.sdm.program_tables import ProgramTables, entry_bits, offset_of, reached
from kvmodel.vmx.nested import handle_invept, nested_release_vmcs12, vmcs12_eptp, vmx_get_vmx_msr

_TABLES: Final = 0x0180_0000  # any address does that is no page's
_SCAFFOLD: Final = 0x0101_0000  # the page directory of the probe's own memory, behind entry 0 of the first tables
_NONLEAF: Final = 0x407 | 0x100
_BEYOND: Final = ("pg", "cr3", "efer", "msrs", "cr3exit", "targets")
_BEHIND: Final = "what the host does behind KVM's back"


def _memory(tables: ProgramTables) -> dict[int, int]:
    """EPT12 as every program finds it."""
    memory = {
        entry_address(_TABLES, name): bits | target_address(_TABLES, leads)
        for name, (bits, leads) in tables.entries.items()
        if name != "absent"
    }
    for root, first in FIRST.items():
        memory[table_address(_TABLES, root)] = table_address(_TABLES, first) | _NONLEAF
        memory[table_address(_TABLES, first)] = _SCAFFOLD | _NONLEAF
    return memory


def _is_beyond(tables: ProgramTables, run: L2Run) -> bool:
    """Whether a run rests on PDPTEs, on another CR3 or on how EFER is loaded and written."""
    plain = {name: start for name, (_, start) in CONTROLS.items() if name in _BEYOND}
    own = any(isinstance(op, LoadCr3 | SetPdpte) or (isinstance(op, Toggle) and op.name == "nxe") for op in run.ops)
    return own or any(tables.controls[name] != start for name, start in plain.items())


def _named(address: int) -> Outcome:
    """The outcome of an access that came to L1-physical ``address``."""
    for n in range(2 * PAGES):
        name = f"{'pq'[n // PAGES]}{n % PAGES}"
        if page_address(name) == address & ~0xFFF:
            return reached(n)
    return replace(DONE, code=0xFF, note="no page of the program")


def _as_l1_reads(guest: Guest) -> Cpu:
    """The CPU under KVM with the MSRs of secondary controls and of EPT and VPIDs that L1 reads; the others are 0."""
    offered = {msr: vmx_get_vmx_msr(guest.vcpu.nested_msrs, msr) for msr in (PROC2, EPT_VPID_CAP)}
    return replace(guest.cpu, msrs=tuple(offered.get(msr, 0) for msr in range(relations.FIRST, relations.LAST + 1)))


class _Program:
    """One program on one guest: KVM's state in ``guest``, the guest's own tables and the controls in ``tables``."""

    def __init__(self, guest: Guest, vector: ProgramVector) -> None:
        self.guest = guest
        self.cpu = _as_l1_reads(guest)
        self.tables = ProgramTables(self.cpu, vector)
        self.exits = 0
        self.vmcs = 0
        self.behind = False  # whether the host did something that is not followed

    def step(self, made: Does) -> Iterator[Outcome]:
        """The answers of one step."""
        vcpu, tables = self.guest.vcpu, self.tables
        if vcpu.steps is not None:
            vcpu.steps.append(Step("L1", str(made)))
        if not isinstance(made, Control) and tables.controls["vmcs"] != self.vmcs:
            self.vmcs = tables.controls["vmcs"]
            nested_release_vmcs12(vcpu)
        match made:
            case HostStep():
                self.behind = True
            case Control():
                tables.controls[made.name] = made.value
            case SetEntry():
                tables.set_entry(made)
                entry = entry_bits(made) | target_address(_TABLES, made.target)
                write_guest_table(vcpu, entry_address(_TABLES, made.entry), entry)
            case SetGuest():
                tables.set_guest(made)
            case SetGuestUpper():
                tables.set_guest_upper(made)
            case Look():
                yield self._look(made)
            case Invept():
                yield self._invept(made)
            case Invvpid():
                yield invvpid(tables, made).outcome
            case Vmx():
                yield not_mirrored("vmx/nested.c handle_vmptrld and the like")
            case SetPdpte():
                tables.roots.write(made, self.vmcs)
            case L2Run():
                yield from self._run(made)

    def _look(self, made: Look) -> Outcome:
        """L1 reads one of its entries."""
        if made.is_pdpte or made.is_cr3:
            return not_mirrored("vmx/nested.c sync_vmcs02_to_vmcs12")
        if made.is_guest or self.behind:
            return not_mirrored("what the CPU writes to the guest's own tables" if made.is_guest else _BEHIND)
        entry = self.guest.vcpu.memory[entry_address(_TABLES, made.entry)]
        leads = self.tables.entries[made.entry][1]
        return told(entry - target_address(_TABLES, leads) + target_address(0, leads), guest=False)

    def _eptp(self, root: str) -> int:
        return vmcs12_eptp(table_address(_TABLES, root), ad=bool(self.tables.controls["ad"]))

    def _invept(self, made: Invept) -> Outcome:
        if not invalidation.is_there(self.cpu, vpid=False):
            return UNDEFINED.outcome
        error = handle_invept(self.guest.vcpu, made.type, self._eptp(made.root) ^ EPTP_WRONG[made.bad])
        if error:
            return Outcome(Kind.VMFAIL, error)
        for root in FIRST if made.type == 2 else (made.root,):
            self.tables.forget(root)
        return DONE

    def _run(self, run: L2Run) -> Iterator[Outcome]:
        """A VM entry, and the accesses until L2 exits."""
        tables = self.tables
        if _is_beyond(tables, run):
            yield not_mirrored("x86.c load_pdptrs, and what L2 makes of CR3 and EFER")
            return
        left = answers_of(run)
        outcome = self._enter()
        if outcome is None:
            tables.enter()
            for place, op in enumerate(run.ops):
                tables.remember_linear()
                match op:
                    case Touch():
                        outcome = self._touch(op, place)
                        yield outcome
                        left -= 1
                        if outcome.kind in (Kind.HOST, Kind.NOT_MIRRORED):
                            return
                        if outcome.kind is not Kind.DONE:
                            break
                    case Over():
                        yield not_mirrored("accesses over two pages")
                        return
                    case Toggle():
                        tables.controls[op.name] = op.value
                    case Flush():
                        tables.flush(op.page)
                    case SetGuest():
                        tables.set_guest(op)
                    case Saved():
                        self.behind = True
            self.exits += self.guest.run.exits
        else:
            yield outcome
            left -= 1
        tables.controls |= run.leaves
        for _ in range(left):
            yield Outcome(Kind.UNREACHED)

    def _enter(self) -> Outcome | None:
        """The VM entry; None where L2 runs."""
        c = self.tables.controls
        control = SECONDARY_EXEC_ENABLE_EPT | (SECONDARY_EXEC_MODE_BASED_EPT_EXEC if c["mbec"] else 0)
        if c["vpid"] and not self.cpu.may_set(VPID):
            return Outcome(Kind.ENTRY_FAIL, INVALID_CONTROLS)
        error = self.guest.enter_with(Evmcs.ABSENT, control, self._eptp(self.tables.root), second=bool(c["vmcs"]))
        return Outcome(Kind.ENTRY_FAIL, error) if error else None

    def _touch(self, touch: Touch, place: int) -> Outcome:
        """One access of L2."""
        tables = self.tables
        if self.behind:
            return not_mirrored(_BEHIND)
        mappings, modes = tables.mappings(touch.page), tables.modes()
        if len(mappings) > 1 or len(modes) > 1:
            return not_mirrored("what the CPU holds of the guest's own tables")
        mapping, mode = mappings[0], modes[0]
        entries, use = (mapping.upper, mapping.perm), USES[touch.access]
        gla = Place(touch.page, offset_of(touch.access, place))
        fault = guest_paging.fault_of(mode, entries, use, present=mapping.present)
        if fault is not None:
            return Outcome(Kind.EXCEPTION, fault.error, number=guest_paging.PAGE_FAULT, gla=gla)
        gpa = guest_physical(mapping.leads) + gla.offset
        trouble = self.guest.run.access(gpa, use, guest_paging.linear(mode, entries), gla)
        if trouble is not None:
            where = Place(mapping.leads, gla.offset)
            return replace(trouble, gpa=where if trouble.gpa else None, gla=gla if trouble.gla else None)
        level, spte = hardware_entries(self.guest.vcpu, gpa)[-1]
        size = 12 + 9 * (level - 1)
        host = spte & GENMASK(51, size) | gpa & ((1 << size) - 1)
        return _named(host - (self.guest.vcpu.pfn_base << 12))


def predicted(context: Context, vector: ProgramVector, want_steps: bool) -> Prediction:
    """The mirror's answers to a program."""
    if trouble := context.blocked(vector.env):
        return Prediction(trouble)
    if not vector.ept:
        return Prediction(of_turns([not_mirrored("mmu/mmu.c: shadow paging of L2's own tables")]))
    guest = context.several_on(vector.machine)
    if guest.error:
        return Prediction(not_mirrored("an L1 that cannot enter L2 at all"))
    steps: list[Step] | None = [] if want_steps else None
    running = _Program(guest, vector)
    guest.reset(_memory(running.tables), steps, entered=False)
    outcomes: list[Outcome] = []
    for made in vector.steps:
        answers = list(running.step(made))
        if answers and answers[-1].kind is Kind.HOST:  # what L2 did before in that run nobody is left to tell
            answers = answers[-1:]
        outcomes += answers
        if outcomes and outcomes[-1].kind in (Kind.HOST, Kind.NOT_MIRRORED):
            break
    return Prediction(of_turns(outcomes), tuple(steps or ()), running.exits)
