"""Checks of mmu/spte.c and mmu/spte.h."""

from __future__ import annotations

import itertools
from typing import Final

from harness.oracle.specs.spaces import ACCESS, BOOL, MASK64, Bits, Space
from harness.oracle.specs.spec import Mirror, Side, Spec, State, functions_of
from kvmodel.include.asm.kvm_host import Kvm, kvm_memory_slot
from kvmodel.mmu import spte, spte_h
from kvmodel.mmu.mmu_internal import kvm_mmu_page

PRESENT: Final = 1 << 11
HUGE: Final = 1 << 7
SPTE: Final = Bits()
GFN: Final = Bits((1 << 34) - 1)
ADDRESS: Final = (1 << 52) - (1 << 12)
SMALL: Final = (0, PRESENT, PRESENT | 2)  # what a 4 KiB entry was: none, not writable, writable

# Every mask configuration: EPT with and without A/D bits, execute-only, the user-executable mask, the flag and NX
# huge pages; and without EPT.
MASKS: Final = (
    *(
        State(ad=ad, xo=xo, ux=ux, param=ux, flag=flag, nx=nx)
        for ad, xo, ux, flag, nx in itertools.product((False, True), repeat=5)
    ),
    State(ept=False),
    State(ept=False, nx=True),
    State(maxphyaddr=52),
    State(mmio_caching=False),
    State(l1tf=True, cache_bits=46),
    State(maxphyaddr=39, l1tf=True, cache_bits=44, ux=True),
)

# The same for a nested guest's entries, whose reserved bits follow L1's capabilities, and with PML.
SHADOWS: Final = tuple(
    State(ad=ad, xo=xo, ux=True, param=True, flag=flag, nx=nx, shadow=True, l1_execonly=l1, pml=pml)
    for ad, xo, flag, nx, l1, pml in itertools.product((False, True), repeat=6)
)


def masks(kvm: Kvm) -> tuple[int, ...]:
    """The function gives the masks in the order in which the entries give them."""
    return (
        kvm.shadow_host_writable_mask,
        kvm.shadow_mmu_writable_mask,
        kvm.shadow_nx_mask,
        kvm.shadow_x_mask,
        kvm.shadow_ux_mask,
        kvm.shadow_user_mask,
        kvm.shadow_accessed_mask,
        kvm.shadow_dirty_mask,
        kvm.shadow_mmio_value,
        kvm.shadow_mmio_mask,
        kvm.shadow_mmio_access_mask,
        kvm.shadow_present_mask,
        kvm.shadow_memtype_mask,
        kvm.shadow_me_value,
        kvm.shadow_me_mask,
        kvm.shadow_acc_track_mask,
        kvm.shadow_nonpresent_or_rsvd_mask,
        kvm.shadow_nonpresent_or_rsvd_lower_gfn_mask,
        kvm.enable_mmio_caching,
    )


# Those that kvm_mmu_reset_all_pte_masks() sets itself, of which patch 12 brings one.
RESET: Final = tuple(
    f"shadow_{name}"
    for name in (
        *("host_writable_mask", "mmu_writable_mask", "nx_mask", "x_mask", "ux_mask", "user_mask", "accessed_mask"),
        *("dirty_mask", "present_mask", "memtype_mask", "me_value", "me_mask", "acc_track_mask"),
        *("nonpresent_or_rsvd_mask", "nonpresent_or_rsvd_lower_gfn_mask"),
    )
)


def _reset(s: Side) -> Mirror:
    names = [name for name in RESET if s.level.has(12) or name != "shadow_ux_mask"]

    def call(before: int) -> tuple[int, ...]:
        for name in names if before else ():
            setattr(s.kvm, name, before)
        spte.kvm_mmu_reset_all_pte_masks(s.kvm)
        return masks(s.kvm)

    return call


def _set_ept(s: Side) -> Mirror:
    def call(ad: int, xo: int, ux: int) -> tuple[int, ...]:
        spte.kvm_mmu_set_ept_masks(s.kvm, bool(ad), bool(xo), bool(ux))
        return masks(s.kvm)

    return call


