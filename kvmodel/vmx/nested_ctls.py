"""arch/x86/kvm/vmx/nested.c: the MSRs of pin-based, primary, exit and entry controls that L1 is offered.

Nothing of the series is in them. They show what an eVMCS guest is filtered down to; what they hold depends on the
host CPU's controls, of which this model knows what KVM insists on (``LEAST``) and what it can use (``MOST``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kvmodel.include.asm import vmx_h as x
from kvmodel.include.asm.kvm_host import Kvm, nested_vmx_msrs
from kvmodel.vmx.vmx import KVM_OPTIONAL_VMX_CPU_BASED_VM_EXEC_CONTROL, KVM_REQUIRED_VMX_CPU_BASED_VM_EXEC_CONTROL

KVM_REQUIRED_VMX_PIN_BASED_VM_EXEC_CONTROL: Final = x.PIN_BASED_EXT_INTR_MASK | x.PIN_BASED_NMI_EXITING
KVM_OPTIONAL_VMX_PIN_BASED_VM_EXEC_CONTROL: Final = (
    x.PIN_BASED_VIRTUAL_NMIS | x.PIN_BASED_POSTED_INTR | x.PIN_BASED_VMX_PREEMPTION_TIMER
)
KVM_REQUIRED_VMX_VM_EXIT_CONTROLS: Final = (
    x.VM_EXIT_SAVE_DEBUG_CONTROLS | x.VM_EXIT_ACK_INTR_ON_EXIT | x.VM_EXIT_HOST_ADDR_SPACE_SIZE
)
KVM_OPTIONAL_VMX_VM_EXIT_CONTROLS: Final = (
    x.VM_EXIT_LOAD_IA32_PERF_GLOBAL_CTRL
    | x.VM_EXIT_SAVE_IA32_PAT
    | x.VM_EXIT_LOAD_IA32_PAT
    | x.VM_EXIT_SAVE_IA32_EFER
    | x.VM_EXIT_SAVE_VMX_PREEMPTION_TIMER
    | x.VM_EXIT_LOAD_IA32_EFER
    | x.VM_EXIT_CLEAR_BNDCFGS
    | x.VM_EXIT_PT_CONCEAL_PIP
    | x.VM_EXIT_CLEAR_IA32_RTIT_CTL
)
KVM_REQUIRED_VMX_VM_ENTRY_CONTROLS: Final = x.VM_ENTRY_LOAD_DEBUG_CONTROLS | x.VM_ENTRY_IA32E_MODE
KVM_OPTIONAL_VMX_VM_ENTRY_CONTROLS: Final = (
    x.VM_ENTRY_LOAD_IA32_PERF_GLOBAL_CTRL
    | x.VM_ENTRY_LOAD_IA32_PAT
    | x.VM_ENTRY_LOAD_IA32_EFER
    | x.VM_ENTRY_LOAD_BNDCFGS
    | x.VM_ENTRY_PT_CONCEAL_PIP
    | x.VM_ENTRY_LOAD_IA32_RTIT_CTL
)


@dataclass(frozen=True, slots=True)
class HostCtls:
    """vmx/capabilities.h struct vmcs_config: the host CPU's controls that KVM uses, 32 bits each."""

    pin_based_exec_ctrl: int
    cpu_based_exec_ctrl: int
    vmexit_ctrl: int
    vmentry_ctrl: int


LEAST: Final = HostCtls(
    KVM_REQUIRED_VMX_PIN_BASED_VM_EXEC_CONTROL,
    KVM_REQUIRED_VMX_CPU_BASED_VM_EXEC_CONTROL,
    KVM_REQUIRED_VMX_VM_EXIT_CONTROLS,
    KVM_REQUIRED_VMX_VM_ENTRY_CONTROLS,
)
MOST: Final = HostCtls(
    LEAST.pin_based_exec_ctrl | KVM_OPTIONAL_VMX_PIN_BASED_VM_EXEC_CONTROL,
    LEAST.cpu_based_exec_ctrl | KVM_OPTIONAL_VMX_CPU_BASED_VM_EXEC_CONTROL,
    LEAST.vmexit_ctrl | KVM_OPTIONAL_VMX_VM_EXIT_CONTROLS,
    LEAST.vmentry_ctrl | KVM_OPTIONAL_VMX_VM_ENTRY_CONTROLS,
)


def nested_vmx_setup_pinbased_ctls(kvm: Kvm, conf: HostCtls, msrs: nested_vmx_msrs) -> None:
    """vmx/nested.c nested_vmx_setup_pinbased_ctls."""
    msrs.pinbased_ctls_low = x.PIN_BASED_ALWAYSON_WITHOUT_TRUE_MSR
    msrs.pinbased_ctls_high = conf.pin_based_exec_ctrl & (
        x.PIN_BASED_EXT_INTR_MASK
        | x.PIN_BASED_NMI_EXITING
        | x.PIN_BASED_VIRTUAL_NMIS
        | (x.PIN_BASED_POSTED_INTR if kvm.enable_apicv else 0)
    )
    msrs.pinbased_ctls_high |= x.PIN_BASED_ALWAYSON_WITHOUT_TRUE_MSR | x.PIN_BASED_VMX_PREEMPTION_TIMER


