"""Which VM exits KVM sees while an L2 makes system calls under an L1 that guards its kernel's code.

The L1 is that of ``images/exits``: it lets L2's kernel run verified code only. Without MBEC it has two EPT12 views and
is entered at each change between user and kernel code; with MBEC one view is enough. Here both are followed step by
step, L2's accesses on the mirror's shadow EPT (``machine_l2``), L1's VMX instructions by what KVM intercepts of them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple

from kvmodel.cpu import Cpu
from kvmodel.include.asm.vmx import SECONDARY_EXEC_ENABLE_EPT, SECONDARY_EXEC_MODE_BASED_EPT_EXEC
from kvmodel.machine.l2 import Guest
from kvmodel.machine.vcpu import TARGET
from kvmodel.mmu.mmu_sync import write_guest_table
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.vector import ENVIRONMENTS, Evmcs, Machine
from kvmodel.sdm.access import Linear, Use
from kvmodel.series import Level
from kvmodel.vmx.nested import handle_invept, vmcs12_eptp

REASONS: Final = {
    0: "EXCEPTION_NMI",
    1: "EXTERNAL_INTERRUPT",
    7: "INTERRUPT_WINDOW",
    10: "CPUID",
    12: "HLT",
    18: "VMCALL",
    19: "VMCLEAR",
    20: "VMLAUNCH",
    21: "VMPTRLD",
    23: "VMREAD",
    24: "VMRESUME",
    25: "VMWRITE",
    28: "CR_ACCESS",
    30: "IO_INSTRUCTION",
    31: "MSR_READ",
    32: "MSR_WRITE",
    40: "PAUSE_INSTRUCTION",
    48: "EPT_VIOLATION",
    49: "EPT_MISCONFIG",
    50: "INVEPT",
    52: "PREEMPTION_TIMER",
    53: "INVVPID",
}
"""Basic exit reasons (SDM appendix C) by the names that KVM's tracepoints print."""


class Vmcs(Enum):
    """How L1 reaches its vmcs12."""

    PLAIN = "plain"  # each VMREAD and VMWRITE exits
    SHADOW = "shadow"  # VMCS shadowing: those of KVM's shadowed fields do not
    EVMCS = "evmcs"  # an enlightened VMCS: loads and stores


@dataclass(frozen=True, slots=True)
class Hypervisor:
    """The L1: with MBEC or two views, how it reaches its vmcs12, and whether it sets bit 10 beside X without MBEC."""

    mbec: bool
    vmcs: Vmcs
    bit10: bool = False


@dataclass(frozen=True, slots=True)
class Mix:
    """What L2 does in a window: ``calls`` system calls, and one in so many (0: none) something beside."""

    calls: int = 200
    fresh_every: int = 0  # writes to a data page that was never touched; its kernel reads it
    load_every: int = 0  # loads new kernel code, which L1 verifies, and runs it
    hypercall_every: int = 0  # makes hypercalls
    hypercalls: int = 1
    looks: int = 5  # VMCS fields that L1 reads at each exit beside what it needs
    warm: int = 4  # system calls before the count begins


class Exit(NamedTuple):
    """One VM exit to KVM: of which guest, its reason, and who deals with it (L1 where KVM hands it on)."""

    guest: str
    reason: str
    to: str = "L0"

    def __str__(self) -> str:
        return f"{self.guest} {self.reason} to {self.to}" if self.guest == "L2" else f"{self.guest} {self.reason}"


class StuckError(Exception):
    """L2 does not get on: ``step`` is what it was doing, ``outcome`` what the mirror says comes of it."""

    def __init__(self, step: str, outcome: Outcome) -> None:
        super().__init__(f"{step}: {outcome}")
        self.step = step
        self.outcome = outcome


# VMCS field encodings (SDM vol. 3, appendix B) as the workload's L1 uses them.
GUEST_CS_AR: Final = 0x4816
GUEST_SS_AR: Final = 0x4818
EPT_POINTER: Final = 0x201A
GUEST_PHYSICAL_ADDRESS: Final = 0x2400
VM_EXIT_REASON: Final = 0x4402
VM_EXIT_INTR_INFO: Final = 0x4404
GUEST_INTERRUPTIBILITY_INFO: Final = 0x4824
EXIT_QUALIFICATION: Final = 0x6400
GUEST_LINEAR_ADDRESS: Final = 0x640A
GUEST_CR0: Final = 0x6800
GUEST_CR3: Final = 0x6802
GUEST_RSP: Final = 0x681C
GUEST_RIP: Final = 0x681E
GUEST_RFLAGS: Final = 0x6820

