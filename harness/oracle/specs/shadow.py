"""Checks of whole page faults on shadow EPT (mmu/mmu.c, paging_tmpl.h), and of what L1 does to its tables between."""

from __future__ import annotations

import itertools
from typing import Final

from harness.oracle.specs.flow import (
    CODES,
    FAULT,
    FAULTS,
    SHARED,
    WIDE,
    begin,
    counts,
    digest,
    fault,
    happens,
    mmu_c,
    walked,
)
from harness.oracle.specs.spaces import BOOL, MASK64, Column, Space
from harness.oracle.specs.spec import EPTP, Mirror, Side, Spec, State, functions_of
from kvmodel.include.asm.kvm_host import PAGE_SHIFT, PG_LEVEL_4K, Vcpu, kvm_mmu, x86_exception
from kvmodel.include.asm.vmx import VMX_EPTP_AD_ENABLE_BIT
from kvmodel.mmu import mmu_fault, mmu_page, mmu_sync
from kvmodel.mmu.mmu_internal import kvm_mmu_page
from kvmodel.mmu_h import PT_PAGE_SIZE_MASK

# flow.h: what comes between two faults.
SYNC: Final = 3  # the times, or this
OTHER_ROLE: Final = 3
UNSYNC: Final = 4
NEIGHBOURS_LATER: Final = 8
HAPPENS: Final = 4  # two bits from here on are those of flow.happens()
AT_ZERO: Final = 0x40
FREE_ROOTS: Final = 2  # of shadow_write

TABLES: Final = (0x1000, 0x12000, 0x13000, 0x21_5000)  # from the top, flow.h


def _forget_zapped(vcpu: Vcpu) -> None:
    """Pages that were zapped are freed, as C does at once; the mirror keeps them where nobody finds them."""
    vcpu.pages = {pa: sp for pa, sp in vcpu.pages.items() if vcpu.hash.get((sp.gfn, sp.role)) is sp}


def _shadow(s: Side) -> Mirror:
    vcpu = s.vcpu
    caught: list[x86_exception] = []
    sync_page = getattr(mmu_sync, "__kvm_sync_page")

    def inject(_: Vcpu, fault: x86_exception) -> None:
        caught.append(fault)

    def synced_in_another_role() -> int:
        mmu = vcpu.mmu
        before, mmu.root_role = mmu.root_role, mmu.root_role ^ s.kvm.roles.make(ad_disabled=1)
        gave = 0
        for sp in list(vcpu.pages.values()):
            if sp.level == PG_LEVEL_4K and not sp.direct:
                gave = mmu_sync.kvm_sync_page(vcpu, sp)
                vcpu.warns.append("kvm_sync_page_check")  # in C a refusal is a WARN
        mmu.root_role = before
        _forget_zapped(vcpu)
        return gave

    def synced() -> int:
        gave = 0
        for sp in list(vcpu.pages.values()):
            if sp.level == PG_LEVEL_4K and not sp.direct:
                gave = sync_page(vcpu, sp)
        return gave

    def call(
        addr: int, first: int, second: int, flag: int, host: int, slot: int, between: int, *entries: int
    ) -> tuple[int, ...]:
        *tables, after, neighbour, later = entries
        s.set_flag(flag)
        begin(vcpu, host, slot, True)
        caught.clear()
        memory: dict[int, int] = {}
        places = [table + (addr >> 39 - 9 * n & 511) * 8 for n, table in enumerate(TABLES)]
        beside = {(places[3] & ~63) + i * 8: neighbour + (i << PAGE_SHIFT) for i in range(8) if neighbour}
        if not between & NEIGHBOURS_LATER:
            memory.update(beside)
        memory.update(zip(places, tables, strict=True))
        if between & AT_ZERO:
            memory.update({i * 8: neighbour + (i << PAGE_SHIFT) for i in range(8) if neighbour})
        vcpu.memory = memory
        vcpu.mmu.inject_page_fault = inject
        mmu_page.mmu_alloc_shadow_roots(vcpu)
        one = fault(vcpu, addr, first)
        if between & UNSYNC:
            mmu_sync.mmu_try_to_unsync_pages(vcpu, places[3] >> PAGE_SHIFT, True, False)
        happens(vcpu, addr, between >> HAPPENS & 3)
        memory.update(beside)
        memory[places[3]] = after
        sync = between & SYNC
        flushed = synced_in_another_role() if sync == OTHER_ROLE else synced() if sync else 0
        if sync == 2:
            memory[places[3]] = later
            flushed = synced()
        two = fault(vcpu, addr, second)
        told = caught[-1] if caught else x86_exception()
        return (
            one,
            two,
            flushed & MASK64,
            len(caught),
            told.error_code,
            told.exit_qualification,
            told.address,
            *(memory[place] for place in places),
            *walked(vcpu, addr),
            len(vcpu.pages),
            digest(vcpu, False),
            counts(vcpu),
        )

    return call


