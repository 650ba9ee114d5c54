"""arch/x86/kvm/vmx/capabilities.h: what the CPU offers, as vmcs_config and vmx_capability have it."""

from __future__ import annotations

from kvmodel.include.asm.kvm_host import PG_LEVEL_1G, PG_LEVEL_2M, PG_LEVEL_4K, Kvm
from kvmodel.include.asm.vmx_h import (
    SECONDARY_EXEC_ENABLE_EPT,
    SECONDARY_EXEC_ENABLE_PML,
    SECONDARY_EXEC_ENABLE_VMFUNC,
    SECONDARY_EXEC_ENABLE_VPID,
    SECONDARY_EXEC_MODE_BASED_EPT_EXEC,
    SECONDARY_EXEC_UNRESTRICTED_GUEST,
    VMX_EPT_1GB_PAGE_BIT,
    VMX_EPT_2MB_PAGE_BIT,
    VMX_EPT_AD_BIT,
    VMX_EPT_EXECUTE_ONLY_BIT,
    VMX_EPT_EXTENT_GLOBAL_BIT,
    VMX_EPT_PAGE_WALK_4_BIT,
    VMX_EPT_PAGE_WALK_5_BIT,
    VMX_EPTP_WB_BIT,
)


def _secondary(kvm: Kvm, bit: int) -> bool:
    return kvm.vmcs_config.cpu_based_2nd_exec_ctrl & bit != 0


def cpu_has_vmx_ept(kvm: Kvm) -> bool:
    """vmx/capabilities.h cpu_has_vmx_ept."""
    return _secondary(kvm, SECONDARY_EXEC_ENABLE_EPT)


def cpu_has_vmx_vpid(kvm: Kvm) -> bool:
    """vmx/capabilities.h cpu_has_vmx_vpid."""
    return _secondary(kvm, SECONDARY_EXEC_ENABLE_VPID)


def cpu_has_vmx_unrestricted_guest(kvm: Kvm) -> bool:
    """vmx/capabilities.h cpu_has_vmx_unrestricted_guest."""
    return _secondary(kvm, SECONDARY_EXEC_UNRESTRICTED_GUEST)


def cpu_has_vmx_mbec(kvm: Kvm) -> bool:
    """vmx/capabilities.h cpu_has_vmx_mbec, added by patch 4."""
    return _secondary(kvm, SECONDARY_EXEC_MODE_BASED_EPT_EXEC)


def cpu_has_vmx_vmfunc(kvm: Kvm) -> bool:
    """vmx/capabilities.h cpu_has_vmx_vmfunc."""
    return _secondary(kvm, SECONDARY_EXEC_ENABLE_VMFUNC)


def cpu_has_vmx_pml(kvm: Kvm) -> bool:
    """vmx/capabilities.h cpu_has_vmx_pml."""
    return _secondary(kvm, SECONDARY_EXEC_ENABLE_PML)


def cpu_has_vmx_ept_execute_only(kvm: Kvm) -> bool:
    """vmx/capabilities.h cpu_has_vmx_ept_execute_only."""
    return kvm.vmx_capability.ept & VMX_EPT_EXECUTE_ONLY_BIT != 0


def cpu_has_vmx_ept_4levels(kvm: Kvm) -> bool:
    """vmx/capabilities.h cpu_has_vmx_ept_4levels."""
    return kvm.vmx_capability.ept & VMX_EPT_PAGE_WALK_4_BIT != 0


def cpu_has_vmx_ept_5levels(kvm: Kvm) -> bool:
    """vmx/capabilities.h cpu_has_vmx_ept_5levels."""
    return kvm.vmx_capability.ept & VMX_EPT_PAGE_WALK_5_BIT != 0


def cpu_has_vmx_ept_mt_wb(kvm: Kvm) -> bool:
    """vmx/capabilities.h cpu_has_vmx_ept_mt_wb."""
    return kvm.vmx_capability.ept & VMX_EPTP_WB_BIT != 0


def cpu_has_vmx_ept_ad_bits(kvm: Kvm) -> bool:
    """vmx/capabilities.h cpu_has_vmx_ept_ad_bits."""
    return kvm.vmx_capability.ept & VMX_EPT_AD_BIT != 0


def cpu_has_vmx_invept_global(kvm: Kvm) -> bool:
    """vmx/capabilities.h cpu_has_vmx_invept_global."""
    return kvm.vmx_capability.ept & VMX_EPT_EXTENT_GLOBAL_BIT != 0


def ept_caps_to_lpage_level(ept_caps: int) -> int:
    """vmx/capabilities.h ept_caps_to_lpage_level: the largest page, as a level, that 32 bits of capabilities allow."""
    if ept_caps & VMX_EPT_1GB_PAGE_BIT:
        return PG_LEVEL_1G
    if ept_caps & VMX_EPT_2MB_PAGE_BIT:
        return PG_LEVEL_2M
    return PG_LEVEL_4K