SHADOW_READ: Final = frozenset(
    (
        VM_EXIT_REASON, VM_EXIT_INTR_INFO, GUEST_CS_AR, GUEST_SS_AR, GUEST_INTERRUPTIBILITY_INFO, EXIT_QUALIFICATION,
        GUEST_LINEAR_ADDRESS, GUEST_PHYSICAL_ADDRESS, GUEST_RIP, GUEST_RSP, GUEST_RFLAGS, GUEST_CR0, GUEST_CR3,
    )
)  # fmt: skip
"""vmx/vmcs_shadow_fields.h: those of this L1's fields that it reads without an exit."""

SHADOW_WRITE: Final = frozenset((GUEST_RIP,))
"""vmx/vmcs_shadow_fields.h: those that it writes without one. The EPT pointer is not shadowed."""

LOOKED_AT: Final = (
    GUEST_LINEAR_ADDRESS, GUEST_RSP, GUEST_RFLAGS, GUEST_INTERRUPTIBILITY_INFO, GUEST_CS_AR, VM_EXIT_INTR_INFO,
    GUEST_CR3, GUEST_CR0,
)  # fmt: skip
"""images/exits/handler.c looked_at: what L1 reads at each exit beside what it needs, the first of them."""

# Where L2's things lie, L2-physical as L1-physical (images/exits/layout.h, probe.h); L1's tables anywhere.
_SCAFFOLD: Final = 0x0100_0000
_PML4, _PDPT, _PD, _PT = (_SCAFFOLD + page * 0x1000 for page in (1, 2, 4, 5))
_KERNEL: Final = 0x0102_0000
_USER: Final = 0x0102_1000
_KERNEL_DATA: Final = 0x0102_2000
_FRESH: Final = 64 << 20
_LOAD: Final = 96 << 20
_STRIDE: Final = 0x8000
_TABLES: Final = 0x0800_0000

_R, _RW, _X, _XU = 1, 3, 4, 0x400
_WB: Final = 6 << 3
KERNEL_VIEW: Final = 0
USER_VIEW: Final = 1


@dataclass
class Tables:
    """EPT12 of L1's views, as entries by their L1-physical address (images/exits/memory.c)."""

    l1: Hypervisor
    memory: dict[int, int] = field(default_factory=dict)
    next_page: int = _TABLES

    def __post_init__(self) -> None:
        self.roots = [self._new_page() for _ in range(1 if self.l1.mbec else 2)]

    def _new_page(self) -> int:
        self.next_page += 0x1000
        return self.next_page

    @property
    def _executable(self) -> int:
        return _X | (_XU if self.l1.bit10 else 0)

    def leaf(self, view: int, verified: bool) -> int:
        """A leaf entry's permissions and memory type."""
        if self.l1.mbec:
            return (_R | _X if verified else _RW | _XU) | _WB
        if view == KERNEL_VIEW:
            return (_R | self._executable if verified else _RW) | _WB
        return (_R if verified else _RW | self._executable) | _WB

    def entry_of(self, view: int, gpa: int) -> int:
        """Where the leaf entry of a page lies; tables that are missing are made."""
        table = self.roots[view]
        upper = _RW | _X | _XU if self.l1.mbec else _RW | self._executable
        for shift in (39, 30, 21):
            at = table + (gpa >> shift & 511) * 8
            if at not in self.memory:
                self.memory[at] = self._new_page() | upper
            table = self.memory[at] & ~0xFFF
        return table + (gpa >> 12 & 511) * 8

    def map(self, gpa: int, verified: bool) -> None:
        """Map a page in each view."""
        for view in range(len(self.roots)):
            self.memory[self.entry_of(view, gpa)] = gpa | self.leaf(view, verified)


