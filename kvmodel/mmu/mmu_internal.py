"""arch/x86/kvm/mmu/mmu_internal.h: a shadow page, a page fault, and what its handlers answer."""

from __future__ import annotations

from typing import Final

from kvmodel.include.asm.kvm_host import (
    KVM_MAX_HUGEPAGE_LEVEL,
    KVM_PAGES_PER_HPAGE,
    PAGE_SHIFT,
    PFERR_FETCH_MASK,
    PFERR_PRESENT_MASK,
    PFERR_RSVD_MASK,
    PFERR_USER_MASK,
    PFERR_WRITE_MASK,
    PG_LEVEL_4K,
    Kvm,
    Vcpu,
    kvm_memory_slot,
)
from kvmodel.include.asm.kvm_host_role import RoleLayout
from kvmodel.mirrors import mirrors
from kvmodel.virt.kvm_main import kvm_vcpu_gfn_to_memslot

# mmu_internal.h: enum of the page fault handlers' answers.
RET_PF_CONTINUE: Final = 0
RET_PF_RETRY: Final = 1
RET_PF_EMULATE: Final = 2
RET_PF_WRITE_PROTECTED: Final = 3
RET_PF_INVALID: Final = 4
RET_PF_FIXED: Final = 5
RET_PF_SPURIOUS: Final = 6
RET_PF_NAMES: Final = ("CONTINUE", "RETRY", "EMULATE", "WRITE_PROTECTED", "INVALID", "FIXED", "SPURIOUS")


class kvm_mmu_page:
    """mmu_internal.h struct kvm_mmu_page: a page of SPTEs.

    ``spt`` holds the SPTEs that were ever set, by index; the others are SHADOW_NONPRESENT_VALUE. ``pa`` is the
    page's host-physical address. The fields of ``role`` that are read often are decoded beside it.
    """

    __slots__ = (
        "access",
        "ad_disabled",
        "direct",
        "gfn",
        "guest_mode",
        "level",
        "nx_huge_page_disallowed",
        "pa",
        "parent_ptes",
        "possible_nx_huge_page",
        "role",
        "shadowed_translation",
        "spt",
        "unsync",
        "unsync_child_bitmap",
        "write_flooding_count",
    )

    def __init__(self, pa: int, gfn: int, role: int, layout: RoleLayout) -> None:
        self.pa = pa
        self.gfn = gfn
        self.role = role
        self.level, self.direct, self.access, self.ad_disabled, self.guest_mode = layout.decoded(role)
        self.spt: dict[int, int] = {}
        # mmu.c kvm_mmu_alloc_shadow_page: index -> (gfn << PAGE_SHIFT) | access
        self.shadowed_translation: dict[int, int] | None = (
            {} if not self.direct and self.level <= KVM_MAX_HUGEPAGE_LEVEL else None
        )
        self.nx_huge_page_disallowed = False
        self.possible_nx_huge_page = False  # on kvm->arch.possible_nx_huge_pages
        self.unsync = False
        self.unsync_child_bitmap: set[int] = set()  # its size is unsync_children
        self.parent_ptes: list[tuple[kvm_mmu_page, int]] = []
        self.write_flooding_count = 0


class kvm_page_fault:
    """mmu_internal.h struct kvm_page_fault."""

    __slots__ = (
        "addr",
        "error_code",
        "exec",
        "gfn",
        "goal_level",
        "huge_page_disallowed",
        "is_tdp",
        "map_writable",
        "max_level",
        "nx_huge_page_workaround_enabled",
        "pfn",
        "prefetch",
        "present",
        "req_level",
        "rsvd",
        "slot",
        "user",
        "write",
    )

    def __init__(self, addr: int, error_code: int, prefetch: bool, is_tdp: bool, nx_workaround: bool) -> None:
        self.addr = addr
        self.error_code = error_code
        self.prefetch = prefetch
        self.exec = bool(error_code & PFERR_FETCH_MASK)
        self.write = bool(error_code & PFERR_WRITE_MASK)
        self.present = bool(error_code & PFERR_PRESENT_MASK)
        self.rsvd = bool(error_code & PFERR_RSVD_MASK)
        self.user = bool(error_code & PFERR_USER_MASK)
        self.is_tdp = is_tdp
        self.nx_huge_page_workaround_enabled = nx_workaround
        self.max_level = KVM_MAX_HUGEPAGE_LEVEL
        self.req_level = PG_LEVEL_4K
        self.goal_level = PG_LEVEL_4K
        self.huge_page_disallowed = False
        self.gfn = 0
        self.slot: kvm_memory_slot | None = None
        self.pfn = 0
        self.map_writable = False


@mirrors("mmu/mmu_internal.h gfn_round_for_level")
def gfn_round_for_level(gfn: int, level: int) -> int:
    """``gfn_t gfn`` is rounded down to a page of ``int level``."""
    return gfn & -KVM_PAGES_PER_HPAGE(level)


@mirrors("mmu/mmu_internal.h is_nx_huge_page_enabled")
def is_nx_huge_page_enabled(kvm: Kvm) -> bool:
    """The workaround is on where the module asks for it and the VM does not opt out."""
    return kvm.nx_huge_pages and not kvm.disable_nx_huge_pages


@mirrors("mmu/mmu_internal.h kvm_mmu_page_ad_need_write_protect")
def kvm_mmu_page_ad_need_write_protect(kvm: Kvm, sp: kvm_mmu_page) -> bool:
    """The page is L2's, and the CPU has PML: its writes are noticed by write protection."""
    return kvm.cpu_dirty_log_size != 0 and sp.guest_mode


@mirrors("mmu/mmu_internal.h kvm_mmu_do_page_fault")
def kvm_mmu_do_page_fault(vcpu: Vcpu, cr2_or_gpa: int, err: int, prefetch: bool = False) -> int:
    """The MMU in use handles the fault: RET_PF_* or a negative errno. ``gpa_t cr2_or_gpa``, ``u64 err``."""
    mmu = vcpu.mmu
    fault = kvm_page_fault(cr2_or_gpa, err, prefetch, mmu.root_direct, is_nx_huge_page_enabled(vcpu.kvm))
    if mmu.root_direct:
        fault.gfn = cr2_or_gpa >> PAGE_SHIFT
        fault.slot = kvm_vcpu_gfn_to_memslot(vcpu, fault.gfn)
    assert mmu.page_fault is not None
    return mmu.page_fault(vcpu, fault)
