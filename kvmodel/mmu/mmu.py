"""arch/x86/kvm/mmu/mmu.c: page sizes, the pfn behind a fault, fast page faults, MMIO faults, direct prefetch.

The other parts of the file: ``mmu_role`` (roles, reserved bits, permissions), ``mmu_sync`` (entries and tables kept in
step, zapped), ``mmu_page`` (shadow pages and roots), ``mmu_fault`` (the way in, and setting up the MMUs).
"""

from __future__ import annotations

from kvmodel.include.asm.kvm_host import (
    EINVAL,
    KVM_MEMSLOT_GEN_UPDATE_IN_PROGRESS,
    KVM_PAGES_PER_HPAGE,
    KVM_PFN_NOSLOT,
    PAGE_SHIFT,
    PG_LEVEL_4K,
    PTE_PREFETCH_NUM,
    Kvm,
    Vcpu,
    kvm_memory_slot,
)
from kvmodel.mirrors import mirrors
from kvmodel.mmu.mmu_internal import (
    RET_PF_CONTINUE,
    RET_PF_EMULATE,
    RET_PF_FIXED,
    RET_PF_INVALID,
    RET_PF_NAMES,
    RET_PF_RETRY,
    RET_PF_SPURIOUS,
    kvm_mmu_page,
    kvm_page_fault,
)
from kvmodel.mmu.mmu_page import mark_mmio_spte, mmu_set_spte
from kvmodel.mmu.mmu_role import kvm_mmu_page_get_gfn
from kvmodel.mmu.mmu_sync import shadow_walk
from kvmodel.mmu.page_track import kvm_gfn_is_write_tracked
from kvmodel.mmu.spte_h import (
    ACC_WRITE_MASK,
    SHADOW_NONPRESENT_OR_RSVD_MASK_LEN,
    SHADOW_NONPRESENT_VALUE,
    SPTE_BASE_ADDR_MASK,
    SPTE_MMU_PRESENT_MASK,
    get_mmio_spte_generation,
    get_spte,
    is_access_track_spte,
    is_executable_pte,
    is_last_spte,
    is_mmio_spte,
    is_mmu_writable_spte,
    is_rsvd_spte,
    is_shadow_present_pte,
    is_writable_pte,
    kvm_ad_enabled,
    restore_acc_track_spte,
    spte_to_child_sp,
)
from kvmodel.mmu_h import PT_PAGE_SIZE_MASK, PT_PRESENT_MASK, PT_WRITABLE_MASK, kvm_mmu_max_gfn
from kvmodel.narration import narrate
from kvmodel.virt.kvm_main import kvm_vcpu_gfn_to_memslot, mark_page_dirty_in_slot


@mirrors("mmu/mmu.c gfn_to_memslot_dirty_bitmap")
def gfn_to_memslot_dirty_bitmap(vcpu: Vcpu, gfn: int, no_dirty_log: bool) -> kvm_memory_slot | None:
    """The slot of ``gfn_t gfn`` is given, None as well where its writes are logged and ``no_dirty_log`` is asked."""
    slot = kvm_vcpu_gfn_to_memslot(vcpu, gfn)
    return None if slot is None or (no_dirty_log and slot.dirty_track) else slot


def hardware_entries(vcpu: Vcpu, addr: int) -> tuple[tuple[int, int], ...]:
    """(level, SPTE) of the entries that a CPU using the current root would read for ``addr``."""
    entries = []
    sp = vcpu.mmu.root
    pages = vcpu.pages
    while sp is not None:
        level = sp.level
        spte = sp.spt.get(addr >> 3 + level * 9 & 511, SHADOW_NONPRESENT_VALUE)
        entries.append((level, spte))
        if not spte & SPTE_MMU_PRESENT_MASK or level == PG_LEVEL_4K or spte & PT_PAGE_SIZE_MASK:
            break
        sp = pages[spte & SPTE_BASE_ADDR_MASK]
    return tuple(entries)


# ---- page sizes -------------------------------------------------------------------------------------------------


