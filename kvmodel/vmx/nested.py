"""arch/x86/kvm/vmx/nested.c: what L1 is offered, what it may ask, what L2 runs on, who wants an exit.

The other parts of the file: ``nested_ctls`` (the MSRs of the other controls), ``nested_evmcs`` (the enlightened VMCS).
"""

from __future__ import annotations

from typing import Final

from kvmodel.bits import GENMASK, u32
from kvmodel.include.asm.hyperv_tlfs import HV_VMX_ENLIGHTENED_CLEAN_FIELD_ALL
from kvmodel.include.asm.kvm_host import (
    EINVAL,
    PAGE_SHIFT,
    PFERR_RSVD_MASK,
    Kvm,
    Vcpu,
    nested_vmx_msrs,
    vmcs12,
    x86_exception,
)
from kvmodel.include.asm.vmx import (
    CPU_BASED_ACTIVATE_SECONDARY_CONTROLS,
    CPU_BASED_ALWAYSON_WITHOUT_TRUE_MSR,
    CPU_BASED_TPR_SHADOW,
    EPT_VIOLATION_GVA_IS_VALID,
    EPT_VIOLATION_GVA_TRANSLATED,
    EXIT_REASON_BUS_LOCK,
    EXIT_REASON_EPT_MISCONFIG,
    EXIT_REASON_EPT_VIOLATION,
    EXIT_REASON_EXCEPTION_NMI,
    EXIT_REASON_EXTERNAL_INTERRUPT,
    EXIT_REASON_MCE_DURING_VMENTRY,
    EXIT_REASON_NOTIFY,
    EXIT_REASON_PML_FULL,
    EXIT_REASON_PREEMPTION_TIMER,
    EXIT_REASON_VMFUNC,
    INTR_INFO_UNBLOCK_NMI,
    MSR_IA32_VMX_ENTRY_CTLS,
    MSR_IA32_VMX_EPT_VPID_CAP,
    MSR_IA32_VMX_EXIT_CTLS,
    MSR_IA32_VMX_PINBASED_CTLS,
    MSR_IA32_VMX_PROCBASED_CTLS,
    MSR_IA32_VMX_PROCBASED_CTLS2,
    MSR_IA32_VMX_TRUE_ENTRY_CTLS,
    MSR_IA32_VMX_TRUE_EXIT_CTLS,
    MSR_IA32_VMX_TRUE_PINBASED_CTLS,
    MSR_IA32_VMX_TRUE_PROCBASED_CTLS,
    MSR_IA32_VMX_VMFUNC,
    PIN_BASED_ALWAYSON_WITHOUT_TRUE_MSR,
    PIN_BASED_EXT_INTR_MASK,
    SECONDARY_EXEC_APIC_REGISTER_VIRT,
    SECONDARY_EXEC_DESC,
    SECONDARY_EXEC_ENABLE_EPT,
    SECONDARY_EXEC_ENABLE_INVPCID,
    SECONDARY_EXEC_ENABLE_PML,
    SECONDARY_EXEC_ENABLE_RDTSCP,
    SECONDARY_EXEC_ENABLE_USR_WAIT_PAUSE,
    SECONDARY_EXEC_ENABLE_VMFUNC,
    SECONDARY_EXEC_ENABLE_VPID,
    SECONDARY_EXEC_ENABLE_XSAVES,
    SECONDARY_EXEC_ENCLS_EXITING,
    SECONDARY_EXEC_MODE_BASED_EPT_EXEC,
    SECONDARY_EXEC_RDRAND_EXITING,
    SECONDARY_EXEC_RDSEED_EXITING,
    SECONDARY_EXEC_SHADOW_VMCS,
    SECONDARY_EXEC_TSC_SCALING,
    SECONDARY_EXEC_UNRESTRICTED_GUEST,
    SECONDARY_EXEC_VIRTUAL_INTR_DELIVERY,
    SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES,
    SECONDARY_EXEC_VIRTUALIZE_X2APIC_MODE,
    SECONDARY_EXEC_WBINVD_EXITING,
    VM_ENTRY_ALWAYSON_WITHOUT_TRUE_MSR,
    VM_EXIT_ALWAYSON_WITHOUT_TRUE_MSR,
    VMX_EPT_1GB_PAGE_BIT,
    VMX_EPT_2MB_PAGE_BIT,
    VMX_EPT_AD_BIT,
    VMX_EPT_EXECUTE_ONLY_BIT,
    VMX_EPT_EXTENT_CONTEXT,
    VMX_EPT_EXTENT_CONTEXT_BIT,
    VMX_EPT_EXTENT_GLOBAL,
    VMX_EPT_EXTENT_GLOBAL_BIT,
    VMX_EPT_INVEPT_BIT,
    VMX_EPT_PAGE_WALK_4_BIT,
    VMX_EPT_PAGE_WALK_5_BIT,
    VMX_EPTP_AD_ENABLE_BIT,
    VMX_EPTP_MT_MASK,
    VMX_EPTP_MT_UC,
    VMX_EPTP_MT_WB,
    VMX_EPTP_PWL_4,
    VMX_EPTP_PWL_5,
    VMX_EPTP_PWL_MASK,
    VMX_EPTP_UC_BIT,
    VMX_EPTP_WB_BIT,
    VMX_VPID_EXTENT_SUPPORTED_MASK,
    VMX_VPID_INVVPID_BIT,
    VMXERR_ENTRY_INVALID_CONTROL_FIELD,
    VMXERR_INVALID_OPERAND_TO_INVEPT_INVVPID,
)
from kvmodel.mirrors import mirrors
from kvmodel.mmu.mmu_fault import kvm_init_shadow_ept_mmu
from kvmodel.mmu.mmu_page import kvm_mmu_free_roots, kvm_mmu_reload
from kvmodel.mmu.mmu_sync import kvm_mmu_invalidate_addr
from kvmodel.narration import narrate, trace
from kvmodel.vmx.capabilities import cpu_has_vmx_vmfunc, ept_caps_to_lpage_level
from kvmodel.vmx.hyperv import nested_evmcs_check_controls
from kvmodel.vmx.nested_evmcs import copy_enlightened_to_vmcs12, nested_vmx_handle_enlightened_vmptrld
from kvmodel.vmx.nested_h import (
    EvmptrldStatus,
    fixed_bits_valid,
    nested_cpu_has,
    nested_cpu_has2,
    nested_cpu_has_ept,
    nested_ept_ad_enabled,
)
from kvmodel.vmx.vmx_h import PML_ENTITY_NUM

