"""Every vector is run once a load, in the order of the levels; what collapses is counted, nothing vanishes."""

import pytest

from harness.questions.core import core
from harness.questions.loads import SPREAD, Load, Work, collapse, plan, settled, twins
from kvmodel.question.vector import AccessVector, ClientVector, EntryVector, Mbec, MsrVector, Vector
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


def test_a_series_without_the_parameter_runs_unset_only() -> None:
    assert {w.load.param for w in plan([AccessVector()], [0, 9], [UNSET, OFF, ON], ())} == {None}


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
    assert twins([10, 2, 0, 1, 3, 6, 9], code.__getitem__) == {1: 0, 2: 0, 10: 9}


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


@pytest.mark.parametrize(("named", "dropped"), [([(18, False), (18, True)], True), ([(18, False)], False)])
def test_both_values_named_leave_the_unset_parameter_to_the_plain_host(
    named: list[tuple[int, bool]], dropped: bool
) -> None:
    for w in plan(core(), [18], [UNSET]):
        rest, by_rule = settled(w, named, {})
        gone = dropped and w.load.env.name != "std"
        assert by_rule == ({"same-value": w.size} if gone else {})
        assert rest.size == (0 if gone else w.size)
