"""Checks of vmx/vmx.c, vmx/capabilities.h, vmx/nested.c and vmx/hyperv.c."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Final
from unittest import mock

from harness.oracle.specs.spaces import BOOL, MASK64, Bits, Space
from harness.oracle.specs.spec import EPTP, Mirror, Side, Spec, State, functions_of
from kvmodel.include.asm.hyperv_tlfs import hv_enlightened_vmcs, hv_vp_assist_page
from kvmodel.include.asm.kvm_host import (
    Vcpu,
    kvm_mmu,
    nested_vmx_msrs,
    vmcs12,
    vmcs_config,
    vmx_capability,
    x86_exception,
)
from kvmodel.mmu import spte
from kvmodel.mmu.mmu_internal import kvm_mmu_page
from kvmodel.mmu.mmu_page import KVM_MMU_NUM_PREV_ROOTS
from kvmodel.vmx import capabilities, hyperv, nested, nested_ctls, nested_evmcs, vmx, vmx_h

U32: Final = Bits((1 << 32) - 1)
U32_HIGH: Final = Bits(((1 << 32) - 1) << 32)
MBEC: Final = 1 << 22
PML: Final = 1 << 17
EPT: Final = 1 << 1
VPID: Final = 1 << 5
UNRESTRICTED: Final = 1 << 7
VMFUNC: Final = 1 << 13
ENCLS: Final = 1 << 15
FEW: Final = Bits(MBEC | EPT | VPID | UNRESTRICTED | VMFUNC | 1 | 1 << 17 | 1 << 25)
FLAGS: Final = (State(),)
ALL_BITS: Final = (U32.mask, U32.mask, U32.mask, U32.mask, MASK64)  # the secondary controls, EPT and VPID, VM functions


def _noting(asked: list[tuple[int, int]]) -> Callable[[Vcpu, int, int], int]:
    """As in the image, a fault handler that only notes what it is asked."""

    def handler(_vcpu: Vcpu, gpa: int, code: int) -> int:
        asked.append((gpa, code))
        return 1

    return handler


def _violation(s: Side) -> Mirror:
    kvm, vcpu = s.kvm, s.vcpu
    asked: list[tuple[int, int]] = []
    handler = _noting(asked)

    def call(qualification: int, gpa: int, flag: int, idt: int, vnmi: int) -> tuple[int, ...]:
        asked.clear()
        s.set_flag(flag)
        vcpu.idt_vectoring_valid, kvm.enable_vnmi, vcpu.interruptibility = bool(idt), bool(vnmi), 0
        vcpu.exit_qualification = MASK64
        with mock.patch.object(vmx, "kvm_mmu_page_fault", handler):
            vmx.handle_ept_violation(vcpu, gpa, qualification)
        return len(asked), *asked[0], vcpu.interruptibility, vcpu.exit_qualification

    return call


def _misconfig(s: Side) -> Mirror:
    asked: list[tuple[int, int]] = []
    handler = _noting(asked)

    def call(gpa: int, guest: int, device: int) -> tuple[int, ...]:
        asked.clear()
        s.vcpu.guest_mode = bool(guest)
        s.vcpu.exit_qualification, s.vcpu.stat = MASK64, {}
        with mock.patch.object(vmx, "kvm_mmu_page_fault", handler):
            vmx.handle_ept_misconfig(s.vcpu, gpa, bool(device))
        skipped = s.vcpu.stat.get("skipped", 0)
        return len(asked), *(asked[0] if asked else (0, 0)), skipped, s.vcpu.exit_qualification

    return call


def _eptp(s: Side) -> Mirror:
    def call(root: int, level: int, ad: int, guest: int, eptp12: int) -> tuple[int]:
        s.kvm.enable_ept_ad_bits = bool(ad)
        s.vcpu.guest_mode = bool(guest)
        s.vcpu.vmcs12.ept_pointer = eptp12
        return (vmx.construct_eptp(s.vcpu, root, level),)

    return call


def _mt(s: Side) -> Mirror:
    def call(mmio: int, noncoherent: int) -> tuple[int]:
        s.kvm.noncoherent_dma = bool(noncoherent)
        return (vmx.vmx_get_mt_mask(s.vcpu, 0, bool(mmio)),)

    return call


def _config(s: Side) -> Mirror:
    kvm = s.kvm

    def call(procbased: int, secondary: int, caps: int, strict: int, sgx: int) -> tuple[int, ...]:
        kvm.vmcs_config.cpu_based_2nd_exec_ctrl = 0
        msrs = vmx.HostMsrs(
            secondary >> 32,
            caps & U32.mask,
            caps >> 32,
            46,
            secondary & U32.mask,
            procbased >> 32,
            procbased & U32.mask,
            bool(sgx),
        )
        ret = vmx.setup_vmcs_config(kvm, msrs, bool(strict))
        return ret & MASK64, 0 if ret else kvm.vmcs_config.cpu_based_2nd_exec_ctrl

    return call


def _capabilities(s: Side) -> Mirror:
    first = _config(s)

    def call(*row: int) -> tuple[int, ...]:
        return (*first(*row), s.kvm.vmx_capability.ept, s.kvm.vmx_capability.vpid)

    return call


def _secondary(s: Side) -> Mirror:
    kvm, vcpu = s.kvm, s.vcpu

    def call(
        ctrl: int,
        ept: int,
        unrestricted: int,
        vpid: int,
        dirty: int,
        param: int,
        cpuid: int,
        on: int,
        high: int,
        flexpriority: int,
        xsaves: int,
        own_high: int,
    ) -> tuple[int, ...]:
        kvm.vmcs_config.cpu_based_2nd_exec_ctrl = ctrl
        kvm.vmcs_config.nested.secondary_ctls_high, vcpu.nested_msrs.secondary_ctls_high = high, own_high
        kvm.enable_ept = bool(ept)
        kvm.enable_unrestricted_guest = bool(unrestricted)
        kvm.enable_pml = bool(dirty)
        kvm.nested = bool(on)
        vcpu.vpid = vpid
        kvm.flexpriority_enabled = bool(flexpriority)
        kvm.enable_pt_guest_exec_control = bool(param) and s.level.has(3)
        control = vmx.vmx_secondary_exec_control(
            vcpu, cpuid=bool(cpuid), xsaves=bool(xsaves), dirty_logging=bool(dirty)
        )
        return control, kvm.enable_unrestricted_guest, vcpu.nested_msrs.secondary_ctls_high

    return call


def _hardware(s: Side) -> Mirror:
    kvm = s.kvm

    def call(secondary: int, caps: int, ept: int, ad: int, param: int, on: int, gbpages: int) -> tuple[int, ...]:
        kvm.boot_cpu_has_gbpages = bool(gbpages)
        kvm.enable_ept, kvm.enable_ept_ad_bits, kvm.nested = bool(ept), bool(ad), bool(on)
        kvm.enable_unrestricted_guest = kvm.enable_vpid = kvm.enable_pml = kvm.flexpriority_enabled = True
        kvm.cpu_dirty_log_size = 512
        kvm.enable_pt_guest_exec_control = bool(param) and s.level.has(3)
        kvm.vmcs_config = vmcs_config()
        kvm.vmx_capability = vmx_capability()
        spte.kvm_mmu_reset_all_pte_masks(kvm)
        caps_low, caps_high = caps & U32.mask, caps >> 32
        ret = vmx.vmx_hardware_setup(kvm, vmx.HostMsrs(secondary >> 32, caps_low, caps_high, 46, secondary & U32.mask))
        msrs = kvm.vmcs_config.nested
        return (
            int(ret != 0),
            kvm.enable_ept,
            kvm.enable_ept_ad_bits,
            kvm.enable_unrestricted_guest,
            kvm.enable_vpid,
            kvm.enable_pml,
            kvm.enable_pt_guest_exec_control,
            kvm.flexpriority_enabled,
            kvm.cpu_dirty_log_size,
            kvm.vmcs_config.cpu_based_2nd_exec_ctrl,
            msrs.secondary_ctls_high,
            msrs.ept_caps,
            msrs.vpid_caps,
            msrs.vmfunc_controls,
            kvm.shadow_x_mask,
            kvm.shadow_ux_mask,
            kvm.shadow_present_mask,
            kvm.shadow_accessed_mask,
            kvm.shadow_acc_track_mask,
            kvm.shadow_mmio_value,
            *((0, 0, 0) if ret else (kvm.tdp_mmu_enabled, kvm.max_tdp_level, kvm.max_huge_page_level)),
        )

    return call


def _init_vmcs(s: Side) -> Mirror:
    kvm, vcpu = s.kvm, s.vcpu

    def call(ctrl: int, ept: int, unrestricted: int, vpid: int, param: int) -> tuple[int, ...]:
        kvm.vmcs_config.cpu_based_2nd_exec_ctrl = ctrl
        kvm.enable_ept, kvm.enable_unrestricted_guest = bool(ept), bool(unrestricted)
        kvm.enable_pml = kvm.nested = False
        kvm.flexpriority_enabled = True
        vcpu.vpid = vpid
        vcpu.pt_guest_exec_control = False
        kvm.enable_pt_guest_exec_control = bool(param) and s.level.has(3)
        vmx.init_vmcs(vcpu)
        return vcpu.vmcs01_secondary, vcpu.pt_guest_exec_control

    return call


def _has(s: Side) -> Mirror:
    def call(ctrl: int, current: int) -> tuple[int, ...]:
        s.kvm.vmcs_config.cpu_based_2nd_exec_ctrl = ctrl
        s.vcpu.vmcs01_secondary = current
        return (
            capabilities.cpu_has_vmx_mbec(s.kvm) if s.level.has(4) else 0,
            vmx_h.vmx_has_mbec(s.vcpu) if s.level.has(6) else 0,
        )

    return call


def _caps(s: Side) -> Mirror:
    kvm = s.kvm

    def call(ctrl: int, ept: int, vpid: int) -> tuple[int, ...]:
        kvm.vmcs_config.cpu_based_2nd_exec_ctrl = ctrl
        kvm.vmx_capability.ept, kvm.vmx_capability.vpid = ept, vpid
        return (
            capabilities.cpu_has_vmx_ept(kvm),
            capabilities.cpu_has_vmx_vpid(kvm),
            capabilities.cpu_has_vmx_unrestricted_guest(kvm),
            capabilities.cpu_has_vmx_vmfunc(kvm),
            capabilities.cpu_has_vmx_pml(kvm),
            capabilities.cpu_has_vmx_ept_execute_only(kvm),
            capabilities.cpu_has_vmx_ept_4levels(kvm),
            capabilities.cpu_has_vmx_ept_5levels(kvm),
            capabilities.cpu_has_vmx_ept_mt_wb(kvm),
            capabilities.cpu_has_vmx_ept_ad_bits(kvm),
            capabilities.cpu_has_vmx_invept_global(kvm),
            capabilities.ept_caps_to_lpage_level(ept),
        )

    return call


def _restore(s: Side) -> Mirror:
    own = s.kvm.vmcs_config.nested

    def call(msr: int, ours: int, data: int) -> tuple[int, ...]:
        own.secondary_ctls_low = own.ept_caps = ours & U32.mask
        own.secondary_ctls_high = own.vpid_caps = ours >> 32
        msrs = nested_vmx_msrs()
        restore = nested.vmx_restore_control_msr if msr == CTLS2 else nested.vmx_restore_vmx_ept_vpid_cap
        ret = restore(s.kvm, msrs, data) & MASK64
        return ret, msrs.secondary_ctls_low, msrs.secondary_ctls_high, msrs.ept_caps, msrs.vpid_caps

    return call


def _get_msr(s: Side) -> Mirror:
    def call(msr: int, high: int, host: int, evmcs: int, flag: int, _perf: int) -> tuple[int, ...]:
        s.set_flag(flag)
        s.vcpu.nested_msrs = nested_vmx_msrs(0, high, 0, 0, 0)
        s.vcpu.guest_cpuid_has_evmcs = bool(evmcs)
        data = vmx.vmx_get_msr(s.vcpu, msr, bool(host))
        return 0, data if data is not None else 0

    return call


def _setup(s: Side) -> Mirror:
    kvm = s.kvm

    def call(
        caps: int, ctrl: int, ept: int, ad: int, vpid: int, unrestricted: int, flexpriority: int, param: int
    ) -> tuple[int, ...]:
        kvm.vmcs_config.cpu_based_2nd_exec_ctrl = ctrl
        kvm.enable_ept, kvm.enable_ept_ad_bits, kvm.enable_vpid = bool(ept), bool(ad), bool(vpid)
        kvm.enable_unrestricted_guest, kvm.flexpriority_enabled = bool(unrestricted), bool(flexpriority)
        kvm.enable_pt_guest_exec_control = bool(param) and s.level.has(3)
        msrs = nested_vmx_msrs(*ALL_BITS)
        nested.nested_vmx_setup_secondary_ctls(kvm, caps, msrs)
        return (
            msrs.secondary_ctls_low,
            msrs.secondary_ctls_high,
            msrs.ept_caps,
            msrs.vpid_caps,
            msrs.vmfunc_controls,
        )

    return call


def _controls(s: Side) -> Mirror:
    def call(ctrl: int, eptp: int, high: int, caps: int, evmcs: int, active: int, vpid: int) -> tuple[int, ...]:
        vcpu = s.vcpu
        vcpu.nested_msrs = nested_vmx_msrs(0, high, caps, 0, 0)
        vcpu.guest_cpuid_has_evmcs = bool(evmcs)
        vcpu.reserved_gpa_bits = MASK64 & -(1 << 46)
        vcpu.vmcs12 = vmcs12(ctrl, eptp, ACTIVATE if active else 0, virtual_processor_id=vpid)
        return (
            nested.nested_vmx_check_mode_based_ept_exec_controls(vcpu.vmcs12) & MASK64,
            nested.nested_check_vm_execution_controls(vcpu) & MASK64,
            nested.nested_vmx_check_controls(vcpu) & MASK64,
        )

    return call


def _ctls(s: Side) -> Mirror:
    def call(pin: int, cpu: int, leave: int, entry: int, apicv: int) -> tuple[int, ...]:
        s.kvm.enable_apicv = bool(apicv)
        msrs = nested_vmx_msrs()
        nested_ctls.nested_vmx_setup_ctls_msrs(s.kvm, nested_ctls.HostCtls(pin, cpu, leave, entry), msrs)
        return (
            msrs.pinbased_ctls_low,
            msrs.pinbased_ctls_high,
            msrs.procbased_ctls_low,
            msrs.procbased_ctls_high,
            msrs.exit_ctls_low,
            msrs.exit_ctls_high,
            msrs.entry_ctls_low,
            msrs.entry_ctls_high,
        )

    return call


def _apicv(_: Side) -> Mirror:
    def call(pin: int, cpu: int, ctrl: int) -> tuple[int]:
        v12 = vmcs12(ctrl, 0, cpu, pin)
        return (nested.nested_vmx_check_apicv_controls(v12) & MASK64,)

    return call


def _vmptrld(s: Side) -> Mirror:
    vcpu = s.vcpu
    hv = vcpu.hv

    def call(launch: int, offered: int, asked: int, named: int, used: int, *rest: int) -> tuple[int, ...]:
        revision, clean, pin, cpu, ctrl, leave, entry, eptp, vpid, before = rest
        vcpu.guest_cpuid_has_evmcs = bool(offered)
        hv.vp_assist_page = hv_vp_assist_page(bool(asked), VMPTRS[named])
        page = hv_enlightened_vmcs(revision, ctrl, eptp, cpu, pin, leave, entry, vpid, clean)
        other = hv_enlightened_vmcs(0, cpu_based_vm_exec_control=0)
        hv.pages = {VMPTRS[n]: page if n == (named or 1) else other for n in (1, 2)}
        hv.hv_evmcs, hv.hv_evmcs_vmptr = (hv.pages[VMPTRS[used]] if used else None), VMPTRS[used]
        short = before & 0xFFFF
        vcpu.vmcs12 = vmcs12(before, before, before, before, before, before, before, short, short)
        status = nested_evmcs.nested_vmx_handle_enlightened_vmptrld(vcpu, bool(launch))
        if hv.hv_evmcs is not None:
            nested_evmcs.copy_enlightened_to_vmcs12(vcpu, hv.hv_evmcs)
        v12 = vcpu.vmcs12
        return (
            status.value,
            hv.hv_evmcs_vmptr & MASK64,
            page.hv_clean_fields,
            v12.pin_based_vm_exec_control,
            v12.cpu_based_vm_exec_control,
            v12.secondary_vm_exec_control,
            v12.vm_exit_controls,
            v12.vm_entry_controls,
            v12.ept_pointer,
            v12.virtual_processor_id,
            v12.vm_function_control,
            v12.guest_pml_index,
        )

    return call


def _vmcs02(s: Side) -> Mirror:
    def call(ours: int, theirs: int, active: int, _config: int) -> tuple[int]:
        s.vcpu.vmcs01_secondary = ours
        s.vcpu.vmcs12 = vmcs12(theirs, 0, ACTIVATE if active else 0)
        return (nested.prepare_vmcs02_early(s.vcpu),)

    return call


def _inject(s: Side) -> Mirror:
    vcpu = s.vcpu
    pages = [kvm_mmu_page(0, 0, 0, s.kvm.roles) for _ in range(KVM_MMU_NUM_PREV_ROOTS)]
    synced: list[tuple[int, int]] = []

    def invalidate(_vcpu: Vcpu, addr: int, roots: list[kvm_mmu_page]) -> None:
        synced.append((sum(2 << n for n, page in enumerate(pages) if page in roots), addr))

    def call(
        code: int, qualification: int, address: int, exit_qual: int, pml: int, _reason: int, eptp: int, *cached: int
    ) -> tuple[int, ...]:
        synced.clear()
        vcpu.exit_qualification = exit_qual
        vcpu.pml_full = bool(pml)
        vcpu.vmcs12.ept_pointer = eptp
        vcpu.mmu.prev_roots = [(pgd, page) if pgd else None for pgd, page in zip(cached, pages, strict=True)]
        with mock.patch.object(nested, "kvm_mmu_invalidate_addr", invalidate):
            nested.nested_ept_inject_page_fault(vcpu, x86_exception(code, qualification, address))
        assert vcpu.injected is not None
        return *vcpu.injected, *(synced[-1] if synced else (0, 0)), vcpu.pml_full

    return call


def _vmx_msr(_: Side) -> Mirror:
    def call(msr: int, *halves: int) -> tuple[int, ...]:
        data = nested.vmx_get_vmx_msr(nested_vmx_msrs(*halves), msr)
        return 0, data if data is not None else 0

    return call


def _filter(s: Side) -> Mirror:
    def call(msr: int, data: int, flag: int, perf: int) -> tuple[int]:
        s.set_flag(flag)
        return (hyperv.nested_evmcs_filter_control_msr(s.vcpu, msr, data, bool(perf)),)

    return call


def _evmcs(s: Side) -> Mirror:
    def call(pin: int, cpu: int, ctrl: int, leave: int, entry: int, vmfunc: int) -> tuple[int]:
        v12 = vmcs12(ctrl, 0, cpu)
        v12.pin_based_vm_exec_control, v12.vm_exit_controls = pin, leave
        v12.vm_entry_controls, v12.vm_function_control = entry, vmfunc
        return (hyperv.nested_evmcs_check_controls(s.kvm, v12) & MASK64,)

    return call


def _pml(s: Side) -> Mirror:
    def call(index: int, on: int, full: int) -> tuple[int, ...]:
        vcpu = s.vcpu
        vcpu.vmcs12 = vmcs12(PML if on else 0, guest_pml_index=index)
        vcpu.pml_full = bool(full)
        ret = nested.nested_vmx_write_pml_buffer(vcpu, 0x5000)
        return ret, vcpu.vmcs12.guest_pml_index, vcpu.pml_full

    return call


def _invept(s: Side) -> Mirror:
    def call(caps: int, kind: int) -> tuple[int]:
        s.vcpu.nested_msrs = nested_vmx_msrs(0, 0, caps, 0, 0)
        return (nested.invept_type_valid(s.vcpu, kind),)

    return call


def _context(s: Side) -> Mirror:
    def call(caps: int, eptp: int) -> tuple[int, ...]:
        vcpu = s.vcpu
        vcpu.guest_mmu = kvm_mmu()
        vcpu.mmu, vcpu.write_log_dirty = vcpu.root_mmu, None
        vcpu.nested_msrs = nested_vmx_msrs(0, 0, caps, 0, 0)
        vcpu.vmcs12 = vmcs12(0, eptp)
        nested.nested_ept_init_mmu_context(vcpu)
        context = vcpu.guest_mmu
        check = context.guest_rsvd_check
        role = context.cpu_role
        masks = (*check.rsvd_bits_mask[0], *check.rsvd_bits_mask[1], check.bad_mt_xwr)
        return (
            *(role.base, role.ext.word, context.root_role, *masks),
            vcpu.mmu is context,
            context.inject_page_fault is nested.nested_ept_inject_page_fault,
            vcpu.write_log_dirty is nested.nested_vmx_write_pml_buffer,
        )

    return call


_v: Final = functions_of("vmx/vmx.c")
_n: Final = functions_of("vmx/nested.c")
_e: Final = functions_of("vmx/hyperv.c")
CTLS2: Final = 0x48B
CACHED: Final = (0, EPTP, EPTP ^ 1 << 6, EPTP ^ 1 << 12)  # no root; another A/D bit, another table
VMPTRS: Final = (hyperv.EVMPTR_INVALID, 0x5000, 0x6000)  # the image's two pages
ACTIVATE: Final = 1 << 31
REQUIRED: Final = 0xFFFFFFFF << 32
TPR_SHADOW: Final = 1 << 21 + 32
SECONDARY: Final = 1 << 31 + 32
EPTPS: Final = tuple(
    0x1000 | mt | walk << 3 | ad | junk
    for mt, walk, ad, junk in itertools.product((0, 1, 6, 7), (2, 3, 4), (0, 0x40), (0, 0x80, 1 << 47))
)
# L1 is offered every memory type, page walk and flag of an EPT pointer, or all but one.
EPTP_CAPS: Final = 1 << 6 | 1 << 7 | 1 << 8 | 1 << 14 | 1 << 21
BUT_ONE: Final = (EPTP_CAPS, *(EPTP_CAPS & ~(1 << bit) for bit in (6, 7, 8, 14, 21)))
# APIC-access pages, x2APIC mode, APIC-register virtualization, virtual-interrupt delivery: none goes without another
# control, but the first.
APIC_CONTROLS: Final = (0x1, 0x10, 0x100, 0x200)
CAPS: Final = Bits(0x1 | 0xC0 | 1 << 8 | 1 << 14 | 3 << 16 | 3 << 20 | 7 << 24)
SPARSE: Final = (0,) * 40 + tuple(1 << n for n in range(32))
GOOD_CAPS: Final = (0x6734141, 0x6334141 | 0x80, 0x6134041)

HYPERCALL: Final = 18  # Hyper-V's has a rule of its own
# Exit reasons that no control of vmcs12 decides, exceptions beside them.
UNDECIDED: Final = (0, 0, 0, 2, 9, 10, 13, *range(18, 23), 24, 26, 27, 33, 41, 44, 45, 50, 53, 55, 56, 75, 79)
INVEPT_TYPES: Final = (*range(8), 31, 32, 33, 63, 64, 1 << 31)

CAPABILITIES: Final = (
    "vmx/capabilities.h cpu_has_vmx_ept",
    "vmx/capabilities.h cpu_has_vmx_vpid",
    "vmx/capabilities.h cpu_has_vmx_unrestricted_guest",
    "vmx/capabilities.h cpu_has_vmx_vmfunc",
    "vmx/capabilities.h cpu_has_vmx_pml",
    "vmx/capabilities.h cpu_has_vmx_ept_execute_only",
    "vmx/capabilities.h cpu_has_vmx_ept_4levels",
    "vmx/capabilities.h cpu_has_vmx_ept_5levels",
    "vmx/capabilities.h cpu_has_vmx_ept_mt_wb",
    "vmx/capabilities.h cpu_has_vmx_ept_ad_bits",
    "vmx/capabilities.h cpu_has_vmx_invept_global",
    "vmx/capabilities.h ept_caps_to_lpage_level",
)

SPECS: Final = (
    Spec(
        "handle_ept_violation",
        _v("handle_ept_violation"),
        Space((Bits(), Bits(((1 << 46) - 1) & -8), BOOL, (0,), (1,))),
        _violation,
    ),
    Spec(
        "handle_ept_violation",
        _v("handle_ept_violation"),
        Space((Bits(0x1FFF), (0x5000,), BOOL, BOOL, BOOL)),
        _violation,
    ),
    Spec(
        "handle_ept_misconfig",
        _v("handle_ept_misconfig"),
        Space((Bits(((1 << 46) - 1) & -8), BOOL, BOOL)),
        _misconfig,
    ),
    Spec("vmx_get_mt_mask", _v("vmx_get_mt_mask"), Space((BOOL, BOOL)), _mt),
    Spec(
        "construct_eptp",
        (*_v("construct_eptp"), "vmx/nested.h nested_ept_ad_enabled"),
        Space((Bits(((1 << 46) - 1) & -4096), (4, 5), BOOL, BOOL, Bits(0xFFFF))),
        _eptp,
    ),
    Spec(
        "setup_vmcs_config",
        (*_v("setup_vmcs_config"), "vmx/vmx.h KVM_OPTIONAL_VMX_SECONDARY_VM_EXEC_CONTROL"),
        Space(
            (
                (REQUIRED, REQUIRED & ~TPR_SHADOW, REQUIRED & ~SECONDARY, REQUIRED & ~(1 << 7 + 32)),
                Bits(FEW.mask << 32 | ENCLS << 32 | 1 << 8 + 32),
                (0, 0x6734141, 0xF01 << 32, 0xF0106734141),
                BOOL,
                BOOL,
            )
        ),
        _config,
        outputs=(0, 1),
    ),
    Spec(
        "setup_vmcs_config",
        _v("setup_vmcs_config"),
        Space(((REQUIRED,), Bits(base=(EPT | VPID) << 32), Bits(), BOOL, BOOL)),
        _capabilities,
    ),
    # A CPU without EPT or VPID whose MSR 0x48C speaks of them.
    Spec(
        "setup_vmcs_config",
        _v("setup_vmcs_config"),
        Space(((REQUIRED,), Bits((MBEC | EPT | VPID) << 32), Bits(0x41 | 1 << 32 | 1 << 63), BOOL, BOOL)),
        _capabilities,
    ),
    Spec(
        "vmx_secondary_exec_control",
        _v("vmx_secondary_exec_control", "vmx_adjust_secondary_exec_control"),
        Space((U32, BOOL, BOOL, BOOL, BOOL, BOOL, BOOL, BOOL, U32, BOOL, BOOL, U32)),
        _secondary,
    ),
    Spec(
        "vmx_hardware_setup",
        (*_v("vmx_hardware_setup"), "mmu/mmu.c kvm_configure_mmu"),
        Space(
            (
                Bits(FEW.mask << 32 & ~(1 << 5 + 32), base=1 << 5 + 32),
                Bits(CAPS.mask | 0xF01 << 32, base=0xF01 << 32),
                BOOL,
                BOOL,
                BOOL,
                BOOL,
                BOOL,
            )
        ),
        _hardware,
    ),
    # A CPU without VPIDs.
    Spec(
        "vmx_hardware_setup",
        _v("vmx_hardware_setup"),
        Space((Bits((MBEC | EPT | UNRESTRICTED | PML) << 32), (0, 0x6734141, 0x6134141), *(BOOL,) * 5)),
        _hardware,
    ),
    Spec("init_vmcs", _v("init_vmcs"), Space((U32, BOOL, BOOL, BOOL, BOOL)), _init_vmcs),
    Spec(
        "has_mbec",
        ("vmx/capabilities.h cpu_has_vmx_mbec", "vmx/vmx.h vmx_has_mbec"),
        Space((U32, U32)),
        _has,
        applies=lambda level: level.has(4),
    ),
    Spec(
        "capabilities",
        CAPABILITIES,
        Space((U32, U32, U32)),
        _caps,
    ),
    Spec(
        "vmx_set_vmx_msr",
        _n("vmx_restore_control_msr", "vmx_restore_vmx_ept_vpid_cap", "is_bitwise_subset"),
        Space(((CTLS2,), Bits(0xFF << 32 | 0x3), Bits(0xFF << 32 | 0x3))),
        _restore,
    ),
    Spec(
        "vmx_set_vmx_msr",
        _n("vmx_restore_vmx_ept_vpid_cap", "is_bitwise_subset"),
        Space(((0x48C,), Bits(0xFF << 32 | 0xFF), Bits(0xFF << 32 | 0xFF))),
        _restore,
    ),
    Spec(
        "vmx_get_msr",
        _v("vmx_get_msr"),
        Space(((CTLS2,), U32, BOOL, BOOL, BOOL, BOOL)),
        _get_msr,
    ),
    Spec(
        "nested_vmx_setup_secondary_ctls",
        _n("nested_vmx_setup_secondary_ctls"),
        Space((CAPS, U32, BOOL, BOOL, BOOL, BOOL, BOOL, BOOL)),
        _setup,
    ),
    Spec(
        "vmx_control_verify",
        (*_n("vmx_control_verify"), "vmx/nested.h fixed_bits_valid"),
        Space((U32, U32, U32)),
        lambda s: lambda control, low, high: (nested.vmx_control_verify(control, low, high),),
    ),
    Spec(
        "nested_vmx_check_controls",
        (
            *_n("nested_vmx_check_controls", "nested_check_vm_execution_controls", "nested_vmx_check_eptp"),
            *_n("nested_vmx_check_mode_based_ept_exec_controls", "nested_vmx_check_unrestricted_guest_controls"),
        ),
        Space((Bits(MBEC | EPT | UNRESTRICTED), EPTPS, Bits(MBEC | EPT | UNRESTRICTED), CAPS, BOOL, BOOL, BOOL)),
        _controls,
    ),
    Spec(
        "nested_vmx_check_controls",
        (
            *_n("nested_vmx_check_apicv_controls", "nested_vmx_check_pml_controls"),
            *(f"vmx/nested.h {n}" for n in ("nested_cpu_has", "nested_cpu_has2", "nested_cpu_has_ept")),
        ),
        Space((FEW, (0x101E, 0x105E, 0x1020), (0xFFFFFFFF, ~MBEC & 0xFFFFFFFF), GOOD_CAPS, BOOL, BOOL, BOOL)),
        _controls,
    ),
    # Nothing is wrong, but what L1 is not offered.
    Spec(
        "nested_vmx_check_controls",
        _n("nested_vmx_check_eptp"),
        Space(((EPT,), EPTPS, (EPT,), BUT_ONE, (0,), (1,), (0,))),
        _controls,
    ),
    Spec(
        "nested_vmx_check_controls",
        _n("nested_vmx_check_apicv_controls"),
        Space((APIC_CONTROLS, (0,), (0xFFFFFFFF,), (EPTP_CAPS,), (0,), (1,), (0,))),
        _controls,
    ),
    Spec(
        "nested_vmx_check_apicv_controls",
        _n("nested_vmx_check_apicv_controls"),
        Space((Bits(0x69), Bits(ACTIVATE | 1 << 21 | 1), Bits(0x311 | EPT))),
        _apicv,
    ),
    Spec(
        "nested_vmx_setup_ctls_msrs",
        _n(*(f"nested_vmx_setup_{kind}_ctls" for kind in ("pinbased", "cpubased", "exit", "entry"))),
        Space((U32, U32, U32, U32, BOOL)),
        _ctls,
    ),
    Spec(
        "enlightened_vmptrld",
        (
            *_n("nested_vmx_handle_enlightened_vmptrld", "copy_enlightened_to_vmcs12", "nested_release_evmcs"),
            *_e("nested_get_evmptr"),
        ),
        Space(
            (
                *(BOOL, (0, 1, 1, 1), (0, 1, 1, 1), (0, 1, 1, 2), (0, 1, 2)),
                (1, 1, 1, 0x11E57ED0, 2),
                Bits(0xFFFF),
                *(U32,) * 5,
                Bits(),
                Bits(0xFFFF),
                U32,
            )
        ),
        _vmptrld,
    ),
    Spec(
        "nested_ept_root_matches",
        _n("nested_ept_root_matches"),
        Space(((0, EPTP), (0, EPTP, *(EPTP ^ 1 << n for n in range(64))))),
        lambda s: lambda root, eptp: (nested.nested_ept_root_matches(root, eptp),),
    ),
    Spec(
        "prepare_vmcs02_early",
        _n("prepare_vmcs02_early"),
        Space((U32, U32, BOOL, (0,))),
        _vmcs02,
    ),
    Spec(
        "nested_ept_inject_page_fault",
        _n("nested_ept_inject_page_fault", "nested_ept_invalidate_addr"),
        Space(
            (
                *(Bits(0x1F), Bits(0x1FFF), Bits(((1 << 46) - 1) & -4096), Bits(0x1FFF), BOOL, (48,)),
                *(CACHED[1:], CACHED, CACHED, CACHED),
            )
        ),
        _inject,
        (State(shadow=True),),
    ),
    Spec(
        "nested_vmx_l0_wants_exit",
        _n("nested_vmx_l0_wants_exit"),
        Space((tuple(r for r in range(1, 80) if r != HYPERCALL),)),
        lambda s: lambda reason: (nested.nested_vmx_l0_wants_exit(reason),),
    ),
    Spec(
        "nested_vmx_l1_wants_exit",
        _n("nested_vmx_l1_wants_exit"),
        Space((UNDECIDED, tuple(range(32)), U32)),
        lambda s: lambda reason, vector, bitmap: (nested.nested_vmx_l1_wants_exit(reason, bitmap, vector),),
    ),
    Spec("handle_invept", _n("handle_invept"), Space((Bits(base=1 << 20, mask=U32.mask), INVEPT_TYPES)), _invept),
    Spec(
        "nested_vmx_write_pml_buffer",
        _n("nested_vmx_write_pml_buffer"),
        Space(((*range(514), *(1 << n for n in range(10, 16)), 0xFFFF), BOOL, BOOL)),
        _pml,
    ),
    Spec(
        "nested_ept_init_mmu_context",
        _n("nested_ept_init_mmu_context", "nested_ept_new_eptp"),
        Space((Bits(0x1 | 1 << 6 | 3 << 16 | 3 << 20 | 1 << 25), tuple(e for e in EPTPS if e >> 3 & 7 != 2))),
        _context,
        (State(shadow=True),),
    ),
    Spec(
        "vmx_get_vmx_msr",
        _n("vmx_get_vmx_msr", "vmx_control_msr"),
        Space(((*range(0x481, 0x485), *range(0x48D, 0x492), 0x48B, 0x48C), *(U32,) * 13)),
        _vmx_msr,
    ),
    Spec(
        "nested_evmcs_filter_control_msr",
        (
            *_e("nested_evmcs_filter_control_msr", "evmcs_get_supported_ctls"),
            "vmx/hyperv_evmcs.h EVMCS1_SUPPORTED_2NDEXEC",
        ),
        Space((tuple(range(0x480, 0x492)), Bits(), BOOL, BOOL)),
        _filter,
    ),
    Spec(
        "nested_evmcs_check_controls",
        _e("nested_evmcs_check_controls", "nested_evmcs_is_valid_controls"),
        Space(((0,), (0,), U32, (0,), (0,), (0,))),
        _evmcs,
    ),
    Spec(
        "nested_evmcs_check_controls",
        _e("nested_evmcs_check_controls", "nested_evmcs_is_valid_controls"),
        Space((SPARSE, SPARSE, SPARSE, SPARSE, SPARSE, (0, 0, 0, 1, 1 << 32, 1 << 32 | 1))),
        _evmcs,
    ),
)
