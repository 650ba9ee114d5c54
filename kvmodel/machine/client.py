"""The small client in the mirror: an L1's accesses and host actions in a row; user space writing a vCPU's MSRs.

The client's page lies in a memory slot of 2 MiB at guest address 0; its code and page tables in a slot at 4 MiB.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kvmodel.include.asm.kvm_host import PAGE_SHIFT, Vcpu, kvm_memory_slot
from kvmodel.include.asm.vmx import MSR_IA32_VMX_PROCBASED_CTLS2
from kvmodel.mmu.tdp_mmu import kvm_tdp_mmu_age_gfn_range
from kvmodel.narration import narrate
from kvmodel.question import tally
from kvmodel.question.outcome import Kind, Outcome, Place, Step, not_mirrored, warning
from kvmodel.question.vector import CLIENT_STEPS, MOVES, REMOVING, ClientSequence, UserMsrVector
from kvmodel.sdm.access import PAGING_OFF, Linear, Use
from kvmodel.virt.kvm_main import kvm_swap_active_memslots
from kvmodel.virt.kvm_main_slots import kvm_get_dirty_log_protect, kvm_set_memory_region
from kvmodel.vmx.nested import vmx_get_vmx_msr, vmx_restore_control_msr, vmx_restore_vmx_ept_vpid_cap

MakeAccess = Callable[[int, Use, Linear, Place], Outcome | None]  # gpa, use, linear address, its name

PAGES: Final = 512  # of the slot under test
FRAME: Final = 2 * PAGES << PAGE_SHIFT  # code and page tables
FRAME_PAGES: Final = 16
CODE: Final = FRAME + 0x1000
PML4, PDPT, PD, TARGET_PT, CODE_PT = (FRAME + n * 0x1000 for n in range(2, 7))
TARGET: Final = 0x8000
DATA: Final = TARGET + 0x800
MMIO: Final = 0xE000_0000
MANY: Final = 64  # slots that "slots" adds
SUPERVISOR: Final = Linear(user=False)

_TARGET: Final = Place("target")
_GPT: Final = Place("gpt")
_USE: Final = {"read": Use.READ, "write": Use.WRITE, "rmw": Use.RMW, "fetch": Use.FETCH}
_USE_MMIO: Final = {"mread": Use.READ, "mwrite": Use.WRITE}


class Client:
    """One vCPU of the client, from its first step to the answer."""

    __slots__ = ("_access", "_page", "_paging", "_slot", "_vcpu", "_warns")

    def __init__(self, vcpu: Vcpu, access: MakeAccess, vector: ClientSequence) -> None:
        self._vcpu = vcpu
        self._access = access
        self._paging = vector.mode == "long"
        self._page = Linear(user=vector.page == "u") if self._paging else PAGING_OFF
        slot = self._slot = kvm_memory_slot(2 if vector.memory == "2m" else 1)
        slot.npages = vcpu.ram_gfns = PAGES
        vcpu.slot = slot
        frame = kvm_memory_slot()
        frame.base_gfn, frame.npages = FRAME >> PAGE_SHIFT, FRAME_PAGES
        vcpu.further_slots = (frame,)
        vcpu.kvm.generation = 0
        for _ in range(2):
            kvm_swap_active_memslots(vcpu)
        self._warns = len(vcpu.warns) + len(vcpu.kvm.warns)

    def run(self, steps: tuple[str, ...]) -> Outcome:
        """The answer: DONE with what KVM counted, or what the first step ended in that came to no good end."""
        for number, name in enumerate(steps, 1):
            if CLIENT_STEPS[name] is None:
                self._tell(name)
                self._act(name)
                trouble = None
            else:
                trouble = self._accessed(name)
            if trouble is not None:
                return Outcome(trouble.kind, trouble.code, number, defined=trouble.defined, note=trouble.note)
            if warns := (*self._vcpu.warns, *self._vcpu.kvm.warns)[self._warns :]:
                return warning(warns[0], number)
        counts = dict(self._vcpu.stat)
        counts["mmio_exits"] = sum(name in _USE_MMIO for name in steps)
        if self._slot.dirty_track:
            counts["dirty"] = len(kvm_get_dirty_log_protect(self._vcpu, self._slot))
        word = tally.pack(counts)
        # With PML the CPU writes the log: what of it comes true is the CPU's affair, not KVM's.
        unknown = tally.MASK["dirty"] if self._vcpu.kvm.enable_pml else 0
        return Outcome(Kind.DONE, word, defined=tally.ALL & ~unknown, note=tally.text(word & ~unknown))

    def _tell(self, name: str) -> None:
        if self._vcpu.steps is not None:
            self._vcpu.steps.append(Step("user space", f"the host does: {name}"))

    def _accessed(self, name: str) -> Outcome | None:
        """The instruction is fetched, then its access is made, each behind the walk of its page tables."""
        code = SUPERVISOR if self._paging else PAGING_OFF
        use = _USE.get(name) or _USE_MMIO[name]
        gpa = MMIO if name in _USE_MMIO else TARGET if use is Use.FETCH else DATA
        for table, linear, address, purpose in ((CODE_PT, code, CODE, Use.FETCH), (TARGET_PT, self._page, gpa, use)):
            walk = [(at, Use.WALK, _GPT) for at in (PML4, PDPT, PD, table)] if self._paging else []
            for at, what, place in (*walk, (address, purpose, _TARGET)):
                if trouble := self._access(at, what, linear, place):
                    return trouble
        return None

    def _act(self, name: str) -> None:
        vcpu, slot = self._vcpu, self._slot
        if name == "age":
            kvm_tdp_mmu_age_gfn_range(vcpu, slot)
        elif name in ("log", "unlog"):
            kvm_set_memory_region(vcpu, slot, name == "log")
        elif name == "sync":
            kvm_get_dirty_log_protect(vcpu, slot)
        else:
            for _ in range(1 if name == "slot" else MANY):
                kvm_swap_active_memslots(vcpu)


def sequence(vcpu: Vcpu, access: MakeAccess, vector: ClientSequence) -> Outcome:
    """The mirror's answer to ``vector`` on a fresh ``vcpu``, whose accesses ``access`` makes."""
    if set(MOVES) & set(vector.steps):
        return not_mirrored("virt/kvm_main.c kvm_set_memslot")
    return Client(vcpu, access, vector).run(vector.steps)


