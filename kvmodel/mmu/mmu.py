"""arch/x86/kvm/mmu/mmu.c: page sizes, the pfn behind a fault, fast page faults, MMIO faults, direct prefetch."""

from __future__ import annotations

from kvmodel.include.asm.kvm_host import (
    EINVAL,
    KVM_MEMSLOT_GEN_UPDATE_IN_PROGRESS,
    KVM_PAGES_PER_HPAGE,
    KVM_PFN_NOSLOT,
    PAGE_SHIFT,
    PG_LEVEL_4K,
    PT_PAGE_SIZE_MASK,
    PT_PRESENT_MASK,
    PT_WRITABLE_MASK,
    PTE_PREFETCH_NUM,
    RET_PF_CONTINUE,
    RET_PF_EMULATE,
    RET_PF_FIXED,
    RET_PF_INVALID,
    RET_PF_NAMES,
    RET_PF_RETRY,
    RET_PF_SPURIOUS,
    Kvm,
    Vcpu,
    kvm_memory_slot,
    kvm_mmu_page,
    kvm_page_fault,
)
from kvmodel.mmu.mmu_page import mark_mmio_spte, mmu_set_spte
from kvmodel.mmu.mmu_role import kvm_mmu_page_get_gfn
from kvmodel.mmu.mmu_sync import get_spte, kvm_gfn_is_write_tracked, shadow_walk, spte_to_child_sp
from kvmodel.mmu.spte import mark_page_dirty_in_slot
from kvmodel.mmu.spte_h import (
    ACC_WRITE_MASK,
    SHADOW_NONPRESENT_OR_RSVD_MASK_LEN,
    SHADOW_NONPRESENT_VALUE,
    SPTE_BASE_ADDR_MASK,
    SPTE_MMU_PRESENT_MASK,
    get_mmio_spte_generation,
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
)


def kvm_vcpu_gfn_to_memslot(vcpu: Vcpu, gfn: int) -> kvm_memory_slot | None:
    """virt/kvm/kvm_main.c kvm_vcpu_gfn_to_memslot: L1's RAM, or None."""
    if gfn < vcpu.ram_gfns:
        return vcpu.slot
    for slot in vcpu.further_slots:
        if slot.base_gfn <= gfn < slot.base_gfn + slot.npages:
            return slot
    return None


def gfn_to_memslot_dirty_bitmap(vcpu: Vcpu, gfn: int, no_dirty_log: bool) -> kvm_memory_slot | None:
    """mmu/mmu.c gfn_to_memslot_dirty_bitmap: None as well where the page's writes are logged."""
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


def lpage_disallowed(vcpu: Vcpu, gfn: int, level: int) -> bool:
    """mmu/mmu.c kvm_mmu_gfn_disallow_lpage: a guest table that is shadowed lies in the page of ``level`` at ``gfn``."""
    shift = (level - 1) * 9
    return any(table >> shift == gfn >> shift for table in vcpu.indirect)


def kvm_mmu_max_mapping_level(vcpu: Vcpu, slot: kvm_memory_slot, gfn: int, max_level: int) -> int:
    """mmu/mmu.c __kvm_mmu_max_mapping_level for memory whose huge pages are aligned alike in guest and host."""
    max_level = min(max_level, vcpu.kvm.max_huge_page_level, slot.host_level)
    while max_level > PG_LEVEL_4K and lpage_disallowed(vcpu, gfn, max_level):
        max_level -= 1
    return max_level


def kvm_mmu_hugepage_adjust(vcpu: Vcpu, fault: kvm_page_fault) -> None:
    """mmu/mmu.c kvm_mmu_hugepage_adjust: fills req_level, goal_level, huge_page_disallowed."""
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


def disallowed_hugepage_adjust(vcpu: Vcpu, fault: kvm_page_fault, spte: int, cur_level: int) -> None:
    """mmu/mmu.c disallowed_hugepage_adjust: a table made for an executable page keeps the page small."""
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


def kvm_mmu_max_gfn(kvm: Kvm) -> int:
    """mmu.h kvm_mmu_max_gfn."""
    bits = kvm.host_maxphyaddr if kvm.tdp_enabled else 52
    return (1 << bits - PAGE_SHIFT) - 1


def kvm_handle_noslot_fault(vcpu: Vcpu, fault: kvm_page_fault) -> int:
    """mmu/mmu.c kvm_handle_noslot_fault: an address without memory is MMIO."""
    fault.slot = None
    fault.pfn = KVM_PFN_NOSLOT
    fault.map_writable = False
    if not vcpu.kvm.enable_mmio_caching:
        return RET_PF_EMULATE
    if fault.gfn > kvm_mmu_max_gfn(vcpu.kvm):
        return RET_PF_EMULATE
    return RET_PF_CONTINUE


def kvm_faultin_pfn(vcpu: Vcpu, fault: kvm_page_fault) -> int:
    """mmu/mmu.c kvm_faultin_pfn, for memory that is there: writable RAM, or no memslot at all."""
    if fault.slot is None:
        return kvm_handle_noslot_fault(vcpu, fault)
    if fault.write and fault.slot.readonly:
        return RET_PF_EMULATE
    fault.pfn = fault.gfn + vcpu.pfn_base
    fault.map_writable = not fault.slot.readonly
    return RET_PF_CONTINUE