VMX_VMFUNC_EPTP_SWITCHING: Final = 1  # asm/vmx.h
EPTP_PA_MASK: Final = GENMASK(51, 12)
VM_FAIL_INVALID: Final = -1  # VMfailInvalid: there is no vmcs12 to hold an error number

# vmx/nested.c prepare_vmcs02_early: secondary controls that vmcs02 takes from vmcs12 only.
FROM_VMCS12_ONLY: Final = (
    SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES
    | SECONDARY_EXEC_VIRTUALIZE_X2APIC_MODE
    | SECONDARY_EXEC_ENABLE_INVPCID
    | SECONDARY_EXEC_ENABLE_RDTSCP
    | SECONDARY_EXEC_ENABLE_XSAVES
    | SECONDARY_EXEC_ENABLE_USR_WAIT_PAUSE
    | SECONDARY_EXEC_VIRTUAL_INTR_DELIVERY
    | SECONDARY_EXEC_APIC_REGISTER_VIRT
    | SECONDARY_EXEC_ENABLE_VMFUNC
    | SECONDARY_EXEC_DESC
)


@mirrors("vmx/nested.c nested_vmx_setup_secondary_ctls", patches=(16,))
def nested_vmx_setup_secondary_ctls(kvm: Kvm, ept_caps: int, msrs: nested_vmx_msrs) -> None:
    """L1 is offered secondary controls and EPT; ``u32 ept_caps`` is the CPU's own MSR 0x48C, low half."""
    msrs.secondary_ctls_low = 0
    msrs.secondary_ctls_high = kvm.vmcs_config.cpu_based_2nd_exec_ctrl & (
        SECONDARY_EXEC_DESC
        | SECONDARY_EXEC_ENABLE_RDTSCP
        | SECONDARY_EXEC_VIRTUALIZE_X2APIC_MODE
        | SECONDARY_EXEC_WBINVD_EXITING
        | SECONDARY_EXEC_APIC_REGISTER_VIRT
        | SECONDARY_EXEC_VIRTUAL_INTR_DELIVERY
        | SECONDARY_EXEC_RDRAND_EXITING
        | SECONDARY_EXEC_ENABLE_INVPCID
        | SECONDARY_EXEC_ENABLE_VMFUNC
        | SECONDARY_EXEC_RDSEED_EXITING
        | SECONDARY_EXEC_ENABLE_XSAVES
        | SECONDARY_EXEC_TSC_SCALING
        | SECONDARY_EXEC_ENABLE_USR_WAIT_PAUSE
    )
    msrs.secondary_ctls_high |= SECONDARY_EXEC_SHADOW_VMCS
    if kvm.enable_ept:
        msrs.secondary_ctls_high |= SECONDARY_EXEC_ENABLE_EPT
        msrs.ept_caps = (
            VMX_EPT_PAGE_WALK_4_BIT
            | VMX_EPT_PAGE_WALK_5_BIT
            | VMX_EPTP_WB_BIT
            | VMX_EPT_INVEPT_BIT
            | VMX_EPT_EXECUTE_ONLY_BIT
        )
        msrs.ept_caps &= ept_caps
        msrs.ept_caps |= (
            VMX_EPT_EXTENT_GLOBAL_BIT | VMX_EPT_EXTENT_CONTEXT_BIT | VMX_EPT_2MB_PAGE_BIT | VMX_EPT_1GB_PAGE_BIT
        )
        if kvm.enable_ept_ad_bits:
            msrs.secondary_ctls_high |= SECONDARY_EXEC_ENABLE_PML
            msrs.ept_caps |= VMX_EPT_AD_BIT
        if cpu_has_vmx_vmfunc(kvm):
            msrs.vmfunc_controls = VMX_VMFUNC_EPTP_SWITCHING
        if kvm.has(16) and kvm.enable_pt_guest_exec_control:
            msrs.secondary_ctls_high |= SECONDARY_EXEC_MODE_BASED_EPT_EXEC
    if kvm.enable_vpid:
        msrs.secondary_ctls_high |= SECONDARY_EXEC_ENABLE_VPID
        msrs.vpid_caps = VMX_VPID_INVVPID_BIT | VMX_VPID_EXTENT_SUPPORTED_MASK
    if kvm.enable_unrestricted_guest:
        msrs.secondary_ctls_high |= SECONDARY_EXEC_UNRESTRICTED_GUEST
    if kvm.flexpriority_enabled:
        msrs.secondary_ctls_high |= SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES
    if kvm.enable_sgx:
        msrs.secondary_ctls_high |= SECONDARY_EXEC_ENCLS_EXITING


