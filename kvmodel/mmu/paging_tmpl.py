"""arch/x86/kvm/mmu/paging_tmpl.h as compiled for PTTYPE_EPT: walking L1's EPT12 and shadowing it. Entries: 64 bits."""

from __future__ import annotations

from typing import Final

from kvmodel.include.asm.kvm_host import (
    ADDRESS_MASK,
    EINVAL,
    PAGE_SHIFT,
    PFERR_FETCH_MASK,
    PFERR_PRESENT_MASK,
    PFERR_RSVD_MASK,
    PFERR_USER_MASK,
    PFERR_WRITE_MASK,
    PG_LEVEL_4K,
    PT64_ROOT_MAX_LEVEL,
    PTE_PREFETCH_NUM,
    X86_EFLAGS_AC,
    Vcpu,
    kvm_mmu,
    x86_exception,
)
from kvmodel.include.asm.vmx import (
    EPT_VIOLATION_ACC_INSTR,
    EPT_VIOLATION_ACC_READ,
    EPT_VIOLATION_ACC_WRITE,
    VMX_EPT_EXECUTABLE_MASK,
    VMX_EPT_READABLE_MASK,
    VMX_EPT_WRITABLE_MASK,
)
from kvmodel.mirrors import mirrors
from kvmodel.mmu.mmu import (
    __direct_pte_prefetch,
    disallowed_hugepage_adjust,
    gfn_to_memslot_dirty_bitmap,
    kvm_faultin_pfn,
    kvm_mmu_hugepage_adjust,
    page_fault_handle_page_track,
    shadow_page_table_clear_flood,
    sync_mmio_spte,
)
from kvmodel.mmu.mmu_internal import (
    RET_PF_CONTINUE,
    RET_PF_RETRY,
    RET_PF_SPURIOUS,
    RET_PF_WRITE_PROTECTED,
    gfn_round_for_level,
    kvm_mmu_page,
    kvm_page_fault,
)
from kvmodel.mmu.mmu_page import (
    kvm_mmu_get_child_sp,
    link_shadow_page,
    mmu_set_spte,
    mmu_spte_update,
    validate_direct_spte,
)
from kvmodel.mmu.mmu_role import kvm_mmu_page_get_access, kvm_mmu_page_get_gfn, kvm_mmu_page_set_access
from kvmodel.mmu.mmu_sync import drop_spte, mmu_sync_children
from kvmodel.mmu.spte import make_spte
from kvmodel.mmu.spte_h import (
    ACC_EXEC_MASK,
    ACC_USER_MASK,
    ACC_WRITE_MASK,
    SHADOW_NONPRESENT_VALUE,
    get_spte,
    is_shadow_present_pte,
    spte_to_child_sp,
    spte_to_pfn,
)
from kvmodel.mmu_h import permission_fault
from kvmodel.narration import narrate, trace
from kvmodel.virt.kvm_main import kvm_vcpu_gfn_to_memslot
from kvmodel.x86 import kvm_inject_emulated_page_fault

PT_GUEST_ACCESSED_SHIFT: Final = 8
PT_GUEST_DIRTY_SHIFT: Final = 9
PT_GUEST_ACCESSED_MASK: Final = 1 << PT_GUEST_ACCESSED_SHIFT
PT_GUEST_DIRTY_MASK: Final = 1 << PT_GUEST_DIRTY_SHIFT
_PAST: Final = "the 8-bit row has no bit for this access: no fault"


class guest_walker:
    """mmu/paging_tmpl.h struct guest_walker; arrays are indexed by level - 1."""

    __slots__ = ("fault", "gfn", "level", "max_level", "pt_access", "pte_access", "pte_gpa", "ptes", "table_gfn")

    def __init__(self) -> None:
        self.level = 0
        self.max_level = 0
        self.table_gfn = [0] * PT64_ROOT_MAX_LEVEL
        self.ptes = [0] * PT64_ROOT_MAX_LEVEL
        self.pte_gpa = [0] * PT64_ROOT_MAX_LEVEL
        self.pt_access = [0] * PT64_ROOT_MAX_LEVEL
        self.pte_access = 0
        self.gfn = 0
        self.fault = x86_exception()


