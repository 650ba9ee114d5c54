"""arch/x86/kvm/vmx/vmx.c, the parts the MMU calls back: memory type and EPT pointer."""

from __future__ import annotations

from typing import Final

from kvmodel.include.asm.kvm_host import Kvm, Vcpu
from kvmodel.include.asm.vmx_h import (
    VMX_EPT_IPAT_BIT,
    VMX_EPT_MT_EPTE_SHIFT,
    VMX_EPTP_AD_ENABLE_BIT,
    VMX_EPTP_MT_WB,
    VMX_EPTP_PWL_4,
    VMX_EPTP_PWL_5,
)

MTRR_TYPE_UNCACHABLE: Final = 0  # asm/mtrr.h
MTRR_TYPE_WRBACK: Final = 6


def vmx_get_mt_mask(kvm: Kvm, is_mmio: bool) -> int:
    """vmx/vmx.c vmx_get_mt_mask: SPTE bits 6:3. 8 bits."""
    if is_mmio:
        return MTRR_TYPE_UNCACHABLE << VMX_EPT_MT_EPTE_SHIFT
    if not kvm.noncoherent_dma:
        return MTRR_TYPE_WRBACK << VMX_EPT_MT_EPTE_SHIFT | VMX_EPT_IPAT_BIT
    return MTRR_TYPE_WRBACK << VMX_EPT_MT_EPTE_SHIFT


def nested_ept_ad_enabled(vcpu: Vcpu) -> bool:
    """vmx/nested.h nested_ept_ad_enabled: bit 6 of vmcs12's EPT pointer."""
    return vcpu.vmcs12.ept_pointer & VMX_EPTP_AD_ENABLE_BIT != 0


def construct_eptp(vcpu: Vcpu, root_hpa: int, root_level: int) -> int:
    """vmx/vmx.c construct_eptp: the 64-bit EPT pointer of vmcs01, or of vmcs02 in guest mode."""
    eptp = VMX_EPTP_MT_WB
    eptp |= VMX_EPTP_PWL_5 if root_level == 5 else VMX_EPTP_PWL_4
    if vcpu.kvm.enable_ept_ad_bits and (not vcpu.guest_mode or nested_ept_ad_enabled(vcpu)):
        eptp |= VMX_EPTP_AD_ENABLE_BIT
    return eptp | root_hpa
