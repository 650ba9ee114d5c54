"""Checks of whole page faults on KVM's own EPT (mmu/tdp_mmu.c), and of what is done to a whole slot there."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Final

from harness.oracle.specs.flow import (
    CODES,
    FAULT,
    FAULTS,
    RAM_GFNS,
    SHARED,
    WIDE,
    begin,
    counts,
    digest,
    happens,
    left,
    mmu_c,
    page_counts,
    walked,
)
from harness.oracle.specs.spaces import BOOL, MASK64, Column, Space
from harness.oracle.specs.spec import Mirror, Side, Spec, State, functions_of
from kvmodel.include.asm.kvm_host import PAGE_SHIFT, PG_LEVEL_1G, PG_LEVEL_2M, PG_LEVEL_4K, Vcpu, kvm_memory_slot
from kvmodel.mmu import mmu_fault, tdp_mmu
from kvmodel.mmu.mmu_internal import kvm_mmu_page
from kvmodel.mmu.mmu_sync import shadow_walk
from kvmodel.mmu.spte_h import SPTE_MMU_PRESENT_MASK, is_last_spte
from kvmodel.x86_slots import kvm_mmu_slot_apply_flags

WRPROT: Final = 1  # flow.h enum slot_work
CLEAR_DIRTY: Final = 2
MASKED: Final = 3
SPLIT: Final = 4
ZAP_COLLAPSIBLE: Final = 5


def _last_logged(vcpu: Vcpu) -> int:
    """The last page in the slot's dirty log, + 1."""
    return max(vcpu.slot.dirty_bitmap, default=-1) + 1


def _aged(vcpu: Vcpu, addr: int) -> bool:
    """The page at ``addr`` is aged: True where it was young."""
    *_, (sp, index, spte) = shadow_walk(vcpu, addr)
    mapped = spte & SPTE_MMU_PRESENT_MASK != 0 and is_last_spte(spte, sp.level)
    return mapped and tdp_mmu.age_gfn(vcpu, sp, index)


def _guests_table(s: Side) -> kvm_mmu_page:
    """A shadow page of an upper table of a guest, which may be written only by way of KVM."""
    return kvm_mmu_page(0, 0, s.kvm.roles.make(level=PG_LEVEL_2M), s.kvm.roles)


def _tdp(s: Side) -> Mirror:
    vcpu = s.vcpu
    guests_table = _guests_table(s)

    def call(
        addr: int, first: int, second: int, flag: int, host: int, slot: int, age: int, tracked: int, what: int
    ) -> tuple[int, ...]:
        s.set_flag(flag)
        begin(vcpu, host, slot, False)
        if tracked and addr >> PAGE_SHIFT < RAM_GFNS:
            vcpu.indirect = {addr >> PAGE_SHIFT: [guests_table]}
        tdp_mmu.kvm_tdp_mmu_alloc_root(vcpu)
        one = mmu_fault.kvm_mmu_page_fault(vcpu, addr, first)
        logged_first = _last_logged(vcpu)
        young = sum(_aged(vcpu, addr) << n for n in range(age))
        vcpu.slot.dirty_bitmap.clear()
        happens(vcpu, addr, what)
        two = mmu_fault.kvm_mmu_page_fault(vcpu, addr, second)
        return (
            one & MASK64,
            two & MASK64,
            young,
            *walked(vcpu, addr),
            len(vcpu.pages),
            digest(vcpu, True),
            logged_first,
            _last_logged(vcpu),
            counts(vcpu),
            page_counts(vcpu),
            left(vcpu),
        )

    return call


def _work(vcpu: Vcpu, work: int, slot: kvm_memory_slot, level: int, gfns: set[int]) -> bool:
    match work:
        case 0:
            return tdp_mmu.kvm_tdp_mmu_age_gfn_range(vcpu, slot)
        case 1:
            return tdp_mmu.kvm_tdp_mmu_wrprot_slot(vcpu, slot, level)
        case 2:
            return tdp_mmu.kvm_tdp_mmu_clear_dirty_slot(vcpu, slot)
        case 3:
            tdp_mmu.kvm_tdp_mmu_clear_dirty_pt_masked(vcpu, slot, gfns, level > PG_LEVEL_4K)
        case 4:
            tdp_mmu.kvm_tdp_mmu_try_split_huge_pages(vcpu, slot, level)
        case _:
            tdp_mmu.kvm_tdp_mmu_zap_collapsible_sptes(vcpu, slot)
    return False


def _switch(vcpu: Vcpu, work: int, slot: kvm_memory_slot, level: int, gfns: set[int]) -> bool:
    """Logging is switched: on pages that are small already, what else that does finds nothing to do."""
    kvm_mmu_slot_apply_flags(vcpu, slot, work != ZAP_COLLAPSIBLE)
    return False


