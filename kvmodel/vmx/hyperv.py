"""arch/x86/kvm/vmx/hyperv.c and hyperv_evmcs.h: which controls an enlightened VMCS may carry."""

from __future__ import annotations

from enum import Enum
from typing import Final

from kvmodel.bits import u32
from kvmodel.include.asm import vmx_h as x
from kvmodel.include.asm.kvm_host import EINVAL, Kvm, Vcpu, vmcs12

_EVMCS1_SUPPORTED_2NDEXEC: Final = (
    x.SECONDARY_EXEC_VIRTUALIZE_X2APIC_MODE
    | x.SECONDARY_EXEC_WBINVD_EXITING
    | x.SECONDARY_EXEC_ENABLE_VPID
    | x.SECONDARY_EXEC_ENABLE_EPT
    | x.SECONDARY_EXEC_UNRESTRICTED_GUEST
    | x.SECONDARY_EXEC_DESC
    | x.SECONDARY_EXEC_ENABLE_RDTSCP
    | x.SECONDARY_EXEC_ENABLE_INVPCID
    | x.SECONDARY_EXEC_ENABLE_XSAVES
    | x.SECONDARY_EXEC_RDSEED_EXITING
    | x.SECONDARY_EXEC_RDRAND_EXITING
    | x.SECONDARY_EXEC_TSC_SCALING
    | x.SECONDARY_EXEC_ENABLE_USR_WAIT_PAUSE
    | x.SECONDARY_EXEC_PT_USE_GPA
    | x.SECONDARY_EXEC_PT_CONCEAL_VMX
    | x.SECONDARY_EXEC_BUS_LOCK_DETECTION
    | x.SECONDARY_EXEC_NOTIFY_VM_EXITING
    | x.SECONDARY_EXEC_ENCLS_EXITING
)


_EVMCS1_SUPPORTED_PINCTRL: Final = (
    x.PIN_BASED_ALWAYSON_WITHOUT_TRUE_MSR
    | x.PIN_BASED_EXT_INTR_MASK
    | x.PIN_BASED_NMI_EXITING
    | x.PIN_BASED_VIRTUAL_NMIS
)
_EVMCS1_SUPPORTED_EXEC_CTRL: Final = (
    x.CPU_BASED_ALWAYSON_WITHOUT_TRUE_MSR
    | x.CPU_BASED_HLT_EXITING
    | x.CPU_BASED_CR3_LOAD_EXITING
    | x.CPU_BASED_CR3_STORE_EXITING
    | x.CPU_BASED_UNCOND_IO_EXITING
    | x.CPU_BASED_MOV_DR_EXITING
    | x.CPU_BASED_USE_TSC_OFFSETTING
    | x.CPU_BASED_MWAIT_EXITING
    | x.CPU_BASED_MONITOR_EXITING
    | x.CPU_BASED_INVLPG_EXITING
    | x.CPU_BASED_RDPMC_EXITING
    | x.CPU_BASED_INTR_WINDOW_EXITING
    | x.CPU_BASED_CR8_LOAD_EXITING
    | x.CPU_BASED_CR8_STORE_EXITING
    | x.CPU_BASED_RDTSC_EXITING
    | x.CPU_BASED_TPR_SHADOW
    | x.CPU_BASED_USE_IO_BITMAPS
    | x.CPU_BASED_MONITOR_TRAP_FLAG
    | x.CPU_BASED_USE_MSR_BITMAPS
    | x.CPU_BASED_NMI_WINDOW_EXITING
    | x.CPU_BASED_PAUSE_EXITING
    | x.CPU_BASED_ACTIVATE_SECONDARY_CONTROLS
)
_EVMCS1_SUPPORTED_VMEXIT_CTRL: Final = (
    x.VM_EXIT_ALWAYSON_WITHOUT_TRUE_MSR
    | x.VM_EXIT_SAVE_DEBUG_CONTROLS
    | x.VM_EXIT_ACK_INTR_ON_EXIT
    | x.VM_EXIT_HOST_ADDR_SPACE_SIZE
    | x.VM_EXIT_LOAD_IA32_PERF_GLOBAL_CTRL
    | x.VM_EXIT_SAVE_IA32_PAT
    | x.VM_EXIT_LOAD_IA32_PAT
    | x.VM_EXIT_SAVE_IA32_EFER
    | x.VM_EXIT_LOAD_IA32_EFER
    | x.VM_EXIT_CLEAR_BNDCFGS
    | x.VM_EXIT_PT_CONCEAL_PIP
    | x.VM_EXIT_CLEAR_IA32_RTIT_CTL
)
_EVMCS1_SUPPORTED_VMENTRY_CTRL: Final = (
    x.VM_ENTRY_ALWAYSON_WITHOUT_TRUE_MSR
    | x.VM_ENTRY_LOAD_DEBUG_CONTROLS
    | x.VM_ENTRY_IA32E_MODE
    | x.VM_ENTRY_LOAD_IA32_PERF_GLOBAL_CTRL
    | x.VM_ENTRY_LOAD_IA32_PAT
    | x.VM_ENTRY_LOAD_IA32_EFER
    | x.VM_ENTRY_LOAD_BNDCFGS
    | x.VM_ENTRY_PT_CONCEAL_PIP
    | x.VM_ENTRY_LOAD_IA32_RTIT_CTL
)


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
    EvmcsCtrlType.EVMCS_EXIT_CTRLS: _EVMCS1_SUPPORTED_VMEXIT_CTRL,
    EvmcsCtrlType.EVMCS_ENTRY_CTRLS: _EVMCS1_SUPPORTED_VMENTRY_CTRL,
    EvmcsCtrlType.EVMCS_EXEC_CTRL: _EVMCS1_SUPPORTED_EXEC_CTRL,
    EvmcsCtrlType.EVMCS_3RDEXEC: 0,
    EvmcsCtrlType.EVMCS_PINCTRL: _EVMCS1_SUPPORTED_PINCTRL,
    EvmcsCtrlType.EVMCS_VMFUNC: 0,
}


