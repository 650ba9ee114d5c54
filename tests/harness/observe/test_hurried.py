"""Answers that only a machine with too much to do gives: asked again alone, with more time, before they count."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import protocol
from harness.hosts.channel import CommandResult
from harness.observe import l1
from harness.observe.batch import unpack_header
from harness.observe.client import NOT_BACK
from harness.observe.l1 import BATCH_DEADLINE, OUT_OF_TIME, PATIENCE, SILENCE, hurried
from harness.observe.qemu import BatchRun, End
from harness.observe.reports import Reported
from harness.observe.session import Session
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.vector import Access, AccessVector, ClientVector, Vector
from tests.harness.observe.test_session import LOAD, FakeHost

C = protocol.CONSTANTS
VECTORS: list[Vector] = [AccessVector(access=access) for access in (Access.READ, Access.WRITE, Access.FETCH)]
Ends = Callable[[int, float], tuple[int, End] | None]  # by records and stall: where L1 ends and how; None: it does not


class SlowQemu:
    """A QEMU whose L1 does every record, but where ``ends`` has it stop at one."""

    def __init__(self, ends: Ends, log: list[tuple[int, float, float]]) -> None:
        self.ends, self.log = ends, log

    def __call__(self, host: object, machine: Any, probe: Path) -> SlowQemu:
        self.machine = machine
        return self

    def __enter__(self) -> SlowQemu:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def counters(self) -> dict[str, int]:
        return {}

    def run(self, batch: bytes, *, stall: float, deadline: float, called: object) -> BatchRun:
        header = unpack_header(batch)
        self.log.append((header.count, stall, deadline))
        end = self.ends(header.count, stall) if header.start == 0 else None
        stop, how = end or (header.count, End.POWEROFF)
        state = "STATE_DONE" if end is None else "STATE_LOADED" if stop < 0 else "STATE_RUNNING"
        fields = protocol.HEADER.unpack(batch) | {"current": max(stop, 0), "state": C[state]}
        memory = bytearray(protocol.HEADER.pack(**fields) + batch[protocol.HEADER.size :])
        at = protocol.HEADER.size + header.count * protocol.VECTOR.size + protocol.OBSERVATION.offset("verdict")
        for i in range(header.start, max(stop, 0)):
            memory[at + i * protocol.OBSERVATION.size] = C["VERDICT_DONE"]
        return BatchRun(how, "", 1.0, bytes(memory), max(stop, 0), C[state], ())


class QuietHost(FakeHost):
    """A host whose log says nothing."""

    def run(self, command: str, **options: object) -> CommandResult:
        return CommandResult(0, b"", "") if "dmesg" in command else super().run(command, **options)


def session(monkeypatch: pytest.MonkeyPatch, ends: Ends) -> tuple[Session, list[tuple[int, float, float]]]:
    log: list[tuple[int, float, float]] = []
    monkeypatch.setattr(l1, "Qemu", SlowQemu(ends, log))
    monkeypatch.setattr(l1, "qemu_facts", lambda _: {})
    made = Session(QuietHost(True), lambda _: None, Path(), Path())  # type: ignore[arg-type, return-value]
    made.load(LOAD)
    return made, log


@pytest.mark.parametrize("end", [End.HANG, End.DEADLINE, End.DIED])
def test_a_hurried_answer_is_asked_again_alone_and_then_counts(monkeypatch: pytest.MonkeyPatch, end: End) -> None:
    asked, log = session(monkeypatch, lambda records, _: (1, end) if records == len(VECTORS) else None)
    seen = asked.ask_l1(VECTORS[0].machine, VECTORS)
    assert [outcome.kind for outcome in seen.outcomes] == [Kind.DONE] * 3
    assert log[-1] == (1, PATIENCE * SILENCE, PATIENCE * BATCH_DEADLINE)
    assert seen.facts["hurried"] == {VECTORS[1].id: [f"host ({end.value})", "done"]}


def test_what_the_kernels_log_says_of_one_that_is_asked_alone_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, log = session(monkeypatch, lambda records, _: (1, End.HANG) if records == len(VECTORS) else None)
    said = [Reported(None, "WARN in f")]
    monkeypatch.setattr(asked, "unclaimed", lambda _=(): said if log and log[-1][0] == 1 else [])
    assert asked.ask_l1(VECTORS[0].machine, VECTORS).reported == [Reported(VECTORS[1], "WARN in f")]


@pytest.mark.parametrize("end", [End.HANG, End.DEADLINE])
def test_what_is_hurried_alone_too_is_said_so_and_is_no_finding(monkeypatch: pytest.MonkeyPatch, end: End) -> None:
    asked, log = session(monkeypatch, lambda records, _: (min(1, records - 1), end))
    seen = asked.ask_l1(VECTORS[0].machine, VECTORS)
    assert [outcome.kind for outcome in seen.outcomes] == [Kind.DONE, Kind.BLOCKED, Kind.DONE]
    assert seen.outcomes[1].note == OUT_OF_TIME + end.value
    assert sum(records == 1 for records, _, _ in log) == 1


def test_a_qemu_that_ends_twice_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, _ = session(monkeypatch, lambda records, _: (min(1, records - 1), End.DIED))
    assert asked.ask_l1(VECTORS[0].machine, VECTORS).outcomes[1] == Outcome(Kind.HOST, note=End.DIED.value)


def test_an_l1_that_was_slow_to_start_is_started_again_with_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, log = session(monkeypatch, lambda _, stall: (-1, End.HANG) if stall == SILENCE else None)
    seen = asked.ask_l1(VECTORS[0].machine, VECTORS)
    assert [outcome.kind for outcome in seen.outcomes] == [Kind.DONE] * 3
    assert [(records, stall) for records, stall, _ in log] == [(3, SILENCE), (3, PATIENCE * SILENCE)]


def test_an_answer_that_no_hurry_made_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, log = session(monkeypatch, lambda records, _: (1, End.INTERNAL_ERROR))
    seen = asked.ask_l1(VECTORS[0].machine, VECTORS)
    assert seen.outcomes[1] == Outcome(Kind.HOST, note=End.INTERNAL_ERROR.value)
    assert not any(hurried(outcome) for outcome in seen.outcomes)
    assert [records for records, _, _ in log] == [3, 3]  # the batch, and its rest behind the vector that L1 died of


@pytest.mark.parametrize("again", [Outcome(Kind.DONE), Outcome(Kind.HOST, note=NOT_BACK)])
def test_a_vcpu_that_did_not_come_back_is_asked_again(monkeypatch: pytest.MonkeyPatch, again: Outcome) -> None:
    answers = [[Outcome(Kind.HOST, note=NOT_BACK)], [again]]
    monkeypatch.setattr("harness.observe.client.ask", lambda *_: answers.pop(0))
    asked, _ = session(monkeypatch, lambda *_: None)
    (seen,) = asked.ask_host([ClientVector("real", Access.FETCH, "u")])
    assert seen == (again if again.kind is Kind.DONE else Outcome(Kind.BLOCKED, note=OUT_OF_TIME + NOT_BACK))
    assert answers == []
