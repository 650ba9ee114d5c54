"""arch/x86/include/asm/hyperv-tlfs.h: the enlightened VMCS and the page that names it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kvmodel.bits import BIT

KVM_EVMCS_VERSION: Final = 1
# asm/hyperv-tlfs.h: groups of fields that L1 says it left as they were, 32 bits; those with controls.
HV_VMX_ENLIGHTENED_CLEAN_FIELD_CONTROL_GRP1: Final = BIT(3)
HV_VMX_ENLIGHTENED_CLEAN_FIELD_CONTROL_PROC: Final = BIT(4)
HV_VMX_ENLIGHTENED_CLEAN_FIELD_CONTROL_ENTRY: Final = BIT(6)
HV_VMX_ENLIGHTENED_CLEAN_FIELD_CONTROL_XLAT: Final = BIT(9)
HV_VMX_ENLIGHTENED_CLEAN_FIELD_ALL: Final = 0xFFFF


@dataclass(slots=True)
class hv_enlightened_vmcs:
    """asm/hyperv-tlfs.h struct hv_enlightened_vmcs: the controls, and which groups L1 calls unchanged."""

    revision_id: int = 1
    secondary_vm_exec_control: int = 0
    ept_pointer: int = 0
    cpu_based_vm_exec_control: int = BIT(31)  # CPU_BASED_ACTIVATE_SECONDARY_CONTROLS
    pin_based_vm_exec_control: int = 0
    vm_exit_controls: int = 0
    vm_entry_controls: int = 0
    virtual_processor_id: int = 0
    hv_clean_fields: int = 0


@dataclass(slots=True)
class hv_vp_assist_page:
    """asm/hyperv-tlfs.h struct hv_vp_assist_page: whether VM entries go by an enlightened VMCS, and where it lies."""

    enlighten_vmentry: bool = False
    current_nested_vmcs: int = 0
