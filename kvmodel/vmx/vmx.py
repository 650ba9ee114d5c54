"""arch/x86/kvm/vmx/vmx.c: hardware set-up, vmcs01's controls, EPT exits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kvmodel.include.asm.kvm_host import (
    EIO,
    PFERR_FETCH_MASK,
    PFERR_GUEST_FINAL_MASK,
    PFERR_GUEST_PAGE_MASK,
    PFERR_PRESENT_MASK,
    PFERR_RSVD_MASK,
    PFERR_USER_MASK,
    PFERR_WRITE_MASK,
    Kvm,
    Vcpu,
    nested_vmx_msrs,
)
from kvmodel.include.asm.vmx import (
    CPU_BASED_ACTIVATE_SECONDARY_CONTROLS,
    CPU_BASED_TPR_SHADOW,
    EPT_VIOLATION_ACC_INSTR,
    EPT_VIOLATION_ACC_READ,
    EPT_VIOLATION_ACC_WRITE,
    EPT_VIOLATION_GVA_IS_VALID,
    EPT_VIOLATION_GVA_TRANSLATED,
    EXIT_REASON_EPT_MISCONFIG,
    EXIT_REASON_EPT_VIOLATION,
    GUEST_INTR_STATE_NMI,
    INTR_INFO_UNBLOCK_NMI,
    SECONDARY_EXEC_APIC_REGISTER_VIRT,
    SECONDARY_EXEC_BUS_LOCK_DETECTION,
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
    SECONDARY_EXEC_EPT_VIOLATION_VE,
    SECONDARY_EXEC_MODE_BASED_EPT_EXEC,
    SECONDARY_EXEC_NOTIFY_VM_EXITING,
    SECONDARY_EXEC_PT_CONCEAL_VMX,
    SECONDARY_EXEC_PT_USE_GPA,
    SECONDARY_EXEC_RDRAND_EXITING,
    SECONDARY_EXEC_RDSEED_EXITING,
    SECONDARY_EXEC_SHADOW_VMCS,
    SECONDARY_EXEC_UNRESTRICTED_GUEST,
    SECONDARY_EXEC_VIRTUAL_INTR_DELIVERY,
    SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES,
    SECONDARY_EXEC_VIRTUALIZE_X2APIC_MODE,
    VMX_EPT_IPAT_BIT,
    VMX_EPT_MT_EPTE_SHIFT,
    VMX_EPTP_AD_ENABLE_BIT,
    VMX_EPTP_MT_WB,
    VMX_EPTP_PWL_4,
    VMX_EPTP_PWL_5,
)
from kvmodel.mirrors import mirrors
from kvmodel.mmu.mmu_fault import init_kvm_tdp_mmu, kvm_configure_mmu, kvm_mmu_page_fault
from kvmodel.mmu.spte import kvm_mmu_set_ept_masks
from kvmodel.mmu_h import rsvd_bits
from kvmodel.narration import narrate, trace
from kvmodel.vmx.capabilities import (
    cpu_has_vmx_ept,
    cpu_has_vmx_ept_4levels,
    cpu_has_vmx_ept_5levels,
    cpu_has_vmx_ept_ad_bits,
    cpu_has_vmx_ept_execute_only,
    cpu_has_vmx_ept_mt_wb,
    cpu_has_vmx_invept_global,
    cpu_has_vmx_mbec,
    cpu_has_vmx_pml,
    cpu_has_vmx_unrestricted_guest,
    cpu_has_vmx_vpid,
    ept_caps_to_lpage_level,
)
from kvmodel.vmx.hyperv import nested_evmcs_filter_control_msr
from kvmodel.vmx.nested import nested_vmx_setup_secondary_ctls, vmx_get_vmx_msr
from kvmodel.vmx.nested_h import nested_ept_ad_enabled
from kvmodel.vmx.vmx_h import (
    KVM_OPTIONAL_VMX_CPU_BASED_VM_EXEC_CONTROL,
    KVM_OPTIONAL_VMX_SECONDARY_VM_EXEC_CONTROL,
    KVM_REQUIRED_VMX_CPU_BASED_VM_EXEC_CONTROL,
    vmx_has_mbec,
)

MTRR_TYPE_UNCACHABLE: Final = 0  # asm/mtrr.h
MTRR_TYPE_WRBACK: Final = 6


@dataclass(frozen=True, slots=True)
class HostMsrs:
    """The host CPU's own MSRs as KVM reads them: 0x48B allowed-1 half, 0x48C's two halves; 32 bits each."""

    secondary_high: int
    ept: int
    vpid: int
    maxphyaddr: int
    secondary_low: int = 0
    procbased_high: int = 0xFFFF_FFFF  # MSR 0x482
    procbased_low: int = 0
    sgx: bool = False


class HardwareSetupError(Exception):
    """vmx_hardware_setup() failed: the module does not load; carries the negative errno."""

    def __init__(self, errno: int) -> None:
        super().__init__(f"vmx_hardware_setup() gives {errno}: this CPU's VMX MSRs contradict each other")
        self.errno = errno


@mirrors("vmx/vmx.c setup_vmcs_config", patches=(6,))
def setup_vmcs_config(kvm: Kvm, msrs: HostMsrs, error_on_inconsistent_vmcs_config: bool = True) -> int:
    """KVM takes secondary controls and EPT capabilities of the CPU: 0 or -EIO."""
    cpu_based = KVM_REQUIRED_VMX_CPU_BASED_VM_EXEC_CONTROL | KVM_OPTIONAL_VMX_CPU_BASED_VM_EXEC_CONTROL
    cpu_based = cpu_based & msrs.procbased_high | msrs.procbased_low
    if KVM_REQUIRED_VMX_CPU_BASED_VM_EXEC_CONTROL & ~cpu_based:
        return -EIO
    ctl = 0
    if cpu_based & CPU_BASED_ACTIVATE_SECONDARY_CONTROLS:
        ctl = KVM_OPTIONAL_VMX_SECONDARY_VM_EXEC_CONTROL(kvm) & msrs.secondary_high | msrs.secondary_low
    ctl &= ~SECONDARY_EXEC_EPT_VIOLATION_VE  # CONFIG_KVM_INTEL_PROVE_VE is off
    if not cpu_based & CPU_BASED_TPR_SHADOW:
        ctl &= ~(
            SECONDARY_EXEC_APIC_REGISTER_VIRT
            | SECONDARY_EXEC_VIRTUALIZE_X2APIC_MODE
            | SECONDARY_EXEC_VIRTUAL_INTR_DELIVERY
        )
    kvm.vmx_capability.ept = msrs.ept
    kvm.vmx_capability.vpid = msrs.vpid
    if not ctl & SECONDARY_EXEC_ENABLE_EPT and kvm.vmx_capability.ept:
        if error_on_inconsistent_vmcs_config:
            return -EIO
        kvm.vmx_capability.ept = 0
        if kvm.has(6):
            ctl &= ~SECONDARY_EXEC_MODE_BASED_EPT_EXEC
    if not ctl & SECONDARY_EXEC_ENABLE_VPID and kvm.vmx_capability.vpid:
        if error_on_inconsistent_vmcs_config:
            return -EIO
        kvm.vmx_capability.vpid = 0
    if not msrs.sgx:
        ctl &= ~SECONDARY_EXEC_ENCLS_EXITING
    kvm.vmcs_config.cpu_based_2nd_exec_ctrl = ctl
    return 0


@mirrors("vmx/vmx.c vmx_hardware_setup", patches=(6, 12))
def vmx_hardware_setup(kvm: Kvm, msrs: HostMsrs) -> int:
    """EPT, its A/D bits, the parameter, masks and nested MSRs are decided: 0 or -errno."""
    if setup_vmcs_config(kvm, msrs) < 0:
        return -EIO
    if not cpu_has_vmx_vpid(kvm):
        kvm.enable_vpid = False
    if (
        not cpu_has_vmx_ept(kvm)
        or not cpu_has_vmx_ept_4levels(kvm)
        or not cpu_has_vmx_ept_mt_wb(kvm)
        or not cpu_has_vmx_invept_global(kvm)
    ):
        kvm.enable_ept = False
    if not cpu_has_vmx_ept_ad_bits(kvm) or not kvm.enable_ept:
        kvm.enable_ept_ad_bits = False
    if not cpu_has_vmx_unrestricted_guest(kvm) or not kvm.enable_ept:
        kvm.enable_unrestricted_guest = False
    if kvm.has(6) and (not cpu_has_vmx_mbec(kvm) or not kvm.enable_ept):
        kvm.enable_pt_guest_exec_control = False
    if not kvm.vmcs_config.cpu_based_2nd_exec_ctrl & SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES:
        kvm.flexpriority_enabled = False
    if kvm.enable_ept:
        kvm_mmu_set_ept_masks(
            kvm,
            kvm.enable_ept_ad_bits,
            cpu_has_vmx_ept_execute_only(kvm),
            kvm.enable_pt_guest_exec_control if kvm.has(12) else False,
        )
    kvm_configure_mmu(
        kvm,
        kvm.enable_ept,
        5 if cpu_has_vmx_ept_5levels(kvm) else 4,
        ept_caps_to_lpage_level(kvm.vmx_capability.ept),
    )
    if not kvm.enable_ept or not kvm.enable_ept_ad_bits or not cpu_has_vmx_pml(kvm):
        kvm.enable_pml = False
    if not kvm.enable_pml:
        kvm.cpu_dirty_log_size = 0
    if kvm.nested:
        nested_vmx_setup_secondary_ctls(kvm, kvm.vmx_capability.ept, kvm.vmcs_config.nested)
    return 0


@mirrors("vmx/vmx.c vmx_adjust_secondary_exec_control")
def vmx_adjust_secondary_exec_control(vcpu: Vcpu, exec_control: int, control: int, enabled: bool, exiting: bool) -> int:
    """The function gives the ``u32`` controls; what L1 may set follows the guest's CPUID."""
    kvm = vcpu.kvm
    if enabled == exiting:
        exec_control &= ~control
    if kvm.nested:
        if not kvm.vmcs_config.nested.secondary_ctls_high & control:
            kvm.warns.append("vmx/vmx.c vmx_adjust_secondary_exec_control")
            enabled = False
        if enabled:
            vcpu.nested_msrs.secondary_ctls_high |= control
        else:
            vcpu.nested_msrs.secondary_ctls_high &= ~control
    return exec_control