def page_fault_handle_page_track(vcpu: Vcpu, fault: kvm_page_fault) -> bool:
    """mmu/mmu.c page_fault_handle_page_track: a write to a shadowed upper-level table."""
    if fault.rsvd or not fault.present or not fault.write:
        return False
    return kvm_gfn_is_write_tracked(vcpu, fault.gfn)


def shadow_page_table_clear_flood(vcpu: Vcpu, addr: int) -> None:
    """mmu/mmu.c shadow_page_table_clear_flood: the tables on the walk for ``addr`` are in use."""
    for sp, _, _ in shadow_walk(vcpu, addr):
        sp.write_flooding_count = 0


# ---- fast page faults (KVM's own EPT only) ----------------------------------------------------------------------


def page_fault_can_be_fast(kvm: Kvm, fault: kvm_page_fault) -> bool:
    """mmu/mmu.c page_fault_can_be_fast."""
    if fault.rsvd:
        return False
    if not fault.present:
        return not kvm_ad_enabled(kvm)
    return fault.write


def is_access_allowed(fault: kvm_page_fault, spte: int, vcpu: Vcpu) -> bool:
    """mmu/mmu.c is_access_allowed; the vcpu argument comes with patch 14."""
    kvm = vcpu.kvm
    if fault.exec:
        if kvm.has(14):
            return is_executable_pte(kvm, spte, not fault.user, vcpu)
        return is_executable_pte(kvm, spte)
    if fault.write:
        return is_writable_pte(spte)
    return spte & PT_PRESENT_MASK != 0


def fast_page_fault(vcpu: Vcpu, fault: kvm_page_fault) -> int:
    """mmu/mmu.c fast_page_fault: RET_PF_INVALID, _FIXED or _SPURIOUS."""
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
    if vcpu.steps is not None:
        by = 14 if kvm.has(14) and vcpu.pt_guest_exec_control else 0
        vcpu.step("mmu/mmu.c fast_page_fault", f"RET_PF_{RET_PF_NAMES[ret]}", by)
    return ret


# ---- MMIO -------------------------------------------------------------------------------------------------------


def get_mmio_spte_gfn(kvm: Kvm, spte: int) -> int:
    """mmu/mmu.c get_mmio_spte_gfn."""
    gpa = spte & kvm.shadow_nonpresent_or_rsvd_lower_gfn_mask
    gpa |= spte >> SHADOW_NONPRESENT_OR_RSVD_MASK_LEN & kvm.shadow_nonpresent_or_rsvd_mask
    return gpa >> PAGE_SHIFT


def get_mmio_spte_access(kvm: Kvm, spte: int) -> int:
    """mmu/mmu.c get_mmio_spte_access."""
    return spte & kvm.shadow_mmio_access_mask


def check_mmio_spte(kvm: Kvm, spte: int) -> bool:
    """mmu/mmu.c check_mmio_spte: whether the entry's generation is the memslots' own."""
    if kvm.generation & KVM_MEMSLOT_GEN_UPDATE_IN_PROGRESS:
        return False
    return kvm.generation & kvm.s.MMIO_SPTE_GEN_MASK == get_mmio_spte_generation(kvm, spte)


def get_mmio_spte(vcpu: Vcpu, addr: int) -> tuple[bool, int]:
    """mmu/mmu.c get_mmio_spte: (an entry on the way has reserved bits set, the entry that ends the walk)."""
    rsvd_check = vcpu.mmu.shadow_zero_check
    reserved = False
    spte = 0
    for sp, _, spte in shadow_walk(vcpu, addr):
        if is_shadow_present_pte(spte):
            reserved |= is_rsvd_spte(rsvd_check, spte, sp.level)
    return reserved, spte


def handle_mmio_page_fault(vcpu: Vcpu, addr: int) -> int:
    """mmu/mmu.c handle_mmio_page_fault: RET_PF_EMULATE, _INVALID, _RETRY, or -EINVAL with a WARN."""
    reserved, spte = get_mmio_spte(vcpu, addr)
    if reserved:
        vcpu.warns.append("mmu/mmu.c handle_mmio_page_fault")
        if vcpu.steps is not None:
            vcpu.step("mmu/mmu.c handle_mmio_page_fault", f"WARN: spte {spte:#x} has reserved bits, KVM_RUN fails")
        return -EINVAL
    if is_mmio_spte(vcpu.kvm, spte):
        if not check_mmio_spte(vcpu.kvm, spte):
            return RET_PF_INVALID
        return RET_PF_EMULATE
    return RET_PF_RETRY


def sync_mmio_spte(vcpu: Vcpu, sp: kvm_mmu_page, index: int, gfn: int, access: int) -> bool:
    """mmu/mmu.c sync_mmio_spte."""
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


def direct_pte_prefetch_many(vcpu: Vcpu, sp: kvm_mmu_page, start: int, end: int) -> int:
    """mmu/mmu.c direct_pte_prefetch_many: SPTEs ``start`` up to ``end``, 0 or -1."""
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


def __direct_pte_prefetch(vcpu: Vcpu, sp: kvm_mmu_page, index: int) -> None:
    """mmu/mmu.c __direct_pte_prefetch: the not-present neighbours among the eight entries around ``index``."""
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
