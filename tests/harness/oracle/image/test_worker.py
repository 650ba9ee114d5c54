"""The child process: results, state, and each kind of event."""

from __future__ import annotations

from array import array

import pytest

from harness.oracle.image import worker as module
from harness.oracle.image.worker import EventKind, ImageWorker, OracleError
from harness.oracle.specs.spaces import flat


def test_results_come_in_order(worker: ImageWorker) -> None:
    results = worker.call("sum", flat([(n, 10) for n in range(1000)]))
    assert list(results.out) == [n + 10 for n in range(1000)]
    assert not results.events
    assert not any(results.status)
    assert worker.calls == 1000


def test_a_batch_larger_than_the_memory_is_split(worker: ImageWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHM_BYTES", 1 << 16)
    count = 5000
    results = worker.call("sum", flat([(n, 1) for n in range(count)]))
    assert list(results.out) == [n + 1 for n in range(count)]
    assert len(results.status) == count


def test_state_stays_between_calls(worker: ImageWorker) -> None:
    assert worker.call("keep", array("Q", [5, 6])).out[1] == 5
    assert worker.call("keep", array("Q", [0])).out[0] == 6


def test_a_warning_is_seen_and_the_code_goes_on(worker: ImageWorker) -> None:
    results = worker.call("warns", array("Q", [0, 1, 0]))
    assert list(results.out) == [7, 7, 7]
    assert list(results.status) == [0, EventKind.WARN, 0]
    (event,) = results.events[1]
    assert (event.kind, event.function, event.what) == (EventKind.WARN, "o_warns", "some/file.c:42")


def test_a_bug_ends_its_case_only(worker: ImageWorker) -> None:
    results = worker.call("bugs", array("Q", [1, 0]))
    assert list(results.out) == [0, 7]
    assert results.events[0][0].kind is EventKind.BUG
    assert "some/file.c:42" in str(results.events[0][0])


def test_a_missing_function_is_named(worker: ImageWorker) -> None:
    (event,) = worker.call("calls", array("Q", [0])).events[0]
    assert (event.kind, event.function, event.what) == (EventKind.STRAY, "o_calls", "missing_function")


@pytest.mark.parametrize("offset", [0, 100])
def test_missing_data_is_named(worker: ImageWorker, offset: int) -> None:
    (event,) = worker.call("reads", array("Q", [offset])).events[0]
    assert (event.kind, event.what) == (EventKind.STRAY, "missing_data")


def test_a_wild_pointer_is_a_fault(worker: ImageWorker) -> None:
    results = worker.call("wild", array("Q", [0x1000]))
    (event,) = results.events[0]
    assert (event.kind, event.function, event.what) == (EventKind.FAULT, "o_wild", "0x1000")


def test_once_flags_are_cleared_before_each_case(worker: ImageWorker) -> None:
    assert list(worker.call("first", array("Q", [0, 0, 0])).out) == [1, 1, 1]


def test_a_hang_names_its_case_and_a_new_child_serves(worker: ImageWorker) -> None:
    worker.timeout = 0.3
    with pytest.raises(OracleError, match=r"did not end within 0 s in hangs, case 1 \(0x9\)"):
        worker.call("hangs", array("Q", [0, 9]))
    assert worker.call("sum", array("Q", [1, 2])).out[0] == 3


def test_a_death_names_its_case(worker: ImageWorker) -> None:
    with pytest.raises(OracleError, match=r"died in dies, case 2 \(0x1\)"):
        worker.call("dies", array("Q", [0, 0, 1]))
    assert worker.call("sum", array("Q", [1, 2])).out[0] == 3


def test_events_beyond_what_is_kept_are_counted(worker: ImageWorker) -> None:
    count = module.EVENTS_MAX + 5
    results = worker.call("warns", array("Q", [1] * count))
    assert results.lost == 5
    assert sum(results.status) == count * EventKind.WARN


def test_what_is_wrong_with_a_call_is_said(worker: ImageWorker) -> None:
    with pytest.raises(OracleError, match="no entry nonesuch"):
        worker.call("nonesuch", array("Q"))
    with pytest.raises(OracleError, match="takes 2 words a case, 3 words were given"):
        worker.call("sum", array("Q", [1, 2, 3]))