@mirrors("vmx/vmx.c vmx_secondary_exec_control", patches=(6,))
def vmx_secondary_exec_control(
    vcpu: Vcpu, *, cpuid: bool = True, xsaves: bool = True, dirty_logging: bool = False
) -> int:
    """vmcs01 gets these controls, ``u32``, without APICv, bus-lock and notify exits.

    ``cpuid``: the guest has RDTSCP, INVPCID, RDRAND, RDSEED and WAITPKG, as far as the CPU has them; ``xsaves``:
    it can use XSAVES. Writes ``enable_unrestricted_guest`` and the vCPU's nested MSRs as the C does.
    """
    kvm = vcpu.kvm
    exec_control = kvm.vmcs_config.cpu_based_2nd_exec_ctrl
    exec_control &= ~(SECONDARY_EXEC_PT_USE_GPA | SECONDARY_EXEC_PT_CONCEAL_VMX)
    if not kvm.flexpriority_enabled:
        exec_control &= ~SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES
    if vcpu.vpid == 0:
        exec_control &= ~SECONDARY_EXEC_ENABLE_VPID
    if not kvm.enable_ept:
        exec_control &= ~SECONDARY_EXEC_ENABLE_EPT
        if kvm.has(6):
            exec_control &= ~SECONDARY_EXEC_MODE_BASED_EPT_EXEC
        exec_control &= ~SECONDARY_EXEC_EPT_VIOLATION_VE
        kvm.enable_unrestricted_guest = False
    if not kvm.enable_unrestricted_guest:
        exec_control &= ~SECONDARY_EXEC_UNRESTRICTED_GUEST
    if kvm.has(6) and not kvm.enable_pt_guest_exec_control:
        exec_control &= ~SECONDARY_EXEC_MODE_BASED_EPT_EXEC
    exec_control &= ~(SECONDARY_EXEC_APIC_REGISTER_VIRT | SECONDARY_EXEC_VIRTUAL_INTR_DELIVERY)
    exec_control &= ~SECONDARY_EXEC_VIRTUALIZE_X2APIC_MODE
    exec_control &= ~SECONDARY_EXEC_ENABLE_VMFUNC
    exec_control &= ~SECONDARY_EXEC_DESC
    exec_control &= ~SECONDARY_EXEC_SHADOW_VMCS
    if not kvm.enable_pml or not dirty_logging:
        exec_control &= ~SECONDARY_EXEC_ENABLE_PML
    for control, enabled, exiting in (
        (SECONDARY_EXEC_ENABLE_XSAVES, xsaves, False),
        (SECONDARY_EXEC_ENABLE_RDTSCP, cpuid, False),
        (SECONDARY_EXEC_ENABLE_INVPCID, cpuid, False),
        (SECONDARY_EXEC_RDRAND_EXITING, cpuid, True),
        (SECONDARY_EXEC_RDSEED_EXITING, cpuid, True),
        (SECONDARY_EXEC_ENABLE_USR_WAIT_PAUSE, cpuid, False),
    ):
        if kvm.vmcs_config.cpu_based_2nd_exec_ctrl & control:
            exec_control = vmx_adjust_secondary_exec_control(vcpu, exec_control, control, enabled, exiting)
    exec_control &= ~SECONDARY_EXEC_BUS_LOCK_DETECTION
    exec_control &= ~SECONDARY_EXEC_NOTIFY_VM_EXITING
    return exec_control


