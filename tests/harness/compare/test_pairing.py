"""Which level and parameter value is held against which."""

import pytest

from harness.compare.naming import parse
from harness.compare.pairing import pairs
from harness.errors import InputError

OURS = {(2, "unset"), *((level, param) for level in (10, 11, 18) for param in ("unset", "0", "1"))}
THEIRS = {(0, "unset")}


def paired(a: str, b: str, there_a: set[tuple[int, str]] = OURS, there_b: set[tuple[int, str]] = OURS) -> list[str]:
    return [str(pair) for pair in pairs(parse(a), parse(b), there_a, there_b)]


def test_without_a_level_all_that_both_asked_are_paired() -> None:
    assert paired("1", "2") == [
        "2/unset", "10/unset", "10/0", "10/1", "11/unset", "11/0", "11/1", "18/unset", "18/0", "18/1",
    ]  # fmt: skip
    assert paired("1", "2", OURS, {(18, "1"), (3, "0")}) == ["18/1"]


def test_runs_of_one_level_each_are_paired() -> None:
    assert paired("1", "2", {(18, "unset")}, THEIRS) == ["18/unset against 0/unset"]
    assert paired("1", "2", {(18, "1")}, THEIRS) == ["18/1 against 0/unset"]


def test_levels_are_paired_by_equal_parameter_values() -> None:
    assert paired("@10", "@11") == ["10/unset against 11/unset", "10/0 against 11/0", "10/1 against 11/1"]
    assert paired("@18/1", "@11") == ["18/1 against 11/1"]
    assert paired("@18/1", "@11/0") == ["18/1 against 11/0"]


def test_a_level_without_the_parameter_is_held_against_every_value() -> None:
    assert paired("@2", "@10") == ["2/unset against 10/unset", "2/unset against 10/0", "2/unset against 10/1"]
    assert paired("@18", "other", OURS, THEIRS) == [f"18/{p} against 0/unset" for p in ("unset", "0", "1")]


def test_a_named_level_meets_the_same_level_or_the_only_one() -> None:
    assert paired("@18/1", "2") == ["18/1"]
    assert paired("1", "@18/1") == ["18/1"]
    assert paired("@18/1", "other", OURS, THEIRS) == ["18/1 against 0/unset"]


@pytest.mark.parametrize(
    ("a", "b", "there_b", "says"),
    [
        ("@17", "1", OURS, r"@17: .* it has 2/unset, 10/unset"),
        ("@2/1", "1", OURS, r"@2/1: .* it has 2/unset"),
        ("1", "other", THEIRS, r"1 and other have no level .* A has 2/unset.* B has 0/unset"),
        ("@18", "other", {(3, "0"), (4, "0")}, r"other has no level 18: .* 3/0, 4/0"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(a: str, b: str, there_b: set[tuple[int, str]], says: str) -> None:
    with pytest.raises(InputError, match=says):
        pairs(parse(a), parse(b), OURS, there_b)
