"""vmx/nested.c and hyperv.c: what L1 is offered, may ask and gets."""

from __future__ import annotations

import pytest

from kvmodel.include.asm import vmx_h
from kvmodel.include.asm.kvm_host import nested_vmx_msrs, vmcs12, x86_exception
from kvmodel.vmx import hyperv, nested
from kvmodel.vmx.hyperv import EvmcsCtrlType
from tests.kvmodel.mirror import PML4, kvm_at, l1_at, l2_at

MBEC = 1 << 22
EPT = 2


@pytest.mark.parametrize("k", range(19))
@pytest.mark.parametrize("param", [None, False, True])
def test_what_l1_is_offered(k: int, param: bool | None) -> None:
    msrs = kvm_at(k, param).vmcs_config.nested
    on = k >= 16 and (param if param is not None else k >= 18)
    assert bool(msrs.secondary_ctls_high & MBEC) == on
    assert msrs.secondary_ctls_high & 0xA2 == 0xA2
    assert msrs.secondary_ctls_low == 0
    assert msrs.ept_caps & (1 | 1 << 6 | 1 << 16 | 1 << 17 | 1 << 20 | 1 << 21) == 0x330041
    assert msrs.ept_caps & 1 << 22 == 0


def test_without_ept_and_without_ad() -> None:
    off = kvm_at(18, True, ept=False).vmcs_config.nested
    assert off.secondary_ctls_high & (EPT | MBEC | 0x80) == 0
    assert off.ept_caps == 0
    no_ad = kvm_at(0, eptad=False).vmcs_config.nested
    assert no_ad.ept_caps & 1 << 21 == 0
    assert no_ad.secondary_ctls_high & 1 << 17 == 0


def test_other_switches() -> None:
    kvm = kvm_at(0)
    kvm.enable_vpid = kvm.flexpriority_enabled = kvm.enable_unrestricted_guest = False
    kvm.enable_sgx = True
    kvm.vmcs_config.cpu_based_2nd_exec_ctrl &= ~(1 << 13)
    msrs = nested_vmx_msrs()
    nested.nested_vmx_setup_secondary_ctls(kvm, 0xFFFFFFFF, msrs)
    assert msrs.secondary_ctls_high & (0x20 | 1 | 0x80) == 0
    assert msrs.secondary_ctls_high & 1 << 15
    assert msrs.vpid_caps == 0
    assert msrs.vmfunc_controls == 0


def test_user_space_may_take_but_not_add() -> None:
    vcpu = l1_at(18)
    kvm, msrs = vcpu.kvm, vcpu.nested_msrs
    offered = kvm.vmcs_config.nested.secondary_ctls_high
    assert nested.vmx_restore_control_msr(kvm, msrs, (offered & ~MBEC) << 32) == 0
    assert msrs.secondary_ctls_high == offered & ~MBEC
    assert nested.vmx_restore_control_msr(kvm, msrs, (offered | 1 << 31) << 32) == -22
    kvm.vmcs_config.nested.secondary_ctls_low = 2
    assert nested.vmx_restore_control_msr(kvm, msrs, offered << 32) == -22
    caps = kvm.vmcs_config.nested.ept_caps
    assert nested.vmx_restore_vmx_ept_vpid_cap(kvm, msrs, caps & ~1) == 0
    assert msrs.ept_caps == caps & ~1
    assert nested.vmx_restore_vmx_ept_vpid_cap(kvm, msrs, caps | 1 << 22) == -22


def test_msr_reads() -> None:
    vcpu = l1_at(18)
    plain = nested.vmx_get_msr(vcpu, 0x48B)
    assert plain is not None
    assert plain >> 54 & 1
    assert nested.vmx_get_msr(vcpu, 0x491) == 1
    assert nested.vmx_get_msr(vcpu, 0x480) is None
    vcpu.guest_cpuid_has_evmcs = True
    assert nested.vmx_get_msr(vcpu, 0x48B, host_initiated=True) == plain
    assert nested.vmx_get_msr(vcpu, 0x491) == 0
    vcpu.pt_guest_exec_control = False
    filtered = nested.vmx_get_msr(vcpu, 0x48B)
    assert filtered is not None
    assert filtered >> 54 & 1 == 0


@pytest.mark.parametrize(("k", "passes"), [(16, False), (17, True)])
def test_evmcs_carries_bit_22_from_patch_17(k: int, passes: bool) -> None:
    vcpu = l1_at(k, True)
    data = hyperv.nested_evmcs_filter_control_msr(vcpu, 0x48B, 0xFFFFFFFF << 32)
    assert bool(data >> 54 & 1) == passes
    assert data >> 32 & 1 << 25 == 0  # TSC scaling never
    check = vmcs12(secondary_vm_exec_control=EPT | MBEC)
    assert (hyperv.nested_evmcs_check_controls(vcpu.kvm, check) == 0) == passes


