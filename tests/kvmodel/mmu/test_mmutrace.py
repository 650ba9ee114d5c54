"""mmu/mmutrace.h: the texts, before and after patches 9, 13 and 14."""

from __future__ import annotations

import pytest

from kvmodel import trace_h
from kvmodel.mmu import mmu_fault, mmutrace
from tests.kvmodel.mirror import GPA, kvm_at, l1_at, l2_at, map_gpa


@pytest.mark.parametrize(
    ("k", "flag", "bits", "column"),
    [
        (0, False, 0x407, "(rwxu)"),
        (13, True, 0x407, "(rwxu)"),
        (14, True, 0x407, "(rwXxu)"),
        (14, True, 0x5, "(r-X-u)"),
        (14, True, 0x402, "(rw-x-)"),
        (14, False, 0x5, "(r-Xxu)"),
        (18, True, 0x1, "(r---u)"),
    ],
)
def test_set_spte(k: int, flag: bool, bits: int, column: str) -> None:
    vcpu = l1_at(k, True)
    vcpu.pt_guest_exec_control = flag
    text = mmutrace.kvm_mmu_set_spte(vcpu, 1, 0x123, bits, 0xABC000)
    assert text == f"gfn 123 spte {bits:x} {column} level 1 at abc000"


def test_set_spte_of_shadow_paging() -> None:
    vcpu = l1_at(0)
    vcpu.kvm.shadow_user_mask = 0
    vcpu.kvm.shadow_present_mask = 0
    assert mmutrace.kvm_mmu_set_spte(vcpu, 1, 1, 4, 0) == "gfn 1 spte 4 (--x) level 1 at 0"


@pytest.mark.parametrize(
    ("k", "access", "column"),
    [(0, 0, "---"), (0, 1, "--x"), (0, 7, "wux"), (9, 0, "----"), (9, 5, "--uX"), (9, 8, "x---"), (9, 15, "xwuX")],
)
def test_access_column(k: int, access: int, column: str) -> None:
    assert mmutrace.access_str(kvm_at(k), access) == column


def test_all_columns_have_one_width() -> None:
    assert {len(mmutrace.access_str(kvm_at(8), n)) for n in range(8)} == {3}
    assert {len(mmutrace.access_str(kvm_at(9), n)) for n in range(16)} == {4}


def test_shadow_page() -> None:
    kvm = kvm_at(18)
    role = kvm.roles.make(level=3, access=0xF, ad_disabled=1, guest_mode=1)
    text = mmutrace.kvm_mmu_get_page(kvm, 0x12, role, True)
    assert text == "sp gen 0 gfn 12 l3 8-byte q0 xwuX !nxe !ad root 0 sync new"
    direct = kvm.roles.make(level=1, direct=1, efer_nx=1, invalid=1, has_4_byte_gpte=1, quadrant=2)
    text = mmutrace.kvm_mmu_page(kvm, 1, direct, mmu_valid_gen=1, root_count=2, unsync=True)
    assert text == "sp gen 1 gfn 1 l1 4-byte q2 direct ---- invalid nxe ad root 2 unsync"
    assert mmutrace.kvm_mmu_get_page(kvm, 1, 0, False).endswith("existing")


@pytest.mark.parametrize(("k", "access"), [(8, 6), (9, 0xE)])
def test_mmio_entry(k: int, access: int) -> None:
    kvm = kvm_at(k)
    text = mmutrace.mark_mmio_spte(kvm, 0x1000, 0xFEE00, 0xFEE0000E)
    gen = 1
    assert text == f"sptep:0000000000001000 gfn fee00 access {access:x} gen {gen:x}"


def test_flags() -> None:
    assert mmutrace.print_flags(0x15) == "P|U|F"
    assert mmutrace.print_flags(0x20) == "0x20"
    assert mmutrace.print_flags(0xA) == "W|RSVD"


def test_rows_of_a_fault_are_rendered() -> None:
    vcpu = l2_at(18)
    vcpu.trace = []
    map_gpa(vcpu, 0x23456000 | 6 << 3 | 1)
    mmu_fault.kvm_mmu_do_page_fault(vcpu, GPA, 4)
    mmu_fault.kvm_mmu_do_page_fault(vcpu, GPA, 2)
    texts = [mmutrace.text(vcpu, name, args) for name, args in vcpu.trace]
    assert texts[0] == f"addr {GPA:x} pferr 4 U"
    assert texts[1] == "pte 12707 level 4"
    assert "gfn 23456 pfn 63456 level 1" in texts
    assert texts[-2] == "pferr 3 P|W"
    assert texts[-1] == "reason: EPT_VIOLATION ext_inf1: 0x000000000000000a"


def test_rows_of_l1s_own_ept() -> None:
    vcpu = l1_at(0)
    vcpu.trace = []
    mmu_fault.kvm_mmu_do_page_fault(vcpu, 0x1000, 4)
    vcpu.ram_gfns = 0
    mmu_fault.kvm_mmu_do_page_fault(vcpu, 0x2000, 4)
    texts = [mmutrace.text(vcpu, name, args) for name, args in vcpu.trace]
    assert any(t.startswith("as id 0 gfn 1 level 1 old_spte 8000000000000000 new_spte") for t in texts)
    assert texts[-1].startswith("sptep:")


def test_texts_of_the_exits() -> None:
    assert trace_h.kvm_nested_vmexit(48, 0x782) == "reason EPT_VIOLATION info1 0x0000000000000782"
    assert trace_h.text("kvm_nested_vmexit", (49, 0)) == "reason EPT_MISCONFIG info1 0x0000000000000000"
    assert trace_h.text("kvm_page_fault", (0x1000, 0x81)) == "address 0x0000000000001000 error_code 0x81"
    assert trace_h.kvm_nested_vmexit_inject(62, 0) == "reason: 0x3e ext_inf1: 0x0000000000000000"
    assert mmutrace.kvm_mmu_set_bit_class(0x220E140) == "gpa 220e140"


def test_formats() -> None:
    assert [len(mmutrace.access_strings(kvm_at(k))) for k in (8, 9)] == [8, 16]
    assert [mmutrace.kvm_mmu_set_spte_format(kvm_at(k)).count("%s") for k in (13, 14)] == [4, 5]