@mirrors("mmu/mmu.c kvm_mmu_gfn_disallow_lpage")
def lpage_disallowed(vcpu: Vcpu, gfn: int, level: int) -> bool:
    """A guest table that is shadowed in the page of ``int level`` at ``gfn_t gfn`` forbids a huge page there."""
    shift = (level - 1) * 9
    return any(table >> shift == gfn >> shift for table in vcpu.indirect)


@mirrors("mmu/mmu.c __kvm_mmu_max_mapping_level")
def kvm_mmu_max_mapping_level(vcpu: Vcpu, slot: kvm_memory_slot, gfn: int, max_level: int) -> int:
    """The largest level is found for memory whose huge pages are aligned alike in guest and host."""
    max_level = min(max_level, vcpu.kvm.max_huge_page_level, slot.host_level)
    while max_level > PG_LEVEL_4K and lpage_disallowed(vcpu, gfn, max_level):
        max_level -= 1
    return max_level


@mirrors("mmu/mmu.c kvm_mmu_hugepage_adjust")
def kvm_mmu_hugepage_adjust(vcpu: Vcpu, fault: kvm_page_fault) -> None:
    """The function fills req_level, goal_level and huge_page_disallowed of ``fault``."""
    slot = fault.slot
    fault.huge_page_disallowed = fault.exec and fault.nx_huge_page_workaround_enabled
    if fault.max_level == PG_LEVEL_4K:
        return
    if slot is None:
        return
    if slot.dirty_track:
        return
    fault.req_level = kvm_mmu_max_mapping_level(vcpu, slot, fault.gfn, fault.max_level)
    if fault.req_level == PG_LEVEL_4K or fault.huge_page_disallowed:
        return
    fault.goal_level = fault.req_level
    fault.pfn &= ~(KVM_PAGES_PER_HPAGE(fault.goal_level) - 1)


@mirrors("mmu/mmu.c disallowed_hugepage_adjust")
def disallowed_hugepage_adjust(vcpu: Vcpu, fault: kvm_page_fault, spte: int, cur_level: int) -> None:
    """A table made for an executable page keeps the page small: goal_level of ``fault`` goes down by one."""
    if (
        cur_level > PG_LEVEL_4K
        and cur_level == fault.goal_level
        and spte & SPTE_MMU_PRESENT_MASK
        and not spte & PT_PAGE_SIZE_MASK
        and spte_to_child_sp(vcpu, spte).nx_huge_page_disallowed
    ):
        page_mask = KVM_PAGES_PER_HPAGE(cur_level) - KVM_PAGES_PER_HPAGE(cur_level - 1)
        fault.pfn |= fault.gfn & page_mask
        fault.goal_level -= 1


# ---- the pfn ----------------------------------------------------------------------------------------------------


@mirrors("mmu/mmu.c kvm_handle_noslot_fault")
def kvm_handle_noslot_fault(vcpu: Vcpu, fault: kvm_page_fault) -> int:
    """An address without memory is MMIO: RET_PF_CONTINUE, or RET_PF_EMULATE where no entry can say so."""
    fault.slot = None
    fault.pfn = KVM_PFN_NOSLOT
    fault.map_writable = False
    if not vcpu.kvm.enable_mmio_caching:
        return RET_PF_EMULATE
    if fault.gfn > kvm_mmu_max_gfn(vcpu.kvm):
        return RET_PF_EMULATE
    return RET_PF_CONTINUE


@mirrors("mmu/mmu.c kvm_faultin_pfn")
def kvm_faultin_pfn(vcpu: Vcpu, fault: kvm_page_fault) -> int:
    """The function finds the page frame: writable or read-only RAM, or no memslot at all. It answers RET_PF_*."""
    if fault.slot is None:
        return kvm_handle_noslot_fault(vcpu, fault)
    if fault.write and fault.slot.readonly:
        return RET_PF_EMULATE
    fault.pfn = fault.gfn + vcpu.pfn_base
    fault.map_writable = not fault.slot.readonly
    return RET_PF_CONTINUE


@mirrors("mmu/mmu.c page_fault_handle_page_track")
def page_fault_handle_page_track(vcpu: Vcpu, fault: kvm_page_fault) -> bool:
    """A write to a shadowed upper-level table has to be emulated: True."""
    if fault.rsvd or not fault.present or not fault.write:
        return False
    return kvm_gfn_is_write_tracked(vcpu, fault.gfn)


