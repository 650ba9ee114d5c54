"""Sequences: their ids, what the manual allows of them, and what KVM's shadow pages remember."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kvmodel import sdm
from kvmodel.cpu import Cpu
from kvmodel.machine import predict
from kvmodel.mmu import mmu_page, mmu_sync
from kvmodel.mmu.mmu_fault import kvm_mmu_page_fault
from kvmodel.mmu.mmu_page import kvm_mmu_get_shadow_page
from kvmodel.mmu.mmu_sync import kvm_unsync_page
from kvmodel.mmu.spte_h import get_spte
from kvmodel.question.outcome import THEN, Kind, NotApplicable, Outcome, of_turns
from kvmodel.question.reading import parse, parse_access
from kvmodel.question.sequence import SequenceVector, Turn, sequence
from kvmodel.question.vector import Access, AccessVector, GuestPerm, Mbec, Paging, Perm, VectorError
from kvmodel.vmx import nested
from tests.kvmodel.mirror import CPU, GPA, PD, PT, l1_at, l2_at, map_gpa

READ = AccessVector(mbec=Mbec.OFF)
WRITE = replace(READ, access=Access.WRITE)
FETCH = replace(READ, access=Access.FETCH)
LEAF = 0x23456000 | 6 << 3


def kinds(outcome: Outcome) -> list[str]:
    return [turn.kind.value for turn in outcome.turns]


def mirror(level: int, vector: SequenceVector, param: bool | None = None) -> list[str]:
    return kinds(predict(level, param, CPU, vector).outcome)


def allowed(vector: SequenceVector, cpu: Cpu = CPU) -> list[list[str]]:
    found = sdm.allowed(cpu, vector)
    assert isinstance(found, tuple)
    return [kinds(a.outcome) for a in found]


# ---- ids --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        ("same",),
        ("noinv",),
        ("l1=r-x-.noinv", "same", "l2=rwx-.mt2.fetch.gpswn.guurx.cpl3.ad1.mbec=on.b.noinv", "a"),
        ("l1=----.l2=----",),
    ],
)
def test_an_id_reads_back(changes: tuple[str, ...]) -> None:
    vector = sequence(READ, *changes)
    assert vector.id == "+".join(["seq." + READ.id, *changes])
    assert parse(vector.id) == vector
    assert vector.machine == READ.machine


def test_turns_say_what_they_change() -> None:
    first, second, third = sequence(READ, "l1=r---.cpl3.b.noinv", "write.a").turns
    assert (first.invept, first.second) == (True, False)
    assert second == Turn(replace(READ, leaf=Perm.parse("r---"), cpl=3), invept=False, second=True)
    assert third == Turn(replace(READ, leaf=Perm.parse("r---"), cpl=3, access=Access.WRITE))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("l1=rwxu", "write 'same'"),
        ("fetch.l1=r---", "write 'l1=r---.fetch'"),
        ("l3=r---", "nothing that a turn"),
        ("mbec=na", "nothing that a turn"),
        ("noinv.same", "nothing that a turn"),
        ("", "nothing that a turn"),
        ("l1=r---.l1=rw--", "write 'l1=rw--'"),
        ("walk", "do not share their page"),
        ("emuread", "is asked alone"),
    ],
)
def test_ids_that_are_none(change: str, reason: str) -> None:
    with pytest.raises(VectorError, match=reason):
        sequence(READ, change)


def test_sequences_that_are_none() -> None:
    turn = Turn(READ)
    for turns, reason in (
        ((turn,), "2 to 8"),
        ((replace(turn, invept=False), turn), "after INVEPT"),
        ((replace(turn, second=True), turn), "first vmcs12"),
        ((turn, Turn(replace(READ, paging=Paging.PAE))), "what all turns share"),
        ((turn, Turn(replace(READ, mbec=Mbec.NA))), "virtual CPU's"),
    ):
        with pytest.raises(VectorError, match=reason):
            SequenceVector(turns)
    with pytest.raises(VectorError, match="not a vector id"):
        parse("seq.entry+same")
    with pytest.raises(VectorError, match="2 to 8"):
        parse("seq." + READ.id)
    with pytest.raises(VectorError, match="e4k goes with"):
        parse_access(READ.id.replace("e4k", "e2m"))


# ---- outcomes ---------------------------------------------------------------------------------------------------


def test_outcomes_of_turns() -> None:
    done, died = Outcome(Kind.DONE), Outcome(Kind.HOST, note="KVM_RUN fails")
    both = of_turns([done, died, done])
    assert both.turns == (done, died)
    assert (both.last, done.last) == (died, done)
    assert (both.turn(1), both.turn(2), done.turn(0), done.turn(1)) == (died, None, done, None)
    assert both.matches(of_turns([done, Outcome(Kind.HOST)]))
    assert not both.matches(of_turns([done]))
    assert not of_turns([done, done]).matches(of_turns([done, died]))
    assert str(both) == "1: done; 2: host (KVM_RUN fails)"


# ---- the manual -------------------------------------------------------------------------------------------------


def test_less_permission_must_count_after_invept_only() -> None:
    assert allowed(sequence(WRITE, "l1=r---")) == [["done", "violation"]]
    assert allowed(sequence(WRITE, "l1=r---.noinv")) == [["done", "violation"], ["done", "done"]]


def test_a_violation_makes_the_cpu_forget() -> None:
    """More permission may fault once. Then, and after less that was seen, there is nothing stale left."""
    raised = sequence(replace(READ, leaf=Perm.parse("--x-"), access=Access.FETCH), "l1=r---.noinv", "l1=rwxu.noinv")
    rows = allowed(raised)
    assert rows[0] == ["done", "violation", "done"]
    assert ["done", "done", "violation"] in rows and ["done", "done", "done"] in rows
    assert ["done", "violation", "violation"] not in rows
    rules = {a.rule.split(THEN)[1] for a in sdm.allowed(CPU, raised)}  # type: ignore[union-attr]
    assert rules == {"ept-permission", "cached-translation"}


def test_an_entry_that_is_not_present_or_misconfigured_is_not_cached() -> None:
    for leaf in ("----", "-w--"):
        first = replace(READ, leaf=Perm.parse(leaf))
        assert allowed(sequence(first, "l1=rwxu.noinv"))[0][1] == "done"
        assert len(allowed(sequence(first, "l1=rwxu.noinv"))) == 1
    # a misconfiguration does not make it forget what it knew
    assert ["done", "misconfig", "done"] in allowed(sequence(READ, "mt2.noinv", "l1=----.mt6.noinv"))


def test_controls_are_no_part_of_what_is_cached() -> None:
    """XU without XS: with MBEC a user-mode fetch is fine, without it the entry forbids it."""
    page = replace(FETCH, mbec=Mbec.ON, cpl=3, leaf=Perm.parse("r--u"))
    assert allowed(sequence(page, "mbec=off")) == [["done", "violation"]]
    assert allowed(sequence(page, "mbec=off.b.noinv")) == [["done", "violation"], ["done", "done"]]
    assert allowed(sequence(page, "ad1.noinv")) == [["done", "done"]]


def test_a_refused_entry_is_refused_whatever_is_cached() -> None:
    cpu = replace(CPU, mbec=False)
    assert allowed(sequence(READ, "mbec=on.noinv", "mbec=off.noinv"), cpu) == [["done", "entry-fail", "done"]]


def test_what_cannot_be_decided() -> None:
    off = sequence(replace(READ, paging=Paging.OFF), "same")
    found = sdm.allowed(replace(CPU, unrestricted=False), off)
    assert isinstance(found, NotApplicable)
    assert found.rule == "na-needs-unrestricted-guest"


def test_stale_is_what_only_the_past_explains() -> None:
    done = Outcome(Kind.DONE)
    assert sdm.stale(CPU, sequence(WRITE, "l1=r---").turns, done)
    assert not sdm.stale(CPU, sequence(WRITE, "l1=rw--").turns, done)
    assert not sdm.stale(CPU, sequence(WRITE, "l1=r---").turns, Outcome(Kind.LIVELOCK))
    assert not sdm.stale(CPU, sequence(WRITE, "l1=r---").turns[:1], done)


# ---- the mirror -------------------------------------------------------------------------------------------------


def test_without_invept_kvm_does_not_see_a_last_level_write() -> None:
    assert mirror(0, sequence(WRITE, "l1=r---")) == ["done", "violation"]
    assert mirror(0, sequence(WRITE, "l1=r---.noinv", "noinv")) == ["done", "done", "done"]
    assert mirror(0, sequence(WRITE, "l1=r---.noinv", "same")) == ["done", "done", "violation"]
    assert mirror(0, sequence(WRITE, "l1=r---.b.noinv")) == ["done", "violation"]  # VMPTRLD frees the roots


def test_an_upper_write_is_seen_at_once() -> None:
    assert mirror(0, sequence(WRITE, "l2=r---.noinv")) == ["done", "violation"]
    three = sequence(replace(WRITE, upper_level=3), "l1=r---.l3=rw--.noinv")
    assert mirror(0, three) == ["done", "violation"]  # the table below is synced when it is linked again
    large = replace(WRITE, leaf_level=2, upper_level=3)
    assert mirror(0, sequence(large, "l2=r---.noinv")) == ["done", "violation"]


def test_more_permission_faults_at_most_once_in_kvm() -> None:
    assert mirror(0, sequence(replace(WRITE, leaf=Perm.parse("r---")), "l1=rw--.noinv")) == ["violation", "done"]


def test_another_ad_bit_is_another_root_that_keeps_in_step() -> None:
    vector = sequence(WRITE, "ad1.noinv", "l1=r---.ad0.noinv")
    assert mirror(0, vector) == ["done", "done", "done"]  # the cached root of the first turn, not synced
    vector = sequence(WRITE, "l1=r---.ad1.noinv", "ad0.noinv")
    assert mirror(0, vector) == ["done", "violation", "violation"]  # the exit syncs the other root's entry too


def test_refused_entries_in_between() -> None:
    assert mirror(0, sequence(READ, "mbec=on", "mbec=off")) == ["done", "entry-fail", "done"]
    assert mirror(0, sequence(replace(READ, env="ept0"), "noinv")) == ["entry-fail", "entry-fail"]


def test_a_sequence_ends_where_l1_dies_or_never_begins() -> None:
    vector = sequence(WRITE, "l1=r--u", "l1=rwxu")
    told = predict(11, None, CPU, vector, steps=True)
    assert kinds(told.outcome) == ["done", "host"]
    assert told.exits > 1
    assert [s.what for s in told.steps if s.where == "L1"][1].startswith("turn 2: write, leaf r--u")
    assert predict(11, None, CPU, vector).steps == ()
    assert predict(6, True, CPU, vector).outcome.kind is Kind.BLOCKED
    from kvmodel.series import Level

    odd = predict(Level.without(18, 11), True, CPU, sequence(replace(READ, cpl=3), "same")).outcome
    assert odd.kind is Kind.LIVELOCK and "the probe's own fetch" in odd.note
    entries = predict(0, None, CPU, sequence(replace(READ, env="ept0"), "noinv"), steps=True)
    assert entries.steps


def test_a_prediction_of_a_sequence_leaves_nothing_behind() -> None:
    vectors = [
        sequence(replace(a, leaf=before), f"l1={after}{how}", "ad1.noinv")
        for a in (WRITE, FETCH)
        for before in list(Perm.all())[::3]
        for after in list(Perm.all())[1::4]
        if before != after
        for how in ("", ".noinv")
    ]
    first = [predict(18, True, CPU, v).outcome for v in vectors]
    assert [predict(18, True, CPU, v).outcome for v in reversed(vectors)] == first[::-1]


def test_no_history_is_left_by_invept() -> None:
    """At every level a last turn after INVEPT ends as the same access alone does."""
    for level in (0, 11, 16, 18):
        for before in Perm.all():
            for after in ("rwx-", "r--u", "r-xu", "----"):
                if str(before) != after:
                    vector = sequence(replace(FETCH, leaf=before), f"l1={after}")
                    alone = predict(level, None, CPU, vector.turns[1].access).outcome
                    got = predict(level, None, CPU, vector).outcome
                    assert got.turns[-1] == alone or got.turns[0].kind is Kind.HOST, vector.id


# ---- shadow pages, function by function -------------------------------------------------------------------------


def test_unsync_is_told_upwards_and_cleared_by_a_sync() -> None:
    vcpu = l2_at(0)
    map_gpa(vcpu, LEAF | 7)
    kvm_mmu_page_fault(vcpu, GPA, 4)
    root = vcpu.mmu.root
    assert root is not None and not root.unsync_child_bitmap
    gpa = PT + (GPA >> 12 & 511) * 8
    mmu_sync.write_guest_table(vcpu, gpa, LEAF | 1)
    mmu_sync.write_guest_table(vcpu, gpa, LEAF | 5)
    assert root.unsync_child_bitmap == {GPA >> 39}
    leaf = next(s for s in vcpu.pages.values() if s.level == 1)
    assert leaf.unsync
    mmu_page.kvm_mmu_sync_roots(vcpu)
    assert not root.unsync_child_bitmap and not leaf.unsync
    assert leaf.shadowed_translation is not None
    assert leaf.shadowed_translation[GPA >> 12 & 511] & 7 == 5  # execute and read
    mmu_page.kvm_mmu_sync_roots(vcpu)


def test_marks_that_lead_nowhere_are_dropped() -> None:
    vcpu = l2_at(0)
    map_gpa(vcpu, LEAF | 7)
    kvm_mmu_page_fault(vcpu, GPA, 4)
    root = vcpu.mmu.root
    leaf = next(s for s in vcpu.pages.values() if s.level == 1)
    kvm_unsync_page(vcpu, leaf)
    kvm_unsync_page(vcpu, leaf)
    leaf.unsync = False
    assert root is not None and root.unsync_child_bitmap
    assert mmu_sync.mmu_unsync_walk(vcpu, root) == []
    assert not root.unsync_child_bitmap
    kvm_unsync_page(vcpu, leaf)
    (parent, index) = leaf.parent_ptes[0]
    mmu_sync.mmu_page_zap_pte(vcpu, parent, index)
    assert mmu_sync.mmu_unsync_walk(vcpu, root) == []
    assert vcpu.hash[leaf.gfn, leaf.role] is leaf  # a table that nothing links is kept for the next walk


def test_two_unsync_tables_are_synced_in_one_go() -> None:
    vcpu = l2_at(0)
    map_gpa(vcpu, LEAF | 7)
    other = GPA + (2 << 20)
    vcpu.memory[PD + (other >> 21 & 511) * 8] = 0x16000 | 7
    vcpu.memory[0x16000 + (other >> 12 & 511) * 8] = LEAF | 7
    for gpa in (GPA, other):
        kvm_mmu_page_fault(vcpu, gpa, 4)
    mmu_sync.write_guest_table(vcpu, PT + (GPA >> 12 & 511) * 8, LEAF | 1)
    mmu_sync.write_guest_table(vcpu, 0x16000 + (other >> 12 & 511) * 8, LEAF | 1)
    root = vcpu.mmu.root
    assert root is not None
    assert len(mmu_sync.mmu_unsync_walk(vcpu, root)) == 2
    mmu_page.kvm_mmu_sync_roots(vcpu)
    assert mmu_sync.mmu_unsync_walk(vcpu, root) == []
    assert not any(s.unsync for s in vcpu.pages.values())


@pytest.mark.parametrize("told", [True, False])
def test_the_third_write_without_a_walk_zaps_an_upper_table(told: bool) -> None:
    vcpu = l2_at(0)
    map_gpa(vcpu, LEAF | 7)
    kvm_mmu_page_fault(vcpu, GPA, 4)
    upper = next(s for s in vcpu.pages.values() if s.level == 2)
    leaf = next(s for s in vcpu.pages.values() if s.level == 1)
    vcpu.steps = [] if told else None
    gpa = PD + (GPA >> 21 & 511) * 8
    for n in (1, 2):
        mmu_sync.write_guest_table(vcpu, gpa, PT | 7)
        assert upper.write_flooding_count == n
    mmu_sync.write_guest_table(vcpu, gpa, PT | 7)
    assert (upper.gfn, upper.role) not in vcpu.hash
    assert upper not in vcpu.indirect.get(upper.gfn, ()) and not upper.parent_ptes
    kvm_mmu_page_fault(vcpu, GPA, 4)
    assert leaf.parent_ptes[0][0] is not upper
    assert [s for s in vcpu.steps or () if "flooding" in s.where] or not told
    mmu_sync.kvm_mmu_track_write(vcpu, PT)
    assert not leaf.write_flooding_count  # a last-level table is never flooded


def test_a_zapped_page_takes_its_unsync_tables_and_its_root_with_it() -> None:
    vcpu = l2_at(0)
    map_gpa(vcpu, LEAF | 7)
    kvm_mmu_page_fault(vcpu, GPA, 4)
    root = vcpu.mmu.root
    assert root is not None
    leaf = next(s for s in vcpu.pages.values() if s.level == 1)
    kvm_unsync_page(vcpu, leaf)
    vcpu.mmu.prev_roots[1] = (0, root)
    vcpu.mmu.prev_roots[2] = (0, kvm_mmu_get_shadow_page(vcpu, 0x77, root.role))
    kept = vcpu.mmu.prev_roots[2]
    mmu_sync.kvm_mmu_prepare_zap_page(vcpu, root)
    assert [gfn for gfn, _ in vcpu.hash] == [gfn for gfn, pages in vcpu.indirect.items() if pages] == [0x77]
    assert vcpu.mmu.root is None and vcpu.mmu.prev_roots == [None, None, kept]
    assert not leaf.unsync


def test_a_page_that_another_links_survives_its_parent() -> None:
    vcpu = l2_at(0)
    map_gpa(vcpu, LEAF | 7)
    kvm_mmu_page_fault(vcpu, GPA, 4)
    leaf = next(s for s in vcpu.pages.values() if s.level == 1)
    upper, index = leaf.parent_ptes[0]
    leaf.parent_ptes.append((upper, index + 1))
    upper.spt[index + 1] = upper.spt[index]
    mmu_sync.mmu_page_zap_pte(vcpu, upper, index, True)
    assert vcpu.hash[leaf.gfn, leaf.role] is leaf
    mmu_sync.mmu_page_zap_pte(vcpu, upper, index + 1, True)
    assert (leaf.gfn, leaf.role) not in vcpu.hash


def test_a_last_level_page_has_no_children_to_zap() -> None:
    vcpu = l2_at(0)
    map_gpa(vcpu, LEAF | 7)
    kvm_mmu_page_fault(vcpu, GPA, 4)
    leaf = next(s for s in vcpu.pages.values() if s.level == 1)
    mmu_sync.kvm_mmu_prepare_zap_page(vcpu, leaf)
    assert get_spte(leaf, GPA >> 12 & 511) == 1 << 63
    assert not leaf.parent_ptes


def test_a_direct_page_below_a_large_one_goes_with_its_parent() -> None:
    vcpu = l2_at(0)
    map_gpa(vcpu, 0x23400000 | 6 << 3 | 0x80 | 7, level=2)
    kvm_mmu_page_fault(vcpu, GPA, 4)
    direct = next(s for s in vcpu.pages.values() if s.level == 1)
    assert direct.direct and vcpu.hash[direct.gfn, direct.role] is direct
    mmu_sync.kvm_mmu_prepare_zap_page(vcpu, direct.parent_ptes[0][0])
    assert (direct.gfn, direct.role) not in vcpu.hash
    assert get_spte(direct, GPA >> 12 & 511) == 1 << 63


def test_every_root_given_is_looked_at() -> None:
    vcpu = l2_at(0)
    map_gpa(vcpu, LEAF | 7)
    kvm_mmu_page_fault(vcpu, GPA, 4)
    root = vcpu.mmu.root
    assert root is not None
    mmu_sync.write_guest_table(vcpu, PT + (GPA >> 12 & 511) * 8, LEAF | 1)
    root.unsync_child_bitmap.add(511)  # more than one mark on the way down, and a walk that ends in nothing
    mmu_sync.kvm_mmu_invalidate_addr(vcpu, 511 << 39, [root, root])
    leaf = next(s for s in vcpu.pages.values() if s.level == 1)
    assert get_spte(leaf, GPA >> 12 & 511) & 2
    mmu_sync.kvm_mmu_invalidate_addr(vcpu, GPA, [root, root])
    assert get_spte(leaf, GPA >> 12 & 511) & 2 == 0


def test_zapping_mmio_and_nothing() -> None:
    vcpu = l2_at(0)
    vcpu.ram_gfns = 0x20000
    map_gpa(vcpu, 0xFEB00000 | 7)
    kvm_mmu_page_fault(vcpu, GPA, 4)
    leaf = next(s for s in vcpu.pages.values() if s.level == 1)
    index = GPA >> 12 & 511
    assert get_spte(leaf, index) != 1 << 63
    mmu_sync.mmu_page_zap_pte(vcpu, leaf, index)
    assert get_spte(leaf, index) == 1 << 63
    before = vcpu.version
    mmu_sync.mmu_page_zap_pte(vcpu, leaf, index)
    assert vcpu.version == before


def test_a_table_that_becomes_an_upper_one_loses_its_unsync_page() -> None:
    vcpu = l2_at(0)
    map_gpa(vcpu, LEAF | 7)
    kvm_mmu_page_fault(vcpu, GPA, 4)
    leaf = next(s for s in vcpu.pages.values() if s.level == 1)
    kvm_unsync_page(vcpu, leaf)
    made = kvm_mmu_get_shadow_page(vcpu, leaf.gfn, leaf.role + 1)
    assert made.level == 2
    assert (leaf.gfn, leaf.role) not in vcpu.hash


def test_an_unsync_page_that_is_found_is_synced_first() -> None:
    vcpu = l2_at(0)
    map_gpa(vcpu, LEAF | 7)
    kvm_mmu_page_fault(vcpu, GPA, 4)
    leaf = next(s for s in vcpu.pages.values() if s.level == 1)
    mmu_sync.write_guest_table(vcpu, PT + (GPA >> 12 & 511) * 8, LEAF | 1)
    assert kvm_mmu_get_shadow_page(vcpu, leaf.gfn, leaf.role) is leaf
    assert leaf.unsync and get_spte(leaf, GPA >> 12 & 511) & 2 == 0
    vcpu.mmu.root_role ^= 1 << 20  # another role: cannot be synced, is made anew
    assert kvm_mmu_get_shadow_page(vcpu, leaf.gfn, leaf.role) is not leaf


def test_cached_roots() -> None:
    vcpu = l2_at(0)
    mmu = vcpu.mmu
    pages = {}
    for n in range(1, 6):
        mmu.pgd = n << 12
        mmu_page.kvm_mmu_new_pgd(vcpu, mmu, mmu.pgd)
        assert mmu.root is None
        mmu_page.kvm_mmu_reload(vcpu)
        mmu_page.kvm_mmu_reload(vcpu)
        assert mmu.root is not None
        pages[n] = mmu.root
    assert [root and root[0] >> 12 for root in mmu.prev_roots] == [4, 3, 2]  # the oldest went
    mmu.root.write_flooding_count = 2  # type: ignore[union-attr]
    mmu_page.kvm_mmu_new_pgd(vcpu, mmu, 5 << 12)
    assert mmu.root is pages[5] and mmu.root.write_flooding_count == 0
    mmu_page.kvm_mmu_new_pgd(vcpu, mmu, 3 << 12)
    assert mmu.root is pages[3]
    assert [root and root[0] >> 12 for root in mmu.prev_roots] == [5, 4, 2]
    mmu.root = None
    mmu_page.kvm_mmu_new_pgd(vcpu, mmu, 4 << 12)
    assert mmu.root is pages[4] and mmu.prev_roots[1:] == [(2 << 12, pages[2]), None]
    mmu.root_role ^= 1 << 20
    mmu_page.kvm_mmu_new_pgd(vcpu, mmu, 2 << 12)
    assert mmu.root is None  # the same pointer, another role
    mmu_page.kvm_mmu_free_roots(mmu)
    assert not any(mmu.prev_roots)
    mmu_page.kvm_mmu_new_pgd(vcpu, mmu, 2 << 12)
    mmu_page.kvm_mmu_sync_roots(vcpu)
    assert mmu.root is None


def test_another_vmcs12_frees_the_roots() -> None:
    vcpu = l2_at(0)
    vcpu.steps = []
    nested.nested_release_vmcs12(vcpu)
    assert vcpu.guest_mmu.root is None
    assert vcpu.steps[0].where == "vmx/nested.c nested_release_vmcs12"


def test_a_linked_table_brings_its_unsync_children_into_step() -> None:
    """The upper entry goes and comes back, and the leaf is written while nothing links its table."""
    for level in (2, 3):
        vector = sequence(replace(FETCH, upper_level=level), f"l{level}=r-x-", f"l1=rw--.l{level}=rwxu.noinv", "noinv")
        assert mirror(0, vector) == ["done", "done", "violation", "violation"]
        again = sequence(replace(FETCH, upper_level=level), f"l{level}=r-x-", f"l1=r-x-.l{level}=rwxu.noinv", "write")
        assert mirror(0, again) == ["done", "done", "done", "violation"]


def test_page_faults_of_the_guest_leave_the_translation() -> None:
    swx = GuestPerm(False, True, True)
    vector = sequence(replace(READ, cpl=3), "gpswx.noinv", "l1=----.gpuwx.noinv")
    assert ["done", "exception", "done"] in allowed(vector)
    assert vector.turns[1].access.gp == swx
    assert l1_at(0).root_mmu.prev_roots == [None] * 3
