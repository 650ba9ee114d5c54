"""Causes by leaving patches out, on kernels that answer as the mirror without those patches does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from harness.build import variants
from harness.cli import main
from harness.errors import HostError
from harness.findings import Became, Finding, Run
from harness.findings.group import group
from harness.observe.l1 import Seen
from harness.observe.reports import Reported
from harness.questions.loads import Load
from harness.results import Journal, cpus
from harness.review import check, identity
from harness.run import leave_out
from harness.run.setup import Bench
from harness.series import How
from kvmodel import machine
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.vector import ClientVector, OnHost, Vector
from kvmodel.series import Level
from tests.golden import doors, stored

GOES_WITH = {10: (11,)}  # what does not apply without this of our patches
NO_CODE = (1, 2, 5, 8)  # those that change no machine code where they stand
NOTHING = 4  # one without which "nothing compiles"
TWIN = 7  # one whose absence no machine code shows


@dataclass(frozen=True)
class Kernel:
    """Modules that know what they are made of."""

    level: Level
    image_differs: tuple[str, ...] = ()


class MirrorSession:
    """What the mirror says of the kernel that is loaded."""

    spent = False

    def unclaimed(self, _: object = ()) -> list[Reported]:
        return []

    def __init__(self, kernels: Callable[[int], Kernel], loads: list[str], deadly: str) -> None:
        self._kernels, self._loads, self._deadly = kernels, loads, deadly
        self._load: Load | None = None

    def load(self, load: Load) -> None:
        self._load = load
        self._loads.append(f"{self._level} {load.param}")
        if str(self._level) == self._deadly:
            raise HostError("the emulated host panicked\nits console")

    @property
    def _level(self) -> Level:
        assert self._load is not None
        return self._kernels(self._load.level).level

    @property
    def _param(self) -> bool | None:
        assert self._load is not None
        return self._load.param if self._level.has_parameter else None

    @property
    def parameter(self) -> str | None:
        value = self._level.default_parameter if self._param is None else self._param
        return None if value is None else "NY"[value]

    def value(self, _: object) -> str | None:
        return {None: None, "N": "0", "Y": "1"}[self.parameter]

    mbec_offered = False

    def l1_can_run(self) -> Outcome | None:
        first = self._answer(ClientVector("real"))
        return None if first.kind is Kind.DONE else Outcome(Kind.BLOCKED, note="L1 cannot run")

    def _answer(self, vector: Vector) -> Outcome:
        cpu = cpus.emulated(vector.machine.env.cpu_mbec)
        return machine.predict(self._level, self._param, cpu, vector).outcome

    def ask_host(self, vectors: Iterable[OnHost]) -> list[Outcome]:
        return [self._answer(v) for v in vectors]

    def ask_l1(self, of: object, vectors: list[Vector], *_: object) -> Seen:
        cpu = cpus.emulated(vectors[0].machine.env.cpu_mbec)
        offered = machine.virtual_cpu(self._level, self._param, cpu, vectors[0].machine)
        return Seen([self._answer(v) for v in vectors], offered)


class MirrorBench:
    """Kernels of our own series, and hosts that are counted."""

    base = SimpleNamespace(release="6.12.8")
    cache = series = None

    def __init__(self, deadly: str = "") -> None:
        self.opened, self.loads, self._deadly = 0, list[str](), deadly

    def level(self, number: int) -> Kernel:
        return Kernel(Level.of(number))

    def changes_nothing(self, patch: int) -> bool:
        return patch in NO_CODE

    def carry(self, modules: Iterable[Kernel]) -> None:
        list(modules)

    def open_host(self, *_: object) -> MirrorBench:
        self.opened += 1
        return self

    def __enter__(self) -> MirrorBench:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def open_session(self, _: object, modules: Callable[[int], Kernel]) -> MirrorSession:
        return MirrorSession(modules, self.loads, self._deadly)


def build(_: object, __: object, ___: object, level: int, patch: int) -> variants.Without:
    """Our series' kernels: what goes with a patch, and one that cannot be built."""
    gone = tuple(n for n in (patch, *GOES_WITH.get(patch, ())) if n <= level)
    made = None if patch == NOTHING else Kernel(Level.without(level, *gone))
    return variants.Without(level, patch, gone, How.LEFT_OUT, "", made)  # type: ignore[arg-type]


def code(_: object, files: Kernel) -> str:
    return str(Level.having(files.level.applied | {TWIN}))


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterable[Journal]:
    monkeypatch.setattr(variants, "build", build)
    monkeypatch.setattr(check, "files", lambda modules: modules)
    monkeypatch.setattr(identity, "fingerprint", code)
    path = tmp_path / "journal.sqlite"
    doors.write_run(path, stored.load())
    with Journal(path) as opened:
        yield opened


