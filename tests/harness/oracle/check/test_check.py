"""The comparison: differences are found, made small and counted; equal sides are silent."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.oracle.check import check
from harness.oracle.check.check import Checked, Checker, inside, smaller
from harness.oracle.image.worker import Image, ImageWorker
from harness.oracle.mutate import sharp
from harness.oracle.specs.spaces import BOOL, Bits, Space
from harness.oracle.specs.spec import Mirror, Side, Spec, State
from kvmodel.series import Level


class Still(State):
    """A state that the little image needs no calls for."""

    def calls(self) -> tuple[()]:
        return ()


def spec(mirror: Mirror, entry: str = "masked", *columns: Bits | tuple[int, ...], **more: object) -> Spec:
    def make(_: Side) -> Mirror:
        return mirror

    space = Space(columns or (Bits(0xFFFF), BOOL))
    return Spec(entry, ("little.c " + entry,), space, make, (Still(),), **more)  # type: ignore[arg-type]


@pytest.fixture
def checker(image: Image) -> Checker:
    return Checker({0: image.path}, 2000)


def run(checker: Checker, checked: Spec) -> Checked:
    with checker:
        return checker.run(checked)


def right(word: int, off: int) -> tuple[int]:
    return (word & ~(0x400 if off else 0),)


def test_equal_sides_differ_nowhere(checker: Checker) -> None:
    outcome = run(checker, spec(right))
    assert (outcome.mismatches, outcome.shown, outcome.cases, outcome.exhaustive) == (0, [], 2000, False)
    assert list(outcome.versions.values()) == [[0]]


def test_a_difference_is_found_and_made_small(checker: Checker) -> None:
    outcome = run(checker, spec(lambda word, off: (word,)))
    assert 300 < outcome.mismatches < 1000
    (mismatch,) = outcome.shown
    assert (mismatch.row, mismatch.c, mismatch.mirror) == ((0x400, 1), (0,), (0x400,))
    assert "masked(0x400, 0x1)" in str(mismatch)
    assert "C      (0x0)" in str(mismatch)


def test_a_warning_only_one_side_has_is_a_difference(checker: Checker) -> None:
    silent = spec(lambda on: (7,), "warns", BOOL)
    outcome = run(checker, silent)
    assert outcome.exhaustive
    assert outcome.mismatches == 1
    assert "some/file.c:42" in outcome.shown[0].c_event
    outcome = run(checker, spec(lambda on: (7,), "warns", BOOL, warns=False))
    assert outcome.mismatches == 0


def test_a_case_that_breaks_the_image_is_a_difference(checker: Checker) -> None:
    outcome = run(checker, spec(lambda on: (0,), "calls", (0,)))
    assert outcome.mismatches == 1
    assert "missing_function" in outcome.shown[0].c_event


def test_only_the_words_the_mirror_has_are_compared(worker: ImageWorker) -> None:
    results = worker.call("sum", check.flat([(1, 2), (3, 4)]))
    doubled = spec(right, "sum", outputs=(0,))
    assert list(check.chosen(doubled, results.out, 1)) == [3, 7]
    pair = spec(right, "sum", outputs=(1,))
    assert list(check.chosen(pair, check.flat([(1, 2), (3, 4)]), 2)) == [2, 4]


def test_levels_with_the_same_code_are_one_version(image: Image) -> None:
    with Checker({0: image.path, 5: image.path}, 100) as checker:
        outcome = checker.run(spec(right))
    assert list(outcome.versions.values()) == [[0, 5]]
    assert outcome.cases == 100


def test_a_mirror_that_is_wrong_at_one_level_of_a_version_is_caught(image: Image) -> None:
    def make(side: Side) -> Mirror:
        return lambda word, off: right(word, off) if not side.level.has(3) else (word,)

    wrong = Spec("masked", ("little.c masked",), Space((Bits(0xFFFF), BOOL)), make, (Still(),))
    with Checker({0: image.path, 2: image.path, 5: image.path}, 2000) as checker:
        outcome = checker.run(wrong)
    assert outcome.cases == 2000
    assert {m.level for m in outcome.shown} == {"5"}


def test_a_gate_at_the_end_of_a_space_is_not_overlooked(image: Image) -> None:
    """Cases that are written out come in order: the first are all alike."""

    def make(side: Side) -> Mirror:
        return lambda word, off: right(word, off) if word < 5900 or not side.level.has(3) else (word + 1,)

    wrong = Spec("masked", ("little.c masked",), Space((tuple(range(6000)), (0, 1))), make, (Still(),))
    with Checker({0: image.path, 5: image.path}, 100_000) as checker:
        outcome = checker.run(wrong)
    assert outcome.exhaustive
    assert (outcome.mismatches, {m.level for m in outcome.shown}) == (200, {"5"})


def test_another_levels_answers_do_not_condemn(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where what is consulted was overlooked, the level's own answers are asked for before a difference is one."""
    monkeypatch.setattr(check, "fingerprint", lambda *_: ("the same",))

    def make(side: Side) -> Mirror:
        return right if side.level.has(3) else lambda word, off: (word,)

    wrong = Spec("masked", ("little.c masked",), Space((Bits(0xFFFF), BOOL)), make, (Still(),))
    monkeypatch.setattr(Checker, "version", lambda _, __, level: str(level))
    with Checker({0: image.path, 5: image.path}, 2000) as checker:
        outcome = checker.run(wrong)
    assert {m.level for m in outcome.shown} == {"0"}


