"""Exits a thousand calls, ratios, spread, drift, and where a curve comes to a ratio."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from harness.bench.result import Measured, Point, Result, as_json, caused, crossing, difference
from harness.bench.variants import VARIANTS, Kernel
from kvmodel.machine.exits import Exit, Mix

READ, RESUME, TICK = Exit("L1", "VMREAD"), Exit("L1", "VMRESUME"), Exit("L1", "EXTERNAL_INTERRUPT")
KERNEL = Kernel(18, True)


def row(number: int, *runs: dict[Exit, int], calls: int = 100) -> Measured:
    return Measured(VARIANTS[number], calls, [Counter(run) for run in runs])


def test_the_frame_is_taken_off_and_the_hosts_own_interrupts_are_not() -> None:
    found = difference(Counter({READ: 9, TICK: 2}), Counter({READ: 4, RESUME: 1, TICK: 3}))
    assert found == {READ: 5, RESUME: -1, TICK: 2}
    assert caused(found) == {READ: 5, RESUME: -1}


def test_rates_leave_the_hosts_own_interrupts_out() -> None:
    assert row(0, {READ: 30, TICK: 7}).rate == 300


def test_spread_tells_what_differs_between_runs() -> None:
    steady = row(0, {READ: 5, TICK: 1}, {READ: 5, TICK: 3})
    assert steady.spread == {TICK: 2} and steady.steady
    other = row(0, {READ: 5}, {READ: 8, RESUME: 1})
    assert other.spread == {READ: 3, RESUME: 1} and not other.steady


def test_drift_is_what_the_mirror_has_otherwise() -> None:
    one = row(0, {READ: 5, TICK: 4})
    assert one.drift == {}  # the mirror was not asked
    one.predicted = Counter({READ: 5})
    assert one.drift == {}
    one.predicted = Counter({READ: 4, RESUME: 1})
    assert one.drift == {READ: (4, 5), RESUME: (1, 0)}


def test_the_trace_is_held_against_the_mirror_exit_by_exit() -> None:
    one = row(0, {READ: 2})
    one.traced = [READ, RESUME]
    assert one.trace_differs == ""
    one.foreseen = [READ, RESUME]
    assert one.trace_differs == ""
    one.foreseen = [READ, READ]
    assert one.trace_differs == "exit 2: mirror L1 VMREAD, KVM L1 VMRESUME"
    one.foreseen = [READ]
    assert one.trace_differs == "the mirror has 1 exits, KVM 2"


def test_ratios_are_to_the_first_variant() -> None:
    result = Result(KERNEL, [row(0, {READ: 60}), row(5, {READ: 5}), Measured(VARIANTS[3], 100, missing="no")])
    assert result.ratio(result.rows[1]) == 12
    assert result.ratio(result.rows[2]) is None
    assert Result(KERNEL, [row(5, {READ: 5})]).ratio(row(5, {READ: 5})) is None


def points(*rates: tuple[float, float, float]) -> list[Point]:
    return [Point("hypercalls", x, {"software": a, "mbec-evmcs": b}, {}) for x, a, b in rates]


def test_a_crossing_lies_between_the_points_around_it() -> None:
    # software 24 + 10 o, MBEC 2 o exits a call: 24 times at o = 24 / 38
    there = points(*((o, 24 + 10 * o, 2 * o) for o in (0, 0.5, 1, 2)))
    at = crossing(there, "mbec-evmcs")
    assert at == pytest.approx(24 / 38, rel=0.03)
    assert there[0].ratio("mbec-evmcs") is None and there[0].left("mbec-evmcs") == 0
    assert crossing(there, "mbec-evmcs", goal=2) is None
    assert crossing(there, "mbec-shadow") is None


def test_a_point_drifts_where_the_mirror_has_another_number() -> None:
    assert not Point("hypercalls", 1, {"software": 34.0}, {"software": 34.0}).drifts
    assert Point("hypercalls", 1, {"software": 34.0}, {"software": 33.0}).drifts


def test_json_has_all_that_a_script_wants() -> None:
    one = row(0, {READ: 60}, {READ: 60})
    one.predicted, one.totals = Counter({READ: 59}), [(60, 61)]
    result = Result(KERNEL, [one, Measured(VARIANTS[3], 100, missing="not offered")], points((1, 34, 2)))
    body = json.loads(json.dumps(as_json(Mix(), [result])))
    first, second = body["kernels"][0]["variants"]
    assert first["exits_per_thousand_calls"] == 600 and first["ratio"] == 1
    assert first["drift"] == {"L1 VMREAD": {"mirror": 59, "counted": 60}}
    assert (second["missing"], second["runs"], second["ratio"]) == ("not offered", [], None)
    assert body["kernels"][0]["curve"][0]["exits"] == {"software": 34, "mbec-evmcs": 2}
    assert body["mix"]["calls"] == 200
