"""Checks of the tracepoints' texts (mmutrace.h) and of the module parameter (x86.c)."""

from __future__ import annotations

import itertools
from typing import Final

from harness.oracle.specs.spaces import BOOL, Bits, Space
from harness.oracle.specs.spec import Mirror, Side, Spec, State
from kvmodel import x86
from kvmodel.mmu import mmutrace


def packed(text: str) -> tuple[int, ...]:
    """The function gives a text as 24 words, eight characters each."""
    raw = text.encode().ljust(192, b"\0")
    return tuple(int.from_bytes(raw[n : n + 8], "little") for n in range(0, 192, 8))


def _trace(s: Side) -> Mirror:
    kvm, vcpu = s.kvm, s.vcpu

    def text(event: int, a: int, b: int, c: int, d: int) -> str:
        # The image shows the address of an SPTE as 0.
        match event:
            case 0:
                return mmutrace.kvm_mmu_set_spte(vcpu, a, b, c, 0)
            case 1:
                return mmutrace.mark_mmio_spte(kvm, 0, b, c)
            case 2:
                return mmutrace.kvm_mmu_get_page(kvm, a, b, bool(c))
            case 3:
                return mmutrace.kvm_mmu_pagetable_walk(a, b)
            case 4:
                return mmutrace.kvm_mmu_paging_element(a, b)
            case 5:
                return mmutrace.kvm_mmu_walker_error(a)
            case 6:
                return mmutrace.kvm_mmu_spte_requested(a, b, c)
            case 8:
                return mmutrace.kvm_mmu_set_spte_format(kvm)
            case _:
                return mmutrace.kvm_tdp_mmu_spte_changed(0, a, b, c, d)

    def call(event: int, a: int, b: int, c: int, d: int, flag: int) -> tuple[int, ...]:
        s.set_flag(flag)
        return packed(text(event, a, b, c, d) + "\n")

    return call


def _param(s: Side) -> Mirror:
    def call(_: int) -> tuple[int, ...]:
        s.kvm.enable_pt_guest_exec_control = False
        x86.kvm_module_params(s.kvm, None)
        return s.level.has(3), s.kvm.enable_pt_guest_exec_control

    return call


TRACED: Final = tuple(
    State(ad=True, xo=xo, ux=ux, param=ux, nx=False) for xo, ux in itertools.product((False, True), repeat=2)
)

SPECS: Final = (
    Spec("module_param", ("x86.c module_param",), Space(((0,),)), _param, warns=False),
    Spec(
        "mmutrace",
        ("mmu/mmutrace.h kvm_mmu_set_spte",),
        Space(((0,), (1, 2, 3), Bits((1 << 40) - 1), Bits(), (0,), BOOL)),
        _trace,
        TRACED,
    ),
    Spec("mmutrace", ("mmu/mmutrace.h kvm_mmu_set_spte",), Space(((8,), *((0,),) * 5)), _trace),
    Spec(
        "mmutrace",
        ("mmu/mmutrace.h mark_mmio_spte",),
        Space(((1,), (0,), Bits((1 << 40) - 1), Bits(), (0,), (0,))),
        _trace,
        TRACED,
    ),
    Spec(
        "mmutrace",
        ("mmu/mmutrace.h kvm_mmu_get_page", "mmu/mmutrace.h KVM_MMU_PAGE_PRINTK"),
        Space(((2,), Bits((1 << 40) - 1), Bits(0xFFFFFFFF), BOOL, (0,), (0,))),
        _trace,
    ),
    Spec(
        "mmutrace",
        ("mmu/mmutrace.h kvm_mmu_pagetable_walk",),
        Space(((3,), Bits(), Bits(0xFFFFFFFF), (0,), (0,), (0,))),
        _trace,
    ),
    Spec(
        "mmutrace",
        ("mmu/mmutrace.h kvm_mmu_paging_element", "mmu/mmutrace.h kvm_mmu_walker_error"),
        Space(((4, 5), Bits(0xFFFFFFFF), (1, 2, 3, 4, 5), (0,), (0,), (0,))),
        _trace,
    ),
    Spec(
        "mmutrace",
        ("mmu/mmutrace.h kvm_mmu_spte_requested",),
        Space(((6,), Bits((1 << 40) - 1), Bits((1 << 40) - 1), (1, 2, 3), (0,), (0,))),
        _trace,
    ),
    Spec(
        "mmutrace",
        ("mmu/mmutrace.h kvm_tdp_mmu_spte_changed",),
        Space(((7,), Bits((1 << 40) - 1), (1, 2, 3, 4), Bits(), Bits(), (0,))),
        _trace,
    ),
)
