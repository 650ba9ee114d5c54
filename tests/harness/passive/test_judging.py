"""What is said of a guest's events: each rule where it is broken, and where it only looks so."""

from __future__ import annotations

import pytest

from harness.observe import LIVELOCK_EXITS
from harness.passive import judging
from kvmodel.sdm import coherence
from tests.harness.passive import made
from tests.harness.passive.made import Planted, asked, exit_of, fault, installed, judged, words

READ, WRITE, FETCH = 0x181, 0x182, 0x184  # of a linear address, nothing permitted
R, W, X, UX = 1, 2, 4, 1 << 10


def test_a_real_guest_breaks_nothing() -> None:
    found = judging.judged(made.recorded())
    assert words(found) == {} and sum(found.judged.values()) == 203 + 148 + 14
    assert found.reasons["EPT_VIOLATION"] == 203 and found.unread == 41165 - 1255


@pytest.mark.parametrize(
    ("qualification", "rules"),
    [
        (READ, ()),
        (WRITE, ()),
        (FETCH, ()),
        (0x183, ()),  # a read-modify-write, or a walk with EPT A/D
        (0x18B, ()),  # ... whose entries permit reading alone
        (0x180, ("no-access",)),
        (0x185, ("fetch-and-data",)),
        (0x186, ("fetch-and-data",)),
        (0x181 | 8, ("permitted",)),
        (0x182 | 0x18, ("permitted",)),
        (0x183 | 0x18, ("permitted",)),
        (0x184 | 0x28, ("permitted",)),
        (0x182 | 0x10, ("permitted", "write-without-read")),
        (0x101, ("final-without-linear",)),
        (0x181 | 1 << 17, ("reserved",)),
        (0x181 | 8 | 1 << 13, ()),  # a shadow-stack access has rules of its own
        (0x181 | 8 | 1 << 15, ()),
    ],
)
def test_bits_against_one_another(qualification: int, rules: tuple[str, ...]) -> None:
    assert coherence.contradictions(qualification, mbec=False) == rules
    assert words(judged(exit_of(qualification))) == {f"cpu-{rule}": 1 for rule in rules}
    injected = "kvm_nested_vmexit_inject", {"exit_code": 48, "exit_info1": qualification}
    assert words(judged(injected)) == {f"l1-{rule}": 1 for rule in rules}


@pytest.mark.parametrize(("bits", "broken"), [(0x20, False), (0x40, False), (0x60, True)])
def test_with_mbec_a_fetch_is_permitted_by_both_bits_alone(bits: int, broken: bool) -> None:
    """Which of them speaks for the fetch its linear address says, and that is not known."""
    assert bool(coherence.contradictions(FETCH | bits, mbec=True)) is broken
    assert bool(words(judged(exit_of(FETCH | bits), kvm__enable_pt_guest_exec_control="Y"))) is broken


def test_another_exit_has_another_qualification() -> None:
    assert words(judged(exit_of(0, reason=30))) == {}


@pytest.mark.parametrize(
    ("qualification", "spte", "broken"),
    [
        (READ, R, False),
        (READ, X, True),
        (FETCH, R | X, False),
        (FETCH, R | W, True),
        (WRITE, R | W, False),
        (WRITE, R, False),  # KVM may emulate it: once is no fault
        (FETCH, 0, False),  # another CPU took it away
    ],
)
def test_an_entry_is_held_against_the_access_that_it_is_for(qualification: int, spte: int, broken: bool) -> None:
    found = judged(exit_of(qualification), fault(), asked(), installed(spte))
    assert words(found) == ({"unusable": 1} if broken else {})
    assert found.judged["kvm_mmu_set_spte"] == (1 if spte else 0)
    if broken:
        assert f"spte {spte:x} level 1 for qualification {qualification:#x}" in found.problems["unusable"].first


def test_bit_10_permits_a_fetch_with_mbec_alone() -> None:
    events = (exit_of(FETCH), fault(), asked(), installed(R | UX))
    assert words(judged(*events, kvm__enable_pt_guest_exec_control="Y")) == {}
    assert words(judged(*events)) == {"unusable": 1}


def test_a_neighbour_is_no_answer_to_the_access() -> None:
    assert words(judged(exit_of(FETCH), fault(), asked(gfn=5), installed(R, gfn=6))) == {}
    assert words(judged(exit_of(FETCH), fault(), asked(gfn=0x2F5, level=2), installed(R, gfn=0x200, level=2))) == {
        "unusable": 1
    }


