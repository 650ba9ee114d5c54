"""Checks of whole page faults (mmu/mmu.c, paging_tmpl.h, tdp_mmu.c, x86.c) and of the tracepoints' texts."""

from __future__ import annotations

import itertools
from typing import Final

from harness.oracle.spaces import BOOL, MASK64, Bits, Space
from harness.oracle.spec import EPTP, Mirror, Side, Spec, State
from kvmodel import mmu_fault, mmu_roots, mmu_sync, mmu_track, mmutrace, tdp_mmu, tdp_mmu_slot, x86
from kvmodel.kvm_host import (
    PAGE_SHIFT,
    PG_LEVEL_1G,
    PG_LEVEL_2M,
    PG_LEVEL_4K,
    PT_PAGE_SIZE_MASK,
    Vcpu,
    kvm_memory_slot,
    kvm_mmu,
    kvm_mmu_page,
    x86_exception,
)
from kvmodel.mmu_spte import shadow_walk
from kvmodel.spte_h import SHADOW_NONPRESENT_VALUE, SPTE_MMU_PRESENT_MASK, is_last_spte
from kvmodel.vmx_h import VMX_EPTP_AD_ENABLE_BIT

RAM_GFNS: Final = 1 << 19  # flow.h
TABLES: Final = (0x1000, 0x12000, 0x13000, 0x21_5000)  # from the top
PRIME: Final = 0x100000001B3

WIDE: Final = 48  # bits: the image's tables have physical addresses of 47


def digest(vcpu: Vcpu, tdp: bool) -> int:
    """All shadow pages in one word, as flow.h has it."""
    h = 0
    for sp in vcpu.pages.values():
        words = [sp.gfn, sp.role, int(sp.nx_huge_page_disallowed)]
        translation = sp.shadowed_translation or {}
        for index, spte in sorted(sp.spt.items()):
            if spte != SHADOW_NONPRESENT_VALUE:
                words += (index, spte)
                if translation.get(index):
                    words.append(translation[index])
        if not tdp:
            words += int(sp.unsync), len(sp.unsync_child_bitmap), sp.write_flooding_count
        for word in words:
            h = (h ^ word) * PRIME & MASK64
    return h


def walked(vcpu: Vcpu, addr: int) -> tuple[int, ...]:
    """SPTEs of the walk for ``addr``, four words from the root."""
    found = [spte for _, _, spte in shadow_walk(vcpu, addr)]
    return (*found, *(0,) * (4 - len(found)))


def _begin(vcpu: Vcpu, host: int, slot: int, guest_mode: bool) -> None:
    vcpu.slot = kvm_memory_slot(host, bool(slot & 2), bool(slot & 1))
    vcpu.ram_gfns = RAM_GFNS
    vcpu.pages, vcpu.hash, vcpu.indirect = {}, {}, {}
    vcpu.next_pa = 1 << PAGE_SHIFT
    vcpu.guest_mode = guest_mode


