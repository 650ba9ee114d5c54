"""arch/x86/kvm/mmu/mmu.c: bringing shadow pages back in step with the guest tables they shadow, and zapping them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from kvmodel.include.asm.kvm_host import PAGE_SHIFT, PG_LEVEL_4K, Vcpu
from kvmodel.mirrors import mirrors
from kvmodel.mmu.mmu_internal import kvm_mmu_page
from kvmodel.mmu.mmu_role import kvm_mmu_page_get_gfn, kvm_sync_page_check
from kvmodel.mmu.page_track import kvm_gfn_is_write_tracked
from kvmodel.mmu.spte_h import (
    SHADOW_NONPRESENT_VALUE,
    SPTE_MMU_PRESENT_MASK,
    get_spte,
    is_large_pte,
    is_last_spte,
    is_mmio_spte,
    is_shadow_present_pte,
    spte_to_child_sp,
)
from kvmodel.mmu_h import PT_PAGE_SIZE_MASK, PT_WRITABLE_MASK
from kvmodel.narration import narrate

_Path = tuple[tuple[kvm_mmu_page, int], ...]  # the entries that lead to a page, from the top


@mirrors("mmu/mmu.c kvm_sync_spte")
def kvm_sync_spte(vcpu: Vcpu, sp: kvm_mmu_page, i: int) -> int:
    """The MMU brings SPTE ``int i`` into step: -1 failed, 0 kept, 1 changed."""
    if get_spte(sp, i) == SHADOW_NONPRESENT_VALUE or vcpu.mmu.sync_spte is None:
        return 0
    return vcpu.mmu.sync_spte(vcpu, sp, i)


@mirrors("mmu/mmu.c __kvm_sync_page")
def __kvm_sync_page(vcpu: Vcpu, sp: kvm_mmu_page) -> int:
    """Every entry of ``sp`` is synced: -1 where the role forbids it, else whether to flush."""
    if not kvm_sync_page_check(vcpu, sp):
        return -1
    flush = 0
    for i in sorted(sp.spt):
        ret = kvm_sync_spte(vcpu, sp, i)
        if ret < -1:
            return -1
        flush |= ret
    return flush


@mirrors("mmu/mmu.c kvm_sync_page")
def kvm_sync_page(vcpu: Vcpu, sp: kvm_mmu_page) -> int:
    """``sp`` is synced, or zapped where it cannot be: as ``__kvm_sync_page`` answers."""
    ret = __kvm_sync_page(vcpu, sp)
    if ret < 0:
        kvm_mmu_prepare_zap_page(vcpu, sp)
    narrate(vcpu, "table {:#x}, role.access {:#x}: {}", sp.gfn, sp.access, ret)
    return ret


@mirrors("mmu/mmu.c mmu_unsync_walk")
def mmu_unsync_walk(vcpu: Vcpu, sp: kvm_mmu_page, path: _Path = ()) -> list[tuple[kvm_mmu_page, _Path]]:
    """The unsync pages below ``sp`` are found with their paths; marks that lead to none go."""
    found = []
    for i in sorted(sp.unsync_child_bitmap):
        ent = get_spte(sp, i)
        below: list[tuple[kvm_mmu_page, _Path]] = []
        if is_shadow_present_pte(ent) and not is_large_pte(ent):
            child = spte_to_child_sp(vcpu, ent)
            here = (*path, (sp, i))
            if child.unsync_child_bitmap:
                below = mmu_unsync_walk(vcpu, child, here)
            elif child.unsync:
                below = [(child, here)]
        if not below:
            sp.unsync_child_bitmap.discard(i)
        found += below
    return found


@mirrors("mmu/mmu.c mmu_pages_clear_parents")
def mmu_pages_clear_parents(path: _Path) -> None:
    """The marks go that led to a page that is in step again."""
    for sp, i in reversed(path):
        sp.unsync_child_bitmap.discard(i)
        if sp.unsync_child_bitmap:
            return


@mirrors("mmu/mmu.c mmu_sync_children")
def mmu_sync_children(vcpu: Vcpu, parent: kvm_mmu_page) -> None:
    """Every unsync page below ``parent`` is write-protected again and synced."""
    while found := mmu_unsync_walk(vcpu, parent):
        for sp, _ in found:
            kvm_mmu_slot_gfn_write_protect(vcpu, sp.gfn)
        for sp, path in found:
            sp.unsync = False
            kvm_sync_page(vcpu, sp)
            mmu_pages_clear_parents(path)


@mirrors("mmu/mmu.c mmu_page_zap_pte")
def mmu_page_zap_pte(vcpu: Vcpu, sp: kvm_mmu_page, index: int, zap_children: bool = False) -> None:
    """An entry goes; with ``zap_children`` (an invalid_list is given) tables that nothing links go too."""
    pte = get_spte(sp, index)
    if is_shadow_present_pte(pte):
        if is_last_spte(pte, sp.level):
            drop_spte(vcpu, sp, index)
            return
        child = spte_to_child_sp(vcpu, pte)
        drop_parent_pte(vcpu, sp, index)
        if zap_children and vcpu.kvm.tdp_enabled and child.guest_mode and not child.parent_ptes:
            kvm_mmu_prepare_zap_page(vcpu, child)
    elif is_mmio_spte(vcpu.kvm, pte):
        drop_spte(vcpu, sp, index)


@mirrors("mmu/mmu.c __kvm_mmu_prepare_zap_page")
def kvm_mmu_prepare_zap_page(vcpu: Vcpu, sp: kvm_mmu_page) -> None:
    """``sp`` is emptied, unlinked and no longer found; a root is unloaded."""
    if sp.level > PG_LEVEL_4K:
        while found := mmu_unsync_walk(vcpu, sp):
            for child, path in found:
                kvm_mmu_prepare_zap_page(vcpu, child)
                mmu_pages_clear_parents(path)
    for i in list(sp.spt):
        mmu_page_zap_pte(vcpu, sp, i, True)
    for parent, index in list(sp.parent_ptes):
        drop_parent_pte(vcpu, parent, index)
    del vcpu.hash[sp.gfn, sp.role]
    if not sp.direct:
        unaccount_shadowed(vcpu, sp)
    sp.unsync = False
    # KVM_REQ_MMU_FREE_OBSOLETE_ROOTS, served before the next VM entry
    mmu = vcpu.guest_mmu
    if mmu.root is sp:
        mmu.root = None
    mmu.prev_roots = [None if root is not None and root[1] is sp else root for root in mmu.prev_roots]


@mirrors("mmu/mmu.c kvm_mmu_invalidate_addr")
def kvm_mmu_invalidate_addr(vcpu: Vcpu, addr: int, roots: Sequence[kvm_mmu_page] | None = None) -> None:
    """Unsync entries on the way to ``u64 addr`` are synced.

    ``roots`` None is the current one alone.
    """
    if vcpu.mmu.sync_spte is None:
        return
    for root in roots if roots is not None else (vcpu.mmu.root,):
        for sp, index, _ in shadow_walk(vcpu, addr, root):
            if sp.unsync and kvm_sync_spte(vcpu, sp, index) < 0:
                mmu_page_zap_pte(vcpu, sp, index)
            if not sp.unsync_child_bitmap:
                break


@mirrors("mmu/mmu.c __set_spte")
def __set_spte(vcpu: Vcpu, sp: kvm_mmu_page, index: int, spte: int) -> None:
    """The entry is set, and the change counted, by which it is noticed."""
    sp.spt[index] = spte
    vcpu.version += 1


@mirrors("mmu/mmu.c drop_spte")
def drop_spte(vcpu: Vcpu, sp: kvm_mmu_page, index: int) -> None:
    """The entry becomes not present."""
    __set_spte(vcpu, sp, index, SHADOW_NONPRESENT_VALUE)


@mirrors("mmu/mmu.c drop_parent_pte")
def drop_parent_pte(vcpu: Vcpu, sp: kvm_mmu_page, index: int) -> None:
    """Entry ``index`` of ``sp`` no longer links the table it links."""
    spte_to_child_sp(vcpu, get_spte(sp, index)).parent_ptes.remove((sp, index))
    __set_spte(vcpu, sp, index, SHADOW_NONPRESENT_VALUE)


@mirrors("mmu/mmu.c for_each_shadow_entry_using_root")
def shadow_walk(vcpu: Vcpu, addr: int, root: kvm_mmu_page | None = None) -> Iterator[tuple[kvm_mmu_page, int, int]]:
    """The walk gives (page, index, SPTE) down to the entry that ends it.

    ``root`` None is the current one.
    """
    sp = root or vcpu.mmu.root
    while sp is not None:
        index = addr >> PAGE_SHIFT + (sp.level - 1) * 9 & 511
        spte = get_spte(sp, index)
        yield sp, index, spte
        if not spte & SPTE_MMU_PRESENT_MASK or is_last_spte(spte, sp.level):
            return
        sp = spte_to_child_sp(vcpu, spte)


EPERM: Final = 1
EEXIST: Final = 17


@mirrors("mmu/mmu.c spte_write_protect")
def spte_write_protect(vcpu: Vcpu, sp: kvm_mmu_page, index: int) -> None:
    """An entry that maps a page table loses its write permission."""
    spte = get_spte(sp, index)
    writable = PT_WRITABLE_MASK | vcpu.kvm.shadow_mmu_writable_mask
    if spte & writable:
        __set_spte(vcpu, sp, index, spte & ~writable)


@mirrors("mmu/mmu.c kvm_mmu_slot_gfn_write_protect")
def kvm_mmu_slot_gfn_write_protect(vcpu: Vcpu, gfn: int) -> None:
    """Every shadow entry that maps ``gfn_t gfn`` is write-protected; KVM finds them by its rmaps.

    Only where L2 is given one of the tables that it runs on. L1's own mapping is not followed here
    (``write_guest_table``).
    """
    leaves = [
        (sp, index)
        for sp in vcpu.pages.values()
        for index, spte in sp.spt.items()
        if (sp.level == PG_LEVEL_4K or spte & PT_PAGE_SIZE_MASK) and is_shadow_present_pte(spte)
    ]
    for sp, index in leaves:
        shift = (sp.level - 1) * 9
        if kvm_mmu_page_get_gfn(sp, index) >> shift == gfn >> shift:
            spte_write_protect(vcpu, sp, index)


@mirrors("mmu/mmu.c account_shadowed")
def account_shadowed(vcpu: Vcpu, sp: kvm_mmu_page) -> None:
    """From now on ``sp.gfn`` holds a guest table that is shadowed."""
    vcpu.indirect.setdefault(sp.gfn, []).append(sp)
    kvm_mmu_slot_gfn_write_protect(vcpu, sp.gfn)


@mirrors("mmu/mmu.c unaccount_shadowed")
def unaccount_shadowed(vcpu: Vcpu, sp: kvm_mmu_page) -> None:
    """``sp`` shadows the guest table at ``sp.gfn`` no longer; the last of them lets huge pages be there again."""
    shadowing = vcpu.indirect[sp.gfn]
    shadowing.remove(sp)
    if not shadowing:
        del vcpu.indirect[sp.gfn]


@mirrors("mmu/mmu.c mark_unsync")
def mark_unsync(sp: kvm_mmu_page, index: int) -> None:
    """Below entry ``index`` of ``sp`` a page is out of step; this is told on upwards once."""
    if index in sp.unsync_child_bitmap:
        return
    sp.unsync_child_bitmap.add(index)
    if len(sp.unsync_child_bitmap) == 1:
        kvm_mmu_mark_parents_unsync(sp)


@mirrors("mmu/mmu.c kvm_mmu_mark_parents_unsync")
def kvm_mmu_mark_parents_unsync(sp: kvm_mmu_page) -> None:
    """All entries that link ``sp`` learn that it is out of step."""
    for parent, index in sp.parent_ptes:
        mark_unsync(parent, index)


@mirrors("mmu/mmu.c kvm_unsync_page")
def kvm_unsync_page(vcpu: Vcpu, sp: kvm_mmu_page) -> None:
    """The guest table may be written, and ``sp`` no longer follows it."""
    sp.unsync = True
    kvm_mmu_mark_parents_unsync(sp)
    narrate(vcpu, "the table at gfn {:#x} may be written, its shadow page is unsync", sp.gfn)


@mirrors("mmu/mmu.c mmu_try_to_unsync_pages")
def mmu_try_to_unsync_pages(vcpu: Vcpu, gfn: int, can_unsync: bool, prefetch: bool) -> int:
    """The function answers 0, or a negative errno where the SPTE must be write-protected. ``gfn_t gfn``."""
    pages = vcpu.indirect.get(gfn)
    if not pages:
        return 0
    if kvm_gfn_is_write_tracked(vcpu, gfn):
        return -EPERM
    for sp in pages:
        if not can_unsync:
            return -EPERM
        if sp.unsync:
            continue
        if prefetch:
            return -EEXIST
        kvm_unsync_page(vcpu, sp)
    return 0


@mirrors("mmu/mmu.c detect_write_flooding")
def detect_write_flooding(sp: kvm_mmu_page) -> bool:
    """The third write to an upper table without a walk through it in between is flooding: True."""
    if sp.level == PG_LEVEL_4K:
        return False
    sp.write_flooding_count += 1
    return sp.write_flooding_count >= 3


@mirrors("mmu/mmu.c kvm_mmu_track_write")
def kvm_mmu_track_write(vcpu: Vcpu, gpa: int) -> None:
    """An aligned write of 8 bytes to ``gpa_t gpa`` zaps the entry, or the whole page."""
    gfn, index = gpa >> PAGE_SHIFT, (gpa & 0xFFF) >> 3
    for sp in list(vcpu.indirect.get(gfn, ())):
        if detect_write_flooding(sp):
            narrate(vcpu, "level {}: the shadow page is zapped", sp.level, of=detect_write_flooding)
            kvm_mmu_prepare_zap_page(vcpu, sp)
            continue
        mmu_page_zap_pte(vcpu, sp, index)
        narrate(vcpu, "level {}: shadow entry {} is zapped", sp.level, index)


def write_guest_table(vcpu: Vcpu, gpa: int, entry: int) -> None:
    """L1 writes ``entry``, 64 bits, to a table of its own.

    A shadowed upper table is write-tracked: the write is emulated, and KVM sees it. A last-level table becomes
    writable, its shadow pages unsync, and KVM learns nothing of this write or the next.
    """
    if kvm_gfn_is_write_tracked(vcpu, gpa >> PAGE_SHIFT):
        vcpu.memory[gpa] = entry
        kvm_mmu_track_write(vcpu, gpa)
        return
    mmu_try_to_unsync_pages(vcpu, gpa >> PAGE_SHIFT, True, False)
    vcpu.memory[gpa] = entry