@pytest.mark.parametrize(
    ("msr", "dropped"),
    [
        (0x483, 1 << 22),
        (0x48F, 1 << 12),
        (0x484, 1 << 13),
        (0x490, 1 << 13),
        (0x482, 1 << 17),
        (0x48E, 1 << 17),
        (0x481, 1 << 6),
        (0x48D, 1 << 7),
    ],
)
def test_evmcs_drops_controls(msr: int, dropped: int) -> None:
    vcpu = l1_at(0)
    data = hyperv.nested_evmcs_filter_control_msr(vcpu, msr, 0xFFFFFFFF << 32)
    assert data >> 32 & dropped == 0
    assert data >> 32 != 0


def test_evmcs_performance_counters_need_a_cpuid_bit() -> None:
    vcpu = l1_at(0)
    assert hyperv.nested_evmcs_filter_control_msr(vcpu, 0x483, 0xFFFFFFFF << 32, True) >> 32 & 1 << 12
    assert hyperv.nested_evmcs_filter_control_msr(vcpu, 0x484, 0xFFFFFFFF << 32, True) >> 32 & 1 << 13
    assert hyperv.nested_evmcs_filter_control_msr(vcpu, 0x480, 5) == 5


@pytest.mark.parametrize(
    "bad",
    [
        {"pin_based_vm_exec_control": 1 << 6},
        {"cpu_based_vm_exec_control": 1 << 17},
        {"vm_exit_controls": 1 << 22},
        {"vm_entry_controls": 1 << 31},
        {"vm_function_control": 1},
        {"vm_function_control": 1 << 32},
    ],
)
def test_evmcs_refuses(bad: dict[str, int]) -> None:
    kvm = kvm_at(18)
    assert hyperv.nested_evmcs_check_controls(kvm, vmcs12()) == 0
    assert hyperv.nested_evmcs_check_controls(kvm, vmcs12(**bad)) == -22
    assert hyperv.evmcs_get_supported_ctls(kvm, EvmcsCtrlType.EVMCS_3RDEXEC) == 0


def run(k: int, control: int, eptp: int = nested.vmcs12_eptp(PML4, ad=False), **more: int) -> int:
    vcpu = l1_at(k, True)
    vcpu.vmcs12 = vmcs12(secondary_vm_exec_control=control, ept_pointer=eptp, **more)
    return nested.nested_vmx_run(vcpu)


def test_entry_checks() -> None:
    assert run(18, EPT) == 0
    assert run(18, EPT | MBEC) == 0
    assert run(18, MBEC) == 7
    assert run(15, EPT | MBEC) == 7
    assert run(18, 0x80) == 7
    assert run(18, 1 << 17) == 7
    assert run(18, EPT | 0x20) == 7
    assert run(18, EPT | 0x20, virtual_processor_id=1) == 0
    assert run(18, EPT | 1 << 31) == 7
    assert run(18, 1 << 31, cpu_based_vm_exec_control=0) == 0


def test_apic_controls() -> None:
    check = nested.nested_vmx_check_apicv_controls
    tpr = 1 << 31 | 1 << 21
    assert check(vmcs12()) == 0
    assert check(vmcs12(0x11, 0, tpr)) == -22
    assert check(vmcs12(0x200, 0, tpr)) == -22
    assert check(vmcs12(0x200, 0, tpr, 1)) == 0
    assert check(vmcs12(0x100)) == -22
    assert check(vmcs12(0x100, 0, tpr)) == 0
    vcpu = l1_at(0)
    vcpu.nested_msrs.secondary_ctls_high |= 0x100
    vcpu.vmcs12 = vmcs12(0x100)
    assert nested.nested_vmx_run(vcpu) == 7


@pytest.mark.parametrize(
    ("eptp", "good"),
    [(0x1101E, True), (0x11018, False), (0x11019, False), (0x11026, False), (0x1100E, False), (0x1109E, False),
     (1 << 45 | 0x1E, False), (0x1105E, True)],
)  # fmt: skip
def test_ept_pointers(eptp: int, good: bool) -> None:
    vcpu = l1_at(0)
    assert nested.nested_vmx_check_eptp(vcpu, eptp) == good
    if good:
        assert run(0, EPT, eptp) == 0
    else:
        assert run(0, EPT, eptp) == 7


