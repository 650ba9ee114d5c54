"""arch/x86/kvm/mmu/mmu.c: roles, reserved-bit masks and the permission bitmask of an MMU."""

from __future__ import annotations

from typing import Final

from kvmodel.bits import BIT, u64
from kvmodel.include.asm.kvm_host import (
    PFERR_FETCH_MASK,
    PFERR_IMPLICIT_ACCESS,
    PFERR_PRESENT_MASK,
    PFERR_RSVD_MASK,
    PFERR_USER_MASK,
    PFERR_WRITE_MASK,
    PG_LEVEL_1G,
    PG_LEVEL_2M,
    PT64_ROOT_4LEVEL,
    PT64_ROOT_5LEVEL,
    X86_EFLAGS_AC,
    Kvm,
    Vcpu,
    kvm_mmu,
    kvm_mmu_page,
    reserved_hpa_bits,
    rsvd_bits,
    rsvd_bits_validate,
)
from kvmodel.include.asm.kvm_role import kvm_cpu_role, kvm_mmu_extended_role
from kvmodel.mmu.spte_h import ACC_EXEC_MASK, ACC_USER_MASK, ACC_WRITE_MASK, kvm_ad_enabled

PT32_ROOT_LEVEL: Final = 2
PT32E_ROOT_LEVEL: Final = 3

# asm/processor-flags.h, asm/msr-index.h.
X86_CR0_WP: Final = BIT(16)
X86_CR0_PG: Final = BIT(31)
X86_CR4_PSE: Final = BIT(4)
X86_CR4_PAE: Final = BIT(5)
X86_CR4_LA57: Final = BIT(12)
X86_CR4_SMEP: Final = BIT(20)
X86_CR4_SMAP: Final = BIT(21)
X86_CR4_PKE: Final = BIT(22)
EFER_LMA: Final = BIT(10)
EFER_NX: Final = BIT(11)


def REPEAT_BYTE(x: int) -> int:
    """include/linux/wordpart.h REPEAT_BYTE: the byte ``x`` in all 8 bytes of 64 bits."""
    return x * 0x0101_0101_0101_0101


def BYTE_MASK(access: int) -> int:
    """mmu/mmu.c BYTE_MASK: bit n set where the ACC_* value n, 0 to 7, has a bit of ``access``. 8 bits."""
    return sum(1 << n for n in range(8) if n & access)


def __reset_rsvds_bits_mask_ept(
    rsvd_check: rsvd_bits_validate, pa_bits_rsvd: int, execonly: bool, huge_page_level: int
) -> None:
    """mmu/mmu.c __reset_rsvds_bits_mask_ept: EPT entries' reserved bits; knows nothing of bit 10."""
    high_bits_rsvd = pa_bits_rsvd & rsvd_bits(0, 51)
    large_1g_rsvd = rsvd_bits(7, 7) if huge_page_level < PG_LEVEL_1G else 0
    large_2m_rsvd = rsvd_bits(7, 7) if huge_page_level < PG_LEVEL_2M else 0
    small, large = rsvd_check.rsvd_bits_mask
    small[4] = high_bits_rsvd | rsvd_bits(3, 7)
    small[3] = high_bits_rsvd | rsvd_bits(3, 7)
    small[2] = high_bits_rsvd | rsvd_bits(3, 6) | large_1g_rsvd
    small[1] = high_bits_rsvd | rsvd_bits(3, 6) | large_2m_rsvd
    small[0] = high_bits_rsvd
    large[4] = small[4]
    large[3] = small[3]
    large[2] = high_bits_rsvd | rsvd_bits(12, 29) | large_1g_rsvd
    large[1] = high_bits_rsvd | rsvd_bits(12, 20) | large_2m_rsvd
    large[0] = small[0]

    bad_mt_xwr = 0xFF << (2 * 8)
    bad_mt_xwr |= 0xFF << (3 * 8)
    bad_mt_xwr |= 0xFF << (7 * 8)
    bad_mt_xwr |= REPEAT_BYTE(1 << 2)
    bad_mt_xwr |= REPEAT_BYTE(1 << 6)
    if not execonly:
        bad_mt_xwr |= REPEAT_BYTE(1 << 4)
    rsvd_check.bad_mt_xwr = bad_mt_xwr


def reset_rsvds_bits_mask_ept(vcpu: Vcpu, context: kvm_mmu, execonly: bool, huge_page_level: int) -> None:
    """mmu/mmu.c reset_rsvds_bits_mask_ept: what L1 may not set in EPT12."""
    __reset_rsvds_bits_mask_ept(context.guest_rsvd_check, vcpu.reserved_gpa_bits, execonly, huge_page_level)


