"""arch/x86/kvm/mmu/spte.h: constants and predicates of shadow page table entries (64 bits each)."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

from kvmodel.bits import BIT, GENMASK, u64
from kvmodel.include.asm.kvm_host import (
    PAGE_SHIFT,
    PG_LEVEL_4K,
    PT_PAGE_SIZE_MASK,
    PT_USER_MASK,
    PT_WRITABLE_MASK,
    Kvm,
    Vcpu,
    rsvd_bits_validate,
)
from kvmodel.include.asm.vmx_h import VMX_EPT_EXECUTABLE_MASK, VMX_EPT_SUPPRESS_VE_BIT

if TYPE_CHECKING:
    from kvmodel.series import Level

SPTE_MMU_PRESENT_MASK: Final = BIT(11)
SPTE_TDP_AD_SHIFT: Final = 52
SPTE_TDP_AD_MASK: Final = 3 << SPTE_TDP_AD_SHIFT
SPTE_TDP_AD_ENABLED: Final = 0 << SPTE_TDP_AD_SHIFT
SPTE_TDP_AD_DISABLED: Final = 1 << SPTE_TDP_AD_SHIFT
SPTE_TDP_AD_WRPROT_ONLY: Final = 2 << SPTE_TDP_AD_SHIFT
SPTE_BASE_ADDR_MASK: Final = GENMASK(51, 12)
ACC_EXEC_MASK: Final = 1
ACC_WRITE_MASK: Final = PT_WRITABLE_MASK
ACC_USER_MASK: Final = PT_USER_MASK
SPTE_EPT_READABLE_MASK: Final = 0x1
SPTE_EPT_EXECUTABLE_MASK: Final = 0x4
SHADOW_ACC_TRACK_SAVED_BITS_MASK: Final = SPTE_EPT_READABLE_MASK | SPTE_EPT_EXECUTABLE_MASK
SHADOW_ACC_TRACK_SAVED_BITS_SHIFT: Final = 54
DEFAULT_SPTE_HOST_WRITABLE: Final = BIT(9)
DEFAULT_SPTE_MMU_WRITABLE: Final = BIT(10)
EPT_SPTE_HOST_WRITABLE: Final = BIT(57)
EPT_SPTE_MMU_WRITABLE: Final = BIT(58)
MMIO_SPTE_GEN_LOW_START: Final = 3
MMIO_SPTE_GEN_HIGH_START: Final = 52
MMIO_SPTE_GEN_HIGH_END: Final = 62
SHADOW_NONPRESENT_VALUE: Final = BIT(63)
SHADOW_NONPRESENT_OR_RSVD_MASK_LEN: Final = 5
FROZEN_SPTE: Final = SHADOW_NONPRESENT_VALUE | 0x5A0


class SpteH:
    """The names of mmu/spte.h that depend on the patches applied."""

    __slots__ = (
        "ACC_ALL",
        "ACC_USER_EXEC_MASK",
        "MMIO_SPTE_GEN_HIGH_MASK",
        "MMIO_SPTE_GEN_HIGH_SHIFT",
        "MMIO_SPTE_GEN_LOW_END",
        "MMIO_SPTE_GEN_LOW_MASK",
        "MMIO_SPTE_GEN_LOW_SHIFT",
        "MMIO_SPTE_GEN_MASK",
        "SPTE_MMIO_ALLOWED_MASK",
    )

    def __init__(self, level: Level) -> None:
        self.ACC_USER_EXEC_MASK = BIT(3) if level.has(9) else 0
        self.ACC_ALL = ACC_EXEC_MASK | ACC_WRITE_MASK | ACC_USER_MASK | self.ACC_USER_EXEC_MASK
        self.MMIO_SPTE_GEN_LOW_END = 9 if level.has(13) else 10
        user_exec = BIT(10) if level.has(13) else 0
        self.SPTE_MMIO_ALLOWED_MASK = BIT(63) | GENMASK(51, 12) | user_exec | GENMASK(2, 0)
        self.MMIO_SPTE_GEN_LOW_MASK = GENMASK(self.MMIO_SPTE_GEN_LOW_END, MMIO_SPTE_GEN_LOW_START)
        self.MMIO_SPTE_GEN_HIGH_MASK = GENMASK(MMIO_SPTE_GEN_HIGH_END, MMIO_SPTE_GEN_HIGH_START)
        low_bits = self.MMIO_SPTE_GEN_LOW_END - MMIO_SPTE_GEN_LOW_START + 1
        high_bits = MMIO_SPTE_GEN_HIGH_END - MMIO_SPTE_GEN_HIGH_START + 1
        self.MMIO_SPTE_GEN_LOW_SHIFT = MMIO_SPTE_GEN_LOW_START
        self.MMIO_SPTE_GEN_HIGH_SHIFT = MMIO_SPTE_GEN_HIGH_START - low_bits
        self.MMIO_SPTE_GEN_MASK = GENMASK(low_bits + high_bits - 1, 0)


@cache
def spte_h(level: Level) -> SpteH:
    """The header at ``level``."""
    return SpteH(level)


def is_frozen_spte(spte: int) -> bool:
    """mmu/spte.h is_frozen_spte."""
    return spte == FROZEN_SPTE


def is_mmio_spte(kvm: Kvm, spte: int) -> bool:
    """mmu/spte.h is_mmio_spte."""
    return spte & kvm.shadow_mmio_mask == kvm.shadow_mmio_value and kvm.enable_mmio_caching


def is_shadow_present_pte(pte: int) -> bool:
    """mmu/spte.h is_shadow_present_pte: KVM's own present bit, 11."""
    return pte & SPTE_MMU_PRESENT_MASK != 0