@mirrors("mmu/paging_tmpl.h PT_HAVE_ACCESSED_DIRTY")
def PT_HAVE_ACCESSED_DIRTY(mmu: kvm_mmu) -> bool:
    """The guest's tables have accessed and dirty flags: True."""
    return not mmu.ad_disabled


@mirrors("mmu/paging_tmpl.h gpte_to_gfn_lvl")
def gpte_to_gfn_lvl(gpte: int, lvl: int) -> int:
    """An entry of ``int lvl`` maps this ``gfn_t``."""
    return (gpte & ADDRESS_MASK & ~((1 << PAGE_SHIFT + (lvl - 1) * 9) - 1)) >> PAGE_SHIFT


@mirrors("mmu/paging_tmpl.h protect_clean_gpte")
def protect_clean_gpte(mmu: kvm_mmu, access: int, gpte: int) -> int:
    """The access loses WRITE where ``u64 gpte`` is clean."""
    if not PT_HAVE_ACCESSED_DIRTY(mmu):
        return access
    return access & (~ACC_WRITE_MASK | gpte >> PT_GUEST_DIRTY_SHIFT - 1 & ACC_WRITE_MASK)


@mirrors("mmu/paging_tmpl.h is_present_gpte")
def is_present_gpte(pte: int) -> bool:
    """An entry is present by bits 2:0 only, at every level: ``unsigned long pte``."""
    return pte & 7 != 0


@mirrors("mmu/paging_tmpl.h is_bad_mt_xwr")
def is_bad_mt_xwr(mmu: kvm_mmu, gpte: int) -> bool:
    """Memory type and permissions of ``u64 gpte`` make a pattern that EPT forbids: True."""
    return mmu.guest_rsvd_check.bad_mt_xwr >> (gpte & 0x3F) & 1 != 0


@mirrors("mmu/paging_tmpl.h is_rsvd_bits_set")
def is_rsvd_bits_set(mmu: kvm_mmu, gpte: int, level: int) -> bool:
    """``u64 gpte`` has a reserved bit set or a forbidden pattern: True."""
    check = mmu.guest_rsvd_check
    return gpte & check.rsvd_bits_mask[gpte >> 7 & 1][level - 1] != 0 or check.bad_mt_xwr >> (gpte & 0x3F) & 1 != 0


@mirrors("mmu/paging_tmpl.h prefetch_invalid_gpte")
def prefetch_invalid_gpte(vcpu: Vcpu, sp: kvm_mmu_page, index: int, gpte: int) -> bool:
    """``u64 gpte`` is not for prefetching: True, with the SPTE dropped."""
    mmu = vcpu.mmu
    if (
        is_present_gpte(gpte)
        and (not PT_HAVE_ACCESSED_DIRTY(mmu) or gpte & PT_GUEST_ACCESSED_MASK)
        and not is_rsvd_bits_set(mmu, gpte, PG_LEVEL_4K)
    ):
        return False
    if get_spte(sp, index) != SHADOW_NONPRESENT_VALUE:
        drop_spte(vcpu, sp, index)
    return True


@mirrors("mmu/paging_tmpl.h gpte_access", patches=(11,))
def gpte_access(vcpu: Vcpu, gpte: int) -> int:
    """The bits of ``u64 gpte`` become ACC_*; bit 10 does by patch 11, on no condition."""
    access = (
        (ACC_WRITE_MASK if gpte & VMX_EPT_WRITABLE_MASK else 0)
        | (ACC_EXEC_MASK if gpte & VMX_EPT_EXECUTABLE_MASK else 0)
        | (ACC_USER_MASK if gpte & VMX_EPT_READABLE_MASK else 0)
    )
    kvm = vcpu.kvm
    if kvm.has(11) and gpte & kvm.h.VMX_EPT_USER_EXECUTABLE_MASK:
        access |= kvm.s.ACC_USER_EXEC_MASK
    return access