@mirrors("mmu/mmu.c shadow_page_table_clear_flood")
def shadow_page_table_clear_flood(vcpu: Vcpu, addr: int) -> None:
    """The tables on the walk for ``gva_t addr`` are in use, so that their counts of writes begin anew."""
    for sp, _, _ in shadow_walk(vcpu, addr):
        sp.write_flooding_count = 0


# ---- fast page faults (KVM's own EPT only) ----------------------------------------------------------------------


@mirrors("mmu/mmu.c page_fault_can_be_fast")
def page_fault_can_be_fast(kvm: Kvm, fault: kvm_page_fault) -> bool:
    """A fault can be fast where only a bit has to come back: a tracked access, a write."""
    if fault.rsvd:
        return False
    if not fault.present:
        return not kvm_ad_enabled(kvm)
    return fault.write


@mirrors("mmu/mmu.c is_access_allowed", patches=(14,))
def is_access_allowed(fault: kvm_page_fault, spte: int, vcpu: Vcpu) -> bool:
    """The access that faulted is allowed by ``u64 spte`` as it is."""
    if fault.exec:
        return is_executable_pte(spte, not fault.user, vcpu)
    if fault.write:
        return is_writable_pte(spte)
    return spte & PT_PRESENT_MASK != 0


@mirrors("mmu/mmu.c fast_page_fault", patches=(14,))
def fast_page_fault(vcpu: Vcpu, fault: kvm_page_fault) -> int:
    """The fault is mended without the lock: RET_PF_INVALID where it is not, else RET_PF_FIXED or RET_PF_SPURIOUS."""
    kvm = vcpu.kvm
    ret = RET_PF_INVALID
    if not page_fault_can_be_fast(kvm, fault):
        return ret
    *_, (sp, index, spte) = shadow_walk(vcpu, fault.gfn << PAGE_SHIFT)
    if not is_shadow_present_pte(spte) or not is_last_spte(spte, sp.level):
        return ret
    if is_access_allowed(fault, spte, vcpu):
        ret = RET_PF_SPURIOUS
    else:
        new_spte = spte
        if not kvm_ad_enabled(kvm) and is_access_track_spte(kvm, spte):
            new_spte = restore_acc_track_spte(kvm, new_spte)
        if fault.write and is_mmu_writable_spte(kvm, spte):
            new_spte |= PT_WRITABLE_MASK
            if sp.level > PG_LEVEL_4K and fault.slot is not None and fault.slot.dirty_track:
                return ret
        if new_spte == spte or not is_access_allowed(fault, new_spte, vcpu):
            return ret
        sp.spt[index] = new_spte
        vcpu.version += 1
        if is_writable_pte(new_spte) and not is_writable_pte(spte) and fault.slot is not None:
            mark_page_dirty_in_slot(fault.slot, fault.gfn)
        ret = RET_PF_FIXED
    vcpu.count("pf_fast")
    # Measured, patch 14 decides a fetch alone; told as it always was, since causes are found by what is told.
    narrate(vcpu, "RET_PF_{}", RET_PF_NAMES[ret], patch=14 if vcpu.pt_guest_exec_control and kvm.has(14) else 0)
    return ret


# ---- MMIO -------------------------------------------------------------------------------------------------------


@mirrors("mmu/mmu.c get_mmio_spte_gfn")
def get_mmio_spte_gfn(kvm: Kvm, spte: int) -> int:
    """An MMIO entry holds the ``gfn_t``, its high bits moved up: ``u64 spte``."""
    gpa = spte & kvm.shadow_nonpresent_or_rsvd_lower_gfn_mask
    gpa |= spte >> SHADOW_NONPRESENT_OR_RSVD_MASK_LEN & kvm.shadow_nonpresent_or_rsvd_mask
    return gpa >> PAGE_SHIFT


@mirrors("mmu/mmu.c get_mmio_spte_access")
def get_mmio_spte_access(kvm: Kvm, spte: int) -> int:
    """An MMIO entry holds the access, in ACC_* form: ``u64 spte``."""
    return spte & kvm.shadow_mmio_access_mask


