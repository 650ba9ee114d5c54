"""arch/x86/kvm/mmu/mmu.c and mmu_internal.h: the fault's entry points, and setting up the two MMUs."""

from __future__ import annotations

from kvmodel.include.asm.kvm_host import (
    PAGE_SHIFT,
    PFERR_RSVD_MASK,
    RET_PF_EMULATE,
    RET_PF_FIXED,
    RET_PF_INVALID,
    RET_PF_NAMES,
    RET_PF_SPURIOUS,
    RET_PF_WRITE_PROTECTED,
    Vcpu,
    kvm_page_fault,
)
from kvmodel.include.asm.kvm_role import kvm_cpu_role
from kvmodel.include.asm.vmx_h import vmx_eptp_page_walk_level
from kvmodel.mmu import paging_tmpl
from kvmodel.mmu.mmu import handle_mmio_page_fault, kvm_vcpu_gfn_to_memslot
from kvmodel.mmu.mmu_page import kvm_mmu_new_pgd
from kvmodel.mmu.mmu_role import (
    kvm_calc_cpu_role,
    kvm_calc_shadow_ept_root_page_role,
    kvm_calc_tdp_mmu_root_page_role,
    reset_ept_shadow_zero_bits_mask,
    reset_rsvds_bits_mask_ept,
    reset_tdp_shadow_zero_bits_mask,
    update_permission_bitmask,
)
from kvmodel.mmu.tdp_mmu import kvm_tdp_mmu_alloc_root, kvm_tdp_mmu_page_fault


def init_kvm_tdp_mmu(vcpu: Vcpu, cpu_role: kvm_cpu_role | None = None) -> None:
    """mmu/mmu.c init_kvm_tdp_mmu: KVM's own EPT. ``cpu_role`` None is that of a guest with paging off."""
    kvm = vcpu.kvm
    context = vcpu.root_mmu
    if cpu_role is None:
        cpu_role = kvm_calc_cpu_role(kvm, 0, 0, 0, guest_mode=vcpu.guest_mode)
    context.cpu_role = cpu_role
    context.root_role = kvm_calc_tdp_mmu_root_page_role(vcpu, cpu_role.base)
    context.root_direct = True
    context.page_fault = kvm_tdp_mmu_page_fault
    context.sync_spte = None
    reset_tdp_shadow_zero_bits_mask(kvm, context)
    vcpu.mmu = context
    kvm_tdp_mmu_alloc_root(vcpu)


def kvm_init_shadow_ept_mmu(
    vcpu: Vcpu, execonly: bool, huge_page_level: int, accessed_dirty: bool, new_eptp: int
) -> None:
    """mmu/mmu.c kvm_init_shadow_ept_mmu: MBEC is no argument and reaches no role."""
    context = vcpu.guest_mmu
    level = vmx_eptp_page_walk_level(new_eptp)
    new_mode = kvm_calc_shadow_ept_root_page_role(vcpu.kvm, accessed_dirty, execonly, level)
    if new_mode != context.cpu_role:
        context.cpu_role = new_mode
        context.root_role = new_mode.base
        context.root_direct = False
        context.guest_level = level
        context.ad_disabled = not accessed_dirty
        context.page_fault = paging_tmpl.page_fault
        context.sync_spte = paging_tmpl.sync_spte
        update_permission_bitmask(context, True)
        context.pkru_mask = 0
        reset_rsvds_bits_mask_ept(vcpu, context, execonly, huge_page_level)
        reset_ept_shadow_zero_bits_mask(vcpu.kvm, context, execonly)
    context.pgd = new_eptp
    kvm_mmu_new_pgd(vcpu, context, new_eptp)


def kvm_mmu_do_page_fault(vcpu: Vcpu, cr2_or_gpa: int, err: int, prefetch: bool = False) -> int:
    """mmu/mmu_internal.h kvm_mmu_do_page_fault. RET_PF_* or a negative errno."""
    mmu = vcpu.mmu
    fault = kvm_page_fault(cr2_or_gpa, err, prefetch, mmu.root_direct, vcpu.kvm.is_nx_huge_page_enabled())
    if mmu.root_direct:
        fault.gfn = cr2_or_gpa >> PAGE_SHIFT
        fault.slot = kvm_vcpu_gfn_to_memslot(vcpu, fault.gfn)
    assert mmu.page_fault is not None
    return mmu.page_fault(vcpu, fault)


def kvm_mmu_page_fault(vcpu: Vcpu, cr2_or_gpa: int, error_code: int) -> int:
    """mmu/mmu.c kvm_mmu_page_fault: 1 back to the guest, RET_PF_EMULATE + 100 to the emulator, or -errno.

    The C calls x86_emulate_instruction() in the emulator's case; the caller does so here.
    """
    r = RET_PF_INVALID
    if error_code & PFERR_RSVD_MASK:
        r = handle_mmio_page_fault(vcpu, cr2_or_gpa)
        if r == RET_PF_EMULATE:
            return EMULATE
    if r == RET_PF_INVALID:
        vcpu.count("pf_taken")
        r = kvm_mmu_do_page_fault(vcpu, cr2_or_gpa, error_code)
    if r < 0:
        return r
    if r == RET_PF_WRITE_PROTECTED:
        r = RET_PF_EMULATE
    if r == RET_PF_FIXED:
        vcpu.count("pf_fixed")
    elif r == RET_PF_EMULATE:
        vcpu.count("pf_emulate")
    elif r == RET_PF_SPURIOUS:
        vcpu.count("pf_spurious")
    if vcpu.steps is not None:
        vcpu.step("mmu/mmu.c kvm_mmu_page_fault", f"RET_PF_{RET_PF_NAMES[r]}")
    return EMULATE if r == RET_PF_EMULATE else 1


EMULATE = 100 + RET_PF_EMULATE
