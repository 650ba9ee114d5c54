"""arch/x86/kvm/vmx/nested.c and hyperv.c: the enlightened VMCS in use (asm/hyperv-tlfs.h has its layout).

An L1 that is offered eVMCS names one in its VP assist page; the next VM entry finds it there, not by VMPTRLD, and
copies what the clean fields do not call unchanged.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from kvmodel.bits import BIT
from kvmodel.include.asm.kvm_host import Vcpu, hv_enlightened_vmcs, vmcs12

KVM_EVMCS_VERSION: Final = 1
VMCS12_REVISION: Final = 0x11E57ED0
EVMPTR_INVALID: Final = -1

# asm/hyperv-tlfs.h: groups of fields that L1 says it left as they were, 32 bits; those with controls.
HV_VMX_ENLIGHTENED_CLEAN_FIELD_CONTROL_GRP1: Final = BIT(3)
HV_VMX_ENLIGHTENED_CLEAN_FIELD_CONTROL_PROC: Final = BIT(4)
HV_VMX_ENLIGHTENED_CLEAN_FIELD_CONTROL_ENTRY: Final = BIT(6)
HV_VMX_ENLIGHTENED_CLEAN_FIELD_CONTROL_XLAT: Final = BIT(9)
HV_VMX_ENLIGHTENED_CLEAN_FIELD_ALL: Final = 0xFFFF


class EvmptrldStatus(Enum):
    """vmx/nested.h enum nested_evmptrld_status; EVMPTRLD_ERROR needs a page of L1's that cannot be mapped."""

    EVMPTRLD_DISABLED = 0
    EVMPTRLD_SUCCEEDED = 1
    EVMPTRLD_VMFAIL = 2


def nested_get_evmptr(vcpu: Vcpu) -> int:
    """vmx/hyperv.c nested_get_evmptr: the address that the VP assist page names, or EVMPTR_INVALID."""
    page = vcpu.hv.vp_assist_page
    if page is None or not page.enlighten_vmentry:
        return EVMPTR_INVALID
    return page.current_nested_vmcs


def nested_release_evmcs(vcpu: Vcpu) -> None:
    """vmx/nested.c nested_release_evmcs."""
    vcpu.hv.hv_evmcs = None
    vcpu.hv.hv_evmcs_vmptr = EVMPTR_INVALID


def nested_vmx_handle_enlightened_vmptrld(vcpu: Vcpu, from_launch: bool) -> EvmptrldStatus:
    """vmx/nested.c nested_vmx_handle_enlightened_vmptrld: which vmcs12 this VM entry goes by."""
    if not vcpu.guest_cpuid_has_evmcs:
        return EvmptrldStatus.EVMPTRLD_DISABLED
    evmcs_gpa = nested_get_evmptr(vcpu)
    if evmcs_gpa == EVMPTR_INVALID:
        nested_release_evmcs(vcpu)
        return EvmptrldStatus.EVMPTRLD_DISABLED
    changed = evmcs_gpa != vcpu.hv.hv_evmcs_vmptr
    evmcs = vcpu.hv.pages[evmcs_gpa]
    if changed:
        nested_release_evmcs(vcpu)
        if evmcs.revision_id not in (KVM_EVMCS_VERSION, VMCS12_REVISION):
            return EvmptrldStatus.EVMPTRLD_VMFAIL
        vcpu.hv.hv_evmcs = evmcs
        vcpu.hv.hv_evmcs_vmptr = evmcs_gpa
        if from_launch:
            vcpu.vmcs12 = vmcs12(cpu_based_vm_exec_control=0)
    if from_launch or changed:
        evmcs.hv_clean_fields &= ~HV_VMX_ENLIGHTENED_CLEAN_FIELD_ALL
    vcpu.step("vmx/nested.c nested_vmx_handle_enlightened_vmptrld", "the entry goes by an enlightened VMCS")
    return EvmptrldStatus.EVMPTRLD_SUCCEEDED


def copy_enlightened_to_vmcs12(vcpu: Vcpu, evmcs: hv_enlightened_vmcs) -> None:
    """vmx/nested.c copy_enlightened_to_vmcs12, the controls, the EPT pointer and the VPID."""
    v12 = vcpu.vmcs12
    hv_clean_fields = evmcs.hv_clean_fields
    if not hv_clean_fields & HV_VMX_ENLIGHTENED_CLEAN_FIELD_CONTROL_PROC:
        v12.cpu_based_vm_exec_control = evmcs.cpu_based_vm_exec_control
    if not hv_clean_fields & HV_VMX_ENLIGHTENED_CLEAN_FIELD_CONTROL_ENTRY:
        v12.vm_entry_controls = evmcs.vm_entry_controls
    if not hv_clean_fields & HV_VMX_ENLIGHTENED_CLEAN_FIELD_CONTROL_GRP1:
        v12.pin_based_vm_exec_control = evmcs.pin_based_vm_exec_control
        v12.vm_exit_controls = evmcs.vm_exit_controls
        v12.secondary_vm_exec_control = evmcs.secondary_vm_exec_control
    if not hv_clean_fields & HV_VMX_ENLIGHTENED_CLEAN_FIELD_CONTROL_XLAT:
        v12.ept_pointer = evmcs.ept_pointer
        v12.virtual_processor_id = evmcs.virtual_processor_id