@mirrors("mmu/mmu.c check_mmio_spte")
def check_mmio_spte(kvm: Kvm, spte: int) -> bool:
    """An MMIO entry is good while its generation is the memslots' own: ``u64 spte``."""
    if kvm.generation & KVM_MEMSLOT_GEN_UPDATE_IN_PROGRESS:
        return False
    return kvm.generation & kvm.s.MMIO_SPTE_GEN_MASK == get_mmio_spte_generation(kvm, spte)


@mirrors("mmu/mmu.c get_mmio_spte")
def get_mmio_spte(vcpu: Vcpu, addr: int) -> tuple[bool, int]:
    """The walk for ``u64 addr`` gives (an entry on the way has reserved bits set, the entry that ends it)."""
    rsvd_check = vcpu.mmu.shadow_zero_check
    reserved = False
    spte = 0
    for sp, _, spte in shadow_walk(vcpu, addr):
        if is_shadow_present_pte(spte):
            reserved |= is_rsvd_spte(rsvd_check, spte, sp.level)
    return reserved, spte


@mirrors("mmu/mmu.c handle_mmio_page_fault")
def handle_mmio_page_fault(vcpu: Vcpu, addr: int) -> int:
    """The function answers RET_PF_EMULATE, _INVALID, _RETRY, or -EINVAL with a WARN."""
    reserved, spte = get_mmio_spte(vcpu, addr)
    if reserved:
        vcpu.warns.append("mmu/mmu.c handle_mmio_page_fault")
        narrate(vcpu, "WARN: spte {:#x} has reserved bits, KVM_RUN fails", spte)
        return -EINVAL
    if is_mmio_spte(vcpu.kvm, spte):
        if not check_mmio_spte(vcpu.kvm, spte):
            return RET_PF_INVALID
        return RET_PF_EMULATE
    return RET_PF_RETRY


@mirrors("mmu/mmu.c sync_mmio_spte")
def sync_mmio_spte(vcpu: Vcpu, sp: kvm_mmu_page, index: int, gfn: int, access: int) -> bool:
    """An MMIO entry is made anew, or dropped where ``gfn_t gfn`` is another; False where it is no MMIO entry."""
    spte = get_spte(sp, index)
    if not is_mmio_spte(vcpu.kvm, spte):
        return False
    if gfn != get_mmio_spte_gfn(vcpu.kvm, spte):
        sp.spt.pop(index)
        vcpu.version += 1
    else:
        mark_mmio_spte(vcpu, sp, index, gfn, access)
    return True


# ---- prefetch under a direct page -------------------------------------------------------------------------------


@mirrors("mmu/mmu.c direct_pte_prefetch_many")
def direct_pte_prefetch_many(vcpu: Vcpu, sp: kvm_mmu_page, start: int, end: int) -> int:
    """KVM makes SPTEs ``start`` up to ``end``: 0, or -1 where there is no slot."""
    gfn = kvm_mmu_page_get_gfn(sp, start)
    slot = gfn_to_memslot_dirty_bitmap(vcpu, gfn, sp.access & ACC_WRITE_MASK != 0)
    if slot is None:
        return -1
    for index in range(start, end):
        if gfn >= vcpu.ram_gfns:
            break
        mmu_set_spte(vcpu, slot, sp, index, sp.access, gfn, gfn + vcpu.pfn_base, None)
        gfn += 1
    return 0


@mirrors("mmu/mmu.c __direct_pte_prefetch")
def __direct_pte_prefetch(vcpu: Vcpu, sp: kvm_mmu_page, index: int) -> None:
    """KVM makes the not-present neighbours among the eight entries around ``index``."""
    first = index & ~(PTE_PREFETCH_NUM - 1)
    start: int | None = None
    for i in range(first, first + PTE_PREFETCH_NUM):
        if get_spte(sp, i) & SPTE_MMU_PRESENT_MASK or i == index:
            if start is None:
                continue
            if direct_pte_prefetch_many(vcpu, sp, start, i) < 0:
                return
            start = None
        elif start is None:
            start = i
    if start is not None:
        direct_pte_prefetch_many(vcpu, sp, start, first + PTE_PREFETCH_NUM)
