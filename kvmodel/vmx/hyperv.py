"""arch/x86/kvm/vmx/hyperv.c: which controls an enlightened VMCS may carry."""

from __future__ import annotations

from enum import Enum
from typing import Final

from kvmodel.bits import u32
from kvmodel.include.asm import vmx as x
from kvmodel.include.asm.kvm_host import EINVAL, Kvm, Vcpu, vmcs12
from kvmodel.mirrors import mirrors
from kvmodel.vmx.hyperv_evmcs_h import (
    EVMCS1_SUPPORTED_2NDEXEC,
    EVMCS1_SUPPORTED_EXEC_CTRL,
    EVMCS1_SUPPORTED_PINCTRL,
    EVMCS1_SUPPORTED_VMENTRY_CTRL,
    EVMCS1_SUPPORTED_VMEXIT_CTRL,
)

EVMPTR_INVALID: Final = -1


class EvmcsCtrlType(Enum):
    """vmx/hyperv.c enum evmcs_ctrl_type."""

    EVMCS_EXIT_CTRLS = 0
    EVMCS_ENTRY_CTRLS = 1
    EVMCS_EXEC_CTRL = 2
    EVMCS_2NDEXEC = 3
    EVMCS_3RDEXEC = 4
    EVMCS_PINCTRL = 5
    EVMCS_VMFUNC = 6


_SUPPORTED: Final = {
    EvmcsCtrlType.EVMCS_EXIT_CTRLS: EVMCS1_SUPPORTED_VMEXIT_CTRL,
    EvmcsCtrlType.EVMCS_ENTRY_CTRLS: EVMCS1_SUPPORTED_VMENTRY_CTRL,
    EvmcsCtrlType.EVMCS_EXEC_CTRL: EVMCS1_SUPPORTED_EXEC_CTRL,
    EvmcsCtrlType.EVMCS_3RDEXEC: 0,
    EvmcsCtrlType.EVMCS_PINCTRL: EVMCS1_SUPPORTED_PINCTRL,
    EvmcsCtrlType.EVMCS_VMFUNC: 0,
}


@mirrors("vmx/hyperv.c evmcs_get_supported_ctls")
def evmcs_get_supported_ctls(kvm: Kvm, ctrl_type: EvmcsCtrlType) -> int:
    """An enlightened VMCS supports these controls of a type: ``u32``."""
    if ctrl_type is EvmcsCtrlType.EVMCS_2NDEXEC:
        return EVMCS1_SUPPORTED_2NDEXEC(kvm) & ~x.SECONDARY_EXEC_TSC_SCALING
    return _SUPPORTED[ctrl_type]


@mirrors("vmx/hyperv.c nested_evmcs_filter_control_msr", patches=(17,))
def nested_evmcs_filter_control_msr(
    vcpu: Vcpu, msr_index: int, data: int, evmcs_has_perf_global_ctrl: bool = False
) -> int:
    """A guest that is offered eVMCS reads the ``u64`` MSR like this."""
    ctl_low, ctl_high = u32(data), u32(data >> 32)
    kvm = vcpu.kvm
    match msr_index:
        case x.MSR_IA32_VMX_EXIT_CTLS | x.MSR_IA32_VMX_TRUE_EXIT_CTLS:
            supported_ctrls = evmcs_get_supported_ctls(kvm, EvmcsCtrlType.EVMCS_EXIT_CTRLS)
            if not evmcs_has_perf_global_ctrl:
                supported_ctrls &= ~x.VM_EXIT_LOAD_IA32_PERF_GLOBAL_CTRL
            ctl_high &= supported_ctrls
        case x.MSR_IA32_VMX_ENTRY_CTLS | x.MSR_IA32_VMX_TRUE_ENTRY_CTLS:
            supported_ctrls = evmcs_get_supported_ctls(kvm, EvmcsCtrlType.EVMCS_ENTRY_CTRLS)
            if not evmcs_has_perf_global_ctrl:
                supported_ctrls &= ~x.VM_ENTRY_LOAD_IA32_PERF_GLOBAL_CTRL
            ctl_high &= supported_ctrls
        case x.MSR_IA32_VMX_PROCBASED_CTLS | x.MSR_IA32_VMX_TRUE_PROCBASED_CTLS:
            ctl_high &= evmcs_get_supported_ctls(kvm, EvmcsCtrlType.EVMCS_EXEC_CTRL)
        case x.MSR_IA32_VMX_PROCBASED_CTLS2:
            supported_ctrls = evmcs_get_supported_ctls(kvm, EvmcsCtrlType.EVMCS_2NDEXEC)
            if kvm.has(17) and not vcpu.pt_guest_exec_control:
                supported_ctrls &= ~x.SECONDARY_EXEC_MODE_BASED_EPT_EXEC
            ctl_high &= supported_ctrls
        case x.MSR_IA32_VMX_TRUE_PINBASED_CTLS | x.MSR_IA32_VMX_PINBASED_CTLS:
            ctl_high &= evmcs_get_supported_ctls(kvm, EvmcsCtrlType.EVMCS_PINCTRL)
        case x.MSR_IA32_VMX_VMFUNC:
            ctl_low &= evmcs_get_supported_ctls(kvm, EvmcsCtrlType.EVMCS_VMFUNC)
        case _:
            pass
    return ctl_low | ctl_high << 32


@mirrors("vmx/hyperv.c nested_evmcs_is_valid_controls")
def nested_evmcs_is_valid_controls(kvm: Kvm, ctrl_type: EvmcsCtrlType, val: int) -> bool:
    """An enlightened VMCS can carry ``u32 val``: True."""
    return not u32(val) & ~evmcs_get_supported_ctls(kvm, ctrl_type)


@mirrors("vmx/hyperv.c nested_evmcs_check_controls")
def nested_evmcs_check_controls(kvm: Kvm, v12: vmcs12) -> int:
    """vmcs12's controls are held against an enlightened VMCS's: 0 or -EINVAL."""
    for ctrl_type, val in (
        (EvmcsCtrlType.EVMCS_PINCTRL, v12.pin_based_vm_exec_control),
        (EvmcsCtrlType.EVMCS_EXEC_CTRL, v12.cpu_based_vm_exec_control),
        (EvmcsCtrlType.EVMCS_2NDEXEC, v12.secondary_vm_exec_control),
        (EvmcsCtrlType.EVMCS_EXIT_CTRLS, v12.vm_exit_controls),
        (EvmcsCtrlType.EVMCS_ENTRY_CTRLS, v12.vm_entry_controls),
    ):
        if not nested_evmcs_is_valid_controls(kvm, ctrl_type, val):
            return -EINVAL
    if v12.vm_function_control >> 32:
        kvm.warns.append("vmx/hyperv.c nested_evmcs_check_controls")
        return -EINVAL
    if not nested_evmcs_is_valid_controls(kvm, EvmcsCtrlType.EVMCS_VMFUNC, v12.vm_function_control):
        return -EINVAL
    return 0


@mirrors("vmx/hyperv.c nested_get_evmptr")
def nested_get_evmptr(vcpu: Vcpu) -> int:
    """The VP assist page names an address, or nothing: EVMPTR_INVALID. ``u64``."""
    page = vcpu.hv.vp_assist_page
    if page is None or not page.enlighten_vmentry:
        return EVMPTR_INVALID
    return page.current_nested_vmcs