@mirrors("vmx/vmx.c init_vmcs", patches=(6,))
def init_vmcs(vcpu: Vcpu) -> None:
    """vmcs01 gets its secondary controls, and from patch 6 the vCPU its flag."""
    kvm = vcpu.kvm
    vcpu.vmcs01_secondary = vmx_secondary_exec_control(vcpu)
    if kvm.has(6):
        vcpu.pt_guest_exec_control = kvm.enable_pt_guest_exec_control and vmx_has_mbec(vcpu)


@mirrors("vmx/vmx.c vmx_vcpu_create")
def vcpu_create(kvm: Kvm) -> Vcpu:
    """KVM makes a vCPU, with the MMU that L1 runs on where EPT is used."""
    vcpu = Vcpu(kvm)
    vcpu.reserved_gpa_bits = rsvd_bits(vcpu.maxphyaddr, 63)
    nested = kvm.vmcs_config.nested
    vcpu.nested_msrs = nested_vmx_msrs(
        nested.secondary_ctls_low,
        nested.secondary_ctls_high,
        nested.ept_caps,
        nested.vpid_caps,
        nested.vmfunc_controls,
    )
    init_vmcs(vcpu)
    if kvm.tdp_enabled:
        init_kvm_tdp_mmu(vcpu)
    return vcpu


