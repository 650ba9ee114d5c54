"""A run says itself of which series it is: readers take its number of patches from there."""

from __future__ import annotations

from harness.results import RunSeries, of_series
from kvmodel.series import LAST


def test_there_and_back() -> None:
    told = RunSeries(60, False, of_series.options("/tmp/a b", "v6.12..base"), 2)
    assert of_series.of_run({of_series.PROVENANCE: told.as_json()}) == told
    assert told.options == " --series '/tmp/a b' --on v6.12..base"


def test_a_run_of_before_is_of_the_mirrored_series() -> None:
    assert of_series.of_run({}) == RunSeries(LAST, True, "", 0)
    assert of_series.of_run({"patches": [{}, {}, {}]}).last == 3
