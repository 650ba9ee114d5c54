"""What is asked of a host and of the mirror, and the finding behind an L2 that stands still."""

from __future__ import annotations

import pytest

from harness.bench import batch
from harness.bench.measure import AXES, SHORT, USER_FETCH, finding, on_axis, predicted, whole
from harness.bench.variants import VARIANTS, Kernel
from harness.observe import FIRST_FETCH
from kvmodel.machine.exits import Exit, Hypervisor, Mix, Vmcs

BASE, LAST = Kernel(0, None), Kernel(18, True)


@pytest.mark.parametrize("axis, value", [(axis, value) for axis, values in AXES.items() for value in values])
def test_every_point_of_the_curve_is_a_mix_that_the_workload_can_do(axis: str, value: float) -> None:
    mix = on_axis(axis, value)
    batch.check(whole(mix))
    every = {"hypercalls": mix.hypercall_every, "code loads": mix.load_every, "fresh pages": mix.fresh_every}[axis]
    times = mix.calls // every * (mix.hypercalls if axis == "hypercalls" else 1) if every else 0
    assert times == value * mix.calls


def test_what_is_no_axis_is_refused() -> None:
    with pytest.raises(ValueError, match="idle is no axis"):
        on_axis("idle", 1)


def test_the_short_window_has_one_of_each() -> None:
    assert all(0 < every <= SHORT.calls for every in (SHORT.fresh_every, SHORT.load_every, SHORT.hypercall_every))


def test_the_frame_is_off_the_prediction() -> None:
    assert predicted(BASE, VARIANTS[2].l1, Mix(50)) == {
        Exit("L2", "EPT_VIOLATION", "L1"): 100,
        Exit("L1", "VMRESUME"): 100,
    }
    assert predicted(LAST, VARIANTS[5].l1, Mix(50)) == {}


def test_no_mirror_no_prediction_and_no_finding() -> None:
    foreign = Kernel(0, None, "7.2.13", foreign=True)
    assert predicted(foreign, VARIANTS[0].l1, Mix(5)) is None
    assert finding(foreign, USER_FETCH) == ""


def test_an_l2_that_does_not_get_on_has_no_prediction_and_a_finding() -> None:
    assert predicted(LAST, VARIANTS[0].l1, Mix(5)) is None
    assert predicted(LAST, Hypervisor(False, Vmcs.PLAIN, bit10=True), Mix(5)) is not None
    told = finding(LAST, USER_FETCH)
    assert told.startswith("L2 livelock: ") and "caused by patch 6" in told and told.endswith("[fde5894d1cda59a7]")
    assert "L1 livelock" in finding(Kernel(12, True), FIRST_FETCH)


@pytest.mark.parametrize("kernel", [BASE, Kernel(18, False), Kernel(12, False)])
def test_where_the_mirror_sees_no_fault_none_is_named(kernel: Kernel) -> None:
    assert finding(kernel, USER_FETCH) == "" and finding(kernel, FIRST_FETCH) == ""
