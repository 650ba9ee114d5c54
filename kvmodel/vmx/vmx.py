"""arch/x86/kvm/vmx/vmx.c: hardware set-up, vmcs01's controls, EPT exits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kvmodel.include.asm.kvm_host import (
    EIO,
    PFERR_FETCH_MASK,
    PFERR_GUEST_FINAL_MASK,
    PFERR_GUEST_PAGE_MASK,
    PFERR_PRESENT_MASK,
    PFERR_RSVD_MASK,
    PFERR_USER_MASK,
    PFERR_WRITE_MASK,
    PG_LEVEL_1G,
    PG_LEVEL_2M,
    Kvm,
    Vcpu,
    nested_vmx_msrs,
)
from kvmodel.include.asm.vmx_h import (
    CPU_BASED_ACTIVATE_SECONDARY_CONTROLS,
    CPU_BASED_CR3_LOAD_EXITING,
    CPU_BASED_CR3_STORE_EXITING,
    CPU_BASED_CR8_LOAD_EXITING,
    CPU_BASED_CR8_STORE_EXITING,
    CPU_BASED_HLT_EXITING,
    CPU_BASED_INTR_WINDOW_EXITING,
    CPU_BASED_INVLPG_EXITING,
    CPU_BASED_MONITOR_EXITING,
    CPU_BASED_MONITOR_TRAP_FLAG,
    CPU_BASED_MOV_DR_EXITING,
    CPU_BASED_MWAIT_EXITING,
    CPU_BASED_NMI_WINDOW_EXITING,
    CPU_BASED_PAUSE_EXITING,
    CPU_BASED_RDPMC_EXITING,
    CPU_BASED_RDTSC_EXITING,
    CPU_BASED_TPR_SHADOW,
    CPU_BASED_UNCOND_IO_EXITING,
    CPU_BASED_USE_IO_BITMAPS,
    CPU_BASED_USE_MSR_BITMAPS,
    CPU_BASED_USE_TSC_OFFSETTING,
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
    SECONDARY_EXEC_PAUSE_LOOP_EXITING,
    SECONDARY_EXEC_PT_CONCEAL_VMX,
    SECONDARY_EXEC_PT_USE_GPA,
    SECONDARY_EXEC_RDRAND_EXITING,
    SECONDARY_EXEC_RDSEED_EXITING,
    SECONDARY_EXEC_SHADOW_VMCS,
    SECONDARY_EXEC_TSC_SCALING,
    SECONDARY_EXEC_UNRESTRICTED_GUEST,
    SECONDARY_EXEC_VIRTUAL_INTR_DELIVERY,
    SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES,
    SECONDARY_EXEC_VIRTUALIZE_X2APIC_MODE,
    SECONDARY_EXEC_WBINVD_EXITING,
    vmx_h,
)
from kvmodel.mmu.mmu_fault import init_kvm_tdp_mmu, kvm_mmu_page_fault
from kvmodel.mmu.spte import kvm_mmu_reset_all_pte_masks, kvm_mmu_set_ept_masks
from kvmodel.mmu.spte_h import spte_h
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
from kvmodel.vmx.nested import nested_vmx_setup_secondary_ctls
from kvmodel.x86 import kvm_module_params

if TYPE_CHECKING:
    from kvmodel.series import Level

# vmx/vmx.h KVM_OPTIONAL_VMX_SECONDARY_VM_EXEC_CONTROL at the base, 32 bits.
_OPTIONAL_SECONDARY: Final = (
    SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES
    | SECONDARY_EXEC_VIRTUALIZE_X2APIC_MODE
    | SECONDARY_EXEC_WBINVD_EXITING
    | SECONDARY_EXEC_ENABLE_VPID
    | SECONDARY_EXEC_ENABLE_EPT
    | SECONDARY_EXEC_UNRESTRICTED_GUEST
    | SECONDARY_EXEC_PAUSE_LOOP_EXITING
    | SECONDARY_EXEC_DESC
    | SECONDARY_EXEC_ENABLE_RDTSCP
    | SECONDARY_EXEC_ENABLE_INVPCID
    | SECONDARY_EXEC_APIC_REGISTER_VIRT
    | SECONDARY_EXEC_VIRTUAL_INTR_DELIVERY
    | SECONDARY_EXEC_SHADOW_VMCS
    | SECONDARY_EXEC_ENABLE_XSAVES
    | SECONDARY_EXEC_RDSEED_EXITING
    | SECONDARY_EXEC_RDRAND_EXITING
    | SECONDARY_EXEC_ENABLE_PML
    | SECONDARY_EXEC_TSC_SCALING
    | SECONDARY_EXEC_ENABLE_USR_WAIT_PAUSE
    | SECONDARY_EXEC_PT_USE_GPA
    | SECONDARY_EXEC_PT_CONCEAL_VMX
    | SECONDARY_EXEC_ENABLE_VMFUNC
    | SECONDARY_EXEC_BUS_LOCK_DETECTION
    | SECONDARY_EXEC_NOTIFY_VM_EXITING
    | SECONDARY_EXEC_ENCLS_EXITING
    | SECONDARY_EXEC_EPT_VIOLATION_VE
)


# vmx/vmx.h KVM_REQUIRED_ and KVM_OPTIONAL_VMX_CPU_BASED_VM_EXEC_CONTROL, 32 bits.
KVM_REQUIRED_VMX_CPU_BASED_VM_EXEC_CONTROL: Final = (
    CPU_BASED_HLT_EXITING
    | CPU_BASED_CR3_LOAD_EXITING
    | CPU_BASED_CR3_STORE_EXITING
    | CPU_BASED_UNCOND_IO_EXITING
    | CPU_BASED_MOV_DR_EXITING
    | CPU_BASED_USE_TSC_OFFSETTING
    | CPU_BASED_MWAIT_EXITING
    | CPU_BASED_MONITOR_EXITING
    | CPU_BASED_INVLPG_EXITING
    | CPU_BASED_RDPMC_EXITING
    | CPU_BASED_INTR_WINDOW_EXITING
    | CPU_BASED_CR8_LOAD_EXITING
    | CPU_BASED_CR8_STORE_EXITING
)
KVM_OPTIONAL_VMX_CPU_BASED_VM_EXEC_CONTROL: Final = (
    CPU_BASED_RDTSC_EXITING
    | CPU_BASED_TPR_SHADOW
    | CPU_BASED_USE_IO_BITMAPS
    | CPU_BASED_MONITOR_TRAP_FLAG
    | CPU_BASED_USE_MSR_BITMAPS
    | CPU_BASED_NMI_WINDOW_EXITING
    | CPU_BASED_PAUSE_EXITING
    | CPU_BASED_ACTIVATE_SECONDARY_CONTROLS
    | 1 << 17  # CPU_BASED_ACTIVATE_TERTIARY_CONTROLS
)


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


def KVM_OPTIONAL_VMX_SECONDARY_VM_EXEC_CONTROL(kvm: Kvm) -> int:
    """vmx/vmx.h KVM_OPTIONAL_VMX_SECONDARY_VM_EXEC_CONTROL, 32 bits; patch 6 adds bit 22."""
    return _OPTIONAL_SECONDARY | (SECONDARY_EXEC_MODE_BASED_EPT_EXEC if kvm.has(6) else 0)


def setup_vmcs_config(kvm: Kvm, msrs: HostMsrs, error_on_inconsistent_vmcs_config: bool = True) -> int:
    """vmx/vmx.c setup_vmcs_config, its part for secondary controls and EPT capabilities: 0 or -EIO."""
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


def vmx_hardware_setup(kvm: Kvm, msrs: HostMsrs) -> int:
    """vmx/vmx.c vmx_hardware_setup, what decides EPT, its A/D bits, the parameter, masks and nested MSRs. 0, -errno."""
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


def kvm_configure_mmu(
    kvm: Kvm, enable_tdp: bool, tdp_max_root_level: int, tdp_huge_page_level: int, tdp_forced_root_level: int = 0
) -> None:
    """mmu/mmu.c kvm_configure_mmu."""
    kvm.tdp_enabled = enable_tdp
    kvm.tdp_root_level = tdp_forced_root_level
    kvm.max_tdp_level = tdp_max_root_level
    kvm.tdp_mmu_enabled = kvm.tdp_enabled
    if enable_tdp:
        kvm.max_huge_page_level = tdp_huge_page_level
    else:
        kvm.max_huge_page_level = PG_LEVEL_1G if kvm.boot_cpu_has_gbpages else PG_LEVEL_2M


def load(
    level: Level,
    param: bool | None,
    msrs: HostMsrs,
    *,
    ept: bool = True,
    eptad: bool = True,
    nx_huge_pages: bool = False,
) -> Kvm:
    """insmod of kvm.ko (``param``, nx_huge_pages) and kvm-intel.ko (``ept``, ``eptad``, nested=1 enable_apicv=0).

    HardwareSetupError where the CPU's MSRs make vmx_hardware_setup() fail.
    """
    kvm = Kvm(level, vmx_h(level), spte_h(level))
    kvm.host_maxphyaddr = kvm.x86_phys_bits = kvm.x86_cache_bits = msrs.maxphyaddr
    kvm.enable_ept = ept
    kvm.enable_ept_ad_bits = eptad
    kvm.nx_huge_pages = nx_huge_pages
    kvm_module_params(kvm, param)
    kvm_mmu_reset_all_pte_masks(kvm)
    if errno := vmx_hardware_setup(kvm, msrs):
        raise HardwareSetupError(errno)
    return kvm


def vmx_adjust_secondary_exec_control(vcpu: Vcpu, exec_control: int, control: int, enabled: bool, exiting: bool) -> int:
    """vmx/vmx.c vmx_adjust_secondary_exec_control: the controls; what L1 may set follows the guest's CPUID."""
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