def is_ept_ve_possible(kvm: Kvm, spte: int) -> bool:
    """mmu/spte.h is_ept_ve_possible: the SPTE could raise #VE; both masks widen with patch 13."""
    return (
        kvm.shadow_present_mask & VMX_EPT_SUPPRESS_VE_BIT != 0
        and not spte & VMX_EPT_SUPPRESS_VE_BIT
        and spte & kvm.h.VMX_EPT_RWX_MASK != kvm.h.VMX_EPT_MISCONFIG_WX_VALUE
    )


def kvm_ad_enabled(kvm: Kvm) -> bool:
    """mmu/spte.h kvm_ad_enabled: KVM's own use of accessed/dirty bits."""
    return kvm.shadow_accessed_mask != 0


def spte_ad_enabled(spte: int) -> bool:
    """mmu/spte.h spte_ad_enabled (for a shadow-present SPTE)."""
    return spte & SPTE_TDP_AD_MASK != SPTE_TDP_AD_DISABLED


def spte_ad_need_write_protect(spte: int) -> bool:
    """mmu/spte.h spte_ad_need_write_protect (for a shadow-present SPTE)."""
    return spte & SPTE_TDP_AD_MASK != SPTE_TDP_AD_ENABLED


def spte_shadow_accessed_mask(kvm: Kvm, spte: int) -> int:
    """mmu/spte.h spte_shadow_accessed_mask."""
    return kvm.shadow_accessed_mask if spte_ad_enabled(spte) else 0


def spte_shadow_dirty_mask(kvm: Kvm, spte: int) -> int:
    """mmu/spte.h spte_shadow_dirty_mask."""
    return kvm.shadow_dirty_mask if spte_ad_enabled(spte) else 0


def is_access_track_spte(kvm: Kvm, spte: int) -> bool:
    """mmu/spte.h is_access_track_spte; the mask holds bit 10 as well from patch 13."""
    return not spte_ad_enabled(spte) and spte & kvm.shadow_acc_track_mask == 0


def is_large_pte(pte: int) -> bool:
    """mmu/spte.h is_large_pte."""
    return pte & PT_PAGE_SIZE_MASK != 0


