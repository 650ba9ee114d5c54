"""Corners of the mirror that whole vectors do not reach."""

from __future__ import annotations

import pytest

from kvmodel import machine
from kvmodel.machine import l2 as machine_l2
from kvmodel.machine import vcpu as machine_vcpu
from kvmodel.mmu import mmu_fault, mmu_page, mmu_sync, paging_tmpl, spte
from kvmodel.mmu.mmu import hardware_entries
from kvmodel.mmu.mmu_internal import RET_PF_SPURIOUS, RET_PF_WRITE_PROTECTED, kvm_page_fault
from kvmodel.mmu.mmu_role import kvm_calc_cpu_role
from kvmodel.mmu.mmu_sync import shadow_walk
from kvmodel.question.outcome import Kind, Place
from kvmodel.question.reading import parse
from kvmodel.question.vector import Access, AccessVector, Mbec, Perm
from kvmodel.sdm.access import Linear, Use
from kvmodel.series import Level
from kvmodel.vmx import vmx
from tests.kvmodel.mirror import CPU, GPA, PT, kvm_at, l1_at, l2_at, map_gpa

READ, WRITE, FETCH, PRESENT = 4, 2, 16, 1
LEAF = 0x23456000 | 6 << 3


def test_a_walk_without_a_root_reads_nothing() -> None:
    vcpu = l1_at(0)
    vcpu.mmu.root = None
    assert list(shadow_walk(vcpu, GPA)) == []
    assert hardware_entries(vcpu, GPA) == ()


def test_the_same_mode_again_keeps_the_masks() -> None:
    vcpu = l2_at(0)
    before = list(vcpu.mmu.permissions)
    vcpu.mmu.permissions[3] = 0xAA
    mmu_fault.kvm_init_shadow_ept_mmu(vcpu, True, 3, False, 0x2201E)
    assert vcpu.mmu.permissions[3] == 0xAA
    assert vcpu.mmu.pgd == 0x2201E
    mmu_fault.kvm_init_shadow_ept_mmu(vcpu, True, 3, True, 0x2205E)
    assert vcpu.mmu.permissions == before


def test_l1s_mmu_follows_its_cpu_role() -> None:
    vcpu = l1_at(0)
    smm = kvm_calc_cpu_role(vcpu.kvm, 0, 0, 0, smm=True)
    mmu_fault.init_kvm_tdp_mmu(vcpu, smm)
    assert vcpu.kvm.roles.get(vcpu.mmu.root_role, "smm") == 1


def test_events_of_shadow_pages_and_mmio() -> None:
    vcpu = l2_at(0)
    vcpu.trace = []
    vcpu.ram_gfns = 0x20000
    map_gpa(vcpu, 0xFEB00000 | 7)
    mmu_fault.kvm_mmu_do_page_fault(vcpu, GPA, READ)
    names = [name for name, _ in vcpu.trace]
    assert names.count("kvm_mmu_get_page") == 3
    assert names[-1] == "mark_mmio_spte"
    vcpu.memory = {}
    vcpu.exit_qualification = 0x181
    vmx.handle_ept_violation(vcpu, GPA, 0x181)
    assert vcpu.trace[-1][0] == "kvm_nested_vmexit_inject"
    assert "kvm_page_fault" in [name for name, _ in vcpu.trace]


def test_events_of_exits_are_those_of_l2_only() -> None:
    l1 = l1_at(0)
    l1.trace = []
    vmx.handle_ept_violation(l1, 0x1000, 0x181)
    vmx.handle_ept_misconfig(l1, 0x1000)
    assert "kvm_nested_vmexit" not in [name for name, _ in l1.trace]
    l2 = l2_at(0)
    l2.trace = []
    vmx.handle_ept_misconfig(l2, GPA)
    assert l2.trace[0] == ("kvm_nested_vmexit", (49, 0))