def vmx_secondary_exec_control(
    vcpu: Vcpu, *, cpuid: bool = True, xsaves: bool = True, dirty_logging: bool = False
) -> int:
    """vmx/vmx.c vmx_secondary_exec_control: vmcs01's controls, 32 bits, without APICv, bus-lock and notify exits.

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


def vmx_has_mbec(vcpu: Vcpu) -> bool:
    """vmx/vmx.h vmx_has_mbec, added by patch 6: bit 22 of the current VMCS, vmcs01's when init_vmcs() asks."""
    return vcpu.vmcs01_secondary & SECONDARY_EXEC_MODE_BASED_EPT_EXEC != 0


def init_vmcs(vcpu: Vcpu) -> None:
    """vmx/vmx.c init_vmcs: vmcs01's secondary controls, and from patch 6 the vCPU's flag."""
    kvm = vcpu.kvm
    vcpu.vmcs01_secondary = vmx_secondary_exec_control(vcpu)
    if kvm.has(6):
        vcpu.pt_guest_exec_control = kvm.enable_pt_guest_exec_control and vmx_has_mbec(vcpu)


def vcpu_create(kvm: Kvm) -> Vcpu:
    """vmx/vmx.c vmx_vcpu_create and init_vmcs, then the MMU that L1 runs on where EPT is used."""
    vcpu = Vcpu(kvm)
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