@mirrors("mmu/paging_tmpl.h update_accessed_dirty_bits")
def update_accessed_dirty_bits(vcpu: Vcpu, mmu: kvm_mmu, walker: guest_walker, addr: int, write_fault: int) -> int:
    """KVM sets A on every level and, on a write, D on the last.

    0, -EINVAL where L1's page-modification log is full, or 1 where an entry is no longer what was read: two levels of
    L1's tables are one entry, which got its flag by the upper one.
    """
    if not PT_HAVE_ACCESSED_DIRTY(mmu):
        return 0
    for level in range(walker.max_level, walker.level - 1, -1):
        pte = orig_pte = walker.ptes[level - 1]
        if not pte & PT_GUEST_ACCESSED_MASK:
            trace(vcpu, "kvm_mmu_set_accessed_bit", walker.pte_gpa[level - 1])
            pte |= PT_GUEST_ACCESSED_MASK
        if level == walker.level and write_fault and not orig_pte & PT_GUEST_DIRTY_MASK:
            trace(vcpu, "kvm_mmu_set_dirty_bit", walker.pte_gpa[level - 1])
            if vcpu.write_log_dirty and vcpu.write_log_dirty(vcpu, addr):
                return -EINVAL
            pte |= PT_GUEST_DIRTY_MASK
        if pte == orig_pte or walker.table_gfn[level - 1] in vcpu.unwritable:
            continue
        if vcpu.memory[walker.pte_gpa[level - 1]] != orig_pte:
            return 1
        vcpu.count("mark_page_dirty")
        vcpu.memory[walker.pte_gpa[level - 1]] = pte
        vcpu.version += 1
        walker.ptes[level - 1] = pte
    return 0


@mirrors("mmu/paging_tmpl.h is_last_gpte")
def is_last_gpte(level: int, gpte: int) -> bool:
    """Bit 7, at any level, or level 1 ends the walk: ``u64 gpte``."""
    return ((gpte & 0xFFFF_FFFF) | (level - PG_LEVEL_4K - 1) & 0xFFFF_FFFF) & 0x80 != 0


@mirrors("mmu/paging_tmpl.h walk_addr_generic", patches=(2, 11))
def walk_addr_generic(walker: guest_walker, vcpu: Vcpu, mmu: kvm_mmu, addr: int, access: int) -> bool:
    """KVM walks EPT12: False, with ``walker.fault`` filled, where it forbids the access.

    ``addr`` is L2's guest-physical address, ``access`` the 64-bit error code.
    """
    trace(vcpu, "kvm_mmu_pagetable_walk", addr, access & 0xFFFF_FFFF)
    while (allowed := retry_walk(walker, vcpu, mmu, addr, access)) is None:
        narrate(vcpu, "an entry changed under the walk, which begins anew", of=update_accessed_dirty_bits)
    return allowed