def test_the_seed_decides_the_cases() -> None:
    checked = spec(right)
    assert check.seeded(checked, 0, 1).random() == check.seeded(checked, 0, 1).random()
    assert check.seeded(checked, 0, 1).random() != check.seeded(checked, 0, 2).random()
    assert check.seeded(checked, 0, 1).random() != check.seeded(checked, 1, 1).random()


def test_smaller_cases_stay_in_the_space() -> None:
    checked = spec(right, "masked", Bits(0xF0, 0x10), (2, 5))
    assert list(smaller((0x30, 5))) == [(0, 5), (0x30, 0), (0x20, 5), (0x10, 5), (0x30, 4), (0x30, 1)]
    assert [row for row in smaller((0x30, 5)) if inside(checked, row)] == [(0x10, 5)]


def test_a_state_reaches_the_mirror() -> None:
    side = State(ad=False, ux=True, flag=True, shadow=True).side(Level.of(18))
    assert side.kvm.shadow_accessed_mask == 0
    assert side.kvm.shadow_ux_mask == 1 << 10
    assert side.vcpu.pt_guest_exec_control
    assert side.vcpu.mmu is side.vcpu.guest_mmu
    assert not State(flag=True).side(Level.of(4)).vcpu.pt_guest_exec_control


def test_an_image_folder_without_objects_says_so(tmp_path: Path) -> None:
    with Checker({0: tmp_path / "image"}, 10) as checker, pytest.raises(KeyError):
        checker.run(spec(right))


def test_a_patch_the_mirror_lacks_is_noticed(worker: ImageWorker) -> None:
    def make(side: Side) -> Mirror:
        return lambda word, off: right(word, off) if side.level.has(3) else (word,)

    aware = Spec("masked", ("little.c masked",), Space((Bits(0xFFFF), BOOL)), make, (Still(),))
    found = {n.patch: n for n in sharp.noticed(worker, [aware, spec(right)])}
    assert sorted(found) == list(range(1, 19))
    assert [k for k, n in found.items() if n.checks] == [3]
    assert found[3].example is not None
    assert found[3].example.row == (0x400, 1)
    assert found[3].example.level == "18 without 3"
    case, own = found[3].words
    assert case == "little.c masked: masked(0x400, 0x1) gives (0x0), without the patch (0x400)"
    assert own.startswith("at its own level nothing changes")  # nobody looked at the levels here