@mirrors("vmx/nested.c is_bitwise_subset")
def is_bitwise_subset(superset: int, subset: int, mask: int) -> bool:
    """Within ``u64 mask``, ``superset`` has every bit of ``subset``: True."""
    superset &= mask
    subset &= mask
    return superset | subset == superset


@mirrors("vmx/nested.c vmx_restore_control_msr")
def vmx_restore_control_msr(kvm: Kvm, msrs: nested_vmx_msrs, data: int) -> int:
    """User space writes ``u64 data`` to MSR 0x48B: 0 or -EINVAL."""
    config = kvm.vmcs_config.nested
    supported = vmx_control_msr(config.secondary_ctls_low, config.secondary_ctls_high)
    if not is_bitwise_subset(data, supported, GENMASK(31, 0)):
        return -EINVAL
    if not is_bitwise_subset(supported, data, GENMASK(63, 32)):
        return -EINVAL
    msrs.secondary_ctls_low = u32(data)
    msrs.secondary_ctls_high = u32(data >> 32)
    return 0


@mirrors("vmx/nested.c vmx_restore_vmx_ept_vpid_cap")
def vmx_restore_vmx_ept_vpid_cap(kvm: Kvm, msrs: nested_vmx_msrs, data: int) -> int:
    """User space writes ``u64 data`` to MSR 0x48C: 0 or -EINVAL."""
    config = kvm.vmcs_config.nested
    if not is_bitwise_subset(vmx_control_msr(config.ept_caps, config.vpid_caps), data, GENMASK(63, 0)):
        return -EINVAL
    msrs.ept_caps = u32(data)
    msrs.vpid_caps = u32(data >> 32)
    return 0