@mirrors("mmu/paging_tmpl.h walk_addr_generic", patches=(2, 11))
def retry_walk(walker: guest_walker, vcpu: Vcpu, mmu: kvm_mmu, addr: int, access: int) -> bool | None:
    """The walk itself, from the label of this name on: as ``walk_addr_generic``, or None to begin anew."""
    kvm = vcpu.kvm
    write_fault = access & PFERR_WRITE_MASK
    user_fault = access & PFERR_USER_MASK
    fetch_fault = access & PFERR_FETCH_MASK
    errcode = 0
    rows = mmu.guest_rsvd_check.rsvd_bits_mask
    bad_mt_xwr = mmu.guest_rsvd_check.bad_mt_xwr
    memory = vcpu.memory
    level = walker.max_level = mmu.guest_level
    pte = mmu.pgd
    have_ad = not mmu.ad_disabled
    pte_access = ~0

    while True:
        pt_access = pte_access
        table_gfn = (pte & ADDRESS_MASK) >> PAGE_SHIFT
        pte_gpa = (pte & ADDRESS_MASK) + (addr >> PAGE_SHIFT + (level - 1) * 9 & 511) * 8
        walker.table_gfn[level - 1] = table_gfn
        walker.pte_gpa[level - 1] = pte_gpa
        if table_gfn >= vcpu.ram_gfns or table_gfn in vcpu.invisible:
            break  # no memslot: reported like a not-present entry
        pte = memory.get(pte_gpa, 0)
        trace(vcpu, "kvm_mmu_paging_element", pte, level)
        pte_access = pt_access & pte
        narrate(vcpu, "EPT12 level {}: entry {:#x}", level, pte)
        if not pte & 7:
            narrate(vcpu, "bits 2:0 are clear: not present", of=is_present_gpte)
            break
        if pte & rows[pte >> 7 & 1][level - 1] or bad_mt_xwr >> (pte & 0x3F) & 1:
            errcode = PFERR_RSVD_MASK | PFERR_PRESENT_MASK
            narrate(vcpu, "misconfigured", of=is_rsvd_bits_set)
            break
        walker.ptes[level - 1] = pte
        walker.pt_access[level - 1] = gpte_access(vcpu, pt_access)
        if level > PG_LEVEL_4K and not pte & 0x80:
            level -= 1
            continue

        # the entry maps a page
        walker.level = level
        accessed_dirty = pte_access & PT_GUEST_ACCESSED_MASK if have_ad else 0
        walker.pte_access = gpte_access(vcpu, pte_access)
        narrate(vcpu, "all levels together: access {:#x}", walker.pte_access, of=gpte_access, by=walker.pte_access > 7)
        errcode = permission_fault(mmu, walker.pte_access, access, X86_EFLAGS_AC if vcpu.flags_ac else 0)
        narrate(
            vcpu,
            "fault" if errcode else _PAST if walker.pte_access > 7 else "no fault",
            of=permission_fault,
            by=walker.pte_access > 7,
        )
        if errcode:
            break
        gfn = gpte_to_gfn_lvl(pte, level)
        walker.gfn = gfn + ((addr & ADDRESS_MASK & ((1 << PAGE_SHIFT + (level - 1) * 9) - 1)) >> PAGE_SHIFT)
        if not write_fault:
            walker.pte_access = protect_clean_gpte(mmu, walker.pte_access, pte)
        else:
            accessed_dirty &= pte >> PT_GUEST_DIRTY_SHIFT - PT_GUEST_ACCESSED_SHIFT
        if not accessed_dirty and (ret := update_accessed_dirty_bits(vcpu, mmu, walker, addr, write_fault)):
            if ret > 0:
                return None
            break
        return True

    walker.level = level
    errcode |= write_fault | user_fault
    if fetch_fault and (mmu.efer_nx or mmu.cr4_smep):
        errcode |= PFERR_FETCH_MASK
    fault = walker.fault
    fault.error_code = errcode
    if not errcode & PFERR_RSVD_MASK:
        q = 0
        if write_fault:
            q |= EPT_VIOLATION_ACC_WRITE
        if user_fault:
            q |= EPT_VIOLATION_ACC_READ
        if fetch_fault:
            q |= EPT_VIOLATION_ACC_INSTR
        h = kvm.h
        if kvm.has(11):
            q |= h.EPT_VIOLATION_READ_TO_PROT(pte_access)
            q |= h.EPT_VIOLATION_WRITE_TO_PROT(pte_access)
            q |= h.EPT_VIOLATION_EXEC_TO_PROT(pte_access)
            if vcpu.pt_guest_exec_control:
                q |= h.EPT_VIOLATION_USER_EXEC_TO_PROT(pte_access)
        elif kvm.has(2):
            q |= h.EPT_VIOLATION_RWX_TO_PROT(pte_access)
        else:
            q |= (pte_access & h.VMX_EPT_RWX_MASK) << h.EPT_VIOLATION_RWX_SHIFT
        fault.exit_qualification = q
        narrate(vcpu, "qualification {:#x} from the access and the entries", q, by=True)
    fault.address = addr
    fault.nested_page_fault = True
    trace(vcpu, "kvm_mmu_walker_error", errcode)
    return False


