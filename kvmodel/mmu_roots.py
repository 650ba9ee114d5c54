"""arch/x86/kvm/mmu/mmu.c: the roots of an MMU, those it had before, and what happens when L1 loads another."""

from __future__ import annotations

from typing import Final

from kvmodel.kvm_host import PAGE_SHIFT, Vcpu, kvm_mmu, kvm_mmu_page
from kvmodel.mmu_sp import kvm_mmu_get_shadow_page
from kvmodel.mmu_sync import mmu_sync_children

KVM_MMU_NUM_PREV_ROOTS: Final = 3


def is_root_usable(root: tuple[int, kvm_mmu_page] | None, pgd: int, role: int) -> bool:
    """mmu/mmu.c is_root_usable for a shadow root: the same pointer, A/D bit included, and the very role word."""
    return root is not None and root[0] == pgd and root[1].role == role


def fast_pgd_switch(mmu: kvm_mmu, new_pgd: int) -> bool:
    """mmu/mmu.c fast_pgd_switch: whether a root is there already; the one in use is kept as the newest before it."""
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


def kvm_mmu_new_pgd(vcpu: Vcpu, mmu: kvm_mmu, new_pgd: int) -> None:
    """mmu/mmu.c kvm_mmu_new_pgd: a root that is found is used as it is, without a sync."""
    if fast_pgd_switch(mmu, new_pgd):
        assert mmu.root is not None
        mmu.root.write_flooding_count = 0
        vcpu.step("mmu/mmu.c kvm_mmu_new_pgd", "the cached root is used again, its children are not synced")


def kvm_mmu_free_roots(mmu: kvm_mmu) -> None:
    """mmu/mmu.c kvm_mmu_free_roots with KVM_MMU_ROOTS_ALL: the pages stay and are found again by gfn and role."""
    mmu.root = None
    mmu.prev_roots = [None] * KVM_MMU_NUM_PREV_ROOTS


def mmu_alloc_shadow_roots(vcpu: Vcpu) -> None:
    """mmu/mmu.c mmu_alloc_shadow_roots: the root page shadows the table that EPTP12 points at."""
    mmu = vcpu.mmu
    mmu.root = kvm_mmu_get_shadow_page(vcpu, mmu.pgd >> PAGE_SHIFT, mmu.root_role)
    mmu.root_pgd = mmu.pgd


def kvm_mmu_sync_roots(vcpu: Vcpu) -> None:
    """mmu/mmu.c kvm_mmu_sync_roots."""
    root = vcpu.mmu.root
    if root is not None and root.unsync_child_bitmap:
        mmu_sync_children(vcpu, root)


def kvm_mmu_reload(vcpu: Vcpu) -> None:
    """mmu.h kvm_mmu_reload and mmu/mmu.c kvm_mmu_load: before a VM entry there is a root; a new one is synced."""
    if vcpu.mmu.root is None:
        mmu_alloc_shadow_roots(vcpu)
        kvm_mmu_sync_roots(vcpu)