@mirrors("vmx/vmx.c handle_ept_violation", patches=(2, 11))
def ept_violation_error_code(vcpu: Vcpu, exit_qualification: int) -> int:
    """The ``unsigned long`` exit qualification becomes a ``u64`` error code.

    The last test reads ``error_code`` where it means the qualification, so bits 32 and 33 are never set.
    """
    kvm = vcpu.kvm
    error_code = PFERR_USER_MASK if exit_qualification & EPT_VIOLATION_ACC_READ else 0
    if exit_qualification & EPT_VIOLATION_ACC_WRITE:
        error_code |= PFERR_WRITE_MASK
    if exit_qualification & EPT_VIOLATION_ACC_INSTR:
        error_code |= PFERR_FETCH_MASK
    if kvm.has(2):
        rwx_mask = kvm.h.EPT_VIOLATION_PROT_MASK
        if vcpu.pt_guest_exec_control and kvm.has(11):
            rwx_mask |= kvm.h.EPT_VIOLATION_PROT_USER_EXEC
    else:
        rwx_mask = kvm.h.EPT_VIOLATION_RWX_MASK
    if exit_qualification & rwx_mask:
        error_code |= PFERR_PRESENT_MASK
    if error_code & EPT_VIOLATION_GVA_IS_VALID:  # pragma: no cover - dead in the C as well
        error_code |= (
            PFERR_GUEST_FINAL_MASK if exit_qualification & EPT_VIOLATION_GVA_TRANSLATED else PFERR_GUEST_PAGE_MASK
        )
    return error_code