@mirrors("mmu/paging_tmpl.h gva_to_gpa")
def gva_to_gpa(vcpu: Vcpu, mmu: kvm_mmu, addr: int, access: int, exception: x86_exception) -> int | None:
    """L2's ``gpa_t addr`` becomes L1's guest-physical address; None with ``exception`` filled."""
    walker = guest_walker()
    if walk_addr_generic(walker, vcpu, mmu, addr, access):
        return walker.gfn << PAGE_SHIFT | addr & (1 << PAGE_SHIFT) - 1
    fault = walker.fault
    exception.error_code, exception.exit_qualification = fault.error_code, fault.exit_qualification
    exception.address = fault.address
    return None


@mirrors("mmu/paging_tmpl.h prefetch_gpte")
def prefetch_gpte(vcpu: Vcpu, sp: kvm_mmu_page, index: int, gpte: int) -> bool:
    """KVM makes an SPTE of ``u64 gpte`` (True), or leaves it."""
    if prefetch_invalid_gpte(vcpu, sp, index, gpte):
        return False
    gfn = gpte_to_gfn_lvl(gpte, PG_LEVEL_4K)
    pte_access = protect_clean_gpte(vcpu.mmu, sp.access & gpte_access(vcpu, gpte), gpte)
    slot = gfn_to_memslot_dirty_bitmap(vcpu, gfn, pte_access & ACC_WRITE_MASK != 0)
    if slot is None:
        return False
    mmu_set_spte(vcpu, slot, sp, index, pte_access, gfn, gfn + vcpu.pfn_base, None)
    return True


@mirrors("mmu/paging_tmpl.h pte_prefetch")
def pte_prefetch(vcpu: Vcpu, gw: guest_walker, sp: kvm_mmu_page, index: int) -> None:
    """KVM looks at the neighbours among the eight entries around ``index``."""
    if sp.level > PG_LEVEL_4K:
        return
    if sp.direct:
        __direct_pte_prefetch(vcpu, sp, index)
        return
    first = index & ~(PTE_PREFETCH_NUM - 1)
    base_gpa = gw.pte_gpa[0] & ~(PTE_PREFETCH_NUM * 8 - 1)
    for i in range(PTE_PREFETCH_NUM):
        if first + i == index or is_shadow_present_pte(get_spte(sp, first + i)):
            continue
        if not prefetch_gpte(vcpu, sp, first + i, vcpu.memory.get(base_gpa + i * 8, 0)):
            break


@mirrors("mmu/paging_tmpl.h gpte_changed")
def gpte_changed(vcpu: Vcpu, gw: guest_walker, level: int) -> bool:
    """The entry that the walk read at ``int level`` is another now: True."""
    return vcpu.memory.get(gw.pte_gpa[level - 1], 0) != gw.ptes[level - 1]


@mirrors("mmu/paging_tmpl.h fetch")
def fetch(vcpu: Vcpu, fault: kvm_page_fault, gw: guest_walker) -> int:
    """KVM makes shadow tables down to the guest's leaf, direct ones below it, then the SPTE."""
    direct_access = gw.pte_access
    sp = vcpu.mmu.root
    assert sp is not None
    addr = fault.addr
    if gpte_changed(vcpu, gw, sp.level):
        return RET_PF_RETRY
    while True:
        sp.write_flooding_count = 0
        if sp.level == gw.level:
            break
        index = addr >> PAGE_SHIFT + (sp.level - 1) * 9 & 511
        table_gfn = gw.table_gfn[sp.level - 2]
        child = kvm_mmu_get_child_sp(vcpu, sp, index, table_gfn, False, gw.pt_access[sp.level - 2])
        if child is not None and child.unsync_child_bitmap:
            mmu_sync_children(vcpu, child)
        if gpte_changed(vcpu, gw, sp.level - 1):
            return RET_PF_RETRY
        if child is not None:
            link_shadow_page(vcpu, sp, index, child)
        else:
            child = spte_to_child_sp(vcpu, sp.spt[index])
        sp = child

    kvm_mmu_hugepage_adjust(vcpu, fault)
    trace(vcpu, "kvm_mmu_spte_requested", fault.gfn, fault.pfn, fault.goal_level)

    while True:
        index = addr >> PAGE_SHIFT + (sp.level - 1) * 9 & 511
        if fault.nx_huge_page_workaround_enabled:
            disallowed_hugepage_adjust(vcpu, fault, get_spte(sp, index), sp.level)
        base_gfn = gfn_round_for_level(fault.gfn, sp.level)
        if sp.level == fault.goal_level:
            break
        validate_direct_spte(vcpu, sp, index, direct_access)
        child = kvm_mmu_get_child_sp(vcpu, sp, index, base_gfn, True, direct_access)
        if child is None:
            sp = spte_to_child_sp(vcpu, sp.spt[index])
            continue
        link_shadow_page(vcpu, sp, index, child)
        if fault.huge_page_disallowed:
            child.nx_huge_page_disallowed = True
        sp = child

    ret = mmu_set_spte(vcpu, fault.slot, sp, index, gw.pte_access, base_gfn, fault.pfn, fault)
    if ret == RET_PF_SPURIOUS:
        return ret
    pte_prefetch(vcpu, gw, sp, index)
    return ret