class Workload:
    """L1 and L2 of one window on one kernel; ``exits`` is what came so far."""

    def __init__(self, level: Level | int, param: bool | None, cpu: Cpu, l1: Hypervisor, mix: Mix) -> None:
        machine = Machine(True, True, l1.vmcs is Vmcs.EVMCS, ENVIRONMENTS["std"])
        self._l1, self._mix = l1, mix
        self._evmcs = Evmcs.USED if l1.vmcs is Vmcs.EVMCS else Evmcs.ABSENT
        self._control = SECONDARY_EXEC_ENABLE_EPT | (SECONDARY_EXEC_MODE_BASED_EPT_EXEC if l1.mbec else 0)
        lv = Level.of(level) if isinstance(level, int) else level
        self._guest = Guest(lv, param, cpu, machine, mbec=l1.mbec, ad=False, ept=True, evmcs=self._evmcs)
        self.error: int = self._guest.error
        self.exits: list[Exit] = []
        self.calls: list[int] = []  # where in ``exits`` each system call begins, the closing one last
        self._tables = Tables(l1)
        self._verified = {_KERNEL}
        for page in (_PML4, _PDPT, _PD, _PT, _KERNEL, _USER, _KERNEL_DATA):
            self._tables.map(page, page in self._verified)
        for n in range(_count(mix.calls, mix.fresh_every)):
            self._tables.map(_FRESH + n * _STRIDE, False)
        for n in range(_count(mix.calls, mix.load_every)):
            self._tables.map(_LOAD + n * _STRIDE, False)
        self._view = KERNEL_VIEW

    # L1

    def _emit(self, guest: str, reason: str, to: str = "L0") -> None:
        self.exits.append(Exit(guest, reason, to))

    def _vmread(self, *fields: int) -> None:
        for one in fields:
            if self._l1.vmcs is Vmcs.PLAIN or (self._l1.vmcs is Vmcs.SHADOW and one not in SHADOW_READ):
                self._emit("L1", "VMREAD")

    def _vmwrite(self, one: int) -> None:
        if self._l1.vmcs is Vmcs.PLAIN or (self._l1.vmcs is Vmcs.SHADOW and one not in SHADOW_WRITE):
            self._emit("L1", "VMWRITE")

    def _enter(self) -> None:
        eptp = vmcs12_eptp(self._tables.roots[self._view], ad=False)
        if error := self._guest.enter_with(self._evmcs, self._control, eptp):
            raise StuckError("VM entry", Outcome(Kind.ENTRY_FAIL, error))

    def _resume(self) -> None:
        self._emit("L1", "VMRESUME")
        self._enter()

    def _exited(self) -> None:
        """The head of L1's exit handler."""
        self._vmread(VM_EXIT_REASON, *LOOKED_AT[: self._mix.looks])

    def _change_view(self, step: str, page: int, user: bool, seen: Outcome) -> None:
        """L1's answer to a fetch that its view forbids."""
        self._exited()
        self._vmread(EXIT_QUALIFICATION, GUEST_PHYSICAL_ADDRESS, GUEST_SS_AR)
        wanted = USER_VIEW if user else KERNEL_VIEW
        if self._l1.mbec or self._view == wanted or user is (page in self._verified):
            raise StuckError(step, seen)
        self._view = wanted
        self._vmwrite(EPT_POINTER)
        self._resume()

    def _hypercall(self) -> None:
        """A VMCALL of L2 as far as its handler; L2 is not entered again."""
        self._emit("L2", "VMCALL", "L1")
        self._exited()
        self._vmread(GUEST_RIP)
        self._vmwrite(GUEST_RIP)

    def _write_entry(self, at: int, entry: int) -> None:
        """L1 writes to a table of EPT12: an exit where KVM has write-protected it, none while it is unsync."""
        vcpu = self._guest.vcpu
        if any(not sp.unsync for sp in vcpu.indirect.get(at >> 12, ())):
            self._emit("L1", "EPT_VIOLATION")
        write_guest_table(vcpu, at, entry)

    def _verify(self, page: int) -> None:
        self._verified.add(page)
        for view in range(len(self._tables.roots)):
            self._write_entry(self._tables.entry_of(view, page), page | self._tables.leaf(view, True))
        self._emit("L1", "INVEPT")
        handle_invept(self._guest.vcpu)

    # L2

    def _touch(self, step: str, page: int, use: Use, user: bool) -> None:
        """An access of L2 to a page, with the page walk before it; ``user``: the page is a user page."""
        tables = (_PML4, _PDPT, _PD) if page >= _FRESH else (_PML4, _PDPT, _PD, _PT)
        for table in tables:
            self._access(step, table, Use.WALK, Linear(user=user))
        self._access(step, page, use, Linear(user=user))

    def _access(self, step: str, page: int, use: Use, linear: Linear) -> None:
        while True:
            run = self._guest.run
            before = run.exits
            seen = run.access(page, use, linear, TARGET)
            exits = run.exits - before
            told = seen is not None and seen.kind is Kind.VIOLATION
            self.exits += [Exit("L2", "EPT_VIOLATION")] * (exits - told)
            if seen is None:
                return
            if not told:
                raise StuckError(step, seen)
            self._emit("L2", "EPT_VIOLATION", "L1")
            self._change_view(step, page, linear.user, seen)

    def _user(self, what: str) -> None:
        self._touch(what, _USER, Use.FETCH, True)

    def _kernel(self, what: str) -> None:
        self._touch(what, _KERNEL, Use.FETCH, False)

    def _call(self, n: int, mix: Mix) -> None:
        """The nth system call, from 1."""
        self._user("user code")
        fresh = _FRESH + (n // mix.fresh_every - 1) * _STRIDE if _due(n, mix.fresh_every) else 0
        if fresh:
            self._touch("a write to a fresh page", fresh, Use.WRITE, True)
        self._kernel("kernel code")
        self._touch("the kernel's data", _KERNEL_DATA, Use.RMW, False)
        if fresh:
            self._touch("the kernel's read of a fresh page", fresh, Use.READ, True)
        for _ in range(mix.hypercalls if _due(n, mix.hypercall_every) else 0):
            self._hypercall()
            self._resume()
            self._kernel("kernel code")
        if _due(n, mix.load_every):
            page = _LOAD + (n // mix.load_every - 1) * _STRIDE
            self._touch("a write to a page for new code", page, Use.WRITE, False)
            self._hypercall()
            self._verify(page)
            self._resume()
            self._kernel("kernel code")
            self._touch("the stack", _KERNEL_DATA, Use.WRITE, False)
            self._touch("new kernel code", page, Use.FETCH, False)

    def _phase(self, calls: int, mix: Mix) -> None:
        """``calls`` system calls, then the one that says that they are over."""
        self.exits, self.calls = [], []
        self._resume()
        for n in range(1, calls + 1):
            self.calls.append(len(self.exits))
            self._call(n, mix)
        self.calls.append(len(self.exits))
        self._user("user code")
        self._kernel("kernel code")
        self._hypercall()

    def run(self) -> list[Exit]:
        """The window's exits, in order. StuckError where L2 does not come to its end."""
        if self.error:
            raise StuckError("VM entry", Outcome(Kind.ENTRY_FAIL, self.error))
        self._guest.reset(self._tables.memory, None)
        self._phase(self._mix.warm, Mix(hypercall_every=self._mix.hypercall_every, hypercalls=self._mix.hypercalls))
        self._phase(self._mix.calls, self._mix)
        return self.exits


def _due(n: int, every: int) -> bool:
    return every > 0 and n % every == 0


def _count(calls: int, every: int) -> int:
    return calls // every if every else 0


def window(level: Level | int, param: bool | None, cpu: Cpu, l1: Hypervisor, mix: Mix) -> list[Exit]:
    """The VM exits of a window in the order KVM sees them; StuckError where L2 does not come to its end."""
    return Workload(level, param, cpu, l1, mix).run()


def counted(exits: list[Exit]) -> Counter[Exit]:
    """How many of each."""
    return Counter(exits)


def system_call(level: Level | int, param: bool | None, cpu: Cpu, l1: Hypervisor, looks: int) -> list[Exit]:
    """The exits of one system call without anything beside it, from L2's user code to its user code."""
    workload = Workload(level, param, cpu, l1, Mix(2, looks=looks))
    exits = workload.run()
    return exits[workload.calls[1] : workload.calls[2]]