def test_a_new_mapping_that_changes_nothing_warns() -> None:
    vcpu = l1_at(0)
    roles = vcpu.kvm.roles
    sp = mmu_page.kvm_mmu_get_shadow_page(vcpu, 0x9000, roles.make(level=1, access=7, direct=1))
    fault = kvm_page_fault(0x9000000, READ, False, True, False)
    fault.map_writable = True
    made = spte.make_spte(vcpu, sp, vcpu.slot, 7, 0x9000, 0x9000, 1 << 63, False, True, True)[1]
    vcpu.kvm.shadow_memtype_mask = 0
    assert spte.make_spte(vcpu, sp, vcpu.slot, 7, 0x9000, 0x9000, 1 << 63, False, True, True)[1] & 0x78 == 0
    vcpu.kvm.shadow_memtype_mask = 0x78
    sp.spt[0] = made & ~(1 << 11)
    assert mmu_page.mmu_set_spte(vcpu, vcpu.slot, sp, 0, 7, 0x9000, 0x9000, fault) != RET_PF_SPURIOUS
    assert not vcpu.warns
    # the C's WARN needs an entry that make_spte() makes and that is not shadow-present: there is none
    assert made & 1 << 11


def test_syncing_what_fails_drops_it() -> None:
    vcpu = l2_at(0)
    map_gpa(vcpu, LEAF | 7)
    mmu_fault.kvm_mmu_do_page_fault(vcpu, GPA, READ)
    sp = next(s for s in vcpu.pages.values() if s.level == 1)
    index = GPA >> 12 & 511
    vcpu.memory[PT + index * 8] = LEAF | 1
    vcpu.ram_gfns = 0x100
    assert paging_tmpl.sync_spte(vcpu, sp, index) == -22
    assert mmu_sync.kvm_sync_page(vcpu, sp) == 0
    vcpu.memory[PT + index * 8] = LEAF | 5
    assert mmu_sync.kvm_sync_page(vcpu, sp) == -1
    assert (sp.gfn, sp.role) not in vcpu.hash


def test_invalidating_what_fails_to_sync_drops_it() -> None:
    vcpu = l2_at(0)
    map_gpa(vcpu, LEAF | 7)
    mmu_fault.kvm_mmu_do_page_fault(vcpu, GPA, READ)
    sp = next(s for s in vcpu.pages.values() if s.level == 1)
    index = GPA >> 12 & 511
    vcpu.memory[PT + index * 8] = LEAF | 1
    vcpu.ram_gfns = 0x100
    mmu_sync.kvm_unsync_page(vcpu, sp)
    mmu_sync.kvm_mmu_invalidate_addr(vcpu, GPA)
    assert mmu_page.get_spte(sp, index) == 1 << 63


def test_eight_present_neighbours_are_all_prefetched() -> None:
    vcpu = l2_at(0)
    map_gpa(vcpu, LEAF | 7)
    first = GPA >> 12 & 511 & ~7
    assert first != GPA >> 12 & 511
    for i in range(first, first + 8):
        vcpu.memory[PT + i * 8] = 0x30000000 + (i << 12) | 6 << 3 | 7
    mmu_fault.kvm_mmu_do_page_fault(vcpu, GPA, READ)
    sp = next(s for s in vcpu.pages.values() if s.level == 1)
    assert sorted(sp.spt) == list(range(first, first + 8))


def test_a_direct_group_that_ends_in_a_present_entry() -> None:
    from kvmodel.mmu import mmu

    vcpu = l1_at(0)
    sp = mmu_page.kvm_mmu_get_shadow_page(vcpu, 0x9000, vcpu.kvm.roles.make(level=1, access=7, direct=1))
    mmu.__dict__["__direct_pte_prefetch"](vcpu, sp, 7)
    assert sorted(sp.spt) == list(range(7))


def test_l2_writing_l1s_upper_table() -> None:
    vcpu = l2_at(0)
    map_gpa(vcpu, 0x13000 | 6 << 3 | 7)
    mmu_fault.kvm_mmu_do_page_fault(vcpu, GPA, READ)
    assert mmu_fault.kvm_mmu_do_page_fault(vcpu, GPA, WRITE | PRESENT) == RET_PF_WRITE_PROTECTED


def test_l2_writing_read_only_memory() -> None:
    from kvmodel.include.asm.kvm_host import kvm_memory_slot
    from kvmodel.mmu.mmu_internal import RET_PF_EMULATE

    vcpu = l2_at(0)
    vcpu.slot = kvm_memory_slot(readonly=True)
    map_gpa(vcpu, LEAF | 7)
    assert mmu_fault.kvm_mmu_do_page_fault(vcpu, GPA, WRITE) == RET_PF_EMULATE


def test_shadow_masks_that_the_guest_walk_would_report_fetches_by() -> None:
    vcpu = l2_at(0)
    vcpu.mmu.cr4_smep = True
    map_gpa(vcpu, LEAF | 1)
    walker = paging_tmpl.guest_walker()
    assert not paging_tmpl.walk_addr_generic(walker, vcpu, vcpu.mmu, GPA, FETCH)
    assert walker.fault.error_code == FETCH | PRESENT


