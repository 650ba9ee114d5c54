"""mmu/mmu.c: reserved bits, permission bitmask, roles."""

from __future__ import annotations

import pytest

from kvmodel.include.asm.kvm_host import kvm_mmu, kvm_mmu_page, rsvd_bits_validate
from kvmodel.mmu import mmu_role
from tests.kvmodel.mirror import kvm_at, l1_at, l2_at

READ, WRITE, FETCH = 4, 2, 16


def reset(pa: int, execonly: bool, huge: int) -> rsvd_bits_validate:
    check = rsvd_bits_validate()
    mmu_role.__dict__["__reset_rsvds_bits_mask_ept"](check, pa, execonly, huge)
    return check


@pytest.mark.parametrize("execonly", [False, True])
def test_bad_low_patterns(execonly: bool) -> None:
    bad = reset(0, execonly, 3).bad_mt_xwr
    for low in range(64):
        memtype, xwr = low >> 3, low & 7
        want = memtype in (2, 3, 7) or xwr in (2, 6) or (xwr == 4 and not execonly)
        assert bad >> low & 1 == want, low


def test_reserved_bits_by_level() -> None:
    small, large = reset(-1 << 40 & (1 << 64) - 1, True, 2).rsvd_bits_mask
    high = (1 << 52) - (1 << 40)
    assert small[0] == large[0] == high
    assert small[1] == high | 0x78
    assert large[1] == high | 0x1FF000
    assert small[2] == high | 0xF8
    assert large[2] == high | 0x3FFFF000 | 0x80
    assert small[3] == large[3] == small[4] == high | 0xF8
    assert reset(0, True, 1).rsvd_bits_mask[1][1] & 0x80


def test_permissions_of_a_shadow_ept() -> None:
    mmu = kvm_mmu()
    mmu_role.update_permission_bitmask(mmu, True)
    for access in range(8):
        for code in range(0, 32, 2):
            if code & 8:
                continue
            want = (
                (code & WRITE and not access & 2)
                or (code & READ and not access & 4)
                or (code & FETCH and not access & 1)
            )
            assert mmu_role.permission_fault(mmu, access, code) == (1 if want else 0), (access, code)
            assert mmu_role.permission_fault(mmu, access | 8, code) == 0


@pytest.mark.parametrize("wp", [False, True])
@pytest.mark.parametrize("nx", [False, True])
@pytest.mark.parametrize("smep", [False, True])
@pytest.mark.parametrize("smap", [False, True])
def test_permissions_of_guest_paging(wp: bool, nx: bool, smep: bool, smap: bool) -> None:
    mmu = kvm_mmu()
    mmu.cr0_wp, mmu.efer_nx, mmu.cr4_smep, mmu.cr4_smap = wp, nx, smep, smap
    mmu_role.update_permission_bitmask(mmu, False)
    for access in range(8):
        x, w, u = access & 1, access & 2, access & 4
        for user in (0, 4):
            for kind in (0, WRITE, FETCH):
                for ac in (False, True):
                    supervisor_on_user = u and not user
                    want = bool(user and not u)
                    if kind == WRITE:
                        want |= not w and bool(user or wp)
                    if kind == FETCH:
                        want |= not x and nx
                        want |= bool(supervisor_on_user and smep)
                    elif smap and not ac:
                        want |= bool(supervisor_on_user)
                    rflags = 1 << 18 if ac else 0
                    assert mmu_role.permission_fault(mmu, access, user | kind, rflags) == int(want)
    implicit = 1 << 48
    assert mmu_role.permission_fault(mmu, 7, implicit, 1 << 18) == int(smap)


@pytest.mark.parametrize(("k", "width"), [(8, 7), (9, 15)])
def test_child_role(k: int, width: int) -> None:
    kvm = kvm_at(k)
    roles = kvm.roles
    parent = roles.make(level=4, direct=1, access=7, ad_disabled=1, guest_mode=1, passthrough=1, smm=1)
    child = mmu_role.kvm_mmu_child_role(kvm, parent, False, 0xF)
    assert child == roles.make(level=3, access=width, ad_disabled=1, guest_mode=1, smm=1)
    assert roles.get(mmu_role.kvm_mmu_child_role(kvm, parent, True, 1), "direct") == 1
    old = roles.make(level=2, has_4_byte_gpte=1, quadrant=3)
    assert roles.get(mmu_role.kvm_mmu_child_role(kvm, old, False, 0, 5), "quadrant") == 1