@mirrors("vmx/nested.c vmx_get_vmx_msr")
def vmx_get_vmx_msr(msrs: nested_vmx_msrs, msr_index: int) -> int | None:
    """The MSRs of controls, 0x48C and 0x491 are read as ``u64``; None for another."""
    if msr_index in (MSR_IA32_VMX_TRUE_PINBASED_CTLS, MSR_IA32_VMX_PINBASED_CTLS):
        data = vmx_control_msr(msrs.pinbased_ctls_low, msrs.pinbased_ctls_high)
        return data | (PIN_BASED_ALWAYSON_WITHOUT_TRUE_MSR if msr_index == MSR_IA32_VMX_PINBASED_CTLS else 0)
    if msr_index in (MSR_IA32_VMX_TRUE_PROCBASED_CTLS, MSR_IA32_VMX_PROCBASED_CTLS):
        data = vmx_control_msr(msrs.procbased_ctls_low, msrs.procbased_ctls_high)
        return data | (CPU_BASED_ALWAYSON_WITHOUT_TRUE_MSR if msr_index == MSR_IA32_VMX_PROCBASED_CTLS else 0)
    if msr_index in (MSR_IA32_VMX_TRUE_EXIT_CTLS, MSR_IA32_VMX_EXIT_CTLS):
        data = vmx_control_msr(msrs.exit_ctls_low, msrs.exit_ctls_high)
        return data | (VM_EXIT_ALWAYSON_WITHOUT_TRUE_MSR if msr_index == MSR_IA32_VMX_EXIT_CTLS else 0)
    if msr_index in (MSR_IA32_VMX_TRUE_ENTRY_CTLS, MSR_IA32_VMX_ENTRY_CTLS):
        data = vmx_control_msr(msrs.entry_ctls_low, msrs.entry_ctls_high)
        return data | (VM_ENTRY_ALWAYSON_WITHOUT_TRUE_MSR if msr_index == MSR_IA32_VMX_ENTRY_CTLS else 0)
    if msr_index == MSR_IA32_VMX_PROCBASED_CTLS2:
        return vmx_control_msr(msrs.secondary_ctls_low, msrs.secondary_ctls_high)
    if msr_index == MSR_IA32_VMX_EPT_VPID_CAP:
        return msrs.ept_caps | msrs.vpid_caps << 32
    if msr_index == MSR_IA32_VMX_VMFUNC:
        return msrs.vmfunc_controls
    return None


@mirrors("vmx/nested.c vmx_control_verify")
def vmx_control_verify(control: int, low: int, high: int) -> bool:
    """The control allows what its MSR's halves allow: ``u32`` each."""
    return fixed_bits_valid(control, low, high)


@mirrors("vmx/nested.c nested_vmx_check_apicv_controls")
def nested_vmx_check_apicv_controls(v12: vmcs12) -> int:
    """The APIC controls agree, without posted interrupts: 0 or -EINVAL."""
    x2apic = nested_cpu_has2(v12, SECONDARY_EXEC_VIRTUALIZE_X2APIC_MODE)
    delivery = nested_cpu_has2(v12, SECONDARY_EXEC_VIRTUAL_INTR_DELIVERY)
    if not x2apic and not delivery and not nested_cpu_has2(v12, SECONDARY_EXEC_APIC_REGISTER_VIRT):
        return 0
    if x2apic and nested_cpu_has2(v12, SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES):
        return -EINVAL
    if delivery and not v12.pin_based_vm_exec_control & PIN_BASED_EXT_INTR_MASK:
        return -EINVAL
    return 0 if nested_cpu_has(v12, CPU_BASED_TPR_SHADOW) else -EINVAL


