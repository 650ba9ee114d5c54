"""arch/x86/kvm/vmx/nested.c: the enlightened VMCS in use (asm/hyperv-tlfs.h has its layout).

An L1 that is offered eVMCS names one in its VP assist page; the next VM entry finds it there, not by VMPTRLD, and
copies what the clean fields do not call unchanged.
"""

from __future__ import annotations

from typing import Final

from kvmodel.include.asm.hyperv_tlfs import (
    HV_VMX_ENLIGHTENED_CLEAN_FIELD_ALL,
    HV_VMX_ENLIGHTENED_CLEAN_FIELD_CONTROL_ENTRY,
    HV_VMX_ENLIGHTENED_CLEAN_FIELD_CONTROL_GRP1,
    HV_VMX_ENLIGHTENED_CLEAN_FIELD_CONTROL_PROC,
    HV_VMX_ENLIGHTENED_CLEAN_FIELD_CONTROL_XLAT,
    KVM_EVMCS_VERSION,
    hv_enlightened_vmcs,
)
from kvmodel.include.asm.kvm_host import Vcpu, vmcs12
from kvmodel.mirrors import mirrors
from kvmodel.narration import narrate
from kvmodel.vmx.hyperv import EVMPTR_INVALID, nested_get_evmptr
from kvmodel.vmx.nested_h import EvmptrldStatus

VMCS12_REVISION: Final = 0x11E57ED0


@mirrors("vmx/nested.c nested_release_evmcs")
def nested_release_evmcs(vcpu: Vcpu) -> None:
    """The enlightened VMCS in use is let go."""
    vcpu.hv.hv_evmcs = None
    vcpu.hv.hv_evmcs_vmptr = EVMPTR_INVALID


@mirrors("vmx/nested.c nested_vmx_handle_enlightened_vmptrld")
def nested_vmx_handle_enlightened_vmptrld(vcpu: Vcpu, from_launch: bool) -> EvmptrldStatus:
    """This VM entry goes by an enlightened VMCS, by a vmcs12, or fails."""
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
    narrate(vcpu, "the entry goes by an enlightened VMCS")
    return EvmptrldStatus.EVMPTRLD_SUCCEEDED


@mirrors("vmx/nested.c copy_enlightened_to_vmcs12")
def copy_enlightened_to_vmcs12(vcpu: Vcpu, evmcs: hv_enlightened_vmcs) -> None:
    """vmcs12 takes the controls, the EPT pointer and the VPID that are not called clean."""
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
