"""Checks of the tracepoints' texts (mmutrace.h) and of the module parameter (x86.c)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Final

from harness.oracle.specs.spaces import BOOL, Bits, Space
from harness.oracle.specs.spec import Mirror, Side, Spec, State
from kvmodel import x86
from kvmodel.mmu import mmutrace


def packed(text: str) -> tuple[int, ...]:
    """The function gives a text as 24 words, eight characters each."""
    raw = text.encode().ljust(192, b"\0")
    return tuple(int.from_bytes(raw[n : n + 8], "little") for n in range(0, 192, 8))


FORMAT: Final = 8
# The other events, in the order of the image, which shows the address of an SPTE as 0.
EVENTS: Final[tuple[tuple[str, Callable[[int, int, int, int], tuple[int, ...]]], ...]] = (
    ("kvm_mmu_set_spte", lambda a, b, c, _: (a, b, c, 0)),
    ("mark_mmio_spte", lambda _a, b, c, _d: (0, b, c)),
    ("kvm_mmu_get_page", lambda a, b, c, _: (a, b, c)),
    ("kvm_mmu_pagetable_walk", lambda a, b, _c, _d: (a, b)),
    ("kvm_mmu_paging_element", lambda a, b, _c, _d: (a, b)),
    ("kvm_mmu_walker_error", lambda a, _b, _c, _d: (a,)),
    ("kvm_mmu_spte_requested", lambda a, b, c, _: (a, b, c)),
    ("kvm_tdp_mmu_spte_changed", lambda a, b, c, d: (0, a, b, c, d)),
)


def _trace(s: Side) -> Mirror:
    def call(event: int, a: int, b: int, c: int, d: int, flag: int) -> tuple[int, ...]:
        s.set_flag(flag)
        if event == FORMAT:
            return packed(mmutrace.kvm_mmu_set_spte_format(s.kvm) + "\n")
        name, args = EVENTS[event]
        return packed(mmutrace.text(s.vcpu, name, args(a, b, c, d)) + "\n")

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
    Spec("mmutrace", ("mmu/mmutrace.h kvm_mmu_set_spte",), Space(((FORMAT,), *((0,),) * 5)), _trace),
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