def _written(s: Side) -> Mirror:
    vcpu = s.vcpu
    caught: list[x86_exception] = []
    execonly, huge, l1_ad = s.state.l1_execonly, s.state.l1_huge, s.state.l1_ad

    def inject(_: Vcpu, fault: x86_exception) -> None:
        caught.append(fault)

    def switch(other: bool) -> None:
        eptp = EPTP ^ (VMX_EPTP_AD_ENABLE_BIT if other else 0)
        mmu_fault.kvm_init_shadow_ept_mmu(vcpu, execonly, huge, l1_ad is not other, eptp)
        mmu_page.kvm_mmu_reload(vcpu)

    def write(places: list[int], table: int, times: int, entry: int) -> None:
        for _ in range(times):
            mmu_sync.write_guest_table(vcpu, places[table], entry)

    def call(addr: int, first: int, second: int, flag: int, host: int, *rest: int) -> tuple[int, ...]:
        beside, other, *writes, sync, top, upper, lower, leaf = rest
        s.set_flag(flag)
        begin(vcpu, host, 0, True)
        caught.clear()
        places = [place + (addr >> 39 - 9 * n & 511) * 8 for n, place in enumerate(TABLES)]
        vcpu.memory = dict(zip(places, (top, upper, lower, leaf), strict=True))
        vcpu.mmu.inject_page_fault = inject
        mmu_page.kvm_mmu_free_roots(vcpu.mmu)
        vcpu.mmu.pgd = EPTP
        mmu_page.mmu_alloc_shadow_roots(vcpu)
        if beside:
            vcpu.memory[TABLES[1] + (addr + BESIDE >> 30 & 511) * 8] = beside
            fault(vcpu, addr + BESIDE, first)
        one = fault(vcpu, addr, first)
        if other:
            switch(True)
            fault(vcpu, addr, first)
        write(places, *writes[:3])
        if other:
            switch(False)
        if sync & FREE_ROOTS:
            mmu_page.kvm_mmu_free_roots(vcpu.mmu)
            mmu_page.kvm_mmu_reload(vcpu)
        write(places, *writes[3:])
        if other == 2:
            switch(True)
        mmu_page.kvm_mmu_reload(vcpu)
        if sync & 1:
            mmu_page.kvm_mmu_sync_roots(vcpu)
        two = fault(vcpu, addr, second)
        told = caught[-1] if caught else x86_exception()
        _forget_zapped(vcpu)
        result = (
            one,
            two,
            len(caught),
            told.error_code,
            told.exit_qualification,
            *walked(vcpu, addr),
            len(vcpu.pages),
            digest(vcpu, False),
            counts(vcpu),
        )
        if other == 2:
            switch(False)
        return result

    return call


def _switched(s: Side) -> Mirror:
    mmu = kvm_mmu()

    def call(*words: int) -> tuple[int, ...]:
        roots, pgds, roles = words[:4], words[4:8], words[8:12]
        pages = [kvm_mmu_page(0, 0, role, s.kvm.roles) for role in roles]
        held = [(pgds[n - 1], pages[n - 1]) if n else None for n in roots]
        mmu.root_pgd, mmu.root = held[0] or (0, None)
        mmu.prev_roots = held[1:]
        mmu.root_role = words[13]
        found = mmu_page.fast_pgd_switch(mmu, words[12])
        after = (mmu.root, *(root[1] if root else None for root in mmu.prev_roots))
        return found, *(next((n for n, page in enumerate(pages, 1) if page is root), 0) for root in after)

    return call


_p: Final = functions_of("mmu/paging_tmpl.h")

