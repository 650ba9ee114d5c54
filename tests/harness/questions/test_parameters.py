"""What ``--param`` means for a series: texts that go there and back, and combinations that are bounded."""

from __future__ import annotations

import pytest

from harness.errors import InputError
from harness.questions.parameters import (
    MOST,
    OWN,
    Setting,
    chosen,
    everything,
    open_switches,
    order,
    switches,
    too_many,
)
from harness.series import Parameter, folder
from tests.harness.settings import OFF, ON, UNSET

MBEC = Parameter("kvm_intel", "mbec", ("0", "1"), 3, type="bool")
MODE = Parameter("kvm", "mode", ("fast", "safe"), 5, type="charp")


def texts(text: str, *known: Parameter) -> list[str]:
    return [str(setting) for setting in chosen(text, known)]


def test_our_own_series_declares_what_the_mirror_knows() -> None:
    assert folder.read().parameters == (OWN,)


def test_the_mirrored_series_texts_are_what_they_always_were() -> None:
    assert [str(s) for s in (UNSET, OFF, ON)] == ["unset", "0", "1"]
    assert [Setting.parse(text).own for text in ("unset", "0", "1")] == [None, False, True]
    assert texts("all", OWN) == ["unset", "0", "1"]
    assert texts("kvm.enable_pt_guest_exec_control=1,0", OWN) == ["1", "0"]


def test_others_are_named_and_combined() -> None:
    assert texts("kvm_intel.mbec=0,1", MBEC) == ["kvm_intel.mbec=0", "kvm_intel.mbec=1"]
    assert texts("kvm_intel.mbec=0,1,kvm.mode=safe", MBEC, MODE) == [
        "kvm.mode=safe,kvm_intel.mbec=0", "kvm.mode=safe,kvm_intel.mbec=1",
    ]  # fmt: skip
    assert texts("unset,kvm_intel.mbec=unset,1", MBEC) == ["unset", "kvm_intel.mbec=1"]
    assert texts("all") == ["unset"]
    assert len(texts("all", MBEC, MODE)) == 9
    for text in texts("all", MBEC, MODE, OWN):
        assert str(Setting.parse(text)) == text


def test_too_many_combinations_are_one_at_a_time_or_refused() -> None:
    known = [Parameter("kvm", f"p{n}", ("0", "1"), 1, type="bool") for n in range(4)]
    assert too_many(known) and not too_many(known[:3])
    assert len(everything(known)) == 1 + 8 and len(everything(known[:3])) == MOST
    with pytest.raises(InputError, match="32 combinations are too many"):
        chosen(",".join(f"kvm.p{n}=0,1" for n in range(5)), known)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1", "this series adds kvm_intel.mbec=0,1: write unset, all or MODULE.NAME=VALUE"),
        ("maybe", "'maybe' names no parameter"),
        ("kvm_amd.npt=0", "'kvm_amd.npt=0' names no parameter"),
        ("kvm_intel.=0", "names no parameter"),
        ("kvm_intel.mbec=", "'' is no value"),
        ("kvm_intel.mbec=a b", "'a b' is no value"),
        ("kvm_intel.ept=0", "set by each vector's environment"),
    ],
)
def test_what_is_no_parameter_is_refused_by_name(text: str, why: str) -> None:
    with pytest.raises(InputError, match="--param") as refused:
        chosen(text, (MBEC,))
    assert why in str(refused.value)


def test_a_series_without_parameters_says_so() -> None:
    with pytest.raises(InputError, match="this series adds no module parameter"):
        chosen("0", ())


def test_the_mirror_hears_of_its_own_parameter_alone() -> None:
    both = Setting.parse("kvm.enable_pt_guest_exec_control=1,kvm_intel.mbec=0")
    assert both.own is True and Setting.parse("kvm_intel.mbec=1").own is None


def test_a_level_has_what_it_has() -> None:
    both = chosen("kvm_intel.mbec=1,kvm.mode=safe", (MBEC, MODE))[0]
    assert [str(both.at(level, (MBEC, MODE))) for level in (0, 3, 5)] == [
        "unset", "kvm_intel.mbec=1", "kvm.mode=safe,kvm_intel.mbec=1",
    ]  # fmt: skip
    assert str(Setting.parse("kvm.tdp_mmu=0").at(0, (MBEC,))) == "kvm.tdp_mmu=0"  # the base's


def test_only_a_switch_is_one_of_two_values() -> None:
    given = switches(chosen("all", (MBEC, MODE)), (MBEC, MODE))
    assert [str(s) for s in given] == ["kvm_intel.mbec=0", "kvm_intel.mbec=1"]
    assert open_switches(Setting(), given) == [MBEC.key]
    assert open_switches(Setting(), given[:1]) == [] and open_switches(given[0], given) == []


def test_texts_sort_with_our_own_first() -> None:
    assert sorted(["kvm.b=1", "1", "kvm.a=0", "0", "unset"], key=order) == ["unset", "0", "1", "kvm.a=0", "kvm.b=1"]