def is_last_spte(pte: int, level: int) -> bool:
    """mmu/spte.h is_last_spte."""
    return level == PG_LEVEL_4K or pte & PT_PAGE_SIZE_MASK != 0


def is_executable_pte(kvm: Kvm, spte: int, for_kernel_mode: bool = False, vcpu: Vcpu | None = None) -> bool:
    """mmu/spte.h is_executable_pte; patch 14 adds the last two arguments, which the C before it lacks."""
    x_mask = kvm.shadow_x_mask
    if kvm.has(14) and vcpu is not None and vcpu.pt_guest_exec_control:
        x_mask |= kvm.shadow_ux_mask
        if for_kernel_mode:
            x_mask &= ~kvm.h.VMX_EPT_USER_EXECUTABLE_MASK
        else:
            x_mask &= ~VMX_EPT_EXECUTABLE_MASK
    return spte & (x_mask | kvm.shadow_nx_mask) == x_mask


def spte_to_pfn(pte: int) -> int:
    """mmu/spte.h spte_to_pfn."""
    return (pte & SPTE_BASE_ADDR_MASK) >> PAGE_SHIFT


def is_writable_pte(pte: int) -> bool:
    """mmu/spte.h is_writable_pte."""
    return pte & PT_WRITABLE_MASK != 0


def is_mmu_writable_spte(kvm: Kvm, spte: int) -> bool:
    """mmu/spte.h is_mmu_writable_spte."""
    return spte & kvm.shadow_mmu_writable_mask != 0


def is_accessed_spte(kvm: Kvm, spte: int) -> bool:
    """mmu/spte.h is_accessed_spte."""
    accessed_mask = spte_shadow_accessed_mask(kvm, spte)
    return spte & accessed_mask != 0 if accessed_mask else not is_access_track_spte(kvm, spte)


def is_dirty_spte(kvm: Kvm, spte: int) -> bool:
    """mmu/spte.h is_dirty_spte."""
    dirty_mask = spte_shadow_dirty_mask(kvm, spte)
    return spte & (dirty_mask or PT_WRITABLE_MASK) != 0


def is_rsvd_spte(rsvd_check: rsvd_bits_validate, spte: int, level: int) -> bool:
    """mmu/spte.h is_rsvd_spte."""
    return (
        rsvd_check.bad_mt_xwr >> (spte & 0x3F) & 1 != 0
        or spte & rsvd_check.rsvd_bits_mask[spte >> 7 & 1][level - 1] != 0
    )


def check_spte_writable_invariants(kvm: Kvm, spte: int) -> bool:
    """mmu/spte.h check_spte_writable_invariants: False where the C WARNs."""
    if spte & kvm.shadow_mmu_writable_mask:
        return spte & kvm.shadow_host_writable_mask != 0
    return not is_writable_pte(spte)


def get_mmio_spte_generation(kvm: Kvm, spte: int) -> int:
    """mmu/spte.h get_mmio_spte_generation: 19 bits, 18 from patch 13."""
    gen = (spte & kvm.s.MMIO_SPTE_GEN_LOW_MASK) >> kvm.s.MMIO_SPTE_GEN_LOW_SHIFT
    return gen | (spte & kvm.s.MMIO_SPTE_GEN_HIGH_MASK) >> kvm.s.MMIO_SPTE_GEN_HIGH_SHIFT


def restore_acc_track_spte(kvm: Kvm, spte: int) -> int:
    """mmu/spte.h restore_acc_track_spte: saved R and X come back; bit 10 was never among the saved."""
    saved_bits = spte >> SHADOW_ACC_TRACK_SAVED_BITS_SHIFT & SHADOW_ACC_TRACK_SAVED_BITS_MASK
    spte &= ~kvm.shadow_acc_track_mask
    spte &= ~(SHADOW_ACC_TRACK_SAVED_BITS_MASK << SHADOW_ACC_TRACK_SAVED_BITS_SHIFT)
    return u64(spte | saved_bits)