def test_capabilities_decide_the_ept_pointer() -> None:
    vcpu = l1_at(0)
    caps = vcpu.nested_msrs.ept_caps
    vcpu.nested_msrs.ept_caps = caps & ~vmx_h.VMX_EPT_AD_BIT
    assert not nested.nested_vmx_check_eptp(vcpu, 0x1105E)
    vcpu.nested_msrs.ept_caps = caps & ~vmx_h.VMX_EPTP_WB_BIT
    assert not nested.nested_vmx_check_eptp(vcpu, 0x1101E)
    vcpu.nested_msrs.ept_caps = caps & ~vmx_h.VMX_EPT_PAGE_WALK_4_BIT
    assert not nested.nested_vmx_check_eptp(vcpu, 0x1101E)
    vcpu.nested_msrs.ept_caps = caps | vmx_h.VMX_EPTP_UC_BIT | vmx_h.VMX_EPT_PAGE_WALK_5_BIT
    assert nested.nested_vmx_check_eptp(vcpu, 0x11020)


def test_evmcs_checks_on_entry() -> None:
    for k, error in ((16, 7), (17, 0)):
        vcpu = l1_at(k, True)
        vcpu.guest_cpuid_has_evmcs = True
        vcpu.vmcs12 = vmcs12(EPT | MBEC, nested.vmcs12_eptp(PML4, ad=False))
        assert nested.nested_vmx_run(vcpu) == error


@pytest.mark.parametrize("k", range(19))
def test_vmcs01s_mbec_reaches_l2(k: int) -> None:
    """prepare_vmcs02_early() does not take bit 22 from vmcs12 only."""
    vcpu = l2_at(k, True)
    assert bool(vcpu.vmcs02_secondary & MBEC) == (k >= 6)
    assert not l2_at(k, False).vmcs02_secondary & MBEC


def test_vmcs02_controls() -> None:
    vcpu = l1_at(0)
    vcpu.vmcs01_secondary = 0xFFFFFFFF
    vcpu.vmcs12 = vmcs12(0x80 | EPT)
    got = nested.prepare_vmcs02_early(vcpu)
    assert got & nested.FROM_VMCS12_ONLY == 0
    assert got & (1 << 17 | 1 << 14) == 0
    assert got & 0x82 == 0x82
    vcpu.vmcs12 = vmcs12(0x80, 0, 0)
    assert nested.prepare_vmcs02_early(vcpu) & 0x80 == 0


def test_injection() -> None:
    vcpu = l2_at(0)
    vcpu.exit_qualification = 0xFFFF
    nested.nested_ept_inject_page_fault(vcpu, x86_exception(1, 0x1A, 0x5000))
    assert vcpu.injected == (48, 0x19A, 0x5000)
    nested.nested_ept_inject_page_fault(vcpu, x86_exception(9, 0x1A, 0x5000))
    assert vcpu.injected == (49, 0, 0x5000)
    vcpu.pml_full = True
    nested.nested_ept_inject_page_fault(vcpu, x86_exception(1, 0x1A, 0x5000))
    assert vcpu.injected == (62, 0x1000, 0x5000)
    assert not vcpu.pml_full


def test_who_wants_an_exit() -> None:
    assert nested.nested_vmx_l0_wants_exit(48)
    assert nested.nested_vmx_l0_wants_exit(49)
    assert nested.nested_vmx_l0_wants_exit(1)
    assert not nested.nested_vmx_l0_wants_exit(10)
    assert nested.nested_vmx_l1_wants_exit(10)
    assert not nested.nested_vmx_l1_wants_exit(75)
    assert nested.nested_vmx_l1_wants_exit(0, vector=14)
    assert not nested.nested_vmx_l1_wants_exit(0, vector=6)
    assert nested.nested_vmx_l1_wants_exit(0, 1 << 6, 6)


def test_invept() -> None:
    vcpu = l2_at(0)
    assert [nested.invept_type_valid(vcpu, n) for n in (0, 1, 2, 3, 40)] == [False, True, True, False, False]
    nested.handle_invept(vcpu)
    assert vcpu.guest_mmu.root is None


def test_a_full_log_is_only_looked_at_where_l1_asks_for_one() -> None:
    vcpu = l2_at(0)
    assert nested.nested_vmx_write_pml_buffer(vcpu, 0x1000) == 0
    vcpu.vmcs12.secondary_vm_exec_control |= 1 << 17
    vcpu.vmcs12.guest_pml_index = 512
    assert nested.nested_vmx_write_pml_buffer(vcpu, 0x1000) == 1