def reset_ept_shadow_zero_bits_mask(kvm: Kvm, context: kvm_mmu, execonly: bool) -> None:
    """mmu/mmu.c reset_ept_shadow_zero_bits_mask: what KVM may not set in EPT02."""
    __reset_rsvds_bits_mask_ept(context.shadow_zero_check, reserved_hpa_bits(kvm), execonly, kvm.max_huge_page_level)


def reset_tdp_shadow_zero_bits_mask(kvm: Kvm, context: kvm_mmu) -> None:
    """mmu/mmu.c reset_tdp_shadow_zero_bits_mask, on an Intel CPU: never execute-only."""
    __reset_rsvds_bits_mask_ept(context.shadow_zero_check, reserved_hpa_bits(kvm), False, kvm.max_huge_page_level)


def update_permission_bitmask(mmu: kvm_mmu, ept: bool) -> None:
    """mmu/mmu.c update_permission_bitmask: 16 bytes, one bit for each ACC_* value 0 to 7 that faults."""
    x = BYTE_MASK(ACC_EXEC_MASK)
    w = BYTE_MASK(ACC_WRITE_MASK)
    u = BYTE_MASK(ACC_USER_MASK)
    for byte in range(16):
        pfec = byte << 1
        wf = ~w & 0xFF if pfec & PFERR_WRITE_MASK else 0
        uf = ~u & 0xFF if pfec & PFERR_USER_MASK else 0
        ff = ~x & 0xFF if pfec & PFERR_FETCH_MASK else 0
        smepf = 0
        smapf = 0
        if not ept:
            kf = 0 if pfec & PFERR_USER_MASK else u
            if not mmu.efer_nx:
                ff = 0
            if not mmu.cr0_wp:
                wf = wf if pfec & PFERR_USER_MASK else 0
            if mmu.cr4_smep:
                smepf = kf if pfec & PFERR_FETCH_MASK else 0
            if mmu.cr4_smap:
                smapf = 0 if pfec & (PFERR_RSVD_MASK | PFERR_FETCH_MASK) else kf
        mmu.permissions[byte] = ff | uf | wf | smepf | smapf


def permission_fault(mmu: kvm_mmu, pte_access: int, access: int, rflags: int = 0) -> int:
    """mmu.h permission_fault without protection keys: 0 or PFERR_PRESENT_MASK.

    ``access`` is the 64-bit error code, cut to 32 bits. The row has 8 bits: an ACC_* value of 8 or more, which
    patches 9 and 11 together make possible, never faults.
    """
    not_smap = rflags & X86_EFLAGS_AC and not access & PFERR_IMPLICIT_ACCESS
    index = ((access & 0xFFFF_FFFF) | (PFERR_RSVD_MASK if not_smap else 0)) >> 1
    return PFERR_PRESENT_MASK if mmu.permissions[index] >> pte_access & 1 else 0


def kvm_calc_shadow_ept_root_page_role(kvm: Kvm, accessed_dirty: bool, execonly: bool, level: int) -> kvm_cpu_role:
    """mmu/mmu.c kvm_calc_shadow_ept_root_page_role."""
    base = kvm.roles.make(
        level=level,
        has_4_byte_gpte=0,
        direct=0,
        ad_disabled=not accessed_dirty,
        guest_mode=1,
        access=kvm.s.ACC_ALL,
    )
    return kvm_cpu_role(base, kvm_mmu_extended_role(valid=True, execonly=execonly))


def kvm_calc_cpu_role(
    kvm: Kvm, cr0: int, cr4: int, efer: int, smm: bool = False, guest_mode: bool = False
) -> kvm_cpu_role:
    """mmu/mmu.c kvm_calc_cpu_role: from the registers' 64 bits each."""
    base = {"access": kvm.s.ACC_ALL, "smm": int(smm), "guest_mode": int(guest_mode)}
    if not cr0 & X86_CR0_PG:
        return kvm_cpu_role(kvm.roles.make(**base, direct=1), kvm_mmu_extended_role(valid=True))
    lma = efer & EFER_LMA != 0
    pae = cr4 & X86_CR4_PAE != 0
    la57 = cr4 & X86_CR4_LA57 != 0
    wp = cr0 & X86_CR0_WP != 0
    smep = cr4 & X86_CR4_SMEP != 0
    smap = cr4 & X86_CR4_SMAP != 0
    if lma:
        level = PT64_ROOT_5LEVEL if la57 else PT64_ROOT_4LEVEL
    else:
        level = PT32E_ROOT_LEVEL if pae else PT32_ROOT_LEVEL
    word = kvm.roles.make(
        **base,
        efer_nx=efer & EFER_NX != 0,
        cr0_wp=wp,
        smep_andnot_wp=smep and not wp,
        smap_andnot_wp=smap and not wp,
        has_4_byte_gpte=not pae,
        level=level,
    )
    ext = kvm_mmu_extended_role(
        valid=True,
        cr4_smep=smep,
        cr4_smap=smap,
        cr4_pse=cr4 & X86_CR4_PSE != 0,
        cr4_pke=lma and cr4 & X86_CR4_PKE != 0,
        cr4_la57=lma and la57,
        efer_lma=lma,
    )
    return kvm_cpu_role(word, ext)