@mirrors("vmx/nested.c nested_vmx_check_pml_controls")
def nested_vmx_check_pml_controls(v12: vmcs12) -> int:
    """PML needs EPT; its page's address is valid here: 0 or -EINVAL."""
    return -EINVAL if nested_cpu_has2(v12, SECONDARY_EXEC_ENABLE_PML) and not nested_cpu_has_ept(v12) else 0


@mirrors("vmx/nested.c nested_vmx_check_unrestricted_guest_controls")
def nested_vmx_check_unrestricted_guest_controls(v12: vmcs12) -> int:
    """An unrestricted guest needs EPT: 0 or -EINVAL."""
    if nested_cpu_has2(v12, SECONDARY_EXEC_UNRESTRICTED_GUEST) and not nested_cpu_has_ept(v12):
        return -EINVAL
    return 0


@mirrors("vmx/nested.c nested_vmx_check_mode_based_ept_exec_controls")
def nested_vmx_check_mode_based_ept_exec_controls(v12: vmcs12) -> int:
    """MBEC needs EPT: 0 or -EINVAL; the base has this already."""
    if nested_cpu_has2(v12, SECONDARY_EXEC_MODE_BASED_EPT_EXEC) and not nested_cpu_has_ept(v12):
        return -EINVAL
    return 0


@mirrors("vmx/nested.c nested_vmx_check_eptp")
def nested_vmx_check_eptp(vcpu: Vcpu, new_eptp: int) -> bool:
    """L1 may use the EPT pointer ``u64 new_eptp``: True."""
    ept_caps = vcpu.nested_msrs.ept_caps
    memtype = new_eptp & VMX_EPTP_MT_MASK
    if memtype == VMX_EPTP_MT_UC:
        if not ept_caps & VMX_EPTP_UC_BIT:
            return False
    elif memtype == VMX_EPTP_MT_WB:
        if not ept_caps & VMX_EPTP_WB_BIT:
            return False
    else:
        return False
    walk = new_eptp & VMX_EPTP_PWL_MASK
    if walk == VMX_EPTP_PWL_5:
        if not ept_caps & VMX_EPT_PAGE_WALK_5_BIT:
            return False
    elif walk == VMX_EPTP_PWL_4:
        if not ept_caps & VMX_EPT_PAGE_WALK_4_BIT:
            return False
    else:
        return False
    if new_eptp & vcpu.reserved_gpa_bits or new_eptp >> 7 & 0x1F:
        return False
    return not (new_eptp & VMX_EPTP_AD_ENABLE_BIT and not ept_caps & VMX_EPT_AD_BIT)


@mirrors("vmx/nested.c nested_check_vm_execution_controls")
def nested_check_vm_execution_controls(vcpu: Vcpu) -> int:
    """The VM-execution controls of vmcs12 are checked: 0 or -EINVAL.

    Its checks of secondary controls and EPT pointer; the addresses in vmcs12 and the other controls are sound.
    """
    v12 = vcpu.vmcs12
    msrs = vcpu.nested_msrs
    if nested_cpu_has(v12, CPU_BASED_ACTIVATE_SECONDARY_CONTROLS) and not vmx_control_verify(
        v12.secondary_vm_exec_control, msrs.secondary_ctls_low, msrs.secondary_ctls_high
    ):
        not_allowed = v12.secondary_vm_exec_control & ~msrs.secondary_ctls_high
        narrate(vcpu, "secondary controls {:#x} are not offered to L1", not_allowed)
        return -EINVAL
    if nested_vmx_check_apicv_controls(v12):
        narrate(vcpu, "APIC controls that exclude each other", of=nested_vmx_check_apicv_controls)
        return -EINVAL
    if (
        nested_vmx_check_pml_controls(v12)
        or nested_vmx_check_unrestricted_guest_controls(v12)
        or nested_vmx_check_mode_based_ept_exec_controls(v12)
    ):
        narrate(vcpu, "a control that needs EPT, without it", of=nested_vmx_check_mode_based_ept_exec_controls)
        return -EINVAL
    if nested_cpu_has2(v12, SECONDARY_EXEC_ENABLE_VPID) and not v12.virtual_processor_id:
        narrate(vcpu, "VPID 0")
        return -EINVAL
    if nested_cpu_has_ept(v12) and not nested_vmx_check_eptp(vcpu, v12.ept_pointer):
        narrate(vcpu, "EPT pointer {:#x} refused", v12.ept_pointer, of=nested_vmx_check_eptp)
        return -EINVAL
    return 0


