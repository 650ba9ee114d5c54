"""arch/x86/kvm/vmx/nested.h: what vmcs12 says."""

from __future__ import annotations

from enum import Enum

from kvmodel.include.asm.kvm_host import Vcpu, vmcs12
from kvmodel.include.asm.vmx import (
    CPU_BASED_ACTIVATE_SECONDARY_CONTROLS,
    SECONDARY_EXEC_ENABLE_EPT,
    VMX_EPTP_AD_ENABLE_BIT,
)


def nested_cpu_has(v12: vmcs12, bit: int) -> bool:
    """vmx/nested.h nested_cpu_has: a primary processor-based control."""
    return v12.cpu_based_vm_exec_control & bit != 0


def nested_cpu_has2(v12: vmcs12, bit: int) -> bool:
    """vmx/nested.h nested_cpu_has2: a secondary control, where vmcs12 activates them."""
    return nested_cpu_has(v12, CPU_BASED_ACTIVATE_SECONDARY_CONTROLS) and v12.secondary_vm_exec_control & bit != 0


def nested_cpu_has_ept(v12: vmcs12) -> bool:
    """vmx/nested.h nested_cpu_has_ept."""
    return nested_cpu_has2(v12, SECONDARY_EXEC_ENABLE_EPT)


def nested_ept_ad_enabled(vcpu: Vcpu) -> bool:
    """vmx/nested.h nested_ept_ad_enabled: bit 6 of vmcs12's EPT pointer."""
    return vcpu.vmcs12.ept_pointer & VMX_EPTP_AD_ENABLE_BIT != 0


def fixed_bits_valid(val: int, fixed0: int, fixed1: int) -> bool:
    """kvm/vmx/nested.h fixed_bits_valid: every bit of ``fixed0`` set, none outside ``fixed1``."""
    return (val & fixed1) | fixed0 == val


class EvmptrldStatus(Enum):
    """vmx/nested.h enum nested_evmptrld_status; EVMPTRLD_ERROR needs a page of L1's that cannot be mapped."""

    EVMPTRLD_DISABLED = 0
    EVMPTRLD_SUCCEEDED = 1
    EVMPTRLD_VMFAIL = 2