def _set_mmio(s: Side) -> Mirror:
    def call(value: int, mask: int, access: int) -> tuple[int, ...]:
        spte.kvm_mmu_set_mmio_spte_mask(s.kvm, value, mask, access)
        return masks(s.kvm)

    return call


def _set_me(s: Side) -> Mirror:
    def call(value: int, mask: int) -> tuple[int, ...]:
        spte.kvm_mmu_set_me_spte_mask(s.kvm, value, mask)
        result = s.kvm.shadow_me_value, s.kvm.shadow_me_mask
        s.kvm.shadow_me_value = s.kvm.shadow_me_mask = 0
        return result

    return call


def _make_spte(s: Side) -> Mirror:
    kvm, vcpu, layout = s.kvm, s.vcpu, s.kvm.roles
    slot = kvm_memory_slot()
    tracked = [kvm_mmu_page(0, 0, layout.make(level=2), layout)]
    pages = {
        key: kvm_mmu_page(0, 0, layout.make(level=key[0], ad_disabled=key[1], guest_mode=key[2]), layout)
        for key in itertools.product((1, 2, 3), BOOL, BOOL)
    }

    def call(
        level: int,
        ad_disabled: int,
        guest_mode: int,
        pte_access: int,
        gfn: int,
        pfn: int,
        old: int,
        prefetch: int,
        can_unsync: int,
        host_writable: int,
        unsync_fails: int,
        dirty: int,
        mmio: int,
        noncoherent: int,
    ) -> tuple[int, ...]:
        vcpu.indirect = {gfn: tracked} if unsync_fails else {}
        vcpu.mmio_pfns = frozenset((pfn,) if mmio else ())
        kvm.noncoherent_dma = bool(noncoherent)
        slot.dirty_track = bool(dirty)
        vcpu.stat = {}
        wrprot, new = spte.make_spte(
            vcpu,
            pages[level, ad_disabled, guest_mode],
            slot,
            pte_access,
            gfn,
            pfn,
            old,
            bool(prefetch),
            bool(can_unsync),
            bool(host_writable),
        )
        return wrprot, new, vcpu.stat.get("mark_page_dirty", 0)

    return call


def _make_mmio(s: Side) -> Mirror:
    def call(generation: int, gfn: int, access: int) -> tuple[int]:
        s.kvm.generation = generation
        return (spte.make_mmio_spte(s.kvm, gfn, access),)

    return call


def _split(s: Side) -> Mirror:
    def call(huge: int, level: int, access: int, index: int) -> tuple[int]:
        role = s.kvm.roles.make(level=level, access=access)
        return (spte.make_huge_page_split_spte(s.kvm, huge, role, index) & MASK64,)

    return call


def _executable(s: Side) -> Mirror:
    def call(entry: int, kernel: int, flag: int) -> tuple[int]:
        s.set_flag(flag)
        return (spte_h.is_executable_pte(entry, bool(kernel), s.vcpu),)

    return call


def _predicates(s: Side) -> Mirror:
    kvm = s.kvm

    def call(entry: int, level: int) -> tuple[int, ...]:
        return (
            spte_h.is_frozen_spte(entry),
            spte_h.is_mmio_spte(kvm, entry),
            spte_h.is_shadow_present_pte(entry),
            spte_h.is_ept_ve_possible(kvm, entry),
            spte_h.spte_ad_enabled(entry),
            spte_h.spte_ad_need_write_protect(entry),
            spte_h.spte_shadow_accessed_mask(kvm, entry),
            spte_h.spte_shadow_dirty_mask(kvm, entry),
            spte_h.is_access_track_spte(kvm, entry),
            spte_h.is_large_pte(entry),
            spte_h.is_last_spte(entry, level),
            spte_h.is_accessed_spte(kvm, entry),
            spte_h.is_dirty_spte(kvm, entry),
            spte_h.is_writable_pte(entry),
            spte_h.is_mmu_writable_spte(kvm, entry),
            spte.spte_has_volatile_bits(kvm, entry),
        )

    return call


