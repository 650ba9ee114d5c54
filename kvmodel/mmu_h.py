"""arch/x86/kvm/mmu.h: page table entry bits, the permission check, what the rest of KVM asks of the MMU."""

from __future__ import annotations

from typing import Final

from kvmodel.bits import BIT, u64
from kvmodel.include.asm.kvm_host import (
    PAGE_SHIFT,
    PFERR_IMPLICIT_ACCESS,
    PFERR_PRESENT_MASK,
    PFERR_RSVD_MASK,
    X86_EFLAGS_AC,
    Kvm,
    Vcpu,
    kvm_mmu,
)
from kvmodel.mirrors import mirrors

# mmu.h: page table entry bits.
PT_PRESENT_MASK: Final = BIT(0)
PT_WRITABLE_MASK: Final = BIT(1)
PT_USER_MASK: Final = BIT(2)
PT_ACCESSED_MASK: Final = BIT(5)
PT_DIRTY_MASK: Final = BIT(6)
PT_PAGE_SIZE_MASK: Final = BIT(7)
PT64_NX_MASK: Final = BIT(63)


@mirrors("mmu.h rsvd_bits")
def rsvd_bits(s: int, e: int) -> int:
    """The mask has bits ``e`` down to ``s`` of a ``u64``, none where ``e`` is below ``s``; ``e`` is taken modulo 64."""
    e &= 63
    if e < s:
        return 0
    return u64(((2 << (e - s)) - 1) << s)


@mirrors("mmu.h permission_fault")
def permission_fault(mmu: kvm_mmu, pte_access: int, access: int, rflags: int = 0) -> int:
    """An access without protection keys gives 0 or PFERR_PRESENT_MASK.

    ``access`` is the 64-bit error code, cut to 32 bits. The row has 8 bits: an ACC_* value of 8 or more, which
    patches 9 and 11 together make possible, never faults.
    """
    not_smap = rflags & X86_EFLAGS_AC and not access & PFERR_IMPLICIT_ACCESS
    index = ((access & 0xFFFF_FFFF) | (PFERR_RSVD_MASK if not_smap else 0)) >> 1
    return PFERR_PRESENT_MASK if mmu.permissions[index] >> pte_access & 1 else 0


@mirrors("mmu.h kvm_mmu_max_gfn")
def kvm_mmu_max_gfn(kvm: Kvm) -> int:
    """The host's address bits give the largest ``gfn_t`` with EPT, 52 bits without."""
    bits = kvm.host_maxphyaddr if kvm.tdp_enabled else 52
    return (1 << bits - PAGE_SHIFT) - 1


@mirrors("mmu.h kvm_update_page_stats")
def kvm_update_page_stats(vcpu: Vcpu, level: int, count: int) -> None:
    """KVM counts pages_4k, pages_2m or pages_1g of struct kvm_vm_stat."""
    vcpu.count(("pages_4k", "pages_2m", "pages_1g")[level - 1], count)
