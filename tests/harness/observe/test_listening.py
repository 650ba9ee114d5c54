"""What the kernel's log says goes to the vector that ran: all are marked at once, and asked once."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from harness import protocol
from harness.hosts.channel import CommandResult
from harness.observe import l1, livelock
from harness.observe.qemu import Qemu
from harness.observe.reports import Reported
from harness.observe.session import Session
from kvmodel.question.sequence import SequenceVector, Turn
from kvmodel.question.vector import Access, AccessVector, Mbec, Vector
from tests.harness.observe.test_hurried import VECTORS, SlowQemu
from tests.harness.observe.test_session import LOAD, FakeHost

MARK = protocol.CONSTANTS["MARK_LEAF"]
WARN = "WARNING: CPU: 0 PID: 79 at make_spte+0x43f/0x470 [kvm]"


def event(time: float, name: str, text: str) -> str:
    return f" qemu-79 [000] ..... {time:.6f}: {name}: {text}\n"


def mark(time: float, record: int) -> str:
    return event(time, "kvm_cpuid", f"func {MARK:x} idx {record:x} rax 0")


class TellingHost(FakeHost):
    """A host whose trace is one of ``traces``, the first of them first, and whose log says ``said`` from then on."""

    def __init__(self, traces: list[str], said: list[str]) -> None:
        super().__init__(True)
        self.traces, self.said, self.log = traces, said, ""
        self.events: list[list[str]] = []

    def run(self, command: str, **options: object) -> CommandResult:
        if "dmesg" in command:
            return CommandResult(0, self.log.encode(), "")
        if command.endswith(f"cat {livelock.TRACING}/trace"):
            return CommandResult(0, self._trace(), "")
        if "events" in command:
            return CommandResult(0, b"", "")
        return super().run(command, **options)

    def get(self, path: str) -> bytes:
        assert path == f"{livelock.TRACING}/trace"
        return self._trace()

    def _trace(self) -> bytes:
        self.log += self.said.pop(0)
        return self.traces.pop(0).encode()


def session(
    monkeypatch: pytest.MonkeyPatch, host: TellingHost, *, marking: bool = False
) -> tuple[Session, list[tuple[int, float, float]]]:
    log: list[tuple[int, float, float]] = []
    monkeypatch.setattr(l1, "Qemu", SlowQemu(lambda *_: None, log))
    monkeypatch.setattr(l1, "qemu_facts", lambda _: {})
    made = Session(host, lambda _: None, Path(), Path(), marking=marking)  # type: ignore[arg-type, return-value]
    made.load(LOAD)
    return made, log


MARKED = "".join(mark(float(n), n) for n in range(len(VECTORS)))


@pytest.mark.parametrize("at", range(len(VECTORS)))
def test_a_report_is_of_the_vector_that_ran_and_the_batch_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    asked, log = session(monkeypatch, TellingHost([MARKED], [f"[    {at}.500000] {WARN}\n"]))
    seen = asked.ask_l1(VECTORS[0].machine, VECTORS)
    assert seen.reported == [Reported(VECTORS[at], "WARN in make_spte")]
    assert [records for records, _, _ in log] == [len(VECTORS)]


def test_what_is_traced_is_asked_first_and_what_it_makes_the_log_say_is_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    later = "".join(mark(float(10 + n), n) for n in range(len(VECTORS)))
    asked, log = session(
        monkeypatch, TellingHost([mark(0.0, 0) + mark(1.0, 1), later], [f"[    0.500000] {WARN}\n", ""]), marking=True
    )
    seen = asked.ask_l1(VECTORS[0].machine, VECTORS, None, [VECTORS[2]])
    assert [records for records, _, _ in log] == [2, len(VECTORS)]  # it, with one behind it, then all
    assert [one.vector for one in seen.traced] == [VECTORS[2]]
    assert [one.warns for one in seen.traced] == [("make_spte",)]
    assert seen.reported == [Reported(VECTORS[2], "WARN in make_spte")]


SEQUENCE = SequenceVector((Turn(AccessVector(Mbec.OFF)), Turn(AccessVector(Mbec.OFF, access=Access.FETCH))))
FLOW: list[Vector] = [AccessVector(Mbec.OFF), SEQUENCE, AccessVector(Mbec.OFF, access=Access.WRITE)]


def exits(begin: float, count: int) -> str:
    text = "vcpu 0 reason EPT_VIOLATION rip 0x92e000 info1 0x184 info2 0"
    return "".join(event(begin + n / 1000, "kvm_exit", text) for n in range(count))


@pytest.mark.parametrize("looping", range(len(FLOW)))
def test_a_sequences_livelock_is_looked_for_beside_the_others(monkeypatch: pytest.MonkeyPatch, looping: int) -> None:
    records = [0, 1, 3]  # where each begins: the sequence has two
    few, many = livelock.LIVELOCK_EXITS - 1, livelock.LIVELOCK_EXITS
    trace = "".join(
        mark(float(at), record) + exits(at + 0.1, many if at == looping else few) for at, record in enumerate(records)
    )
    host = TellingHost([trace, "", ""], ["", "", ""])
    log: list[tuple[int, float, float]] = []
    qemu = SlowQemu(lambda *_: None, log)(host, FLOW[0].machine, Path())
    batch = l1.L1(host, FLOW[0].machine, Path(), FLOW)  # type: ignore[arg-type]
    assert batch._looping(cast(Qemu, qemu), [0, 1, 2]) == {looping}
    assert [count for count, _, _ in log] == [4] + [2 if at == 1 else 1 for at in range(3) if at != looping]