_f: Final = functions_of("mmu/spte.c")
_h: Final = functions_of("mmu/spte.h")
WIDTHS: Final = tuple(State(maxphyaddr=n, mmio_caching=c) for n in range(36, 53) for c in (False, True)) + tuple(
    State(maxphyaddr=w, l1tf=True, cache_bits=c) for w in (36, 39, 46) for c in (36, 44, 46, 47, 52)
)
# All that a mask may have, and parts of it.
MMIO_MASKS: Final = (1 << 63 | ADDRESS | 7, 7, 1 << 63 | 7, ADDRESS | 7)

SPECS: Final = (
    Spec("kvm_mmu_reset_all_pte_masks", _f("kvm_mmu_reset_all_pte_masks"), Space(((0, MASK64),)), _reset, WIDTHS),
    Spec("kvm_mmu_set_ept_masks", _f("kvm_mmu_set_ept_masks"), Space((BOOL, BOOL, BOOL)), _set_ept, WIDTHS),
    Spec(
        "kvm_mmu_set_mmio_spte_mask",
        _f("kvm_mmu_set_mmio_spte_mask"),
        Space((Bits(), Bits(), Bits(0xF))),
        _set_mmio,
        (State(), State(mmio_caching=False), State(maxphyaddr=52), State(ept=False), State(l1tf=True, cache_bits=46)),
    ),
    # One thing wrong with a value, or none: the address bits that are guarded against L1TF or stand where those go to.
    Spec(
        "kvm_mmu_set_mmio_spte_mask",
        _f("kvm_mmu_set_mmio_spte_mask"),
        Space((Bits(1 << 63 | 7 << 45 | 1 << 20 | 7), (*MMIO_MASKS, *(MMIO_MASKS[0] | 1 << n for n in (3, 52))), (0,))),
        _set_mmio,
        (State(), State(mmio_caching=False), State(l1tf=True, cache_bits=46)),
    ),
    Spec(
        "kvm_mmu_set_me_spte_mask",
        _f("kvm_mmu_set_me_spte_mask"),
        Space((Bits(3 << 46), Bits(7 << 46))),
        _set_me,
    ),
    Spec(
        "make_spte",
        (
            *_f("make_spte", "kvm_is_mmio_pfn"),
            "mmu/mmu_internal.h kvm_mmu_page_ad_need_write_protect",
            "mmu/mmu_internal.h is_nx_huge_page_enabled",
            *_h("is_rsvd_spte"),
        ),
        Space(
            (
                (1, 2, 3),
                BOOL,
                BOOL,
                ACCESS,
                GFN,
                GFN,
                (0, PRESENT, PRESENT | 2, PRESENT | HUGE | 2, 2, PRESENT | HUGE),
                BOOL,
                BOOL,
                BOOL,
                BOOL,
                (0,),
                (0, 0, 0, 1),
                BOOL,
            )
        ),
        _make_spte,
        MASKS[:32] + MASKS[34:] + SHADOWS,
    ),
    # Page frames beyond the CPU's address width, which WARN; a WARN costs twenty times what a case costs.
    Spec(
        "make_spte",
        _f("make_spte"),
        Space(((1, 2, 3), BOOL, (0,), ACCESS, (5,), Bits(7 << 33 | 3), (0,), BOOL, (1,), BOOL, (0,), (0,), (0,), (0,))),
        _make_spte,
        MASKS[:2] + MASKS[34:] + SHADOWS[:4],
    ),
    # A slot that is logged, where a huge page WARNs.
    Spec(
        "make_spte",
        _f("make_spte"),
        Space(
            ((1, 2, 3), BOOL, (0,), (1, 3, 7, 15), (5,), (1 << 18,), SMALL, BOOL, BOOL, BOOL, BOOL, (1,), (0,), (0,))
        ),
        _make_spte,
        MASKS[:2] + SHADOWS[:2],
    ),
    # Without EPT, where there are no reserved bits to hold an entry against.
    Spec(
        "make_spte",
        _f("make_spte"),
        Space(((1, 2, 3), (0,), BOOL, ACCESS, (5,), (7,), SMALL, BOOL, BOOL, BOOL, BOOL, (0,), (0,), (0,))),
        _make_spte,
        MASKS[32:34],
        warns=False,
    ),
    Spec(
        "make_nonleaf_spte",
        _f("make_nonleaf_spte"),
        Space((Bits(((1 << 46) - 1) & -4096), BOOL)),
        lambda s: lambda pa, ad: (spte.make_nonleaf_spte(s.kvm, pa, bool(ad)),),
        MASKS,
    ),
    Spec("make_mmio_spte", _f("make_mmio_spte"), Space((Bits(), Bits((1 << 52) - 1), ACCESS)), _make_mmio, MASKS),
    Spec(
        "generation_mmio_spte_mask",
        _f("generation_mmio_spte_mask"),
        Space((Bits((1 << 18) - 1),)),
        lambda s: lambda gen: (spte.generation_mmio_spte_mask(s.kvm, gen),),
    ),
    Spec(
        "get_mmio_spte_generation",
        _h("get_mmio_spte_generation"),
        Space((SPTE,)),
        lambda s: lambda entry: (spte_h.get_mmio_spte_generation(s.kvm, entry),),
    ),
    Spec(
        "make_huge_page_split_spte",
        _f("make_huge_page_split_spte", "make_spte_executable"),
        Space((Bits(base=PRESENT | HUGE), (1, 2), ACCESS, tuple(range(512)))),
        _split,
        MASKS,
        outputs=(0,),
    ),
    # An entry that is not there, or not huge, which WARNs.
    Spec(
        "make_huge_page_split_spte",
        _f("make_huge_page_split_spte"),
        Space((Bits(PRESENT | HUGE | 0x7 | 1 << 30), (1, 2), (0, 7), (0, 1, 511))),
        _split,
        MASKS[:1],
        outputs=(0,),
    ),
    Spec(
        "make_spte_executable",
        _f("make_spte_executable"),
        Space((SPTE,)),
        lambda s: lambda entry: (spte.make_spte_executable(s.kvm, entry),),
        MASKS,
    ),
    Spec(
        "mark_spte_for_access_track",
        (*_f("mark_spte_for_access_track"), *_h("check_spte_writable_invariants")),
        Space((SPTE,)),
        lambda s: lambda entry: (spte.mark_spte_for_access_track(s.kvm, entry),),
        MASKS,
    ),
    Spec(
        "restore_acc_track_spte",
        _h("restore_acc_track_spte"),
        Space((SPTE,)),
        lambda s: lambda entry: (spte_h.restore_acc_track_spte(s.kvm, entry),),
        MASKS,
    ),
    Spec("is_executable_pte", _h("is_executable_pte"), Space((SPTE, BOOL, BOOL)), _executable, MASKS),
    Spec(
        "is_rsvd_spte",
        _h("is_rsvd_spte"),
        Space((SPTE, (1, 2, 3, 4, 5))),
        lambda s: lambda entry, level: (spte_h.is_rsvd_spte(s.vcpu.mmu.shadow_zero_check, entry, level),),
        (State(), State(maxphyaddr=52), State(huge=1), State(huge=2), *SHADOWS[:8]),
    ),
    Spec(
        "spte_predicates",
        (
            *_h("is_frozen_spte", "is_mmio_spte", "is_shadow_present_pte", "is_ept_ve_possible", "spte_ad_enabled"),
            *_h("spte_ad_need_write_protect", "spte_shadow_accessed_mask", "spte_shadow_dirty_mask"),
            *_h("is_access_track_spte", "is_large_pte", "is_last_spte", "is_accessed_spte", "is_dirty_spte"),
            *_h("is_writable_pte", "is_mmu_writable_spte"),
            *_f("spte_has_volatile_bits"),
        ),
        Space((SPTE, (1, 2, 3))),
        _predicates,
        MASKS,
    ),
)
