"""A check as data: a C entry, its inputs, the mirror function that must give the same, and the states to do it in."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from harness.oracle.specs.spaces import MASK64, Space
from kvmodel.include.asm.kvm_host import Kvm, Vcpu
from kvmodel.include.asm.vmx import vmx_h
from kvmodel.mmu import mmu_fault
from kvmodel.mmu.mmu_fault import kvm_configure_mmu
from kvmodel.mmu.spte import kvm_mmu_reset_all_pte_masks, kvm_mmu_set_ept_masks
from kvmodel.mmu.spte_h import spte_h
from kvmodel.series import Level
from kvmodel.vmx.main import vt_x86_ops
from kvmodel.x86 import kvm_ops_update

Row = tuple[int, ...]
Call = tuple[str, Row]
"""One call of an entry that sets the image's state."""

Mirror = Callable[..., tuple[int, ...]]
"""Takes the words of one case and gives those of its result."""

# What earlier checks may have left in the surroundings: coherent memory, generation 0, an ordinary slot of RAM.
SURROUNDINGS: tuple[Call, ...] = (
    ("vmx_get_mt_mask", (0, 0)),
    ("make_mmio_spte", (0, 0, 0)),
    ("make_spte", (1, 0, 0, 7, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0)),
)

EPTP = 0x1000 | 6 | 3 << 3  # four levels, write-back


@dataclass(frozen=True, slots=True)
class State:
    """What both sides are put into before a batch: KVM's masks and switches, and which MMU is in use."""

    ept: bool = True
    ad: bool = True  # CPU and KVM use accessed/dirty bits
    xo: bool = True  # execute-only in the CPU
    ux: bool = False  # third argument of kvm_mmu_set_ept_masks()
    param: bool = False
    flag: bool = False
    nx: bool = False  # NX huge pages
    pml: bool = False  # the CPU logs dirty pages
    maxphyaddr: int = 46  # bits
    l1tf: bool = False  # the CPU has the L1TF bug
    cache_bits: int = 0  # physical-address bits of its L1 cache; 0: as maxphyaddr
    mmio_caching: bool = True
    huge: int = 3  # largest page of the CPU's EPT: 1, 2 or 3
    shadow: bool = False  # the MMU in use is a nested guest's, else L1's
    l1_execonly: bool = True  # L1's own EPT capability
    l1_ad: bool = False  # L1 uses accessed/dirty bits
    l1_huge: int = 3

    @property
    def reserved_gpa(self) -> int:
        """Address bits that L1 does not have."""
        return MASK64 & -(1 << self.maxphyaddr)

    def calls(self) -> tuple[Call, ...]:
        """How the image is put into this state."""
        width = self.maxphyaddr
        first: list[Call] = [
            (
                "spte_host",
                (self.mmio_caching, width, self.l1tf, width, self.cache_bits or width, 512 if self.pml else 0),
            ),
            ("switches", (self.param, self.flag, self.nx, 0)),
            ("kvm_mmu_reset_all_pte_masks", (0,)),
        ]
        if self.ept:
            first.append(("kvm_mmu_set_ept_masks", (self.ad, self.xo, self.ux)))
            first.append(("kvm_configure_mmu", (1, 0, 5, self.huge, 1)))
            first.append(("init_kvm_tdp_mmu", (0, 0, width)))
        first += SURROUNDINGS
        if self.shadow:
            row = (self.l1_execonly, self.l1_huge, self.l1_ad, EPTP, self.reserved_gpa)
            first.append(("kvm_init_shadow_ept_mmu", row))
        return tuple(first)

    def side(self, level: Level) -> Side:
        """The side is the mirror in this state."""
        kvm = Kvm(level, vmx_h(level), spte_h(level))
        kvm_ops_update(kvm, vt_x86_ops)
        kvm.allow_mmio_caching = kvm.enable_mmio_caching = self.mmio_caching
        kvm.host_maxphyaddr = kvm.x86_phys_bits = self.maxphyaddr
        kvm.x86_cache_bits = self.cache_bits or self.maxphyaddr
        kvm.boot_cpu_has_bug_l1tf = self.l1tf
        kvm.cpu_dirty_log_size = 512 if self.pml else 0
        kvm.enable_pt_guest_exec_control = self.param
        kvm.nx_huge_pages = self.nx
        kvm_mmu_reset_all_pte_masks(kvm)
        vcpu = Vcpu(kvm)
        if self.ept:
            kvm_mmu_set_ept_masks(kvm, self.ad, self.xo, self.ux)
            kvm_configure_mmu(kvm, True, 5, self.huge)
            mmu_fault.init_kvm_tdp_mmu(vcpu)
        vcpu.pt_guest_exec_control = self.flag and level.has(5)
        vcpu.reserved_gpa_bits = self.reserved_gpa
        if self.shadow:
            mmu_fault.kvm_init_shadow_ept_mmu(vcpu, self.l1_execonly, self.l1_huge, self.l1_ad, EPTP)
            vcpu.mmu = vcpu.guest_mmu
        kvm.warns.clear()  # the set-up's own; the checks of these functions compare them
        vcpu.warns.clear()
        return Side(level, kvm, vcpu, self)


@dataclass(slots=True)
class Side:
    """The mirror's state; functions may keep objects they reuse in ``store``."""

    level: Level
    kvm: Kvm
    vcpu: Vcpu
    state: State
    store: dict[object, object] = field(default_factory=dict)

    def set_flag(self, on: int) -> None:
        """The flag vcpu->arch.pt_guest_exec_control is set, where the level has it."""
        self.vcpu.pt_guest_exec_control = bool(on) and self.level.has(5)


def functions_of(file: str) -> Callable[..., tuple[str, ...]]:
    """The function names C functions of ``file`` as ``Spec.functions`` has them."""

    def named(*names: str) -> tuple[str, ...]:
        return tuple(f"{file} {name}" for name in names)

    return named


def _every(_: Level) -> bool:
    return True


@dataclass(frozen=True)
class Spec:
    """The spec is one check.

    ``functions``: the C functions (``mmu/spte.c make_spte``) that the entry reaches and the mirror mirrors.
    ``outputs``: the words of the entry's result that the mirror has; empty for all. ``warns``: WARNs are compared.
    ``applies``: the levels at which the functions exist. ``cost``: what a case takes, in those of an ordinary function.
    """

    entry: str
    functions: tuple[str, ...]
    space: Space
    mirror: Callable[[Side], Mirror]
    states: tuple[State, ...] = (State(),)
    outputs: tuple[int, ...] = ()
    warns: bool = True
    applies: Callable[[Level], bool] = _every
    cost: int = 1
    through: tuple[str, ...] = ()  # set-up entries that store the pointers this one calls through

    def each(self, cases: int) -> int:
        """The function says how many cases a state has of ``cases`` for the check.

        Of cases that each take what many others take there are half as many: mutants need far fewer.
        """
        return max(1, -(-cases // len(self.states) // (2 if self.cost > 1 else 1)))

    @property
    def name(self) -> str:
        """The name is how reports tell of it."""
        return self.entry


def answers(spec: Spec, side: Side, rows: Iterable[Row]) -> tuple[array[int], bytearray]:
    """The function gives the mirror's results, flat, and its WARNs, one byte a case."""
    function = spec.mirror(side)
    out = array("Q")
    extend = out.extend
    status = bytearray()
    kvm_warns, vcpu_warns = side.kvm.warns, side.vcpu.warns
    append = status.append
    for row in rows:
        extend(function(*row))
        if kvm_warns or vcpu_warns:
            kvm_warns.clear()
            vcpu_warns.clear()
            append(1)
        else:
            append(0)
    return out, status
