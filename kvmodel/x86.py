"""arch/x86/kvm/x86.c: the module parameter, and the way a failed walk of L1's tables takes to L1."""

from __future__ import annotations

from kvmodel.include.asm.kvm_host import PFERR_PRESENT_MASK, PFERR_RSVD_MASK, Kvm, Vcpu, x86_exception
from kvmodel.mmu.mmu_sync import kvm_mmu_invalidate_addr


def kvm_module_params(kvm: Kvm, param: bool | None) -> None:
    """x86.c module_param(enable_pt_guest_exec_control): its value after insmod of kvm.ko.

    ``param`` is what insmod was given, None for nothing. Patch 3 adds the parameter, patch 18 turns its default
    on; before patch 3 the module loader ignores the unknown name.
    """
    if not kvm.has(3):
        return
    default = bool(kvm.has(18))
    kvm.enable_pt_guest_exec_control = default if param is None else param


def kvm_inject_emulated_page_fault(vcpu: Vcpu, fault: x86_exception) -> None:
    """x86.c kvm_inject_emulated_page_fault for a nested fault: resyncs the address, then hands it to the MMU's own."""
    if fault.error_code & PFERR_PRESENT_MASK and not fault.error_code & PFERR_RSVD_MASK:
        kvm_mmu_invalidate_addr(vcpu, fault.address)
    assert vcpu.mmu.inject_page_fault is not None
    vcpu.mmu.inject_page_fault(vcpu, fault)