def EVMCS1_SUPPORTED_2NDEXEC(kvm: Kvm) -> int:
    """vmx/hyperv_evmcs.h EVMCS1_SUPPORTED_2NDEXEC, 32 bits; patch 17 adds bit 22."""
    if kvm.has(17):
        return _EVMCS1_SUPPORTED_2NDEXEC | x.SECONDARY_EXEC_MODE_BASED_EPT_EXEC
    return _EVMCS1_SUPPORTED_2NDEXEC


def evmcs_get_supported_ctls(kvm: Kvm, ctrl_type: EvmcsCtrlType) -> int:
    """vmx/hyperv.c evmcs_get_supported_ctls, 32 bits."""
    if ctrl_type is EvmcsCtrlType.EVMCS_2NDEXEC:
        return EVMCS1_SUPPORTED_2NDEXEC(kvm) & ~x.SECONDARY_EXEC_TSC_SCALING
    return _SUPPORTED[ctrl_type]


def nested_evmcs_filter_control_msr(
    vcpu: Vcpu, msr_index: int, data: int, evmcs_has_perf_global_ctrl: bool = False
) -> int:
    """vmx/hyperv.c nested_evmcs_filter_control_msr: the 64-bit MSR as a guest that is offered eVMCS reads it."""
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


def nested_evmcs_is_valid_controls(kvm: Kvm, ctrl_type: EvmcsCtrlType, val: int) -> bool:
    """vmx/hyperv.c nested_evmcs_is_valid_controls: ``val`` 32 bits."""
    return not u32(val) & ~evmcs_get_supported_ctls(kvm, ctrl_type)


def nested_evmcs_check_controls(kvm: Kvm, v12: vmcs12) -> int:
    """vmx/hyperv.c nested_evmcs_check_controls: 0 or -EINVAL."""
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