def _switched(s: Side) -> Mirror:
    done = _slot(s, _switch)

    def call(*row: int) -> tuple[int, ...]:
        return done(*row)[1:]

    return call


def _slot(s: Side, do: Callable[[Vcpu, int, kvm_memory_slot, int, set[int]], bool] = _work) -> Mirror:
    vcpu = s.vcpu
    guests_table = _guests_table(s)

    def call(addr: int, second: int, *rest: int) -> tuple[int, ...]:
        *codes, host, before, after, work, level, mask, base, pages, tracked = rest
        s.set_flag(0)
        begin(vcpu, host, 2 if before else 0, False)
        if tracked:
            vcpu.indirect = {tracked: [guests_table]}
        tdp_mmu.kvm_tdp_mmu_alloc_root(vcpu)
        mmu_fault.kvm_mmu_page_fault(vcpu, addr, codes[0])
        mmu_fault.kvm_mmu_page_fault(vcpu, second, codes[1])
        slot = kvm_memory_slot(host)
        # A mask's pages are all of the slot, by the kernel's own word.
        slot.base_gfn, slot.npages = (base, pages) if work != MASKED else (0, RAM_GFNS)
        first = addr >> PAGE_SHIFT & ~63
        gfns = {first + n for n in range(64) if mask >> n & 1} if work == MASKED else set[int]()
        gave = do(vcpu, work, slot, level, gfns)
        vcpu.slot.dirty_track = bool(after)
        vcpu.slot.dirty_bitmap.clear()
        last = mmu_fault.kvm_mmu_page_fault(vcpu, addr, codes[2])
        return (
            gave,
            last & MASK64,
            *walked(vcpu, addr),
            len(vcpu.pages),
            digest(vcpu, True),
            _last_logged(vcpu),
            counts(vcpu),
            page_counts(vcpu),
            left(vcpu),
        )

    return call


_t: Final = functions_of("mmu/tdp_mmu.c")
DIRECT: Final = tuple(
    State(ad=ad, xo=xo, ux=ux, param=ux, nx=nx, maxphyaddr=WIDE, huge=huge)
    for ad, xo, ux, nx, huge in itertools.product(*((False, True),) * 4, (1, 2, 3))
)
# What is done to a slot does not ask for the NX workaround. A page of 1 GiB in pieces of 4 KiB is more tables than the
# image has room for.
SLOTS: Final = tuple(state for state in DIRECT if not state.nx)
NX_SLOTS: Final = tuple(state for state in DIRECT if state.nx and state.xo and state.huge == PG_LEVEL_2M)
SMALLER: Final = tuple(state for state in SLOTS if state.huge == PG_LEVEL_2M)
GIANT: Final = tuple(state for state in SLOTS if state.huge == PG_LEVEL_1G)
# Pages of the host that are larger than KVM's largest are as good as those.
PAGES: Final = tuple(
    (tuple(state for state in SLOTS if (state.huge == PG_LEVEL_1G) is giant), (2, 3) if giant else (1, 2))
    for giant in (False, True)
)
LOGGING: Final = tuple(
    State(ad=ad, ux=True, param=True, maxphyaddr=WIDE, huge=PG_LEVEL_2M, pml=pml)
    for ad, pml in ((True, True), (True, False), (False, False))
)
DIRECT_THROUGH: Final = ("init_kvm_tdp_mmu",)
SLOT: Final = (
    *_t("kvm_tdp_mmu_age_gfn_range", "kvm_tdp_mmu_wrprot_slot", "kvm_tdp_mmu_clear_dirty_slot"),
    *_t("kvm_tdp_mmu_clear_dirty_pt_masked", "kvm_tdp_mmu_try_split_huge_pages", "handle_removed_pt"),
    *_t("kvm_tdp_mmu_zap_collapsible_sptes", "tdp_root_for_each_leaf_pte", "tdp_mmu_need_write_protect"),
    "mmu/tdp_iter.h for_each_tdp_pte_min_level",
)


AFTER_WORK: Final = tuple(range(1, 12))  # words of the entry: switching logging gives nothing


def _switches(states: tuple[State, ...], hosts: tuple[int, ...], work: int) -> Spec:
    space = Space(
        (
            *((0x4020_3000,), (0x4020_4000, 0x4040_0000), (0, 2), (0, 2), (0, 2, 3)),
            *(hosts, BOOL, BOOL),
            *((work,), (1,), (0,), (0,), (RAM_GFNS,), (0,)),
        )
    )
    through = DIRECT_THROUGH
    return Spec("tdp_slot", SLOT, space, _switched, states, AFTER_WORK, cost=FAULT, through=through)


def _slots(states: tuple[State, ...], *columns: Column) -> Spec:
    return Spec("tdp_slot", SLOT, Space(columns), _slot, states, cost=FAULT, through=DIRECT_THROUGH)