ADDRESS: Final = (0x40403018,)
PERMISSIONS: Final = tuple(p | u for p in range(8) for u in (0, 0x400))
AD: Final = (0, 0x100, 0x300)
# Where an entry of L1 points: plain memory, the tables themselves, no memory.
PAGES: Final = (0x4567_8000, 0x4567_8000, 0x6543_2000, 0x21_5000, 0x13000, 0x1_2345_6000)
LARGE: Final = (0x4020_0000, 0x6000_0000, 0x1_4000_0000, 0x20_0000)
HUGE: Final = (0x4000_0000, 0x1_4000_0000, 0)
GOOD: Final = (0x7, 0x407, 0x5, 0x405, 0x3, 0x403, 0x1, 0x401, 0x404, 0x4, 0x400)


def leaves(pages: tuple[int, ...], size: int = 0, permissions: tuple[int, ...] = PERMISSIONS) -> tuple[int, ...]:
    """Leaf entries, write-back."""
    return tuple(page | p | ad | size | 0x30 for page, p, ad in itertools.product(pages, permissions, AD))


def tables(at: int, permissions: tuple[int, ...] = GOOD) -> tuple[int, ...]:
    """The function gives entries that point to the table at ``at``; most permit all."""
    return tuple(at | p | ad for p in (*(0x407, 0x7) * 6, *permissions) for ad in AD)


SIZE: Final = PT_PAGE_SIZE_MASK
UPPER: Final = (
    tables(TABLES[1]),
    (*tables(TABLES[2]) * 3, *leaves(HUGE, SIZE, GOOD)),
    (*tables(TABLES[3]) * 6, *leaves(LARGE, SIZE, GOOD)),
)
# The leaf: what it was, or what L1 makes of it. Its neighbours map pages of their own: two entries of one page would
# make KVM free a chain of its own.
LEAF: Final = (*leaves(PAGES), 0, 0x4567_8000)
CHANGED: Final = (*leaves(PAGES), *tables(TABLES[2]), *tables(TABLES[3]), 0)
# Where the page at 0 is one huge page, the last two of these are its pages with the two lower tables.
WRITTEN: Final = (*ADDRESS * 2, 0x40013018, 0x40215018)
# Entries of the two lower tables have the same index: one table may be both.
BOTH_TABLES: Final = (0x40603018,)
# All four have: one entry may be the whole walk.
ONE_ENTRY: Final = (0x80_4020_1018,)
BESIDE: Final = 1 << 30  # from an address to the other one
BESIDES: Final = (*tables(TABLES[2]), *leaves(HUGE, SIZE, GOOD))  # how L1 maps that
PGDS: Final = (0x101E, 0x105E, 0x201E)
ROOT_ROLES: Final = (4, 4 | 1 << 16)  # two role words: levels, and a bit that tells them apart
HOSTS: Final = tuple(
    State(ad=ad, xo=xo, ux=True, param=True, flag=False, nx=nx, shadow=True, maxphyaddr=WIDE, l1_ad=l1_ad, pml=pml)
    for ad, xo, nx, l1_ad, pml in itertools.product((False, True), repeat=5)
)
# These have few cases, all taken: a walk that ends well, and one thing that L1 does to its tables on the way.
SOME: Final = tuple(state for state in HOSTS if not state.nx and not state.pml and state.xo)
OPEN: Final = tuple((table | 0x407,) for table in TABLES[1:])
SAME_PAGE: Final = tuple(0x4567_8330 | p for p in (0x1, 0x3, 0x5, 0x7, 0x407, 0x401))
NO_MEMORY: Final = tuple(0x1_2345_6330 | p for p in (0x1, 0x3, 0x5, 0x7))
OWN_TABLE: Final = tuple(0x21_5330 | p for p in (0x1, 0x3, 0x5, 0x7, 0x407, 0x401))
ANOTHER_PAGE: Final = 0x6543_2337
TO_TABLES: Final = tuple(page | p for page in TABLES for p in (0x433, 0x437))
# A leaf table that two upper tables link, because the walks through both permit the same.
SHARED_LEAF: Final = (0x4567_8437, 0x4567_8033)


def _faults(functions: tuple[str, ...], states: tuple[State, ...], *columns: Column) -> Spec:
    space = Space(columns)
    return Spec("shadow_fault", functions, space, _shadow, states, cost=FAULT, through=("kvm_init_shadow_ept_mmu",))


