"""What a load's counters are put down to: its set-up or the vectors."""

from __future__ import annotations

import json
from pathlib import Path

from harness.coverage.build import Instrumented
from harness.coverage.counters import Counters
from harness.coverage.session import FILE, CountingSession
from harness.hosts.channel import CommandResult
from harness.questions.loads import Load
from kvmodel.question.vector import ENVIRONMENTS
from tests.harness.coverage.test_counters import stream
from tests.harness.settings import ON

INFO = {"info": {"parameter": "Y", "msrs": {}}}


class Machine:
    """Counts as instrumented modules would: 100 when loaded, 7 when removed, and what ``work`` adds."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.value: int | None = None
        self.kept: int | None = None

    def boot_for(self, modules: object) -> bool:
        return False

    def put(self, data: bytes, path: str, *, mode: int = 0o644) -> None:
        pass

    def deliver(self, path: Path, *, mode: int = 0o644) -> str:
        return path.name

    def run(self, command: str, *, check: bool = False) -> CommandResult:
        self.done.append(command)
        if command.startswith("echo"):
            self.kept = None
        return CommandResult(0, json.dumps(INFO).encode(), "")

    def get(self, path: str) -> bytes:
        assert path == FILE
        value = self.kept if self.value is None else self.value
        return b"" if value is None else stream("a", (1, [value]))

    def unload(self) -> None:
        if self.value is not None:
            self.value, self.kept = None, self.value + 7

    def load(self, modules: object, parameters: object) -> None:
        self.unload()
        self.value = 100

    def work(self, count: int) -> None:
        assert self.value is not None
        self.value += count


def totals(found: Counters) -> list[int]:
    return [sum(one.values) for one in found.values()]


def test_loading_and_removing_are_set_up_and_the_rest_is_the_vectors() -> None:
    host, setup, vectors = Machine(), Counters(), Counters()
    modules = Instrumented(Path("/entry"), "/src", "/build")
    session = CountingSession(host, modules, Path("client"), Path("probe"), setup, vectors)  # type: ignore[arg-type]
    assert host.done[-1] == "insmod kvmirror_coverage.ko"  # before KVM's own, which link to it
    load = Load(18, ON, ENVIRONMENTS["std"])
    session.load(load)
    host.work(3)
    session.load(load)  # as where the client asks for fresh modules: the first load's counters are not lost
    host.work(5)
    session.count()
    assert (totals(vectors), totals(setup)) == ([8], [214])
    session.count()  # nothing is loaded: nothing is counted twice
    assert (totals(vectors), totals(setup)) == ([8], [214])