def kvm_mmu_get_tdp_level(vcpu: Vcpu) -> int:
    """mmu/mmu.c kvm_mmu_get_tdp_level: 4 or 5."""
    if vcpu.kvm.tdp_root_level:
        return vcpu.kvm.tdp_root_level
    if vcpu.kvm.max_tdp_level == PT64_ROOT_5LEVEL and vcpu.maxphyaddr <= 48:
        return PT64_ROOT_4LEVEL
    return vcpu.kvm.max_tdp_level


def kvm_calc_tdp_mmu_root_page_role(vcpu: Vcpu, cpu_role: int) -> int:
    """mmu/mmu.c kvm_calc_tdp_mmu_root_page_role: the 32-bit role of KVM's own EPT for this CPU role."""
    kvm = vcpu.kvm
    return kvm.roles.make(
        access=kvm.s.ACC_ALL,
        cr0_wp=1,
        efer_nx=1,
        smm=kvm.roles.get(cpu_role, "smm"),
        guest_mode=kvm.roles.get(cpu_role, "guest_mode"),
        ad_disabled=not kvm_ad_enabled(kvm),
        level=kvm_mmu_get_tdp_level(vcpu),
        direct=1,
        has_4_byte_gpte=0,
    )


def kvm_mmu_child_role(kvm: Kvm, parent_role: int, direct: bool, access: int, index: int = 0) -> int:
    """mmu/mmu.c kvm_mmu_child_role: the parent's word, one level down, with its own access.

    ``index`` is the linking entry's, and counts for 4-byte guest entries only (their quadrant).
    """
    roles = kvm.roles
    role = (parent_role & roles.CHILD_KEEP) - 1
    if direct:
        role |= roles.DIRECT
    role |= (access & roles.ACCESS_MASK) << roles.ACCESS_SHIFT
    if role & roles.HAS_4_BYTE_GPTE:
        role = roles.set(role, quadrant=index & 1)
    return role


def sync_role_ign(kvm: Kvm) -> int:
    """mmu/mmu.c kvm_sync_page_check's constant: role bits that may differ. Patch 9 widens access."""
    return kvm.roles.make(level=0xF, access=0xF if kvm.has(9) else 0x7, quadrant=0x3, passthrough=0x1)


def kvm_sync_page_check(vcpu: Vcpu, sp: kvm_mmu_page) -> bool:
    """mmu/mmu.c kvm_sync_page_check: whether ``sp`` may be synced in the current MMU; False WARNs in C."""
    return not (
        sp.direct
        or vcpu.mmu.sync_spte is None
        or (sp.role ^ vcpu.mmu.root_role) & ~sync_role_ign(vcpu.kvm) & 0xFFFF_FFFF
    )


def kvm_mmu_page_get_gfn(sp: kvm_mmu_page, index: int) -> int:
    """mmu/mmu.c kvm_mmu_page_get_gfn: the gfn that SPTE ``index`` (0 to 511) maps."""
    if sp.shadowed_translation is not None:
        return sp.shadowed_translation.get(index, 0) >> 12
    return sp.gfn + (index << (sp.level - 1) * 9)


def kvm_mmu_page_get_access(kvm: Kvm, sp: kvm_mmu_page, index: int) -> int:
    """mmu/mmu.c kvm_mmu_page_get_access: the shadowed access of SPTE ``index``; ACC_ALL widens with patch 9."""
    if sp.shadowed_translation is not None:
        return sp.shadowed_translation.get(index, 0) & kvm.s.ACC_ALL
    return sp.access


def kvm_mmu_page_set_translation(vcpu: Vcpu, sp: kvm_mmu_page, index: int, gfn: int, access: int) -> None:
    """mmu/mmu.c kvm_mmu_page_set_translation; a mismatch under a direct page WARNs."""
    if sp.shadowed_translation is not None:
        sp.shadowed_translation[index] = u64(gfn << 12) | access
        return
    if access != kvm_mmu_page_get_access(vcpu.kvm, sp, index) or gfn != kvm_mmu_page_get_gfn(sp, index):
        vcpu.warns.append("mmu/mmu.c kvm_mmu_page_set_translation")


def kvm_mmu_page_set_access(vcpu: Vcpu, sp: kvm_mmu_page, index: int, access: int) -> None:
    """mmu/mmu.c kvm_mmu_page_set_access."""
    kvm_mmu_page_set_translation(vcpu, sp, index, kvm_mmu_page_get_gfn(sp, index), access)