def nested_vmx_setup_exit_ctls(conf: HostCtls, msrs: nested_vmx_msrs) -> None:
    """vmx/nested.c nested_vmx_setup_exit_ctls."""
    msrs.exit_ctls_low = x.VM_EXIT_ALWAYSON_WITHOUT_TRUE_MSR
    msrs.exit_ctls_high = conf.vmexit_ctrl & (
        x.VM_EXIT_HOST_ADDR_SPACE_SIZE | x.VM_EXIT_LOAD_IA32_PAT | x.VM_EXIT_SAVE_IA32_PAT | x.VM_EXIT_CLEAR_BNDCFGS
    )
    msrs.exit_ctls_high |= (
        x.VM_EXIT_ALWAYSON_WITHOUT_TRUE_MSR
        | x.VM_EXIT_LOAD_IA32_EFER
        | x.VM_EXIT_SAVE_IA32_EFER
        | x.VM_EXIT_SAVE_VMX_PREEMPTION_TIMER
        | x.VM_EXIT_ACK_INTR_ON_EXIT
        | x.VM_EXIT_LOAD_IA32_PERF_GLOBAL_CTRL
    )
    msrs.exit_ctls_low &= ~x.VM_EXIT_SAVE_DEBUG_CONTROLS


def nested_vmx_setup_entry_ctls(conf: HostCtls, msrs: nested_vmx_msrs) -> None:
    """vmx/nested.c nested_vmx_setup_entry_ctls."""
    msrs.entry_ctls_low = x.VM_ENTRY_ALWAYSON_WITHOUT_TRUE_MSR
    msrs.entry_ctls_high = conf.vmentry_ctrl & (
        x.VM_ENTRY_IA32E_MODE | x.VM_ENTRY_LOAD_IA32_PAT | x.VM_ENTRY_LOAD_BNDCFGS
    )
    msrs.entry_ctls_high |= (
        x.VM_ENTRY_ALWAYSON_WITHOUT_TRUE_MSR | x.VM_ENTRY_LOAD_IA32_EFER | x.VM_ENTRY_LOAD_IA32_PERF_GLOBAL_CTRL
    )
    msrs.entry_ctls_low &= ~x.VM_ENTRY_LOAD_DEBUG_CONTROLS


def nested_vmx_setup_cpubased_ctls(conf: HostCtls, msrs: nested_vmx_msrs) -> None:
    """vmx/nested.c nested_vmx_setup_cpubased_ctls."""
    msrs.procbased_ctls_low = x.CPU_BASED_ALWAYSON_WITHOUT_TRUE_MSR
    msrs.procbased_ctls_high = conf.cpu_based_exec_ctrl & (
        x.CPU_BASED_INTR_WINDOW_EXITING
        | x.CPU_BASED_NMI_WINDOW_EXITING
        | x.CPU_BASED_USE_TSC_OFFSETTING
        | x.CPU_BASED_HLT_EXITING
        | x.CPU_BASED_INVLPG_EXITING
        | x.CPU_BASED_MWAIT_EXITING
        | x.CPU_BASED_CR3_LOAD_EXITING
        | x.CPU_BASED_CR3_STORE_EXITING
        | x.CPU_BASED_CR8_LOAD_EXITING
        | x.CPU_BASED_CR8_STORE_EXITING
        | x.CPU_BASED_MOV_DR_EXITING
        | x.CPU_BASED_UNCOND_IO_EXITING
        | x.CPU_BASED_USE_IO_BITMAPS
        | x.CPU_BASED_MONITOR_TRAP_FLAG
        | x.CPU_BASED_MONITOR_EXITING
        | x.CPU_BASED_RDPMC_EXITING
        | x.CPU_BASED_RDTSC_EXITING
        | x.CPU_BASED_PAUSE_EXITING
        | x.CPU_BASED_TPR_SHADOW
        | x.CPU_BASED_ACTIVATE_SECONDARY_CONTROLS
    )
    msrs.procbased_ctls_high |= x.CPU_BASED_ALWAYSON_WITHOUT_TRUE_MSR | x.CPU_BASED_USE_MSR_BITMAPS
    msrs.procbased_ctls_low &= ~(x.CPU_BASED_CR3_LOAD_EXITING | x.CPU_BASED_CR3_STORE_EXITING)


def nested_vmx_setup_ctls_msrs(kvm: Kvm, conf: HostCtls, msrs: nested_vmx_msrs) -> None:
    """vmx/nested.c nested_vmx_setup_ctls_msrs, without the secondary controls (``nested_vmx_setup_secondary_ctls``)."""
    nested_vmx_setup_pinbased_ctls(kvm, conf, msrs)
    nested_vmx_setup_exit_ctls(conf, msrs)
    nested_vmx_setup_entry_ctls(conf, msrs)
    nested_vmx_setup_cpubased_ctls(conf, msrs)