def _writes(functions: tuple[str, ...], states: tuple[State, ...], *columns: Column) -> Spec:
    space = Space(columns)
    return Spec("shadow_write", functions, space, _written, states, cost=FAULT, through=("kvm_init_shadow_ept_mmu",))


SPECS: Final = (
    _faults(
        (
            *FAULTS,
            *SHARED,
            *_p("page_fault", "fetch", "pte_prefetch", "prefetch_gpte", "prefetch_invalid_gpte", "sync_spte"),
            *mmu_c("mmu_alloc_shadow_roots", "__kvm_mmu_get_shadow_page", "kvm_mmu_find_shadow_page"),
            *mmu_c("kvm_mmu_alloc_shadow_page", "kvm_mmu_get_child_sp", "__link_shadow_page", "validate_direct_spte"),
            *mmu_c("mmu_set_spte", "mmu_spte_update", "__set_spte", "mmu_spte_set", "drop_spte", "drop_parent_pte"),
            *mmu_c("mark_mmio_spte", "kvm_mmu_page_get_gfn", "kvm_mmu_page_get_access"),
            *mmu_c("kvm_mmu_page_set_translation", "kvm_mmu_page_set_access", "account_shadowed"),
            *mmu_c("mmu_try_to_unsync_pages", "__kvm_sync_page", "kvm_sync_spte", "sync_mmio_spte"),
            *mmu_c("kvm_mmu_invalidate_addr", "__direct_pte_prefetch", "direct_pte_prefetch_many"),
            *mmu_c("kvm_mmu_gfn_disallow_lpage", "gfn_to_memslot_dirty_bitmap"),
            "mmu/page_track.c kvm_gfn_is_write_tracked",
            "x86.c kvm_inject_emulated_page_fault",
        ),
        HOSTS,
        *(ADDRESS, CODES, CODES, BOOL, (1, 2, 3), (0, 0, 0, 1, 2), (0, 0, 1, 1, 2)),
        *(*UPPER, LEAF),
        *(LEAF, (0, 0x6548_0737, 0x6548_0135, 0x1_2345_0737), LEAF),
    ),
    # The leaf table comes in step once or twice: what its entry was, is then, and is in the end.
    _faults(
        mmu_c("mmu_spte_update", "kvm_mmu_page_set_access", "__kvm_sync_page"),
        SOME,
        *(ADDRESS, (0, 2), (0,), (0,), (1,), (0,), (1, 2)),
        *(*OPEN, SAME_PAGE),
        *((*SAME_PAGE, ANOTHER_PAGE, 0), (0x6548_0337,), SAME_PAGE),
    ),
    # The leaf points to no memory, and comes in step in the generation that it was made in, or in the next.
    _faults(
        mmu_c("sync_mmio_spte", "mark_mmio_spte", "mmu_spte_set"),
        SOME,
        *(ADDRESS, (0, 2), (0, 2), (0,), (1,), (0,), (0, 1, 2 << HAPPENS, 1 | 2 << HAPPENS)),
        *(*OPEN, (*NO_MEMORY, SAME_PAGE[3])),
        *((*NO_MEMORY, NO_MEMORY[0] + 0x1000, 0), (0,), (0,)),
    ),
    # L2 is given its own leaf table, by the entry or by those beside it, which is out of step or must not get there.
    _faults(
        mmu_c("mmu_try_to_unsync_pages"),
        SOME,
        *(ADDRESS, (0, 2), (0, 2), (0,), (1,), (0,), tuple(sync | UNSYNC * n for sync in (0, 1) for n in BOOL)),
        *(*OPEN, OWN_TABLE),
        *((*OWN_TABLE, SAME_PAGE[4]), (0,), (0,)),
    ),
    _faults(
        mmu_c("mmu_try_to_unsync_pages"),
        SOME,
        *(
            ADDRESS,
            (0,),
            (0, 2),
            (0,),
            (1,),
            (0,),
            tuple(UNSYNC * n | NEIGHBOURS_LATER * m for n in BOOL for m in BOOL),
        ),
        *(*OPEN, SAME_PAGE[4:5]),
        *((ANOTHER_PAGE, SAME_PAGE[0], 0), (0x21_0337, 0x21_0333, 0x21_0331), (0,)),
    ),
    # Not all of the leaf's neighbours are good: those that wrap around have no reserved bits.
    _faults(
        _p("pte_prefetch", "prefetch_invalid_gpte"),
        SOME,
        *(ADDRESS, (0, 2), (0,), (0,), (1,), (0,), (0,)),
        *(*OPEN, SAME_PAGE),
        *((SAME_PAGE[3],), tuple((1 << 52) - (n << PAGE_SHIFT) | 0x737 for n in (1, 2, 6)), (0,)),
    ),
    # They are good only when L2 meets the leaf again, which changes nothing.
    _faults(
        _p("fetch", "pte_prefetch"),
        SOME,
        *(ADDRESS, (0, 2), (0, 2, 4), (0,), (1,), (0,), (NEIGHBOURS_LATER,)),
        *(*OPEN, (0x4567_8737,)),
        *((0x4567_8737,), (0x6548_0737,), (0,)),
    ),
    # A huge page has none: what lies at address 0 is no neighbour of its entry.
    _faults(
        _p("pte_prefetch"),
        SOME,
        *(ADDRESS, (0, 2), (0,), (0,), (1, 2, 3), (0, 2), (AT_ZERO,)),
        *(OPEN[0], (TABLES[2] | 0x407, 0x4000_0000 | SIZE | 0x737), (TABLES[3] | 0x407, 0x4020_0000 | SIZE | 0x737)),
        *(SAME_PAGE[3:4], SAME_PAGE[3:4], (0x6548_0737, 0x6548_0735), (0,)),
    ),
    # The top table is all tables, by one entry that maps itself.
    _faults(
        _p("gpte_changed", "update_accessed_dirty_bits"),
        SOME,
        *(ONE_ENTRY, (0, 2, 4), (0, 2, 0x10), (0,), (1,), (0,), (0,)),
        *(tuple(TABLES[0] | flags for flags in (0x3, 0x103, 0x407, 0x707)), (0,), (0,), (0,)),
        *((0,), (0,), (0,)),
    ),
    # The leaf table cannot come in step, and goes.
    _faults(
        mmu_c("kvm_sync_page"),
        SOME[:4],
        *(ADDRESS, (0, 2), (0, 2), (0,), (1,), (0,), (OTHER_ROLE,)),
        *(*OPEN, SAME_PAGE),
        *((*SAME_PAGE, ANOTHER_PAGE, 0), (0, 0x6548_0337), (0,)),
    ),
    _writes(
        (
            *mmu_c("kvm_mmu_track_write", "detect_write_flooding", "mmu_page_zap_pte", "__kvm_mmu_prepare_zap_page"),
            *mmu_c("unaccount_shadowed", "kvm_unsync_page", "mark_unsync", "kvm_mmu_mark_parents_unsync"),
            *mmu_c("mmu_unsync_walk", "mmu_sync_children", "mmu_pages_clear_parents", "kvm_sync_page"),
            *mmu_c("kvm_mmu_sync_roots", "kvm_mmu_slot_gfn_write_protect", "spte_write_protect"),
        ),
        HOSTS,
        *(WRITTEN, CODES, CODES, BOOL, (1, 2, 3)),
        *((*(0,) * len(BESIDES), *BESIDES), (*(0,) * 7, 1)),
        *((1, 2, 3, 3, 0), (0, 1, 1, 2, 3), CHANGED),
        *((1, 2, 3, 0), (0, 1, 2, 3, 3), CHANGED),
        *(BOOL, *UPPER, LEAF),
    ),
    # Two walks share a table.
    _writes(
        mmu_c("kvm_mmu_find_shadow_page", "kvm_mmu_new_pgd"),
        SOME,
        *(ADDRESS, (0, 2), (2,), (0,), (1,)),
        *((TABLES[2] | 0x405, TABLES[2] | 0x403), (0,)),
        *((2, 3), (1,), SHARED_LEAF),
        *((1,), (1, 3), (TABLES[2] | 0x407, TABLES[2] | 0x5)),
        *(BOOL, (TABLES[1] | 0x407,), (TABLES[2] | 0x407, TABLES[2] | 0x7), (TABLES[3] | 0x405, TABLES[3] | 0x401)),
        SHARED_LEAF,
    ),
    # L2 writes to L1's tables: KVM emulates it, and takes the tables on its way for tables in use.
    _writes(
        mmu_c("shadow_page_table_clear_flood"),
        SOME,
        *(ADDRESS, (0,), (3,), (0,), (1,), (0,), (0,)),
        *((0, 1, 2), (1, 2), tuple(table | 0x407 for table in TABLES[1:])),
        *((1, 2), (0, 1), (TABLES[2] | 0x407, TABLES[3] | 0x405)),
        *((0,), *OPEN, TO_TABLES),
    ),
    # The leaf table is out of step when L2 meets its entry again.
    _writes(
        mmu_c("kvm_mmu_invalidate_addr", "kvm_sync_spte"),
        SOME,
        *(ADDRESS, (0, 2, 4), (0, 2, 4), (0,), (1,), (0,), (0,)),
        *((3,), (1,), (*SAME_PAGE, ANOTHER_PAGE, 0)),
        *((3,), (0,), (0,)),
        *(BOOL, *OPEN, SAME_PAGE),
    ),
    # Of two roots one is flooded, both are, or none; L1 ends with the one or the other.
    _writes(
        mmu_c("__kvm_mmu_prepare_zap_page", "kvm_mmu_new_pgd"),
        SOME,
        *(ADDRESS, (2,), (0,), (0,), (1,), (0,), (0, 1, 2)),
        *((0, 1), (1, 2, 3), (TABLES[1] | 0x405,)),
        *((0, 1), (0, 1, 2, 3), (TABLES[1] | 0x403, TABLES[2] | 0x407)),
        *((0,), *OPEN, SAME_PAGE[3:4]),
    ),
    # The leaf table gets out of step, and becomes an upper table as well.
    _writes(
        mmu_c("kvm_mmu_find_shadow_page"),
        SOME,
        *(BOTH_TABLES, (0, 2), (0,), (0,), (1,), (0,), (0,)),
        *((3,), (0, 1), (TABLES[3] | 0x407,)),
        *((1,), (0, 1), (TABLES[3] | 0x407,)),
        *(BOOL, *OPEN, SAME_PAGE[3:4]),
    ),
    # It is both from the start, by the same entry, and written to. That gets its flags twice in one walk.
    _writes(
        (*mmu_c("kvm_mmu_track_write", "detect_write_flooding"), *_p("gpte_changed", "update_accessed_dirty_bits")),
        SOME,
        *(BOTH_TABLES, (0, 2), (0,), (0,), (1,), (0,), (0,)),
        *((3,), (1, 2, 3), (TABLES[3] | 0x705, TABLES[3] | 0x405, 0)),
        *((3,), (0, 1), (TABLES[3] | 0x703,)),
        *(BOOL, OPEN[0], (TABLES[3] | 0x407,), OPEN[2], (TABLES[3] | 0x407, TABLES[3] | 0x507, TABLES[3] | 0x707)),
    ),
    # A table lies in a huge page of L1, which L2 is mapped small until the table is one no longer.
    _writes(
        mmu_c("mmu_set_spte", "drop_parent_pte", "unaccount_shadowed"),
        SOME,
        *((0x40215018,), (0, 2), (0, 2), (0,), (1, 2, 3), (TABLES[2] | 0x407,), (0,)),
        *((1,), (0, 1, 3), (SIZE | 0x337,)),
        *((0,), (0,), (0,)),
        *((0,), OPEN[0], (SIZE | 0x337, SIZE | 0x733), OPEN[2], SAME_PAGE[3:4]),
    ),
    # The roots are freed between two writes, and found again.
    _writes(
        mmu_c("kvm_mmu_find_shadow_page", "kvm_mmu_free_roots"),
        SOME,
        *(ADDRESS, (0,), (0,), (0,), (1,), (0,), (0,)),
        *((0, 3), (0, 1, 2), (TABLES[1] | 0x405, ANOTHER_PAGE)),
        *((0, 3), (1, 2), (TABLES[1] | 0x403,)),
        *(tuple(n | FREE_ROOTS * m for n in BOOL for m in BOOL), *OPEN, SAME_PAGE[3:4]),
    ),
    Spec(
        "fast_pgd_switch",
        mmu_c("fast_pgd_switch", "is_root_usable"),
        Space(((0, 1), (0, 2), (0, 3), (0, 4), *(PGDS,) * 4, *(ROOT_ROLES,) * 4, PGDS, ROOT_ROLES)),
        _switched,
    ),
)