SPECS: Final = (
    Spec(
        "tdp_fault",
        (
            *FAULTS,
            *SHARED,
            *mmu_c("kvm_tdp_mmu_page_fault", "fast_page_fault"),
            *_t("kvm_tdp_mmu_map", "tdp_mmu_map_handle_target_level", "tdp_mmu_link_sp", "tdp_mmu_split_huge_page"),
            *_t("tdp_mmu_alloc_sp", "tdp_mmu_init_child_sp", "kvm_tdp_mmu_alloc_root", "tdp_mmu_set_spte_atomic"),
            *_t("age_gfn_range"),
        ),
        Space(
            (
                (0x4020_3000, 0x5000, 0x1_2345_6000, 0x7FE0_0000, 1 << WIDE | 0x5000),
                CODES,
                CODES,
                BOOL,
                (1, 2, 3),
                (0, 0, 1, 2),
                (0, 1, 2),
                (0, 0, 1),
                (0,),
            )
        ),
        _tdp,
        DIRECT,
        cost=FAULT,
        through=DIRECT_THROUGH,
    ),
    # An entry is wrong, or of another generation, when the CPU calls it misconfigured.
    Spec(
        "tdp_fault",
        mmu_c("handle_mmio_page_fault", "get_mmio_spte", "check_mmio_spte"),
        Space(((0x4020_3000, 0x1_2345_6000), (0, 2), (0, 2, 8), (0,), (1, 2), (0,), (0,), (0,), (1, 2, 3))),
        _tdp,
        DIRECT[:6],
        cost=FAULT,
        through=DIRECT_THROUGH,
    ),
    # No entry can say that there is no memory.
    Spec(
        "tdp_fault",
        mmu_c("kvm_handle_noslot_fault"),
        Space(((0x5000, 0x1_2345_6000), (0, 2), (0, 2, 8), (0,), (1,), (0,), (0,), (0,), (0,))),
        _tdp,
        (State(mmio_caching=False, maxphyaddr=WIDE),),
        cost=FAULT,
        through=DIRECT_THROUGH,
    ),
    # A slot of all memory, of one huge page or less, is aged, write-protected, cleaned or made ready for huge pages.
    *(
        _slots(
            states,
            *((0x4020_3000,), (0x4020_4000, 0x4040_0000), (0, 2), (2,), (0, 2, 3)),
            *(hosts, BOOL, (0,)),
            *((0, 1, 2, 5), (1, 2), (0,), (0, 0x40200, 0x40201), (RAM_GFNS, 1), (0, 0, 0x40333)),
        )
        for states, hosts in PAGES
    ),
    # So are some of 64 pages.
    *(
        _slots(
            states,
            *((0x4020_3000,), (0x4020_4000, 0x4000_0000), (0, 2), (2,), (0, 2, 3)),
            *(hosts, BOOL, (0,)),
            *((MASKED,), (1, 2), (0x80, 0x88, 0x90, 0x98), (0,), (RAM_GFNS,), (0,)),
        )
        for states, hosts in PAGES
    ),
    # A page that was small for the NX workaround alone may become huge again.
    _slots(
        NX_SLOTS,
        *((0x4020_3000,), (0x4020_4000, 0x4040_0000), (0x10, 0x14, 0x12), (0x10, 2), (0, 2, 0x10)),
        *((2, 3), (0,), (0,)),
        *((5,), (1,), (0,), (0,), (RAM_GFNS,), (0,)),
    ),
    # A huge page is written to, after that, while the log is on.
    _slots(
        tuple(state for state in SMALLER if state.xo and state.ux),
        *((0x4020_3000,), (0x4040_0000,), (2,), (2,), (2, 3)),
        *((2,), (0,), (1,)),
        *((0, 1), (1, 2), (0,), (0,), (RAM_GFNS,), (0,)),
    ),
    # Logging goes on: the CPU's log wants clean entries, KVM's own wants write-protected ones. It goes off: large pages
    # may come again.
    _switches(tuple(state for state in LOGGING if state.pml), (1,), CLEAR_DIRTY),
    _switches(tuple(state for state in LOGGING if not state.pml), (1,), WRPROT),
    _switches(LOGGING, (1, 2), ZAP_COLLAPSIBLE),
    # Splitting makes 512 entries of one.
    *(
        _slots(
            states,
            *((0x4020_3000,), (0x4000_0000, 0x4040_0000), (2,), (2,), (2,)),
            *((1, 2, 3), (0,), (1,)),
            *((SPLIT,), levels, (0,), (0, 0x40200), (RAM_GFNS, 0x200), (0,)),
        )
        for states, levels in ((SMALLER, (1, 2)), (GIANT, (2,)))
    ),
)