@mirrors("mmu/paging_tmpl.h page_fault", patches=(15,))
def page_fault(vcpu: Vcpu, fault: kvm_page_fault) -> int:
    """KVM walks EPT12, injects into L1 or maps. RET_PF_*."""
    walker = guest_walker()
    if not walk_addr_generic(walker, vcpu, vcpu.mmu, fault.addr, fault.error_code & ~PFERR_RSVD_MASK):
        if not fault.prefetch:
            kvm_inject_emulated_page_fault(vcpu, walker.fault)
        return RET_PF_RETRY

    fault.gfn = walker.gfn
    fault.max_level = walker.level
    fault.slot = kvm_vcpu_gfn_to_memslot(vcpu, fault.gfn)
    if page_fault_handle_page_track(vcpu, fault):
        shadow_page_table_clear_flood(vcpu, fault.addr)
        return RET_PF_WRITE_PROTECTED
    r = kvm_faultin_pfn(vcpu, fault)
    if r != RET_PF_CONTINUE:
        return r

    if (
        fault.write
        and not walker.pte_access & ACC_WRITE_MASK
        and not vcpu.mmu.cr0_wp
        and not fault.user
        and fault.slot is not None
    ):
        walker.pte_access |= ACC_WRITE_MASK
        walker.pte_access &= ~ACC_USER_MASK
        if vcpu.mmu.cr4_smep:
            walker.pte_access &= ~ACC_EXEC_MASK
        narrate(vcpu, "a write EPT12 forbids came this far and the role has no CR0.WP: WRITE added, USER (read) taken")
    return fetch(vcpu, fault, walker)


@mirrors("mmu/paging_tmpl.h sync_spte")
def sync_spte(vcpu: Vcpu, sp: kvm_mmu_page, i: int) -> int:
    """SPTE ``int i`` of a level-1 shadow page is held against the guest's entry: 0 kept, 1 changed (flush)."""
    kvm = vcpu.kvm
    gpte = vcpu.memory.get((sp.gfn << PAGE_SHIFT) + i * 8, 0)
    if prefetch_invalid_gpte(vcpu, sp, i, gpte):
        return 1
    gfn = gpte_to_gfn_lvl(gpte, PG_LEVEL_4K)
    pte_access = protect_clean_gpte(vcpu.mmu, sp.access & gpte_access(vcpu, gpte), gpte)
    if sync_mmio_spte(vcpu, sp, i, gfn, pte_access):
        return 0
    if pte_access | kvm.shadow_present_mask == SHADOW_NONPRESENT_VALUE or gfn != kvm_mmu_page_get_gfn(sp, i):
        drop_spte(vcpu, sp, i)
        return 1
    if kvm_mmu_page_get_access(kvm, sp, i) == pte_access:
        return 0
    kvm_mmu_page_set_access(vcpu, sp, i, pte_access)
    spte = get_spte(sp, i)
    slot = kvm_vcpu_gfn_to_memslot(vcpu, gfn)
    if slot is None:
        return -EINVAL
    host_writable = spte & kvm.shadow_host_writable_mask != 0
    _, new = make_spte(vcpu, sp, slot, pte_access, gfn, spte_to_pfn(spte), spte, True, False, host_writable)
    return int(mmu_spte_update(vcpu, sp, i, new))