@pytest.mark.parametrize(("k", "ignored"), [(8, 7 << 8), (9, 15 << 8)])
def test_sync_ignores_access(k: int, ignored: int) -> None:
    vcpu = l2_at(k)
    kvm = vcpu.kvm
    assert mmu_role.sync_role_ign(kvm) & 0xF00 == ignored
    root = vcpu.mmu.root_role
    same = kvm_mmu_page(1 << 36, 0, kvm.roles.set(root, level=1, access=0), kvm.roles)
    assert mmu_role.kvm_sync_page_check(vcpu, same)
    other = kvm_mmu_page(1 << 36, 0, kvm.roles.set(root, guest_mode=0), kvm.roles)
    assert not mmu_role.kvm_sync_page_check(vcpu, other)
    direct = kvm_mmu_page(1 << 36, 0, kvm.roles.set(root, direct=1), kvm.roles)
    assert not mmu_role.kvm_sync_page_check(vcpu, direct)


def test_roles_of_the_two_mmus() -> None:
    for k, acc in ((0, 7), (18, 15)):
        vcpu = l2_at(k, ad=True)
        get = vcpu.kvm.roles.get
        assert get(vcpu.root_mmu.root_role, "access") == acc
        assert get(vcpu.root_mmu.root_role, "direct") == 1
        assert get(vcpu.root_mmu.root_role, "level") == 4
        assert get(vcpu.guest_mmu.root_role, "ad_disabled") == 0
        assert get(vcpu.guest_mmu.root_role, "guest_mode") == 1
        assert vcpu.guest_mmu.cpu_role.ext.execonly
    assert vcpu.kvm.roles.get(l2_at(0).guest_mmu.root_role, "ad_disabled") == 1


def test_tdp_level() -> None:
    vcpu = l1_at(0)
    vcpu.kvm.max_tdp_level = 5
    assert mmu_role.kvm_mmu_get_tdp_level(vcpu) == 4
    vcpu.maxphyaddr = 52
    assert mmu_role.kvm_mmu_get_tdp_level(vcpu) == 5
    vcpu.kvm.tdp_root_level = 4
    assert mmu_role.kvm_mmu_get_tdp_level(vcpu) == 4


def test_cpu_role_from_registers() -> None:
    kvm = kvm_at(0)
    pg, wp, pae, smep, smap, la57, pke, pse = 1 << 31, 1 << 16, 1 << 5, 1 << 20, 1 << 21, 1 << 12, 1 << 22, 1 << 4
    lma, nx = 1 << 10, 1 << 11
    off = mmu_role.kvm_calc_cpu_role(kvm, 0, smep, 0, smm=True)
    assert (kvm.roles.get(off.base, "direct"), kvm.roles.get(off.base, "smm"), off.ext.word) == (1, 1, 1)
    long = mmu_role.kvm_calc_cpu_role(kvm, pg, pae | smep | smap | la57 | pke | pse, lma | nx, guest_mode=True)
    for name, value in {"level": 5, "smep_andnot_wp": 1, "smap_andnot_wp": 1, "efer_nx": 1, "guest_mode": 1}.items():
        assert kvm.roles.get(long.base, name) == value
    assert long.ext.word == 0b11111101
    assert kvm.roles.get(mmu_role.kvm_calc_cpu_role(kvm, pg | wp, pae, lma).base, "level") == 4
    assert kvm.roles.get(mmu_role.kvm_calc_cpu_role(kvm, pg | wp, pae | pke, 0).base, "level") == 3
    legacy = mmu_role.kvm_calc_cpu_role(kvm, pg | wp, 0, 0)
    assert kvm.roles.get(legacy.base, "level") == 2
    assert kvm.roles.get(legacy.base, "has_4_byte_gpte") == 1


def test_translations_of_direct_pages_are_implied() -> None:
    vcpu = l1_at(0)
    sp = kvm_mmu_page(1 << 36, 0x200, vcpu.kvm.roles.make(level=1, direct=1, access=7), vcpu.kvm.roles)
    assert mmu_role.kvm_mmu_page_get_gfn(sp, 3) == 0x203
    assert mmu_role.kvm_mmu_page_get_access(vcpu.kvm, sp, 3) == 7
    mmu_role.kvm_mmu_page_set_translation(vcpu, sp, 3, 0x203, 7)
    assert not vcpu.warns
    mmu_role.kvm_mmu_page_set_translation(vcpu, sp, 3, 0x204, 7)
    assert vcpu.warns == ["mmu/mmu.c kvm_mmu_page_set_translation"]