def removed(vcpu: Vcpu, access: MakeAccess) -> list[tuple[int, int]]:
    """(level, entry) of the tables that go in the last step of REMOVING, as it leaves them."""
    client = Client(vcpu, access, REMOVING)
    client.run(REMOVING.steps[:-1])
    tables = list(vcpu.pages.values())
    client.run(REMOVING.steps[-1:])
    return [(sp.level, spte) for sp in tables if sp.pa not in vcpu.pages for spte in sp.spt.values()]


def user_msr(vcpu: Vcpu, vector: UserMsrVector) -> tuple[int, int]:
    """What user space reads back in the end (64 bits), and the steps that were refused, one bit each."""
    kvm, msrs = vcpu.kvm, vcpu.nested_msrs
    control = vector.msr == MSR_IA32_VMX_PROCBASED_CTLS2
    restore = vmx_restore_control_msr if control else vmx_restore_vmx_ept_vpid_cap
    refused = 0
    for number, step in enumerate(vector.steps):
        if step == "kvm":
            value = vmx_get_vmx_msr(kvm.vmcs_config.nested, vector.msr)
        else:
            value = vmx_get_vmx_msr(msrs, vector.msr)
        assert value is not None
        if step[0] == "s":
            value |= 1 << int(step[1:])
        elif step[0] == "c":
            value &= ~(1 << int(step[1:]))
        if error := restore(kvm, msrs, value):
            refused |= 1 << number
        narrate(vcpu, "{}: MSR {:#x} = {:#x} gives {}", step, vector.msr, value, error, of=restore, patch=16)
    result = vmx_get_vmx_msr(msrs, vector.msr)
    assert result is not None
    return result, refused