def test_without_ept_entries_say_something_else() -> None:
    found = judged(exit_of(FETCH), fault(), asked(), installed(R), kvm_intel__ept="N")
    assert words(found) == {} and "shadow entries are not judged" in found.asides[0]


WRITES: list[Planted] = [exit_of(WRITE), fault(), asked(), installed(R)]
EMULATED: Planted = ("kvm_emulate_insn", {})


def test_a_write_that_gets_nowhere_is_told() -> None:
    assert words(judged(*WRITES * LIVELOCK_EXITS)) == {"no-progress": 1}
    assert words(judged(*WRITES * (LIVELOCK_EXITS - 1))) == {}


def test_a_write_that_is_emulated_gets_somewhere() -> None:
    assert words(judged(*[*WRITES, EMULATED] * 3 * LIVELOCK_EXITS)) == {}


def test_writes_to_other_places_get_somewhere() -> None:
    events = [e for n in range(3 * LIVELOCK_EXITS) for e in (exit_of(WRITE), fault(n << 12), asked(n), installed(R, n))]
    assert words(judged(*events)) == {}


LOOP: list[Planted] = [exit_of(FETCH), fault()]


def test_a_livelock_is_told_once() -> None:
    assert words(judged(*LOOP * (LIVELOCK_EXITS - 1))) == {}
    assert words(judged(*LOOP * 3 * LIVELOCK_EXITS)) == {"livelock": 1}


@pytest.mark.parametrize(
    "between",
    [
        ("kvm_tdp_mmu_spte_changed", {"new_spte": 5}),
        ("fast_page_fault", {"old_spte": 1, "new_spte": 3}),
        exit_of(0, reason=1),
        ("kvm_nested_vmexit_inject", {"exit_code": 48, "exit_info1": FETCH}),
    ],
)
def test_where_something_happens_in_between_it_is_none(between: Planted) -> None:
    assert words(judged(*[*LOOP, between] * 3 * LIVELOCK_EXITS)) == {}


def test_another_address_is_no_livelock() -> None:
    events = [e for n in range(3 * LIVELOCK_EXITS) for e in (exit_of(FETCH), fault(n << 12))]
    assert words(judged(*events)) == {}


@pytest.mark.parametrize(
    ("level", "spte", "nx", "broken"),
    [(2, R | W | X, "Y", True), (2, R | W, "Y", False), (1, R | W | X, "Y", False), (2, R | X, "N", False)],
)
def test_the_rule_on_huge_pages(level: int, spte: int, nx: str, broken: bool) -> None:
    found = judged(installed(spte, gfn=0x200, level=level), kvm__nx_huge_pages=nx)
    assert words(found) == ({"huge-executable": 1} if broken else {})
    assert any("nx_huge_pages is off" in text for text in found.asides) is (nx == "N")


def test_bit_10_of_a_huge_entry_is_execution_with_mbec() -> None:
    parameters = {"kvm__nx_huge_pages": "Y", "kvm__enable_pt_guest_exec_control": "Y"}
    assert words(judged(installed(R | UX, level=2), **parameters)) == {"huge-executable": 1}


def test_exits_are_counted_by_the_hosts_names() -> None:
    found = judged(exit_of(READ), exit_of(0, reason=30), exit_of(0, reason=999))
    assert found.reasons == {"EPT_VIOLATION": 1, "IO_INSTRUCTION": 1, "reason 999": 1}


def test_what_was_lost_and_not_read_is_told() -> None:
    capture = made.captured([exit_of(READ)])
    capture.lost = {"overrun": 5, "dropped events": 2, "commit overrun": 0}
    capture.facts["entries"] = 10
    capture.exits = {"before": 1000.0, "while": 900.0, "after": 1000.0}
    text = "\n".join(judging.lines(capture, judging.judged(capture)))
    assert "7 LOST (overrun 5, dropped events 2)" in text and "9 events of the buffer were NOT READ" in text
    assert "1,000 before, 900 while capturing, 1,000 after (-10.0 % against the mean without)" in text
    capture.exits = {"before": None, "while": None, "after": None}
    assert "not known (the host has no debugfs" in "\n".join(judging.lines(capture, judging.judged(capture)))


def test_every_rule_has_its_words() -> None:
    assert all(text for text in judging.RULES.values())
