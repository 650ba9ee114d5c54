"""arch/x86/kvm/mmu/mmutrace.h: the text of the MMU's tracepoints, as TP_printk makes it.

Each function takes what the event's TP_ARGS carry and gives the text after "event: ". ``vcpu.trace`` rows are
(event, arguments); ``text`` renders one.
"""

from __future__ import annotations

from typing import Final

from kvmodel import trace
from kvmodel.include.asm.kvm_host import (
    PFERR_FETCH_MASK,
    PFERR_PRESENT_MASK,
    PFERR_RSVD_MASK,
    PFERR_USER_MASK,
    PFERR_WRITE_MASK,
    Kvm,
    Vcpu,
)
from kvmodel.mirrors import mirrors
from kvmodel.mmu.spte_h import get_mmio_spte_generation, is_executable_pte
from kvmodel.mmu_h import PT_PRESENT_MASK, PT_WRITABLE_MASK

# mmutrace.h KVM_MMU_PAGE_PRINTK's access_str, by role.access; patch 9's own table, slips included.
_ACCESS_STR: Final = ("---", "--x", "w--", "w-x", "-u-", "-ux", "wu-", "wux")
_ACCESS_STR_9: Final = (
    *("----", "---X", "-w--", "-w-X", "--u-", "--uX", "-wu-", "-wuX"),
    *("x---", "x--X", "xw--", "xw-X", "xu--", "x-uX", "xwu-", "xwuX"),
)

# mmutrace.h kvm_mmu_trace_pferr_flags.
_PFERR_FLAGS: Final = (
    (PFERR_PRESENT_MASK, "P"),
    (PFERR_WRITE_MASK, "W"),
    (PFERR_USER_MASK, "U"),
    (PFERR_RSVD_MASK, "RSVD"),
    (PFERR_FETCH_MASK, "F"),
)


def print_flags(value: int) -> str:
    """``__print_flags(value, "|", kvm_mmu_trace_pferr_flags)``: unknown bits come last, in hex."""
    names = [name for mask, name in _PFERR_FLAGS if value & mask]
    rest = value & ~sum(mask for mask, _ in _PFERR_FLAGS)
    return "|".join([*names, f"{rest:#x}"] if rest else names)


@mirrors("mmu/mmutrace.h KVM_MMU_PAGE_PRINTK", patches=(9,))
def access_strings(kvm: Kvm) -> tuple[str, ...]:
    """The macro's table of access columns is given whole, as an event's format file has it."""
    return _ACCESS_STR_9 if kvm.has(9) else _ACCESS_STR


def kvm_mmu_set_spte_format(kvm: Kvm) -> str:
    """The event's format file has this as what TP_printk is given."""
    return f"gfn %llx spte %llx ({'%s' * (5 if kvm.has(14) else 4)}) level %d at %llx"


@mirrors("mmu/mmutrace.h KVM_MMU_PAGE_PRINTK", patches=(9,))
def access_str(kvm: Kvm, access: int) -> str:
    """The macro picks the column of role.access (0 to 7, from patch 9 to 15)."""
    return access_strings(kvm)[access]


@mirrors("mmu/mmutrace.h KVM_MMU_PAGE_PRINTK", patches=(9,))
def kvm_mmu_page(
    kvm: Kvm, gfn: int, role: int, *, mmu_valid_gen: int = 0, root_count: int = 0, unsync: bool = False
) -> str:
    """The macro prints a shadow page by its ``gfn_t gfn`` and ``u32 role`` word."""
    get = kvm.roles.get
    return (
        f"sp gen {mmu_valid_gen} gfn {gfn:x} l{get(role, 'level')} {4 if get(role, 'has_4_byte_gpte') else 8}-byte "
        f"q{get(role, 'quadrant')}{' direct' if get(role, 'direct') else ''} {access_str(kvm, get(role, 'access'))}"
        f"{' invalid' if get(role, 'invalid') else ''} {'' if get(role, 'efer_nx') else '!'}nxe "
        f"{'!' if get(role, 'ad_disabled') else ''}ad root {root_count} {'unsync' if unsync else 'sync'}"
    )


@mirrors("mmu/mmutrace.h kvm_mmu_get_page")
def kvm_mmu_get_page(kvm: Kvm, gfn: int, role: int, created: bool) -> str:
    """The event says which shadow page, new or existing. The C's "%c" of 0 at its end prints nothing that a reader
    sees.
    """
    return f"{kvm_mmu_page(kvm, gfn, role)} {'new' if created else 'existing'}"


