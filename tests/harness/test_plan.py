"""Every vector is run once a load, in the order of the levels; what collapses is counted, nothing vanishes."""

from harness.plan import collapse, plan
from harness.vectors import core
from kvmodel.vector import AccessVector, ClientVector, EntryVector, Mbec, MsrVector, Vector


def test_every_vector_is_planned_once_a_cell() -> None:
    vectors = core()
    works = list(plan(vectors, [2, 3], [None, True]))
    assert sum(w.size for w in works) == 3 * len(vectors)
    assert {(w.load.level, w.load.param) for w in works} == {(2, None), (3, None), (3, True)}


def test_hosts_without_mbec_come_last_and_levels_in_order() -> None:
    loads = [w.load for w in plan(core(), [5, 6], [False])]
    assert [x.env.cpu_mbec for x in loads] == sorted((x.env.cpu_mbec for x in loads), reverse=True)
    assert [x.level for x in loads if x.env.name == "std"] == [5, 6]


def test_a_series_without_the_parameter_runs_unset_only() -> None:
    assert {w.load.param for w in plan([AccessVector()], [0, 9], [None, False, True], None)} == {None}


def work(*vectors: Vector):  # type: ignore[no-untyped-def]
    (only,) = plan(vectors, [18], [None])
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
