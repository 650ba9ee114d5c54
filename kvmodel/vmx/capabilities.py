"""arch/x86/kvm/vmx/capabilities.h: what the CPU offers, as vmcs_config and vmx_capability have it."""

from __future__ import annotations

from kvmodel.include.asm.kvm_host import PG_LEVEL_1G, PG_LEVEL_2M, PG_LEVEL_4K, Kvm
from kvmodel.include.asm.vmx import (
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
from kvmodel.mirrors import mirrors


def _secondary(kvm: Kvm, bit: int) -> bool:
    return kvm.vmcs_config.cpu_based_2nd_exec_ctrl & bit != 0


@mirrors("vmx/capabilities.h cpu_has_vmx_ept")
def cpu_has_vmx_ept(kvm: Kvm) -> bool:
    """The CPU has EPT: True."""
    return _secondary(kvm, SECONDARY_EXEC_ENABLE_EPT)


@mirrors("vmx/capabilities.h cpu_has_vmx_vpid")
def cpu_has_vmx_vpid(kvm: Kvm) -> bool:
    """The CPU has VPIDs: True."""
    return _secondary(kvm, SECONDARY_EXEC_ENABLE_VPID)


@mirrors("vmx/capabilities.h cpu_has_vmx_unrestricted_guest")
def cpu_has_vmx_unrestricted_guest(kvm: Kvm) -> bool:
    """The CPU has unrestricted guests: True."""
    return _secondary(kvm, SECONDARY_EXEC_UNRESTRICTED_GUEST)


@mirrors("vmx/capabilities.h cpu_has_vmx_mbec", patches=(4,))
def cpu_has_vmx_mbec(kvm: Kvm) -> bool:
    """The CPU has mode-based execute control for EPT; patch 4 adds the question."""
    return _secondary(kvm, SECONDARY_EXEC_MODE_BASED_EPT_EXEC)


@mirrors("vmx/capabilities.h cpu_has_vmx_vmfunc")
def cpu_has_vmx_vmfunc(kvm: Kvm) -> bool:
    """The CPU has VM functions: True."""
    return _secondary(kvm, SECONDARY_EXEC_ENABLE_VMFUNC)


@mirrors("vmx/capabilities.h cpu_has_vmx_pml")
def cpu_has_vmx_pml(kvm: Kvm) -> bool:
    """The CPU logs page modifications: True."""
    return _secondary(kvm, SECONDARY_EXEC_ENABLE_PML)


@mirrors("vmx/capabilities.h cpu_has_vmx_ept_execute_only")
def cpu_has_vmx_ept_execute_only(kvm: Kvm) -> bool:
    """The CPU's EPT has execute-only pages: True."""
    return kvm.vmx_capability.ept & VMX_EPT_EXECUTE_ONLY_BIT != 0


@mirrors("vmx/capabilities.h cpu_has_vmx_ept_4levels")
def cpu_has_vmx_ept_4levels(kvm: Kvm) -> bool:
    """The CPU's EPT has walks of 4 levels: True."""
    return kvm.vmx_capability.ept & VMX_EPT_PAGE_WALK_4_BIT != 0


@mirrors("vmx/capabilities.h cpu_has_vmx_ept_5levels")
def cpu_has_vmx_ept_5levels(kvm: Kvm) -> bool:
    """The CPU's EPT has walks of 5 levels: True."""
    return kvm.vmx_capability.ept & VMX_EPT_PAGE_WALK_5_BIT != 0


@mirrors("vmx/capabilities.h cpu_has_vmx_ept_mt_wb")
def cpu_has_vmx_ept_mt_wb(kvm: Kvm) -> bool:
    """The CPU's EPT structures can be write-back: True."""
    return kvm.vmx_capability.ept & VMX_EPTP_WB_BIT != 0


@mirrors("vmx/capabilities.h cpu_has_vmx_ept_ad_bits")
def cpu_has_vmx_ept_ad_bits(kvm: Kvm) -> bool:
    """The CPU's EPT has accessed and dirty bits: True."""
    return kvm.vmx_capability.ept & VMX_EPT_AD_BIT != 0


@mirrors("vmx/capabilities.h cpu_has_vmx_invept_global")
def cpu_has_vmx_invept_global(kvm: Kvm) -> bool:
    """The CPU's INVEPT can take all contexts: True."""
    return kvm.vmx_capability.ept & VMX_EPT_EXTENT_GLOBAL_BIT != 0


@mirrors("vmx/capabilities.h ept_caps_to_lpage_level")
def ept_caps_to_lpage_level(ept_caps: int) -> int:
    """The ``u32`` capabilities allow pages up to this level."""
    if ept_caps & VMX_EPT_1GB_PAGE_BIT:
        return PG_LEVEL_1G
    if ept_caps & VMX_EPT_2MB_PAGE_BIT:
        return PG_LEVEL_2M
    return PG_LEVEL_4K