def findings(journal: Journal) -> list[Finding]:
    return Run.open(journal, 1).findings


def asked(journal: Journal, bench: MirrorBench, found: list[Finding]) -> list[str]:
    said: list[str] = []
    leave_out.find_causes(Run.open(journal, 1), found, cast(Bench, bench), said.append)
    return said


def test_kernels_and_mirror_name_the_same_patches_of_every_finding(journal: Journal) -> None:
    bench = MirrorBench()
    asked(journal, bench, findings(journal))
    found = findings(journal)
    assert [f.name for f in found] == [f"F{n}" for n in range(1, 10)]
    for f in found:
        assert f.left_out is not None and f.left_out.told
        assert f.left_out.patches == f.origin.patches, f.name
        untold = {*f.left_out.builds_on, *f.left_out.silent}
        assert set(f.left_out.needs) == set(f.origin.needs) - untold, f.name
    assert any(f.origin.needs for f in found)
    assert bench.opened == len({q.level for q in leave_out.questions(found)})


def test_one_boot_asks_every_kernel_and_the_same_code_once(journal: Journal) -> None:
    bench = MirrorBench()
    (f,) = [f for f in findings(journal) if f.name == "F2"]
    asked(journal, bench, [f])
    level, _ = leave_out.questions([f])[0].departure.cell
    assert level == 11
    expected = {str(Level.of(11)), str(Level.without(11, 10, 11))} | {str(Level.without(11, n)) for n in (3, 6, 9, 11)}
    assert {load.rpartition(" ")[0] for load in bench.loads} == expected
    assert len(bench.loads) == len(expected)
    after = next(f for f in findings(journal) if f.name == "F2").left_out
    assert after is not None
    twin = next(w for w in after.without if w.patch == TWIN)
    assert (twin.same_as, twin.became.value) == ("level 11", "shows")
    assert after.silent == (NOTHING,)
    assert after.builds_on == (10,)
    assert [w.patch for w in after.without if w.became is Became.NO_CODE] == list(NO_CODE)


def test_without_the_mirror_the_cause_is_that_of_the_kernels(journal: Journal) -> None:
    found = [replace(d, predicted=None) for f in findings(journal) for d in f.departures]
    (f,) = [f for f in group(found) if f.symptom.severity == "permission not enforced"]
    assert "no mirror was asked" in str(f.origin)
    said = asked(journal, MirrorBench(), [f])
    assert said[-1].startswith("F") and "caused by patch 11" in said[-1]


def test_a_host_that_dies_of_a_kernel_leaves_the_others(journal: Journal) -> None:
    bench = MirrorBench(deadly=str(Level.without(11, 9)))
    (f,) = [f for f in findings(journal) if f.name == "F2"]
    asked(journal, bench, [f])
    after = next(f for f in findings(journal) if f.name == "F2").left_out
    assert after is not None
    assert after.patches == (11,) and 9 in after.silent
    (dead,) = (w for w in after.without if w.patch == 9)
    assert "panicked" in dead.answer


def test_the_first_level_is_found_by_halves(journal: Journal) -> None:
    """Of a run that asked one level."""
    source = next(f for f in findings(journal) if f.name == "F2")
    late = [d for d in source.departures if d.cell == (16, "0")]
    (f,) = group(late)
    bench = MirrorBench()
    said: list[str] = []
    firsts = leave_out.first_levels({(16, "0")}, leave_out.questions([f]), cast(Bench, bench), said.append)
    assert firsts == {f.name: 11}
    assert len(bench.loads) <= 5


def test_a_level_that_no_longer_shows_it_names_no_patch(journal: Journal) -> None:
    (f,) = [f for f in findings(journal) if f.name == "F2"]
    other = tuple(replace(d, seen=Outcome(Kind.EXCEPTION, number=6)) for d in f.departures)
    bench = MirrorBench()
    said = asked(journal, bench, [replace(f, departures=other)])
    assert "no longer shows it" in said[-1]
    assert bench.loads == ["11 False"]  # and no kernel without a patch is asked


def test_the_command_tells_what_was_kept(journal: Journal, capsys: pytest.CaptureFixture[str]) -> None:
    asked(journal, MirrorBench(), findings(journal))
    arguments = ["causes", "--journal", str(journal.path), "F5"]
    assert main.main(arguments) == 0
    text = capsys.readouterr().out
    assert "without 11: gone: violation" in text
    assert "DIFFERS" not in text
