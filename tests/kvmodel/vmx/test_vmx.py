"""vmx/vmx.c: hardware set-up, vmcs01's controls, the flag, EPT exits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kvmodel.machine.vcpu import host_msrs
from kvmodel.mmu import mmu_fault
from kvmodel.series import Level
from kvmodel.vmx import capabilities, vmx, vmx_ept
from tests.kvmodel.mirror import CPU, kvm_at, l1_at, l2_at, map_gpa

MBEC = 1 << 22
PRESENT, WRITE, USER, FETCH = 1, 2, 4, 16


@pytest.mark.parametrize("k", range(19))
@pytest.mark.parametrize("param", [None, False, True])
def test_the_flag_and_vmcs01(k: int, param: bool | None) -> None:
    vcpu = l1_at(k, param)
    on = k >= 6 and (param if param is not None else k >= 18)
    assert vcpu.pt_guest_exec_control == on
    assert bool(vcpu.vmcs01_secondary & MBEC) == on


@pytest.mark.parametrize("k", range(19))
def test_the_parameter(k: int) -> None:
    kvm = kvm_at(k, True)
    assert kvm.enable_pt_guest_exec_control == (k >= 3)
    for refused in (kvm_at(k, True, ept=False), kvm_at(k, True, cpu=replace(CPU, mbec=False))):
        assert refused.enable_pt_guest_exec_control == (3 <= k < 6)
    assert kvm_at(k).enable_pt_guest_exec_control == (k >= 18)


def test_bit_22_is_asked_of_the_cpu_from_patch_6() -> None:
    assert not capabilities.cpu_has_vmx_mbec(kvm_at(5))
    assert capabilities.cpu_has_vmx_mbec(kvm_at(6))


def test_ept_off_takes_what_needs_it() -> None:
    kvm = kvm_at(0, ept=False)
    assert not kvm.enable_ept_ad_bits
    assert not kvm.enable_unrestricted_guest
    assert not kvm.enable_pml
    assert kvm.cpu_dirty_log_size == 0
    assert not kvm.tdp_mmu_enabled
    vcpu = vmx.vcpu_create(kvm)
    assert vcpu.vmcs01_secondary & 0x82 == 0


def test_a_cpu_without_ept() -> None:
    kvm = kvm_at(18, cpu=replace(CPU, ept=False, unrestricted=False))
    assert not kvm.enable_ept
    assert not kvm.enable_pt_guest_exec_control
    assert kvm.max_huge_page_level == 3
    kvm.boot_cpu_has_gbpages = False
    vmx.kvm_configure_mmu(kvm, False, 4, 1)
    assert kvm.max_huge_page_level == 2


def test_page_sizes_follow_the_cpu() -> None:
    assert kvm_at(0).max_huge_page_level == 3
    assert kvm_at(0, cpu=replace(CPU, ept_1g=False)).max_huge_page_level == 2
    assert kvm_at(0, cpu=replace(CPU, ept_1g=False, ept_2m=False)).max_huge_page_level == 1


def test_inconsistent_msrs() -> None:
    msrs = host_msrs(CPU)
    no_ept = replace(msrs, secondary_high=msrs.secondary_high & ~2)
    with pytest.raises(vmx.HardwareSetupError, match="-5"):
        vmx.load(Level.of(18), None, no_ept)
    no_vpid = replace(msrs, secondary_high=msrs.secondary_high & ~0x20)
    with pytest.raises(vmx.HardwareSetupError):
        vmx.load(Level.of(18), None, no_vpid)
    for k, kept in ((5, 0), (6, 0), (0, 0)):
        kvm = kvm_at(k)
        assert vmx.setup_vmcs_config(kvm, no_ept, False) == 0
        assert kvm.vmx_capability.ept == 0
        assert kvm.vmcs_config.cpu_based_2nd_exec_ctrl & MBEC == kept
        assert vmx.setup_vmcs_config(kvm, no_vpid, False) == 0
        assert kvm.vmx_capability.vpid == 0
    with pytest.raises(vmx.HardwareSetupError):
        vmx.load(Level.of(0), None, replace(msrs, procbased_high=0))


def test_a_cpu_without_secondary_controls_or_tpr_shadow() -> None:
    kvm = kvm_at(0)
    msrs = replace(host_msrs(CPU), ept=0, vpid=0, procbased_high=0x7FFFFFFF)
    assert vmx.setup_vmcs_config(kvm, msrs) == 0
    assert kvm.vmcs_config.cpu_based_2nd_exec_ctrl == 0
    assert vmx.vmx_hardware_setup(kvm, msrs) == 0
    assert not kvm.enable_vpid
    assert not kvm.flexpriority_enabled
    no_tpr = replace(host_msrs(CPU), procbased_high=0xFFFFFFFF & ~(1 << 21), sgx=True, secondary_high=0xFFFFFFFF)
    assert vmx.setup_vmcs_config(kvm, no_tpr) == 0
    assert kvm.vmcs_config.cpu_based_2nd_exec_ctrl & 0x310 == 0
    assert kvm.vmcs_config.cpu_based_2nd_exec_ctrl & 1 << 15


def test_five_levels() -> None:
    msrs = host_msrs(CPU)
    kvm = vmx.load(Level.of(0), None, replace(msrs, ept=msrs.ept | 1 << 7))
    assert kvm.max_tdp_level == 5


def test_controls_that_follow_the_guest() -> None:
    vcpu = l1_at(0)
    kvm = vcpu.kvm
    kvm.vmcs_config.cpu_based_2nd_exec_ctrl |= 1 << 26
    kvm.vmcs_config.nested.secondary_ctls_high |= 1 << 26
    with_all = vmx.vmx_secondary_exec_control(vcpu, dirty_logging=True)
    assert with_all & (1 << 3 | 1 << 12 | 1 << 20 | 1 << 26) == 1 << 3 | 1 << 12 | 1 << 20 | 1 << 26
    assert with_all & 1 << 17
    assert with_all & 1 << 16 == 0
    assert vcpu.nested_msrs.secondary_ctls_high & 1 << 26
    without = vmx.vmx_secondary_exec_control(vcpu, cpuid=False, xsaves=False)
    assert without & (1 << 3 | 1 << 12 | 1 << 20 | 1 << 26) == 0
    assert without & 1 << 16
    assert vcpu.nested_msrs.secondary_ctls_high & 1 << 26 == 0
    kvm.vmcs_config.nested.secondary_ctls_high = 0
    vmx.vmx_secondary_exec_control(vcpu)
    assert kvm.warns
    kvm.nested = False
    kvm.enable_vpid = False
    vcpu.vpid = 0
    assert vmx.vmx_secondary_exec_control(vcpu) & 0x20 == 0


@pytest.mark.parametrize("k", [0, 2, 11, 18])
def test_error_code_of_a_violation(k: int) -> None:
    vcpu = l1_at(k, True)
    for q in range(1 << 9):
        want = (USER if q & 1 else 0) | (WRITE if q & 2 else 0) | (FETCH if q & 4 else 0)
        mask = 0x78 if k >= 11 else 0x38
        want |= PRESENT if q & mask else 0
        assert vmx.ept_violation_error_code(vcpu, q) == want
    vcpu.pt_guest_exec_control = False
    assert vmx.ept_violation_error_code(vcpu, 0x40) == 0


def test_the_gva_bits_are_never_looked_at_where_they_are() -> None:
    """handle_ept_violation tests bit 7 of the error code, which it has not set."""
    vcpu = l1_at(0)
    assert vmx.ept_violation_error_code(vcpu, 0x180) >> 32 == 0


def test_nmi_unblocking() -> None:
    vcpu = l2_at(0)
    map_gpa(vcpu, 0x23456037)
    vmx.handle_ept_violation(vcpu, 1 << 30 | 2 << 21 | 3 << 12, 0x1181)
    assert vcpu.interruptibility == 8
    vcpu.interruptibility = 0
    vcpu.idt_vectoring_valid = True
    vmx.handle_ept_violation(vcpu, 0, 0x1181)
    assert vcpu.interruptibility == 0


def test_misconfigurations() -> None:
    vcpu = l1_at(0)
    assert vmx.handle_ept_misconfig(vcpu, 0x1000, fast_mmio=True) == 1
    assert vcpu.stat == {"skipped": 1}
    vcpu.guest_mode = True
    vcpu.ram_gfns = 0
    mmu_fault.kvm_mmu_page_fault(vcpu, 0x1000, USER)
    assert vmx.handle_ept_misconfig(vcpu, 0x1000, fast_mmio=True) == mmu_fault.EMULATE


def test_ept_pointer() -> None:
    vcpu = l1_at(0)
    assert vmx_ept.construct_eptp(vcpu, 0x5000, 4) == 0x505E
    assert vmx_ept.construct_eptp(vcpu, 0x5000, 5) == 0x5066
    assert vmx_ept.construct_eptp(l2_at(0), 0x5000, 4) == 0x501E
    assert vmx_ept.construct_eptp(l2_at(0, ad=True), 0x5000, 4) == 0x505E
    assert vmx_ept.construct_eptp(l1_at(0, eptad=False), 0x5000, 4) == 0x501E


def test_memory_type_of_host_mmio() -> None:
    assert vmx_ept.vmx_get_mt_mask(kvm_at(0), True) == 0