@mirrors("mmu/mmutrace.h kvm_mmu_set_spte", patches=(14,))
def kvm_mmu_set_spte(vcpu: Vcpu, level: int, gfn: int, spte: int, address: int) -> str:
    """The event prints ``u64 spte``; patch 14 splits the x column in X (supervisor) and x (user)."""
    kvm = vcpu.kvm
    r = "r" if kvm.shadow_present_mask or spte & PT_PRESENT_MASK else "-"
    w = "w" if spte & PT_WRITABLE_MASK else "-"
    if kvm.has(14):
        x = "X" if is_executable_pte(spte, True, vcpu) else "-"
        x += "x" if is_executable_pte(spte, False, vcpu) else "-"
    else:
        x = "x" if is_executable_pte(spte, False, vcpu) else "-"
    u = "" if not kvm.shadow_user_mask else "u" if spte & kvm.shadow_user_mask else "-"
    return f"gfn {gfn:x} spte {spte:x} ({r}{w}{x}{u}) level {level} at {address:x}"


@mirrors("mmu/mmutrace.h mark_mmio_spte")
def mark_mmio_spte(kvm: Kvm, address: int, gfn: int, spte: int) -> str:
    """The event's access column is ``spte & ACC_ALL``, so that patch 9 widens it. %p is a hash."""
    return (
        f"sptep:{address:016x} gfn {gfn:x} access {spte & kvm.s.ACC_ALL:x} gen {get_mmio_spte_generation(kvm, spte):x}"
    )


@mirrors("mmu/mmutrace.h kvm_tdp_mmu_spte_changed")
def kvm_tdp_mmu_spte_changed(as_id: int, gfn: int, level: int, old_spte: int, new_spte: int) -> str:
    """The event prints ``u64`` entries, the old and the new."""
    return f"as id {as_id} gfn {gfn:x} level {level} old_spte {old_spte:x} new_spte {new_spte:x}"


@mirrors("mmu/mmutrace.h kvm_mmu_pagetable_walk")
def kvm_mmu_pagetable_walk(addr: int, pferr: int) -> str:
    """The event prints ``u64 addr`` and the ``u32 pferr`` code."""
    return f"addr {addr:x} pferr {pferr:x} {print_flags(pferr)}"


@mirrors("mmu/mmutrace.h kvm_mmu_set_bit_class")
def kvm_mmu_set_bit_class(gpa: int) -> str:
    """The class of kvm_mmu_set_accessed_bit and kvm_mmu_set_dirty_bit prints the entry's address."""
    return f"gpa {gpa:x}"


@mirrors("mmu/mmutrace.h kvm_mmu_paging_element")
def kvm_mmu_paging_element(pte: int, level: int) -> str:
    """The event prints ``u64 pte`` and its level."""
    return f"pte {pte:x} level {level}"


@mirrors("mmu/mmutrace.h kvm_mmu_walker_error")
def kvm_mmu_walker_error(pferr: int) -> str:
    """The event prints the ``u32 pferr`` code."""
    return f"pferr {pferr:x} {print_flags(pferr)}"


@mirrors("mmu/mmutrace.h kvm_mmu_spte_requested")
def kvm_mmu_spte_requested(gfn: int, pfn: int, level: int) -> str:
    """The event prints ``gfn_t gfn``, its page frame and the level that the fault asks for."""
    return f"gfn {gfn:x} pfn {pfn | gfn & ((1 << (level - 1) * 9) - 1):x} level {level}"


def text(vcpu: Vcpu, event: str, args: tuple[int, ...]) -> str:
    """The text of one row of ``vcpu.trace``."""
    kvm = vcpu.kvm
    match event:
        case "kvm_mmu_set_spte":
            return kvm_mmu_set_spte(vcpu, *args)
        case "kvm_mmu_get_page":
            return kvm_mmu_get_page(kvm, args[0], args[1], bool(args[2]))
        case "mark_mmio_spte":
            return mark_mmio_spte(kvm, *args)
        case "kvm_tdp_mmu_spte_changed":
            return kvm_tdp_mmu_spte_changed(*args)
        case "kvm_mmu_pagetable_walk":
            return kvm_mmu_pagetable_walk(*args)
        case "kvm_mmu_paging_element":
            return kvm_mmu_paging_element(*args)
        case "kvm_mmu_set_accessed_bit" | "kvm_mmu_set_dirty_bit":
            return kvm_mmu_set_bit_class(*args)
        case "kvm_mmu_walker_error":
            return kvm_mmu_walker_error(*args)
        case "kvm_mmu_spte_requested":
            return kvm_mmu_spte_requested(*args)
        case _:
            return trace.text(event, args)