@mirrors("vmx/vmx.c handle_ept_violation", patches=(2, 11))
def handle_ept_violation(vcpu: Vcpu, gpa: int, exit_qualification: int) -> int:
    """KVM handles an EPT violation and answers as kvm_mmu_page_fault(). ``gpa_t gpa``, ``u64`` qualification."""
    vcpu.exit_qualification = exit_qualification
    if not vcpu.idt_vectoring_valid and vcpu.kvm.enable_vnmi and exit_qualification & INTR_INFO_UNBLOCK_NMI:
        vcpu.interruptibility |= GUEST_INTR_STATE_NMI
    error_code = ept_violation_error_code(vcpu, exit_qualification)
    if vcpu.guest_mode:
        trace(vcpu, "kvm_nested_vmexit", EXIT_REASON_EPT_VIOLATION, exit_qualification)
    trace(vcpu, "kvm_page_fault", gpa, exit_qualification)
    what = "qualification {:#x}: error code {:#x}"
    narrate(vcpu, what, exit_qualification, error_code, by=vcpu.pt_guest_exec_control)
    return kvm_mmu_page_fault(vcpu, gpa, error_code)


@mirrors("vmx/vmx.c handle_ept_misconfig")
def handle_ept_misconfig(vcpu: Vcpu, gpa: int, fast_mmio: bool = False) -> int:
    """KVM handles an EPT misconfiguration at ``gpa_t gpa`` and answers as kvm_mmu_page_fault(). ``fast_mmio``: an
    eventfd takes writes there.
    """
    vcpu.exit_qualification = 0
    if not vcpu.guest_mode and fast_mmio:
        vcpu.count("skipped")
        return 1
    if vcpu.guest_mode:
        trace(vcpu, "kvm_nested_vmexit", EXIT_REASON_EPT_MISCONFIG, 0)
    return kvm_mmu_page_fault(vcpu, gpa, PFERR_RSVD_MASK)


@mirrors("vmx/vmx.c vmx_get_msr")
def vmx_get_msr(vcpu: Vcpu, msr_index: int, host_initiated: bool = False) -> int | None:
    """The guest or user space reads one of the VMX capability MSRs: ``u64``, None for another."""
    data = vmx_get_vmx_msr(vcpu.nested_msrs, msr_index)
    if data is not None and not host_initiated and vcpu.guest_cpuid_has_evmcs:
        data = nested_evmcs_filter_control_msr(vcpu, msr_index, data)
    return data


@mirrors("vmx/vmx.c vmx_get_mt_mask")
def vmx_get_mt_mask(vcpu: Vcpu, _gfn: int, is_mmio: bool) -> int:
    """The memory type makes SPTE bits 6:3: ``u8``."""
    if is_mmio:
        return MTRR_TYPE_UNCACHABLE << VMX_EPT_MT_EPTE_SHIFT
    if not vcpu.kvm.noncoherent_dma:
        return MTRR_TYPE_WRBACK << VMX_EPT_MT_EPTE_SHIFT | VMX_EPT_IPAT_BIT
    return MTRR_TYPE_WRBACK << VMX_EPT_MT_EPTE_SHIFT


@mirrors("vmx/vmx.c construct_eptp")
def construct_eptp(vcpu: Vcpu, root_hpa: int, root_level: int) -> int:
    """KVM makes the ``u64`` EPT pointer of vmcs01, or of vmcs02 in guest mode."""
    eptp = VMX_EPTP_MT_WB
    eptp |= VMX_EPTP_PWL_5 if root_level == 5 else VMX_EPTP_PWL_4
    if vcpu.kvm.enable_ept_ad_bits and (not vcpu.guest_mode or nested_ept_ad_enabled(vcpu)):
        eptp |= VMX_EPTP_AD_ENABLE_BIT
    return eptp | root_hpa