@mirrors("vmx/nested.c nested_vmx_check_controls")
def nested_vmx_check_controls(vcpu: Vcpu) -> int:
    """All controls of vmcs12 are checked: 0 or -EINVAL."""
    if nested_check_vm_execution_controls(vcpu):
        return -EINVAL
    if vcpu.guest_cpuid_has_evmcs:
        ret = nested_evmcs_check_controls(vcpu.kvm, vcpu.vmcs12)
        if ret:
            narrate(vcpu, "a control an enlightened VMCS cannot carry", of=nested_evmcs_check_controls)
        return ret
    return 0


@mirrors("vmx/nested.c nested_vmx_run")
def nested_vmx_run(vcpu: Vcpu, launch: bool = True) -> int:
    """L2 is entered (0), or L1 gets the VM-instruction error number or VM_FAIL_INVALID."""
    if nested_vmx_handle_enlightened_vmptrld(vcpu, launch) is EvmptrldStatus.EVMPTRLD_VMFAIL:
        return VM_FAIL_INVALID
    if vcpu.hv.hv_evmcs is not None:
        copy_enlightened_to_vmcs12(vcpu, vcpu.hv.hv_evmcs)
    if nested_vmx_check_controls(vcpu):
        return VMXERR_ENTRY_INVALID_CONTROL_FIELD
    vcpu.guest_mode = True
    vcpu.vmcs02_secondary = prepare_vmcs02_early(vcpu)
    if nested_cpu_has_ept(vcpu.vmcs12):
        nested_ept_init_mmu_context(vcpu)
    if vcpu.hv.hv_evmcs is not None:
        vcpu.hv.hv_evmcs.hv_clean_fields |= HV_VMX_ENLIGHTENED_CLEAN_FIELD_ALL  # prepare_vmcs02
    return 0


@mirrors("vmx/nested.c prepare_vmcs02_early")
def prepare_vmcs02_early(vcpu: Vcpu) -> int:
    """vmcs02 gets its secondary controls: ``u32``.

    vmcs01's controls stay but for a list; bit 22 is not on it, so vmcs01's MBEC reaches L2 whatever L1 asks.
    """
    v12 = vcpu.vmcs12
    exec_control = vcpu.vmcs01_secondary & ~FROM_VMCS12_ONLY
    if nested_cpu_has(v12, CPU_BASED_ACTIVATE_SECONDARY_CONTROLS):
        exec_control |= v12.secondary_vm_exec_control
    exec_control &= ~SECONDARY_EXEC_ENABLE_PML
    exec_control &= ~SECONDARY_EXEC_SHADOW_VMCS
    if not nested_cpu_has2(v12, SECONDARY_EXEC_UNRESTRICTED_GUEST):
        exec_control &= ~SECONDARY_EXEC_UNRESTRICTED_GUEST
    narrate(
        vcpu,
        "MBEC in vmcs01 {}, in vmcs12 {}: vmcs02 {:#x}",
        "on" if vcpu.vmcs01_secondary & SECONDARY_EXEC_MODE_BASED_EPT_EXEC else "off",
        "on" if v12.secondary_vm_exec_control & SECONDARY_EXEC_MODE_BASED_EPT_EXEC else "off",
        exec_control,
    )
    return exec_control


