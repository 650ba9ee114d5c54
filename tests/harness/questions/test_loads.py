"""Every vector is run once a load, in the order of the levels; what collapses is counted, nothing vanishes."""

import pytest

from harness.questions.core import core
from harness.questions.loads import SPREAD, Load, Work, collapse, given_otherwise, paired, plan, settled, twins
from harness.questions.parameters import Setting, chosen, switches
from harness.series import Parameter
from kvmodel.question.vector import AccessVector, ClientVector, EntryVector, HostVector, Mbec, MsrVector, Vector
from tests.harness.settings import OFF, ON, UNSET


def test_every_vector_is_planned_once_a_cell() -> None:
    vectors = core()
    works = list(plan(vectors, [2, 3], [UNSET, ON]))
    assert sum(w.size for w in works) == 3 * len(vectors)
    assert {(w.load.level, w.load.param) for w in works} == {(2, None), (3, None), (3, True)}


def test_hosts_without_mbec_come_last_and_levels_in_order() -> None:
    loads = [w.load for w in plan(core(), [5, 6], [OFF])]
    assert [x.env.cpu_mbec for x in loads] == sorted((x.env.cpu_mbec for x in loads), reverse=True)
    assert [x.level for x in loads if x.env.name == "std"] == [5, 6]


def test_what_is_taken_from_one_load_stays_in_the_others() -> None:
    first, second = plan([AccessVector(), HostVector()], [2, 3], [UNSET])
    first.host.clear()
    next(iter(first.batches.values())).clear()
    assert second.size == 2


def test_a_series_without_the_parameter_runs_unset_only() -> None:
    assert {w.load.setting for w in plan([AccessVector()], [0, 9], chosen("all", ()), ())} == {UNSET}


def work(*vectors: Vector):  # type: ignore[no-untyped-def]
    (only,) = plan(vectors, [18], [UNSET])
    return only


def test_what_l1_was_never_offered_collapses_and_is_counted() -> None:
    w = work(AccessVector(Mbec.ON), AccessVector(Mbec.OFF), AccessVector(Mbec.NA), EntryVector(Mbec.ON), ClientVector())
    assert collapse(w, same_value=False, offered=False) == {"never-offered": 1, "not-advertised": 1}
    assert [v.id for batch in w.batches.values() for v in batch] == [AccessVector(Mbec.OFF).id, EntryVector(Mbec.ON).id]


def test_one_virtual_cpu_is_looked_at_twice_on_the_plain_machine_only() -> None:
    for env, left_out in (("std", {}), ("ept0", {"not-advertised": 1})):
        w = work(MsrVector(Mbec.NA, env=env), MsrVector(Mbec.OFF, env=env))
        assert collapse(w, same_value=False, offered=False) == left_out
        assert w.size == 2 - len(left_out)


def test_nothing_collapses_where_l1_is_offered_the_control() -> None:
    w = work(AccessVector(Mbec.ON), AccessVector(Mbec.NA))
    assert collapse(w, same_value=False, offered=True) == {}
    assert w.size == 2


def test_the_same_value_again_keeps_only_the_host() -> None:
    w = work(AccessVector(), ClientVector())
    assert collapse(w, same_value=True, offered=True) == {"same-value": 1}
    assert (w.size, len(w.host)) == (1, 1)


def test_a_level_is_the_twin_of_the_lowest_that_is_its_code() -> None:
    code = {0: "a", 1: "a", 2: "a", 3: "b", 6: "a", 9: "c", 10: "c"}
    assert twins([10, 2, 0, 1, 3, 6, 9], code.__getitem__) == {
        1: 0,
        2: 0,
        6: 0,
        10: 9,
    }  # 6: what 3 changed is taken back


def test_of_a_twin_a_spread_of_the_plain_machine_is_asked() -> None:
    vectors = core()
    for w in plan(vectors, [1], [UNSET]):
        rest, by_rule = settled(w, (), {1: 0})
        assert rest.size + by_rule["same-code"] == w.size
        if w.load.env.name == "std":
            assert rest.host == w.host
            ((machine, asked),) = rest.batches.items()
            assert machine.mbec_offered and abs(len(asked) - len(w.batches[machine]) / SPREAD) <= 1
            elsewhere, _ = settled(Work(Load(2, UNSET, w.load.env), batches=w.batches), (), {2: 0})
            assert not set(asked) & set(elsewhere.batches[machine])
        else:
            assert rest.size == 0


@pytest.mark.parametrize(("named", "dropped"), [([(18, OFF), (18, ON)], True), ([(18, OFF)], False)])
def test_both_values_named_leave_the_unset_parameter_to_the_plain_host(
    named: list[tuple[int, Setting]], dropped: bool
) -> None:
    for w in plan(core(), [18], [UNSET]):
        rest, by_rule = settled(w, named, {})
        gone = dropped and w.load.env.name != "std"
        assert by_rule == ({"same-value": w.size} if gone else {})
        assert rest.size == (0 if gone else w.size)


QUIET = Parameter("kvm_intel", "quiet", ("0", "1"), 2, last_level=4, type="bool")
SIZE = Parameter("kvm", "size", ("8",), 3, type="int")


def test_a_level_is_loaded_with_the_parameters_that_it_has() -> None:
    known = (QUIET, SIZE)
    loads = [w.load for w in plan([AccessVector()], [1, 2, 3, 5], chosen("all", known), known)]
    texts = {level: [str(x.setting) for x in loads if x.level == level] for level in (1, 2, 3, 5)}
    assert texts[1] == ["unset"]
    assert texts[2] == ["unset", "kvm_intel.quiet=0", "kvm_intel.quiet=1"]
    assert sorted(texts[3]) == [
        "kvm.size=8", "kvm.size=8,kvm_intel.quiet=0", "kvm.size=8,kvm_intel.quiet=1",
        "kvm_intel.quiet=0", "kvm_intel.quiet=1", "unset",
    ]  # fmt: skip
    assert texts[5] == ["unset", "kvm.size=8"]


def test_of_two_parameters_the_unset_switch_is_one_of_its_values_whatever_the_other_is() -> None:
    known = (QUIET, SIZE)
    settings = chosen("all", known)
    named = {(3, s) for s in switches(settings, known)}
    assert {str(s) for _, s in named} == {"kvm_intel.quiet=0", "kvm_intel.quiet=1"}
    loads = {str(w.load.setting): w.load for w in plan([AccessVector()], [3], settings, known)}
    assert [text for text, load in loads.items() if given_otherwise(load, named)] == ["unset"]


def test_a_twin_without_the_lower_level_s_load_is_none() -> None:
    works = list(plan([AccessVector()], [0, 1, 3, 4], chosen("all", (QUIET,)), (QUIET,)))
    assert paired({1: 0, 3: 0, 4: 3}, works) == {1: 0, 4: 3}
