"""arch/x86/kvm/vmx/main.c: what Intel's module gives KVM to call, and its load."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from kvmodel.include.asm.kvm_host import Kvm, kvm_x86_ops
from kvmodel.include.asm.vmx import vmx_h
from kvmodel.mmu.spte import kvm_mmu_reset_all_pte_masks
from kvmodel.mmu.spte_h import spte_h
from kvmodel.series import Level
from kvmodel.vmx.vmx import HardwareSetupError, HostMsrs, vmx_get_mt_mask, vmx_hardware_setup
from kvmodel.x86 import kvm_module_params, kvm_ops_update

# vmx/vmx.c: the variables behind parameters of kvm-intel.ko.
VARIABLES: Final = {
    "unrestricted_guest": "enable_unrestricted_guest",
    "flexpriority": "flexpriority_enabled",
    "pml": "enable_pml",
    "vpid": "enable_vpid",
}
vt_x86_ops: Final = kvm_x86_ops(get_mt_mask=vmx_get_mt_mask)


def load(
    level: Level,
    param: bool | None,
    msrs: HostMsrs,
    *,
    ept: bool = True,
    eptad: bool = True,
    nx_huge_pages: bool = False,
    others: Iterable[tuple[str, str]] = (),
) -> Kvm:
    """insmod of kvm.ko (``param``, nx_huge_pages) and kvm-intel.ko (``ept``, ``eptad``, nested=1 enable_apicv=0).

    ``others`` are further parameters of kvm-intel.ko, name and value; those that this model has no variable for (the
    shadow VMCS, what is done about MSRs that contradict each other) change nothing that it follows.

    HardwareSetupError where the CPU's MSRs make vmx_hardware_setup() fail.
    """
    kvm = Kvm(level, vmx_h(level), spte_h(level))
    kvm.host_maxphyaddr = kvm.x86_phys_bits = kvm.x86_cache_bits = msrs.maxphyaddr
    kvm.enable_ept = ept
    kvm.enable_ept_ad_bits = eptad
    kvm.nx_huge_pages = nx_huge_pages
    for name, value in others:
        if name in VARIABLES:
            setattr(kvm, VARIABLES[name], value != "0")
    kvm_module_params(kvm, param)
    kvm_ops_update(kvm, vt_x86_ops)
    kvm_mmu_reset_all_pte_masks(kvm)
    if errno := vmx_hardware_setup(kvm, msrs):
        raise HardwareSetupError(errno)
    return kvm