@mirrors("vmx/nested.c nested_ept_new_eptp")
def nested_ept_new_eptp(vcpu: Vcpu) -> None:
    """Execute-only, page sizes and A/D reach the shadow MMU; MBEC does not."""
    caps = vcpu.nested_msrs.ept_caps
    execonly = caps & VMX_EPT_EXECUTE_ONLY_BIT != 0
    kvm_init_shadow_ept_mmu(
        vcpu, execonly, ept_caps_to_lpage_level(caps), nested_ept_ad_enabled(vcpu), vcpu.vmcs12.ept_pointer
    )


@mirrors("vmx/nested.c nested_ept_init_mmu_context")
def nested_ept_init_mmu_context(vcpu: Vcpu) -> None:
    """L2 gets its MMU, with the root that the next entry finds or allocates."""
    vcpu.mmu = vcpu.guest_mmu
    nested_ept_new_eptp(vcpu)
    vcpu.mmu.inject_page_fault = nested_ept_inject_page_fault
    vcpu.write_log_dirty = nested_vmx_write_pml_buffer
    kvm_mmu_reload(vcpu)


@mirrors("vmx/nested.c nested_ept_root_matches")
def nested_ept_root_matches(root_eptp: int, eptp: int) -> bool:
    """A valid root matches where the address bits are the same: ``u64`` each."""
    return (root_eptp ^ eptp) & EPTP_PA_MASK == 0


@mirrors("vmx/nested.c nested_ept_invalidate_addr")
def nested_ept_invalidate_addr(vcpu: Vcpu, eptp: int, addr: int) -> None:
    """Other cached roots of the same table are synced for ``gpa_t addr``."""
    roots = [root[1] for root in vcpu.mmu.prev_roots if root is not None and nested_ept_root_matches(root[0], eptp)]
    if roots:
        kvm_mmu_invalidate_addr(vcpu, addr, roots)


@mirrors("vmx/nested.c nested_ept_inject_page_fault")
def nested_ept_inject_page_fault(vcpu: Vcpu, fault: x86_exception) -> None:
    """``vcpu.injected`` gets (reason, qualification, address)."""
    pml_full = vcpu.pml_full
    if pml_full:
        vm_exit_reason = EXIT_REASON_PML_FULL
        vcpu.pml_full = False
        exit_qualification = vcpu.exit_qualification & INTR_INFO_UNBLOCK_NMI
    elif fault.error_code & PFERR_RSVD_MASK:
        vm_exit_reason = EXIT_REASON_EPT_MISCONFIG
        exit_qualification = 0
    else:
        exit_qualification = fault.exit_qualification
        exit_qualification |= vcpu.exit_qualification & (EPT_VIOLATION_GVA_IS_VALID | EPT_VIOLATION_GVA_TRANSLATED)
        vm_exit_reason = EXIT_REASON_EPT_VIOLATION
    if not pml_full:
        nested_ept_invalidate_addr(vcpu, vcpu.vmcs12.ept_pointer, fault.address)
    narrate(vcpu, "exit reason {}, qualification {:#x} to L1", vm_exit_reason, exit_qualification)
    trace(vcpu, "kvm_nested_vmexit_inject", vm_exit_reason, exit_qualification)
    vcpu.injected = (vm_exit_reason, exit_qualification, fault.address)


@mirrors("vmx/nested.c nested_vmx_write_pml_buffer")
def nested_vmx_write_pml_buffer(vcpu: Vcpu, gpa: int) -> int:
    """L1's page-modification log has no room for ``gpa_t gpa``: 1, else 0."""
    if vcpu.pml_full:
        vcpu.warns.append("vmx/nested.c nested_vmx_write_pml_buffer")
        return 1
    if not nested_cpu_has2(vcpu.vmcs12, SECONDARY_EXEC_ENABLE_PML):
        return 0
    if vcpu.vmcs12.guest_pml_index >= PML_ENTITY_NUM:
        vcpu.pml_full = True
        return 1
    vcpu.vmcs12.guest_pml_index = (vcpu.vmcs12.guest_pml_index - 1) & 0xFFFF
    return 0