@pytest.mark.parametrize(
    ("leaf", "told"), [(LEAF, "not present"), (LEAF | 2, "misconfigured"), (LEAF | 1, "exit reason")]
)
def test_refusals_are_told(leaf: int, told: str) -> None:
    vcpu = l2_at(0)
    vcpu.steps = []
    map_gpa(vcpu, leaf)
    mmu_fault.kvm_mmu_do_page_fault(vcpu, GPA, WRITE)
    assert any(told in s.what for s in vcpu.steps)


def test_the_log_exists_only_where_the_cpu_has_one() -> None:
    kvm = kvm_at(0)
    kvm.nested = False
    assert vmx.vmx_hardware_setup(kvm, machine_vcpu.host_msrs(CPU)) == 0
    assert kvm.cpu_dirty_log_size == 512
    kvm.flexpriority_enabled = False
    vcpu = l1_at(0)
    vcpu.kvm.flexpriority_enabled = False
    assert vmx.vmx_secondary_exec_control(vcpu) & 1 == 0


def test_the_cpu_sets_accessed_and_dirty() -> None:
    run = machine_vcpu.l1_run(Level.of(0), None, CPU, "std")
    assert run.access(GPA, Use.WRITE, Linear(), Place("target")) is None
    sp, index, entry = list(shadow_walk(run.vcpu, GPA))[-1]
    sp.spt[index] = entry & ~0x300
    assert run.access(GPA, Use.WRITE, Linear(), Place("target")) is None
    assert sp.spt[index] == entry


def test_many_walks_are_not_kept_for_ever() -> None:
    run = machine_vcpu.l1_run(Level.of(0), None, CPU, "std")
    for n in range(5000):
        run.walk(((4, n << 12 & ~7),), Use.READ, Linear())
    assert len(run.cache) <= 4097


def test_the_probes_own_frame_may_be_what_fails() -> None:
    """vmcs02 takes vmcs01's MBEC, and without patch 15 L2's entries have no bit 10: user-mode code cannot run."""
    vector = AccessVector(mbec=Mbec.OFF, cpl=3)
    context = machine_l2.Context(Level.without(18, 15), True, CPU)
    context.trouble["std"] = None
    got = machine_l2.access(context, vector, False).outcome
    assert got.kind is Kind.LIVELOCK
    assert "own fetch" in got.note


def test_misconfigurations_of_ept02_are_told() -> None:
    vector = AccessVector(leaf=Perm.parse("r--u"), access=Access.WRITE, mbec=Mbec.OFF)
    told = [s.what for s in machine.predict(11, None, CPU, vector, steps=True).steps]
    assert any("misconfiguration at level 1" in t for t in told)


def test_a_page_of_the_same_role_is_found_again() -> None:
    vcpu = l1_at(0)
    role = vcpu.kvm.roles.make(level=1, access=7)
    first = mmu_page.kvm_mmu_get_shadow_page(vcpu, 0x77, role)
    assert mmu_page.kvm_mmu_get_shadow_page(vcpu, 0x77, role) is first
    assert mmu_page.kvm_mmu_get_shadow_page(vcpu, 0x77, role ^ 1 << 8) is not first


def test_an_unknown_thing_is_no_vector() -> None:
    with pytest.raises(ValueError, match="is not a vector"):
        parse("nothing")


def test_a_table_that_l2_is_given_is_write_protected_again() -> None:
    """L2 may write its own last-level table until KVM brings the shadow of it back in step."""
    vcpu = l2_at(0)
    map_gpa(vcpu, PT | 7 | 6 << 3)

    def writable() -> bool:
        return bool(list(shadow_walk(vcpu, GPA))[-1][2] & 2)

    mmu_fault.kvm_mmu_page_fault(vcpu, GPA, WRITE)
    (table,) = vcpu.indirect[PT >> 12]
    assert writable() and table.unsync
    assert vcpu.mmu.root is not None
    mmu_sync.mmu_sync_children(vcpu, vcpu.mmu.root)
    assert not writable() and not table.unsync
    before = vcpu.version
    mmu_sync.kvm_mmu_slot_gfn_write_protect(vcpu, PT >> 12)  # there is nothing left to protect
    assert vcpu.version == before
