"""arch/x86/kvm/vmx/nested.h: what vmcs12 says."""

from __future__ import annotations

from enum import Enum

from kvmodel.include.asm.kvm_host import Vcpu, vmcs12
from kvmodel.include.asm.vmx import (
    CPU_BASED_ACTIVATE_SECONDARY_CONTROLS,
    SECONDARY_EXEC_ENABLE_EPT,
    VMX_EPTP_AD_ENABLE_BIT,
)
from kvmodel.mirrors import mirrors


@mirrors("vmx/nested.h nested_cpu_has")
def nested_cpu_has(v12: vmcs12, bit: int) -> bool:
    """vmcs12 has a primary processor-based control on: True."""
    return v12.cpu_based_vm_exec_control & bit != 0


@mirrors("vmx/nested.h nested_cpu_has2")
def nested_cpu_has2(v12: vmcs12, bit: int) -> bool:
    """vmcs12 activates secondary controls and has this one on: True."""
    return nested_cpu_has(v12, CPU_BASED_ACTIVATE_SECONDARY_CONTROLS) and v12.secondary_vm_exec_control & bit != 0


@mirrors("vmx/nested.h nested_cpu_has_ept")
def nested_cpu_has_ept(v12: vmcs12) -> bool:
    """vmcs12 asks for EPT: True."""
    return nested_cpu_has2(v12, SECONDARY_EXEC_ENABLE_EPT)


@mirrors("vmx/nested.h nested_ept_ad_enabled")
def nested_ept_ad_enabled(vcpu: Vcpu) -> bool:
    """Bit 6 of vmcs12's EPT pointer is on: True."""
    return vcpu.vmcs12.ept_pointer & VMX_EPTP_AD_ENABLE_BIT != 0


@mirrors("vmx/nested.h fixed_bits_valid")
def fixed_bits_valid(val: int, fixed0: int, fixed1: int) -> bool:
    """A value is valid with every bit of ``fixed0`` set and none outside ``fixed1``: ``u64`` each."""
    return (val & fixed1) | fixed0 == val


class EvmptrldStatus(Enum):
    """vmx/nested.h enum nested_evmptrld_status; EVMPTRLD_ERROR needs a page of L1's that cannot be mapped."""

    EVMPTRLD_DISABLED = 0
    EVMPTRLD_SUCCEEDED = 1
    EVMPTRLD_VMFAIL = 2