def _shadow(s: Side) -> Mirror:
    vcpu = s.vcpu
    caught: list[x86_exception] = []
    sync_page = getattr(mmu_sync, "__kvm_sync_page")

    def inject(_: Vcpu, fault: x86_exception) -> None:
        caught.append(fault)

    def synced() -> int:
        gave = 0
        for sp in list(vcpu.pages.values()):
            if sp.level == PG_LEVEL_4K and not sp.direct:
                gave = sync_page(vcpu, sp)
        return gave

    def call(
        addr: int, first: int, second: int, flag: int, host: int, slot: int, sync: int, *entries: int
    ) -> tuple[int, ...]:
        *tables, after, neighbour, later = entries
        s.set_flag(flag)
        _begin(vcpu, host, slot, True)
        caught.clear()
        memory: dict[int, int] = {}
        places = [table + (addr >> 39 - 9 * n & 511) * 8 for n, table in enumerate(TABLES)]
        if neighbour:
            for i in range(8):
                memory[(places[3] & ~63) + i * 8] = neighbour + (i << PAGE_SHIFT)
        memory.update(zip(places, tables, strict=True))
        vcpu.memory = memory
        vcpu.mmu.inject_page_fault = inject
        mmu_roots.mmu_alloc_shadow_roots(vcpu)
        one = mmu_fault.kvm_mmu_page_fault(vcpu, addr, first)
        memory[places[3]] = after
        flushed = synced() if sync else 0
        if sync > 1:
            memory[places[3]] = later
            flushed = synced()
        two = mmu_fault.kvm_mmu_page_fault(vcpu, addr, second)
        fault = caught[-1] if caught else x86_exception()
        return (
            one & MASK64,
            two & MASK64,
            flushed & MASK64,
            len(caught),
            fault.error_code,
            fault.exit_qualification,
            fault.address,
            *(memory[place] for place in places),
            *walked(vcpu, addr),
            len(vcpu.pages),
            digest(vcpu, False),
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
        mmu_roots.kvm_mmu_reload(vcpu)

    def write(places: list[int], table: int, times: int, entry: int) -> None:
        for _ in range(times):
            mmu_track.write_guest_table(vcpu, places[table], entry)

    def call(addr: int, first: int, second: int, flag: int, host: int, *rest: int) -> tuple[int, ...]:
        beside, other, *writes, sync, top, upper, lower, leaf = rest
        s.set_flag(flag)
        _begin(vcpu, host, 0, True)
        caught.clear()
        places = [place + (addr >> 39 - 9 * n & 511) * 8 for n, place in enumerate(TABLES)]
        vcpu.memory = dict(zip(places, (top, upper, lower, leaf), strict=True))
        vcpu.mmu.inject_page_fault = inject
        mmu_roots.kvm_mmu_free_roots(vcpu.mmu)
        vcpu.mmu.pgd = EPTP
        mmu_roots.mmu_alloc_shadow_roots(vcpu)
        if beside:
            vcpu.memory[TABLES[1] + (addr + BESIDE >> 30 & 511) * 8] = beside
            mmu_fault.kvm_mmu_page_fault(vcpu, addr + BESIDE, first)
        one = mmu_fault.kvm_mmu_page_fault(vcpu, addr, first)
        if other:
            switch(True)
            mmu_fault.kvm_mmu_page_fault(vcpu, addr, first)
        write(places, *writes[:3])
        if other:
            switch(False)
        write(places, *writes[3:])
        mmu_roots.kvm_mmu_reload(vcpu)
        if sync:
            mmu_roots.kvm_mmu_sync_roots(vcpu)
        two = mmu_fault.kvm_mmu_page_fault(vcpu, addr, second)
        fault = caught[-1] if caught else x86_exception()
        vcpu.pages = {pa: sp for pa, sp in vcpu.pages.items() if vcpu.hash.get((sp.gfn, sp.role)) is sp}
        return (
            one & MASK64,
            two & MASK64,
            len(caught),
            fault.error_code,
            fault.exit_qualification,
            *walked(vcpu, addr),
            len(vcpu.pages),
            digest(vcpu, False),
        )

    return call


def _tdp(s: Side) -> Mirror:
    vcpu = s.vcpu

    guests_table = kvm_mmu_page(0, 0, s.kvm.roles.make(level=PG_LEVEL_2M), s.kvm.roles)

    def call(
        addr: int, first: int, second: int, flag: int, host: int, slot: int, age: int, tracked: int
    ) -> tuple[int, ...]:
        s.set_flag(flag)
        _begin(vcpu, host, slot, False)
        if tracked and addr >> PAGE_SHIFT < RAM_GFNS:
            vcpu.indirect = {addr >> PAGE_SHIFT: [guests_table]}
        tdp_mmu.kvm_tdp_mmu_alloc_root(vcpu)
        one = mmu_fault.kvm_mmu_page_fault(vcpu, addr, first)
        young = False
        if age:
            *_, (sp, index, spte) = shadow_walk(vcpu, addr)
            if spte & SPTE_MMU_PRESENT_MASK and is_last_spte(spte, sp.level):
                young = tdp_mmu.age_gfn(vcpu, sp, index)
        two = mmu_fault.kvm_mmu_page_fault(vcpu, addr, second)
        logged = max(vcpu.slot.dirty_bitmap, default=-1) + 1
        return one & MASK64, two & MASK64, young, *walked(vcpu, addr), len(vcpu.pages), digest(vcpu, True), logged

    return call


MASKED: Final = 3  # flow.h enum slot_work
SPLIT: Final = 4


def _work(vcpu: Vcpu, work: int, slot: kvm_memory_slot, level: int, gfns: set[int]) -> bool:
    match work:
        case 0:
            return tdp_mmu_slot.kvm_tdp_mmu_age_gfn_range(vcpu, slot)
        case 1:
            return tdp_mmu_slot.kvm_tdp_mmu_wrprot_slot(vcpu, slot, level)
        case 2:
            return tdp_mmu_slot.kvm_tdp_mmu_clear_dirty_slot(vcpu, slot)
        case 3:
            tdp_mmu_slot.kvm_tdp_mmu_clear_dirty_pt_masked(vcpu, slot, gfns, level > PG_LEVEL_4K)
        case 4:
            tdp_mmu_slot.kvm_tdp_mmu_try_split_huge_pages(vcpu, slot, level)
        case _:
            tdp_mmu_slot.kvm_tdp_mmu_zap_collapsible_sptes(vcpu, slot)
    return False


def _slot(s: Side) -> Mirror:
    vcpu = s.vcpu

    def call(addr: int, second: int, *rest: int) -> tuple[int, ...]:
        *codes, host, before, after, work, level, mask, base, pages = rest
        s.set_flag(0)
        _begin(vcpu, host, 2 if before else 0, False)
        tdp_mmu.kvm_tdp_mmu_alloc_root(vcpu)
        mmu_fault.kvm_mmu_page_fault(vcpu, addr, codes[0])
        mmu_fault.kvm_mmu_page_fault(vcpu, second, codes[1])
        slot = kvm_memory_slot(host)
        # A mask's pages are all of the slot, by the kernel's own word.
        slot.base_gfn, slot.npages = (base, pages) if work != MASKED else (0, RAM_GFNS)
        first = addr >> PAGE_SHIFT & ~63
        gfns = {first + n for n in range(64) if mask >> n & 1} if work == MASKED else set[int]()
        gave = _work(vcpu, work, slot, level, gfns)
        vcpu.slot.dirty_track = bool(after)
        last = mmu_fault.kvm_mmu_page_fault(vcpu, addr, codes[2])
        return gave, last & MASK64, *walked(vcpu, addr), len(vcpu.pages), digest(vcpu, True)

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
        found = mmu_roots.fast_pgd_switch(mmu, words[12])
        after = (mmu.root, *(root[1] if root else None for root in mmu.prev_roots))
        return found, *(next((n for n, page in enumerate(pages, 1) if page is root), 0) for root in after)

    return call


def packed(text: str) -> tuple[int, ...]:
    """A text as 24 words, eight characters each."""
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


def _m(*names: str) -> tuple[str, ...]:
    return tuple(f"mmu/mmu.c {n}" for n in names)


def _p(*names: str) -> tuple[str, ...]:
    return tuple(f"mmu/paging_tmpl.h {n}" for n in names)


def _t(*names: str) -> tuple[str, ...]:
    return tuple(f"mmu/tdp_mmu.c {n}" for n in names)


FAULTS: Final = _m(
    "kvm_mmu_page_fault", "handle_mmio_page_fault", "get_mmio_spte", "for_each_shadow_entry_using_root",
    "kvm_faultin_pfn", "kvm_handle_noslot_fault", "page_fault_handle_page_track", "kvm_mmu_hugepage_adjust",
    "__kvm_mmu_max_mapping_level", "disallowed_hugepage_adjust",
)  # fmt: skip
SHARED: Final = ("mmu/mmu_internal.h kvm_mmu_do_page_fault", "mmu/spte.h spte_to_child_sp", "mmu/spte.h spte_to_pfn",
                 "virt/kvm/kvm_main.c kvm_vcpu_gfn_to_memslot", "mmu.h kvm_mmu_max_gfn")  # fmt: skip

ADDRESSES: Final = (0x40403018, 0x7FFF_FFFF_F000, 0x1000, 0xFE2B_D000)
CODES: Final = tuple(range(32))
PERMISSIONS: Final = tuple(p | u for p in range(8) for u in (0, 0x400))
AD: Final = (0, 0x100, 0x300)
# The neighbours of a leaf map pages of their own: two entries of one page would make KVM free a chain of its own.
# Where an entry of L1 points: plain memory, the tables themselves, no memory.
PAGES: Final = (0x4567_8000, 0x4567_8000, 0x6543_2000, 0x21_5000, 0x13000, 0x1_2345_6000)
LARGE: Final = (0x4020_0000, 0x6000_0000, 0x1_4000_0000, 0x20_0000)
HUGE: Final = (0x4000_0000, 0x1_4000_0000, 0)
GOOD: Final = (0x7, 0x407, 0x5, 0x405, 0x3, 0x403, 0x1, 0x401, 0x404, 0x4, 0x400)


def leaves(pages: tuple[int, ...], size: int = 0, permissions: tuple[int, ...] = PERMISSIONS) -> tuple[int, ...]:
    """Leaf entries, write-back."""
    return tuple(page | p | ad | size | 0x30 for page, p, ad in itertools.product(pages, permissions, AD))


def tables(at: int, permissions: tuple[int, ...] = GOOD) -> tuple[int, ...]:
    """Entries that point to the table at ``at``; most permit all."""
    return tuple(at | p | ad for p in (*(0x407, 0x7) * 6, *permissions) for ad in AD)


FAULT: Final = 10  # a whole fault, against a function

SIZE: Final = PT_PAGE_SIZE_MASK
UPPER: Final = (
    tables(TABLES[1]),
    (*tables(TABLES[2]) * 3, *leaves(HUGE, SIZE, GOOD)),
    (*tables(TABLES[3]) * 6, *leaves(LARGE, SIZE, GOOD)),
)
# The leaf: what it was, or what L1 makes of it.
LEAF: Final = (*leaves(PAGES), 0, 0x4567_8000)
CHANGED: Final = (*leaves(PAGES), *tables(TABLES[2]), *tables(TABLES[3]), 0)
# Where the page at 0 is one huge page, the last two of these are its pages with the two lower tables.
WRITTEN: Final = (0x40403018, 0x40403018, 0x40013018, 0x40215018)
BESIDE: Final = 1 << 30  # from an address to the other one
PGDS: Final = (0x101E, 0x105E, 0x201E)
ROOT_ROLES: Final = (4, 4 | 1 << 16)  # two role words: levels, and a bit that tells them apart
HOSTS: Final = tuple(
    State(ad=ad, xo=xo, ux=True, param=True, flag=False, nx=nx, shadow=True, maxphyaddr=WIDE, l1_ad=l1_ad, pml=pml)
    for ad, xo, nx, l1_ad, pml in itertools.product((False, True), repeat=5)
)
# An L2 that writes to L1's tables: KVM emulates it, and takes the tables on its way for tables in use.
ONTO_TABLES: Final = tuple(page | p for page in TABLES for p in (0x433, 0x437))
# A leaf table that two upper tables link, because the walks through both permit the same.
SHARED_LEAF: Final = (0x4567_8437, 0x4567_8033)
SHARING: Final = tuple(state for state in HOSTS if not state.nx and not state.pml and state.xo)
DIRECT: Final = tuple(
    State(ad=ad, xo=xo, ux=ux, param=ux, nx=nx, maxphyaddr=WIDE, huge=huge)
    for ad, xo, ux, nx, huge in itertools.product(*((False, True),) * 4, (1, 2, 3))
)
# What is done to a slot does not ask for the NX workaround. A page of 1 GiB in pieces of 4 KiB is more tables than the
# image has room for.
SLOTS: Final = tuple(state for state in DIRECT if not state.nx)
SMALLER: Final = tuple(state for state in SLOTS if state.huge == PG_LEVEL_2M)
GIANT: Final = tuple(state for state in SLOTS if state.huge == PG_LEVEL_1G)
DIRECT_THROUGH: Final = ("init_kvm_tdp_mmu",)
SLOT: Final = (
    *_t("kvm_tdp_mmu_age_gfn_range", "kvm_tdp_mmu_wrprot_slot", "kvm_tdp_mmu_clear_dirty_slot"),
    *_t("kvm_tdp_mmu_clear_dirty_pt_masked", "kvm_tdp_mmu_try_split_huge_pages", "handle_removed_pt"),
    *_t("kvm_tdp_mmu_zap_collapsible_sptes", "tdp_root_for_each_leaf_pte", "tdp_mmu_need_write_protect"),
    "mmu/tdp_iter.h for_each_tdp_pte_min_level",
)


def slot_space(works: tuple[int, ...], levels: tuple[int, ...]) -> Space:
    """What may be done to a slot, at these levels. Splitting, which makes 512 entries, has few cases, all taken."""
    split = works == (SPLIT,)
    return Space(
        (
            (0x4020_3000,) if split else (0x4020_3000, 0x4020_3000, 0x7FE0_0000),
            (0x4000_0000, 0x4040_0000) if split else (0x4020_4000, 0x4000_0000, 0x4040_0000, 0x4024_3000),
            *(((2, 16), (2,), (2,)) if split else ((0, 2, 2, 16, 3),) * 3),
            (1, 2, 3),
            (0,) if split else BOOL,
            (1,) if split else (0,) * 29 + (1,),  # a huge page that is split costs much
            works,
            levels,
            (1,) if split else Bits(0xFF, base=0x80),
            (0, 0x40200) if split else (0, 0x40000, 0x40200, 0x40203),
            (RAM_GFNS, 0x200) if split else (RAM_GFNS, 0x40000, 0x200, 1),
        )
    )


TRACED: Final = tuple(
    State(ad=True, xo=xo, ux=ux, param=ux, nx=False) for xo, ux in itertools.product((False, True), repeat=2)
)

SPECS: Final = (
    Spec("module_param", ("x86.c module_param",), Space(((0,),)), _param, warns=False),
    Spec(
        "shadow_fault",
        (
            *FAULTS,
            *SHARED,
            *_p("page_fault", "fetch", "pte_prefetch", "prefetch_gpte", "prefetch_invalid_gpte", "sync_spte"),
            *_m("mmu_alloc_shadow_roots", "__kvm_mmu_get_shadow_page", "kvm_mmu_find_shadow_page"),
            *_m("kvm_mmu_alloc_shadow_page", "kvm_mmu_get_child_sp", "__link_shadow_page", "validate_direct_spte"),
            *_m(
                "mmu_set_spte",
                "mmu_spte_update",
                "__set_spte",
                "mmu_spte_set",
                "drop_spte",
                "drop_parent_pte",
                "mark_mmio_spte",
            ),
            *_m("kvm_mmu_page_get_gfn", "kvm_mmu_page_get_access", "kvm_mmu_page_set_translation"),
            *_m("kvm_mmu_page_set_access", "account_shadowed", "mmu_try_to_unsync_pages", "__kvm_sync_page"),
            *_m("kvm_sync_spte", "sync_mmio_spte", "kvm_mmu_invalidate_addr", "__direct_pte_prefetch"),
            *_m("direct_pte_prefetch_many", "kvm_mmu_gfn_disallow_lpage", "gfn_to_memslot_dirty_bitmap"),
            "mmu/page_track.c kvm_gfn_is_write_tracked",
            "x86.c kvm_inject_emulated_page_fault",
        ),
        Space(
            (
                ADDRESSES[:1],
                CODES,
                CODES,
                BOOL,
                (1, 2, 3),
                (0, 0, 0, 1, 2),
                (0, 0, 1, 1, 2),
                *UPPER,
                LEAF,
                LEAF,
                (0, 0x6548_0737, 0x6548_0135, 0x1_2345_0737),
                LEAF,
            )
        ),
        _shadow,
        HOSTS,
        cost=FAULT,
        through=("kvm_init_shadow_ept_mmu",),
    ),
    Spec(
        "shadow_write",
        (
            *_m("kvm_mmu_track_write", "detect_write_flooding", "mmu_page_zap_pte", "__kvm_mmu_prepare_zap_page"),
            *_m(
                "unaccount_shadowed",
                "kvm_unsync_page",
                "mark_unsync",
                "kvm_mmu_mark_parents_unsync",
            ),
            *_m("mmu_unsync_walk", "mmu_sync_children", "mmu_pages_clear_parents", "kvm_sync_page"),
            *_m("kvm_mmu_sync_roots", "kvm_mmu_slot_gfn_write_protect", "spte_write_protect"),
        ),
        Space(
            (
                WRITTEN,
                CODES,
                CODES,
                BOOL,
                (1, 2, 3),
                (0, 0, *tables(TABLES[2]), *leaves(HUGE, SIZE, GOOD)),
                (0,) * 7 + (1,),
                (1, 2, 3, 3, 0),
                (0, 1, 1, 2, 3),
                CHANGED,
                (1, 2, 3, 0),
                (0, 1, 2, 3, 3),
                CHANGED,
                BOOL,
                *UPPER,
                LEAF,
            )
        ),
        _written,
        HOSTS,
        cost=FAULT,
        through=("kvm_init_shadow_ept_mmu",),
    ),
    Spec(
        "shadow_write",
        (*_m("kvm_mmu_find_shadow_page", "kvm_mmu_new_pgd"),),
        Space(
            (
                *((0x40403018,), (0, 2), (0, 2), (0,), (1,)),
                (TABLES[2] | 0x405, TABLES[2] | 0x403),
                (0,),
                *((2, 3), (1,), SHARED_LEAF),
                *((1,), (1, 3), (TABLES[2] | 0x407, TABLES[2] | 0x5)),
                BOOL,
                (TABLES[1] | 0x407,),
                (TABLES[2] | 0x407, TABLES[2] | 0x7),
                (TABLES[3] | 0x405, TABLES[3] | 0x401),
                SHARED_LEAF,
            )
        ),
        _written,
        SHARING,
        cost=FAULT,
        through=("kvm_init_shadow_ept_mmu",),
    ),
    Spec(
        "shadow_write",
        _m("shadow_page_table_clear_flood"),
        Space(
            (
                *((0x40403018,), (0,), (1, 3), (0,), (1,), (0,), (0,)),
                *((0, 1, 2), (1, 2), tuple(table | 0x407 for table in TABLES[1:])),
                *((1, 2), (0, 1), (TABLES[2] | 0x407, TABLES[3] | 0x405)),
                (0,),
                *((table | 0x407,) for table in TABLES[1:]),
                ONTO_TABLES,
            )
        ),
        _written,
        SHARING,
        cost=FAULT,
        through=("kvm_init_shadow_ept_mmu",),
    ),
    Spec(
        "fast_pgd_switch",
        _m("fast_pgd_switch", "is_root_usable"),
        Space(((0, 1), (0, 2), (0, 3), (0, 4), *(PGDS,) * 4, *(ROOT_ROLES,) * 4, PGDS, ROOT_ROLES)),
        _switched,
    ),
    Spec(
        "tdp_fault",
        (
            *FAULTS,
            *SHARED,
            *_m("kvm_tdp_mmu_page_fault", "fast_page_fault"),
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
                BOOL,
                (0, 0, 1),
            )
        ),
        _tdp,
        DIRECT,
        cost=FAULT,
        through=DIRECT_THROUGH,
    ),
    Spec("tdp_slot", SLOT, slot_space((0, 1, 2, MASKED, 5), (1, 2)), _slot, SLOTS, cost=FAULT, through=DIRECT_THROUGH),
    Spec("tdp_slot", SLOT, slot_space((SPLIT,), (1, 2)), _slot, SMALLER, cost=FAULT, through=DIRECT_THROUGH),
    Spec("tdp_slot", SLOT, slot_space((SPLIT,), (2,)), _slot, GIANT, cost=FAULT, through=DIRECT_THROUGH),
    Spec(
        "mmutrace",
        ("mmutrace.h kvm_mmu_set_spte",),
        Space(((0,), (1, 2, 3), Bits((1 << 40) - 1), Bits(), (0,), BOOL)),
        _trace,
        TRACED,
    ),
    Spec(
        "mmutrace",
        ("mmutrace.h mark_mmio_spte",),
        Space(((1,), (0,), Bits((1 << 40) - 1), Bits(), (0,), (0,))),
        _trace,
        TRACED,
    ),
    Spec(
        "mmutrace",
        ("mmutrace.h kvm_mmu_get_page", "mmutrace.h KVM_MMU_PAGE_PRINTK"),
        Space(((2,), Bits((1 << 40) - 1), Bits(0xFFFFFFFF), BOOL, (0,), (0,))),
        _trace,
    ),
    Spec(
        "mmutrace",
        ("mmutrace.h kvm_mmu_pagetable_walk",),
        Space(((3,), Bits(), Bits(0xFFFFFFFF), (0,), (0,), (0,))),
        _trace,
    ),
    Spec(
        "mmutrace",
        ("mmutrace.h kvm_mmu_paging_element", "mmutrace.h kvm_mmu_walker_error"),
        Space(((4, 5), Bits(0xFFFFFFFF), (1, 2, 3, 4, 5), (0,), (0,), (0,))),
        _trace,
    ),
    Spec(
        "mmutrace",
        ("mmutrace.h kvm_mmu_spte_requested",),
        Space(((6,), Bits((1 << 40) - 1), Bits((1 << 40) - 1), (1, 2, 3), (0,), (0,))),
        _trace,
    ),
    Spec(
        "mmutrace",
        ("mmutrace.h kvm_tdp_mmu_spte_changed",),
        Space(((7,), Bits((1 << 40) - 1), (1, 2, 3, 4), Bits(), Bits(), (0,))),
        _trace,
    ),
)
