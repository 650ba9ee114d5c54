"""arch/x86/kvm/vmx/hyperv.c and hyperv_evmcs.h: which controls an enlightened VMCS may carry."""

from __future__ import annotations

from enum import Enum
from typing import Final

from kvmodel.bits import u32
from kvmodel.kvm_host import EINVAL, Kvm, Vcpu, vmcs12
from kvmodel.vmx_h import (
    MSR_IA32_VMX_PROCBASED_CTLS2,
    MSR_IA32_VMX_VMFUNC,
    SECONDARY_EXEC_BUS_LOCK_DETECTION,
    SECONDARY_EXEC_DESC,
    SECONDARY_EXEC_ENABLE_EPT,
    SECONDARY_EXEC_ENABLE_INVPCID,
    SECONDARY_EXEC_ENABLE_RDTSCP,
    SECONDARY_EXEC_ENABLE_USR_WAIT_PAUSE,
    SECONDARY_EXEC_ENABLE_VPID,
    SECONDARY_EXEC_ENABLE_XSAVES,
    SECONDARY_EXEC_ENCLS_EXITING,
    SECONDARY_EXEC_MODE_BASED_EPT_EXEC,
    SECONDARY_EXEC_NOTIFY_VM_EXITING,
    SECONDARY_EXEC_PT_CONCEAL_VMX,
    SECONDARY_EXEC_PT_USE_GPA,
    SECONDARY_EXEC_RDRAND_EXITING,
    SECONDARY_EXEC_RDSEED_EXITING,
    SECONDARY_EXEC_TSC_SCALING,
    SECONDARY_EXEC_UNRESTRICTED_GUEST,
    SECONDARY_EXEC_VIRTUALIZE_X2APIC_MODE,
    SECONDARY_EXEC_WBINVD_EXITING,
)

_EVMCS1_SUPPORTED_2NDEXEC: Final = (
    SECONDARY_EXEC_VIRTUALIZE_X2APIC_MODE
    | SECONDARY_EXEC_WBINVD_EXITING
    | SECONDARY_EXEC_ENABLE_VPID
    | SECONDARY_EXEC_ENABLE_EPT
    | SECONDARY_EXEC_UNRESTRICTED_GUEST
    | SECONDARY_EXEC_DESC
    | SECONDARY_EXEC_ENABLE_RDTSCP
    | SECONDARY_EXEC_ENABLE_INVPCID
    | SECONDARY_EXEC_ENABLE_XSAVES
    | SECONDARY_EXEC_RDSEED_EXITING
    | SECONDARY_EXEC_RDRAND_EXITING
    | SECONDARY_EXEC_TSC_SCALING
    | SECONDARY_EXEC_ENABLE_USR_WAIT_PAUSE
    | SECONDARY_EXEC_PT_USE_GPA
    | SECONDARY_EXEC_PT_CONCEAL_VMX
    | SECONDARY_EXEC_BUS_LOCK_DETECTION
    | SECONDARY_EXEC_NOTIFY_VM_EXITING
    | SECONDARY_EXEC_ENCLS_EXITING
)


class EvmcsCtrlType(Enum):
    """vmx/hyperv.c enum evmcs_ctrl_type: the types mirrored."""

    EVMCS_2NDEXEC = "secondary"
    EVMCS_VMFUNC = "vmfunc"


def EVMCS1_SUPPORTED_2NDEXEC(kvm: Kvm) -> int:
    """vmx/hyperv_evmcs.h EVMCS1_SUPPORTED_2NDEXEC, 32 bits; patch 17 adds bit 22."""
    if kvm.has(17):
        return _EVMCS1_SUPPORTED_2NDEXEC | SECONDARY_EXEC_MODE_BASED_EPT_EXEC
    return _EVMCS1_SUPPORTED_2NDEXEC


def evmcs_get_supported_ctls(kvm: Kvm, ctrl_type: EvmcsCtrlType) -> int:
    """vmx/hyperv.c evmcs_get_supported_ctls, 32 bits."""
    if ctrl_type is EvmcsCtrlType.EVMCS_2NDEXEC:
        return EVMCS1_SUPPORTED_2NDEXEC(kvm) & ~SECONDARY_EXEC_TSC_SCALING
    return 0


def nested_evmcs_filter_control_msr(vcpu: Vcpu, msr_index: int, data: int) -> int:
    """vmx/hyperv.c nested_evmcs_filter_control_msr: the 64-bit MSR as a guest that is offered eVMCS reads it.

    Mirrored for 0x48B and 0x491; another MSR comes back unchanged.
    """
    ctl_low, ctl_high = u32(data), u32(data >> 32)
    kvm = vcpu.kvm
    if msr_index == MSR_IA32_VMX_PROCBASED_CTLS2:
        supported_ctrls = evmcs_get_supported_ctls(kvm, EvmcsCtrlType.EVMCS_2NDEXEC)
        if kvm.has(17) and not vcpu.pt_guest_exec_control:
            supported_ctrls &= ~SECONDARY_EXEC_MODE_BASED_EPT_EXEC
        ctl_high &= supported_ctrls
    elif msr_index == MSR_IA32_VMX_VMFUNC:
        ctl_low &= evmcs_get_supported_ctls(kvm, EvmcsCtrlType.EVMCS_VMFUNC)
    return ctl_low | ctl_high << 32


def nested_evmcs_is_valid_controls(kvm: Kvm, ctrl_type: EvmcsCtrlType, val: int) -> bool:
    """vmx/hyperv.c nested_evmcs_is_valid_controls."""
    return not val & ~evmcs_get_supported_ctls(kvm, ctrl_type)


def nested_evmcs_check_controls(kvm: Kvm, v12: vmcs12) -> int:
    """vmx/hyperv.c nested_evmcs_check_controls, its part for the secondary controls: 0 or -EINVAL."""
    if not nested_evmcs_is_valid_controls(kvm, EvmcsCtrlType.EVMCS_2NDEXEC, v12.secondary_vm_exec_control):
        return -EINVAL
    return 0
