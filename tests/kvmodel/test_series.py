"""The series as values, and levels as sets."""

from __future__ import annotations

import pytest

from kvmodel.series import LAST, PATCHES, Claim, Level, patch


def test_patches_are_numbered_from_one_in_order() -> None:
    assert [p.number for p in PATCHES] == list(range(1, 19))
    assert LAST == 18
    assert patch(6).subject == "KVM: VMX: Wire up Intel MBEC enable/disable logic"
    assert patch(18).message_id == "20250313203702.575156-19-jon@nutanix.com"


def test_claims() -> None:
    assert [p.number for p in PATCHES if p.claim is Claim.STATED] == [1, 2, 10]
    assert [p.number for p in PATCHES if p.claim is Claim.IMPLIED] == [8]


def test_a_level_is_its_patches() -> None:
    level = Level.of(11)
    assert level.has(11)
    assert not level.has(12)
    assert level.number == 11
    assert level == Level(11) == Level.having(range(1, 12))
    assert hash(level) == hash(Level.having(range(1, 12)))
    assert Level.of(11) is level
    assert str(level) == "11"


def test_a_patch_left_out() -> None:
    level = Level.without(18, 13)
    assert level.number is None
    assert level.has(14)
    assert not level.has(13)
    assert str(level) == "18 without 13"
    assert Level.without(11, 11) == Level.of(10)
    assert Level.without(11, 15) == Level.of(11)


def test_the_base_has_nothing() -> None:
    assert Level.of(0).number == 0
    assert str(Level.of(0)) == "0"
    assert not any(Level.of(0).has(n) for n in range(1, 19))


@pytest.mark.parametrize(
    ("level", "has", "default"),
    [(0, False, None), (2, False, None), (3, True, False), (17, True, False), (18, True, True)],
)
def test_the_parameter(level: int, has: bool, default: bool | None) -> None:
    assert Level.of(level).has_parameter is has
    assert Level.of(level).default_parameter is default


@pytest.mark.parametrize("bad", [-1, 19])
def test_unknown_levels_and_patches_are_refused(bad: int) -> None:
    with pytest.raises(ValueError, match="levels 0 to 18"):
        Level.of(bad)
    with pytest.raises(ValueError, match="patches 1 to 18"):
        Level.having([bad])
    with pytest.raises(ValueError, match="patches 1 to 18"):
        patch(bad)