_L0_ALWAYS: Final = frozenset(
    {
        EXIT_REASON_EXTERNAL_INTERRUPT,
        EXIT_REASON_MCE_DURING_VMENTRY,
        EXIT_REASON_EPT_VIOLATION,
        EXIT_REASON_EPT_MISCONFIG,
        EXIT_REASON_PREEMPTION_TIMER,
        EXIT_REASON_PML_FULL,
        EXIT_REASON_VMFUNC,
        EXIT_REASON_BUS_LOCK,
    }
)


@mirrors("vmx/nested.c nested_vmx_l0_wants_exit")
def nested_vmx_l0_wants_exit(exit_reason: int) -> bool:
    """The basic exit reason says whether L0 keeps the exit (an exception asks for more, and is not here)."""
    return exit_reason in _L0_ALWAYS


@mirrors("vmx/nested.c nested_vmx_l1_wants_exit")
def nested_vmx_l1_wants_exit(exit_reason: int, exception_bitmap: int = 0, vector: int = 0) -> bool:
    """L1 wants exits that no control of vmcs12 decides, and some exceptions: True."""
    if exit_reason == EXIT_REASON_EXCEPTION_NMI:
        return vector in (2, 14) or exception_bitmap >> vector & 1 != 0
    return exit_reason != EXIT_REASON_NOTIFY


@mirrors("vmx/nested.c handle_invept")
def invept_type_valid(vcpu: Vcpu, kind: int) -> bool:
    """L1 is offered this type of INVEPT (1 one context, 2 all): True."""
    types = vcpu.nested_msrs.ept_caps >> 24 & 6
    return kind < 32 and types & 1 << kind != 0


@mirrors("vmx/nested.c handle_invept")
def handle_invept(vcpu: Vcpu, extent: int = VMX_EPT_EXTENT_GLOBAL, eptp: int = 0) -> int:
    """INVEPT of all contexts frees the shadow EPT's roots, of one context those of the table ``u64 eptp`` points at.

    The VM-instruction error number where L1's operands are wrong, else 0. ``extent`` is the type.
    """
    if not invept_type_valid(vcpu, extent):
        return VMXERR_INVALID_OPERAND_TO_INVEPT_INVVPID
    mmu = vcpu.guest_mmu
    if extent == VMX_EPT_EXTENT_CONTEXT:
        if not nested_vmx_check_eptp(vcpu, eptp):
            return VMXERR_INVALID_OPERAND_TO_INVEPT_INVVPID
        freed = [
            pgd
            for pgd in (mmu.root_pgd if mmu.root is not None else None, *(r and r[0] for r in mmu.prev_roots))
            if pgd is not None and nested_ept_root_matches(pgd, eptp)
        ]
        narrate(vcpu, "{} roots of this table are freed", len(freed))
        kvm_mmu_free_roots(mmu, freed)
        return 0
    narrate(vcpu, "the roots are freed: the next entry allocates and syncs one")
    kvm_mmu_free_roots(mmu)
    return 0


@mirrors("vmx/nested.c nested_release_vmcs12")
def nested_release_vmcs12(vcpu: Vcpu) -> None:
    """VMPTRLD of another vmcs12 frees the roots as well."""
    narrate(vcpu, "another vmcs12: the roots are freed")
    kvm_mmu_free_roots(vcpu.guest_mmu)


def vmcs12_eptp(pml4: int, *, ad: bool) -> int:
    """The EPT pointer an L1 writes: write-back, four levels, A/D as asked; ``pml4`` is the table's address."""
    return pml4 >> PAGE_SHIFT << PAGE_SHIFT | VMX_EPTP_MT_WB | VMX_EPTP_PWL_4 | (VMX_EPTP_AD_ENABLE_BIT if ad else 0)


@mirrors("vmx/nested.c vmx_control_msr")
def vmx_control_msr(low: int, high: int) -> int:
    """The MSR is made of two halves, ``u32`` each: ``u64``."""
    return u32(low) | u32(high) << 32