def ept_violation_error_code(vcpu: Vcpu, exit_qualification: int) -> int:
    """vmx/vmx.c handle_ept_violation: the 64-bit error code made of the 64-bit exit qualification.

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
        if kvm.has(11) and vcpu.pt_guest_exec_control:
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


def handle_ept_violation(vcpu: Vcpu, gpa: int, exit_qualification: int) -> int:
    """vmx/vmx.c handle_ept_violation: as kvm_mmu_page_fault(). ``gpa`` and the qualification are 64 bits."""
    vcpu.exit_qualification = exit_qualification
    if not vcpu.idt_vectoring_valid and vcpu.kvm.enable_vnmi and exit_qualification & INTR_INFO_UNBLOCK_NMI:
        vcpu.interruptibility |= GUEST_INTR_STATE_NMI
    error_code = ept_violation_error_code(vcpu, exit_qualification)
    if vcpu.trace is not None:
        if vcpu.guest_mode:
            vcpu.trace.append(("kvm_nested_vmexit", (EXIT_REASON_EPT_VIOLATION, exit_qualification)))
        vcpu.trace.append(("kvm_page_fault", (gpa, exit_qualification)))
    if vcpu.steps is not None:
        by = 11 if vcpu.kvm.has(11) and vcpu.pt_guest_exec_control else 0
        vcpu.step(
            "vmx/vmx.c handle_ept_violation", f"qualification {exit_qualification:#x}: error code {error_code:#x}", by
        )
    return kvm_mmu_page_fault(vcpu, gpa, error_code)


def handle_ept_misconfig(vcpu: Vcpu, gpa: int, fast_mmio: bool = False) -> int:
    """vmx/vmx.c handle_ept_misconfig: as kvm_mmu_page_fault(). ``fast_mmio``: an eventfd takes writes to ``gpa``."""
    vcpu.exit_qualification = 0
    if not vcpu.guest_mode and fast_mmio:
        vcpu.count("skipped")
        return 1
    if vcpu.trace is not None and vcpu.guest_mode:
        vcpu.trace.append(("kvm_nested_vmexit", (EXIT_REASON_EPT_MISCONFIG, 0)))
    return kvm_mmu_page_fault(vcpu, gpa, PFERR_RSVD_MASK)
