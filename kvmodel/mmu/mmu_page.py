"""arch/x86/kvm/mmu/mmu.c: shadow pages, their lookup by role, and setting their entries.

Single entries are in ``spte``, syncing and zapping in ``mmu_sync``.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from kvmodel.include.asm.kvm_host import PAGE_SHIFT, PAGE_SIZE, PG_LEVEL_4K, Vcpu, kvm_memory_slot, kvm_mmu
from kvmodel.mirrors import mirrors
from kvmodel.mmu.mmu_internal import (
    RET_PF_EMULATE,
    RET_PF_FIXED,
    RET_PF_NAMES,
    RET_PF_SPURIOUS,
    RET_PF_WRITE_PROTECTED,
    kvm_mmu_page,
    kvm_page_fault,
)
from kvmodel.mmu.mmu_role import kvm_mmu_child_role, kvm_mmu_page_set_access, kvm_mmu_page_set_translation
from kvmodel.mmu.mmu_sync import (
    __set_spte,
    account_shadowed,
    drop_parent_pte,
    drop_spte,
    kvm_mmu_prepare_zap_page,
    kvm_sync_page,
    mark_unsync,
    mmu_sync_children,
)
from kvmodel.mmu.spte import make_mmio_spte, make_nonleaf_spte, make_spte
from kvmodel.mmu.spte_h import (
    SPTE_MMU_PRESENT_MASK,
    check_spte_writable_invariants,
    get_spte,
    is_accessed_spte,
    is_dirty_spte,
    is_mmu_writable_spte,
    is_shadow_present_pte,
    is_writable_pte,
    spte_to_child_sp,
    spte_to_pfn,
)
from kvmodel.mmu_h import PT_PAGE_SIZE_MASK
from kvmodel.narration import narrate, trace


@mirrors("mmu/mmu.c mmu_spte_set")
def mmu_spte_set(vcpu: Vcpu, sp: kvm_mmu_page, index: int, new_spte: int) -> None:
    """KVM sets an entry that was not present, else it WARNs, as where L1 moves a page to MMIO untold."""
    if is_shadow_present_pte(get_spte(sp, index)):
        vcpu.warns.append("mmu/mmu.c mmu_spte_set")
    __set_spte(vcpu, sp, index, new_spte)


@mirrors("mmu/mmu.c kvm_mmu_find_shadow_page")
def kvm_mmu_find_shadow_page(vcpu: Vcpu, gfn: int, role: int) -> kvm_mmu_page | None:
    """KVM looks for the page with this ``gfn_t gfn`` and this very role word; None if there is none.

    One that is unsync is synced, and stays unsync; another's unsync page goes where an upper table is made of its gfn.
    """
    shadowing = vcpu.indirect.get(gfn)
    if shadowing and vcpu.kvm.roles.get(role, "level") > PG_LEVEL_4K:
        for other in [sp for sp in shadowing if sp.unsync]:
            kvm_mmu_prepare_zap_page(vcpu, other)
    sp = vcpu.hash.get((gfn, role))
    if sp is None or sp.direct:
        return sp
    if sp.unsync and kvm_sync_page(vcpu, sp) < 0:
        return None
    sp.write_flooding_count = 0
    return sp


@mirrors("mmu/mmu.c kvm_mmu_alloc_shadow_page")
def kvm_mmu_alloc_shadow_page(vcpu: Vcpu, gfn: int, role: int) -> kvm_mmu_page:
    """KVM makes a page of SPTEs for the table at ``gfn_t gfn`` and the ``u32 role`` word."""
    sp = kvm_mmu_page(vcpu.next_pa, gfn, role, vcpu.kvm.roles)
    vcpu.next_pa += PAGE_SIZE
    vcpu.pages[sp.pa] = sp
    vcpu.hash[gfn, role] = sp
    if not sp.direct:
        account_shadowed(vcpu, sp)
    return sp


@mirrors("mmu/mmu.c __kvm_mmu_get_shadow_page")
def kvm_mmu_get_shadow_page(vcpu: Vcpu, gfn: int, role: int) -> kvm_mmu_page:
    """KVM finds the shadow page of ``gfn_t gfn`` and the ``u32 role`` word, or makes it."""
    sp = kvm_mmu_find_shadow_page(vcpu, gfn, role)
    created = sp is None
    if sp is None:
        sp = kvm_mmu_alloc_shadow_page(vcpu, gfn, role)
    trace(vcpu, "kvm_mmu_get_page", sp.gfn, sp.role, created)
    return sp


@mirrors("mmu/mmu.c kvm_mmu_get_child_sp")
def kvm_mmu_get_child_sp(
    vcpu: Vcpu, sp: kvm_mmu_page, index: int, gfn: int, direct: bool, access: int
) -> kvm_mmu_page | None:
    """KVM gets the table below an entry; None stands for ERR_PTR(-EEXIST): the entry links one already."""
    spte = get_spte(sp, index)
    if spte & SPTE_MMU_PRESENT_MASK and not spte & PT_PAGE_SIZE_MASK:
        return None
    return kvm_mmu_get_shadow_page(vcpu, gfn, kvm_mmu_child_role(vcpu.kvm, sp.role, direct, access))


@mirrors("mmu/mmu.c __link_shadow_page")
def link_shadow_page(vcpu: Vcpu, sp: kvm_mmu_page, index: int, child: kvm_mmu_page) -> None:
    """The entry links ``child``; a huge leaf there goes first."""
    if is_shadow_present_pte(get_spte(sp, index)):
        drop_spte(vcpu, sp, index)
    spte = make_nonleaf_spte(vcpu.kvm, child.pa, child.ad_disabled)
    __set_spte(vcpu, sp, index, spte)
    child.parent_ptes.append((sp, index))
    if child.unsync or child.unsync_child_bitmap:
        mark_unsync(sp, index)
    what = "level {}: links a table of role.access {:#x}, spte {:#x}"
    narrate(vcpu, what, sp.level, child.access, spte, by=vcpu.kvm.shadow_ux_mask)


@mirrors("mmu/mmu.c validate_direct_spte")
def validate_direct_spte(vcpu: Vcpu, sp: kvm_mmu_page, index: int, direct_access: int) -> None:
    """A direct table of another access is unlinked."""
    spte = get_spte(sp, index)
    if spte & SPTE_MMU_PRESENT_MASK and not spte & PT_PAGE_SIZE_MASK:
        if spte_to_child_sp(vcpu, spte).access == direct_access:
            return
        drop_parent_pte(vcpu, sp, index)


@mirrors("mmu/mmu.c mmu_spte_update", "mmu/mmu.c mmu_spte_update_no_track")
def mmu_spte_update(vcpu: Vcpu, sp: kvm_mmu_page, index: int, new_spte: int) -> bool:
    """KVM exchanges a present entry and says whether the TLB needs a flush. ``u64 new_spte``."""
    kvm = vcpu.kvm
    old_spte = get_spte(sp, index)
    if not is_shadow_present_pte(new_spte) or not check_spte_writable_invariants(kvm, new_spte):
        vcpu.warns.append("mmu/mmu.c mmu_spte_update_no_track")
    __set_spte(vcpu, sp, index, new_spte)
    if not is_shadow_present_pte(old_spte):
        return False
    if is_mmu_writable_spte(kvm, old_spte) and not is_writable_pte(new_spte):
        return True
    if is_accessed_spte(kvm, old_spte) and not is_accessed_spte(kvm, new_spte):
        return True
    return is_dirty_spte(kvm, old_spte) and not is_dirty_spte(kvm, new_spte)


@mirrors("mmu/mmu.c mark_mmio_spte")
def mark_mmio_spte(vcpu: Vcpu, sp: kvm_mmu_page, index: int, gfn: int, access: int) -> None:
    """The entry says that ``gfn_t gfn`` is MMIO."""
    spte = make_mmio_spte(vcpu.kvm, gfn, access)
    trace(vcpu, "mark_mmio_spte", sp.pa + index * 8, gfn, spte)
    mmu_spte_set(vcpu, sp, index, spte)


@mirrors("mmu/mmu.c mmu_set_spte", patches=(14,))
def mmu_set_spte(
    vcpu: Vcpu,
    slot: kvm_memory_slot | None,
    sp: kvm_mmu_page,
    index: int,
    pte_access: int,
    gfn: int,
    pfn: int,
    fault: kvm_page_fault | None,
) -> int:
    """The function answers RET_PF_FIXED, _SPURIOUS, _EMULATE or _WRITE_PROTECTED. No fault means a prefetch."""
    level = sp.level
    was_rmapped = False
    ret = RET_PF_FIXED
    host_writable = fault is None or fault.map_writable
    prefetch = fault is None or fault.prefetch
    write_fault = fault is not None and fault.write

    if slot is None:
        vcpu.count("pf_mmio_spte_created")
        mark_mmio_spte(vcpu, sp, index, gfn, pte_access)
        return RET_PF_EMULATE

    old = get_spte(sp, index)
    if old & SPTE_MMU_PRESENT_MASK:
        if level > PG_LEVEL_4K and not old & PT_PAGE_SIZE_MASK:
            drop_parent_pte(vcpu, sp, index)
        elif pfn != spte_to_pfn(old):
            drop_spte(vcpu, sp, index)
        else:
            was_rmapped = True

    old = get_spte(sp, index)
    wrprot, spte = make_spte(vcpu, sp, slot, pte_access, gfn, pfn, old, prefetch, True, host_writable)
    if old == spte:
        ret = RET_PF_SPURIOUS
    else:
        mmu_spte_update(vcpu, sp, index, spte)
        trace(vcpu, "kvm_mmu_set_spte", level, gfn, spte, sp.pa + index * 8)

    if wrprot and write_fault:
        ret = RET_PF_WRITE_PROTECTED

    if not was_rmapped:
        if ret == RET_PF_SPURIOUS:  # pragma: no cover - make_spte() makes only shadow-present entries
            vcpu.warns.append("mmu/mmu.c mmu_set_spte")
        kvm_mmu_page_set_translation(vcpu, sp, index, gfn, pte_access)
    else:
        kvm_mmu_page_set_access(vcpu, sp, index, pte_access)
    narrate(vcpu, "RET_PF_{}", RET_PF_NAMES[ret])
    return ret


KVM_MMU_NUM_PREV_ROOTS: Final = 3


@mirrors("mmu/mmu.c is_root_usable")
def is_root_usable(root: tuple[int, kvm_mmu_page] | None, pgd: int, role: int) -> bool:
    """A shadow root is usable for the same pointer, A/D bit included, and the very role word."""
    return root is not None and root[0] == pgd and root[1].role == role


@mirrors("mmu/mmu.c fast_pgd_switch")
def fast_pgd_switch(mmu: kvm_mmu, new_pgd: int) -> bool:
    """A root may be there already; the one in use is kept as the newest before it. ``gpa_t new_pgd``."""
    prev = mmu.prev_roots
    root = (mmu.root_pgd, mmu.root) if mmu.root is not None else None
    found = False
    if root is not None:
        found = is_root_usable(root, new_pgd, mmu.root_role)
        for i in range(KVM_MMU_NUM_PREV_ROOTS if not found else 0):
            root, prev[i] = prev[i], root
            if found := is_root_usable(root, new_pgd, mmu.root_role):
                break
    else:
        for i in range(KVM_MMU_NUM_PREV_ROOTS):
            if found := is_root_usable(prev[i], new_pgd, mmu.root_role):
                root = prev.pop(i)
                prev.append(None)
                break
    mmu.root_pgd, mmu.root = root if found and root is not None else (0, None)
    return found


@mirrors("mmu/mmu.c kvm_mmu_new_pgd")
def kvm_mmu_new_pgd(vcpu: Vcpu, mmu: kvm_mmu, new_pgd: int) -> None:
    """The MMU takes another pointer; a root that is found is used as it is, without a sync. ``gpa_t new_pgd``."""
    if fast_pgd_switch(mmu, new_pgd):
        assert mmu.root is not None
        mmu.root.write_flooding_count = 0
        narrate(vcpu, "the cached root is used again, its children are not synced")


@mirrors("mmu/mmu.c kvm_mmu_free_roots")
def kvm_mmu_free_roots(mmu: kvm_mmu, pgds: Collection[int] | None = None) -> None:
    """The roots of the pointers ``pgds`` are freed, or all: their pages stay and are found again by gfn and role."""
    if pgds is None or mmu.root_pgd in pgds:
        mmu.root = None
    mmu.prev_roots = [None if root is None or pgds is None or root[0] in pgds else root for root in mmu.prev_roots]


@mirrors("mmu/mmu.c mmu_alloc_shadow_roots")
def mmu_alloc_shadow_roots(vcpu: Vcpu) -> None:
    """The root page shadows the table that EPTP12 points at."""
    mmu = vcpu.mmu
    mmu.root = kvm_mmu_get_shadow_page(vcpu, mmu.pgd >> PAGE_SHIFT, mmu.root_role)
    mmu.root_pgd = mmu.pgd


@mirrors("mmu/mmu.c kvm_mmu_sync_roots")
def kvm_mmu_sync_roots(vcpu: Vcpu) -> None:
    """Pages out of step below the root are brought back into step."""
    root = vcpu.mmu.root
    if root is not None and root.unsync_child_bitmap:
        mmu_sync_children(vcpu, root)


@mirrors("mmu/mmu.c kvm_mmu_load", "mmu.h kvm_mmu_reload")
def kvm_mmu_reload(vcpu: Vcpu) -> None:
    """Before a VM entry there is a root; a new one is synced."""
    if vcpu.mmu.root is None:
        mmu_alloc_shadow_roots(vcpu)
        kvm_mmu_sync_roots(vcpu)
