"""arch/x86/kvm/x86.c: how KVM's emulator reaches the memory of an L2, for an instruction of which an operand is MMIO.

The emulator translates a linear address by the guest's own paging, and each guest-physical address on the way by L1's
EPT12 (``mmu_is_nested``). What guest paging says is the contract's matter; here is the last step, which the entries
under test decide.
"""

from __future__ import annotations

from kvmodel.include.asm.kvm_host import PFERR_FETCH_MASK, PFERR_USER_MASK, PFERR_WRITE_MASK, Vcpu, x86_exception
from kvmodel.mmu.paging_tmpl import gva_to_gpa
from kvmodel.x86 import kvm_inject_emulated_page_fault


def translate_nested_gpa(vcpu: Vcpu, gpa: int, access: int, exception: x86_exception) -> int | None:
    """x86.c translate_nested_gpa: every walk of L1's tables is a user's, for EPT the bit of a read."""
    access |= PFERR_USER_MASK
    if vcpu.steps is not None:
        vcpu.step("x86.c translate_nested_gpa", f"the emulator walks EPT12, error code {access:#x}")
    return gva_to_gpa(vcpu, vcpu.mmu, gpa, access, exception)


def _reach(vcpu: Vcpu, gpa: int, access: int) -> bool:
    """Whether the emulator gets at L2's ``gpa``; else L1 is given the fault (x86.c inject_emulated_exception)."""
    exception = x86_exception()
    if translate_nested_gpa(vcpu, gpa, access, exception) is not None:
        return True
    kvm_inject_emulated_page_fault(vcpu, exception)
    return False


def kvm_fetch_guest_virt(vcpu: Vcpu, gpa: int, cpl: int) -> bool:
    """x86.c kvm_fetch_guest_virt: the instruction's own bytes."""
    return _reach(vcpu, gpa, (PFERR_USER_MASK if cpl == 3 else 0) | PFERR_FETCH_MASK)


def vcpu_mmio_gva_to_gpa(vcpu: Vcpu, gpa: int, cpl: int, write: bool) -> bool:
    """x86.c vcpu_mmio_gva_to_gpa: an operand in memory."""
    return _reach(vcpu, gpa, (PFERR_USER_MASK if cpl == 3 else 0) | (PFERR_WRITE_MASK if write else 0))
