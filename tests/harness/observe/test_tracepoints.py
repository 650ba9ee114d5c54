"""Tracepoints beside the mirror's: a trace that was recorded at level 0 on the emulated host, whole and spoilt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness import protocol
from harness.observe import batch, cut, livelock, matching, warns
from harness.observe.cut import Exit, Marked
from kvmodel import machine
from kvmodel.cpu import Cpu
from kvmodel.question.outcome import Kind
from kvmodel.question.vector import Access, AccessVector, Mbec, Perm

RECORDED = Path(__file__).parent / "recorded" / "events_level0.trace"
WRITE = AccessVector(Mbec.OFF, access=Access.WRITE, cpl=3)
LARGE = AccessVector(Mbec.OFF, leaf_level=2, upper_level=3, cpl=3)
PAGES = {1: (WRITE, 0x84010000), 3: (LARGE, 0x86005000)}  # by mark: the vector, the L2-physical page it accesses


def recorded() -> dict[int, Marked]:
    return {one.index: one for one in cut.marked(livelock.parse(RECORDED.read_text()))}


def observation(page: int) -> batch.Observation:
    return batch.Observation(
        **{name: page if name == "target_gpa" else 0 for _, _, name, _ in protocol.OBSERVATION.rows}
    )


def seen(index: int) -> list[Exit]:
    vector, page = PAGES[index]
    return cut.exits(vector, observation(page), recorded()[index].events)


def told(vector: AccessVector, level: int = 0) -> list[Exit]:
    return cut.predicted(machine.events(level, None, Cpu(), vector))


def test_the_trace_is_cut_at_the_marks_and_at_the_exits_under_test() -> None:
    found = recorded()
    assert sorted(found) == [1, 3]
    assert found[1].begin < found[3].begin
    entry, one = seen(1)
    assert [name for name, _ in entry] == ["kvm_mmu_get_page"]
    assert [name for name, _ in one] == [
        "kvm_nested_vmexit",
        "kvm_page_fault",
        "kvm_mmu_pagetable_walk",
        *["kvm_mmu_paging_element"] * 4,
        *["kvm_mmu_get_page"] * 2,
        "kvm_mmu_spte_requested",
        "kvm_mmu_set_spte",
    ]
    assert one[1][1] == "address 0x0000000084010000 error_code 0x782"  # RIP and vCPU are nobody's prediction


def test_another_cpuid_is_no_mark() -> None:
    line = " q-1 [000] ..... 1.5: kvm_cpuid: func 1 idx 0 rax 0\n"
    assert cut.marked(livelock.parse(line)) == []


def test_the_mirror_and_the_kernel_tell_the_same() -> None:
    assert matching.compare(told(WRITE), seen(1)) is None


@pytest.mark.parametrize(
    ("field", "old", "new"),
    [
        ("kvm_mmu_set_spte", "(rwxu)", "(rw-u)"),  # a permission column
        ("kvm_mmu_set_spte", "877", "873"),  # a bit of the SPTE
        ("kvm_mmu_get_page", " wux ", " wu- "),  # role.access
        ("kvm_mmu_pagetable_walk", "pferr 2 W", "pferr 6 W|U"),
        ("kvm_nested_vmexit", "0782", "0783"),
    ],
)
def test_one_text_that_differs_is_found(field: str, old: str, new: str) -> None:
    spoilt = [tuple((n, t.replace(old, new) if n == field else t) for n, t in one) for one in seen(1)]
    difference = matching.compare(told(WRITE), spoilt)
    assert difference is not None
    assert difference.predicted.startswith(field)
    assert new in difference.observed
    assert new in str(difference)


def test_a_missing_and_a_further_event_are_found() -> None:
    entry, one = seen(1)
    less = matching.compare(told(WRITE), [entry, one[:-1]])
    assert less is not None
    assert (less.exit, less.observed) == (1, "")
    more = matching.compare(told(WRITE), [entry, (*one, ("kvm_mmu_unsync_page", "sp gen 1 gfn 1 l1"))])
    assert more is not None
    assert more.predicted == ""
    assert "kvm_mmu_unsync_page" in more.observed
    assert matching.compare(told(WRITE), [entry]) is not None
    assert matching.compare(told(WRITE), [entry, one, one[:2]]) is not None


def test_a_frame_that_is_another_one_is_found() -> None:
    entry, one = seen(1)
    table = next(text.split("gfn ")[1].split()[0] for name, text in one if name == "kvm_mmu_get_page")
    spoilt = tuple((n, t.replace(f"gfn {table}", "gfn 7777") if n == "kvm_mmu_get_page" else t) for n, t in one)
    difference = matching.compare(told(WRITE), [entry, spoilt])
    assert difference is not None
    assert "gfn 7777" in difference.observed


def test_another_level_or_vector_is_noticed() -> None:
    assert matching.compare(told(WRITE, 9), seen(1)) is not None  # patch 9's access strings
    assert matching.compare(told(replace(WRITE, access=Access.READ)), seen(1)) is not None
    assert matching.compare(told(replace(WRITE, leaf=Perm.parse("rw--"))), seen(1)) is not None


def test_a_direct_page_of_before_may_hold_its_entries_already() -> None:
    ours = told(LARGE)
    entry, one = ours
    names = [name for name, _ in one]
    assert names.count("kvm_mmu_set_spte") == 8
    reused = tuple((n, t.replace("sync new", "sync existing") if " direct " in t else t) for n, t in one)
    fewer = [e for i, e in enumerate(reused) if e[0] != "kvm_mmu_set_spte" or i == names.index("kvm_mmu_set_spte")]
    assert matching.compare(ours, [entry, tuple(fewer)]) is None
    new = [e for i, e in enumerate(one) if e[0] != "kvm_mmu_set_spte" or i == names.index("kvm_mmu_set_spte")]
    assert matching.compare(ours, [entry, tuple(new)]) is not None


def test_equal_exits_count_once() -> None:
    entry, one = seen(1)
    text = RECORDED.read_text()
    assert cut.predicted([*entry, *one, *one]) == [entry, one]
    assert text.count("kvm_nested_vmexit:") > 2  # the scaffold's exits are in it, and were left out


def test_addresses_are_named_in_the_order_they_come() -> None:
    named = matching.named(seen(1))
    assert named[0][0].startswith("kvm_mmu_get_page: sp gen gfn gfn0 l4 8-byte")
    assert named == matching.named(told(WRITE))
    rows = list(matching.beside(told(WRITE), seen(1)))
    assert {sign for sign, _ in rows} == {"@", "="}
    assert {sign for sign, _ in matching.beside(told(WRITE, 9), seen(1))} == {"@", "=", "-", "+"}


def spte(level: int, bits: int) -> list[Exit]:
    return [(("kvm_mmu_set_spte", f"gfn 1 spte {bits:x} (rwxu) level {level} at 1000"),)]


@pytest.mark.parametrize(
    ("level", "bits", "mbec", "kind"),
    [
        (1, 0x407, True, Kind.DONE),
        (2, 0x83, True, Kind.DONE),
        (2, 0x87, False, Kind.BYPASS),
        (2, 0x483, False, Kind.DONE),
        (2, 0x483, True, Kind.BYPASS),
        (3, 0x87, True, Kind.BYPASS),
    ],
)
def test_a_huge_page_that_executes(level: int, bits: int, mbec: bool, kind: Kind) -> None:
    got = cut.executable_huge(spte(level, bits), mbec)
    assert got.kind is kind
    if kind is Kind.BYPASS:
        assert (got.number, got.code) == (level, bits & 0x407)
        assert f"level {level}" in got.note


def test_warns_go_to_the_vector_that_ran_then() -> None:
    log = (
        "[    1.500000] WARNING: CPU: 0 PID: 65 at arch/x86/kvm/mmu/mmu.c:4213 handle_mmio_page_fault+0x1/0x2 [kvm]\n"
        "[    1.600000] WARNING: CPU: 0 PID: 65 at kernel/x.c:1 f+0x1/0x2\n[    1.7] something else\n"
    )
    found = warns.warned(log)
    assert [str(one) for one in found] == ["mmu/mmu.c handle_mmio_page_fault", "kernel/x.c f"]
    assert warns.of_vector(found, 1.5, 1.6) == ("mmu/mmu.c handle_mmio_page_fault",)
    assert warns.of_vector(found, 1.6, float("inf")) == ("kernel/x.c f",)


def test_warns_of_a_log_without_files_are_counted() -> None:
    (one,) = warns.warned("[    1.748761] WARNING: CPU: 0 PID: 69 at kvm_mmu_page_fault+0x4c0/0x590 [kvm]\n")
    assert str(one) == "kvm_mmu_page_fault"
    expected = ("mmu/mmu.c handle_mmio_page_fault",)
    assert warns.same_warns(expected, expected, (str(one),))
    assert not warns.same_warns((), (), (str(one),))
    assert not warns.same_warns(expected, expected, ())
    assert warns.same_warns((), expected, ())
    assert warns.same_warns(expected, expected, ("mmu/mmu.c another",))
    assert not warns.same_warns(expected, expected, ("mmu/spte.c make_spte",))
