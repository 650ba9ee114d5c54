"""The emulator's CPUs as they are found: read once, and held against the host that runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.build.cache import Cache
from harness.errors import HostError
from harness.hosts import Capabilities, Model, models
from harness.observe import bare, batch
from harness.results import Answer, cpus, judge
from harness.run import processors
from harness.run.bare import BareCell
from kvmodel import sdm
from kvmodel.cpu import Cpu
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.vector import Access, AccessVector, Perm, Vector
from kvmodel.sdm import errata

READ_ONLY = AccessVector(leaf=Perm.parse("r---"), access=Access.WRITE)
BIT12 = AccessVector(leaf_level=2, upper_level=3, leaf_bits=1 << 12)
FOUND = Capabilities({0x48B: (1 << 22 | 1 << 1) << 32, 0x48C: 1 | 1 << 16}, 39)


def emulator(seen: list[Model], outcomes: dict[Vector, Outcome]) -> object:
    """A bare CPU that answers so, and says FOUND of itself."""

    def ask(bochs: Path, probe: Path, model: Model, vectors: Iterable[Vector]) -> BareCell:
        seen.append(model)
        answers = []
        for vector, outcome in outcomes.items():
            contract = sdm.allowed(FOUND.cpu(), vector)
            answers.append(Answer(vector, outcome, None, contract, judge(None, contract, outcome)))
        return BareCell(answers, 1.0, 1.0, {}, FOUND)

    return ask


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Cache, Path, Path]:
    for name in ("bochs", "probe"):
        (tmp_path / name).write_bytes(name.encode())
    return Cache(tmp_path / "cache"), tmp_path / "bochs", tmp_path / "probe"


def test_a_model_is_read_once_and_says_what_it_is(
    parts: tuple[Cache, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Model] = []
    monkeypatch.setattr(
        processors, "ask", emulator(seen, {v: Outcome(Kind.DONE) for v in (READ_ONLY, BIT12, AccessVector())})
    )
    first = processors.read(*parts, models.USUAL)
    assert processors.read(*parts, models.USUAL) == first and seen == [models.USUAL]
    assert first.capabilities == FOUND
    assert (first.errata, first.unexplained) == ((errata.LARGE_BIT12,), 1)  # no known one lets that write through
    told = first.as_json()
    assert told["msrs"] == {"0x48b": "0x40000200000000", "0x48c": "0x10001"}
    assert (told["model"], told["mbec"], told["ept_1g"], told["maxphyaddr"]) == ("icelake", True, False, 39)
    assert cpus.from_json(told) == FOUND.cpu()
    processors.read(*parts, models.WITHOUT_MBEC)
    parts[1].write_bytes(b"another emulator")
    processors.read(*parts, models.USUAL)
    assert seen == [models.USUAL, models.WITHOUT_MBEC, models.USUAL]


def test_the_host_that_runs_has_to_say_the_same() -> None:
    found = processors.Processor(models.USUAL, FOUND, (), 0)
    processors.agree(found, replace(FOUND), "host 1")
    with pytest.raises(HostError, match=r"host 1: MSR 0x48c is 0x1 on the host that runs, and 0x10001 on the bare CPU"):
        processors.agree(found, replace(FOUND, msrs=dict(FOUND.msrs) | {0x48C: 1}), "host 1")
    with pytest.raises(HostError, match=r"MSR 0x48b is not there on the host"):
        processors.agree(found, replace(FOUND, msrs={0x48C: 0x10001}), "host 1")
    with pytest.raises(HostError, match=r"46 address bits"):
        processors.agree(found, replace(FOUND, maxphyaddr=46), "host 1")


def header(cpuid7_ebx: int) -> batch.Header:
    return batch.Header(0, 0, 0, 0, (), 0, 40, 0, 0, cpuid7_ebx, True, 0)


def test_what_a_cpu_has_not_is_not_asked_of_it() -> None:
    plain, smap, smep = AccessVector(), AccessVector(smap=True), AccessVector(smep=True)
    assert [bare.had(header(1 << 7), v) for v in (plain, smap, smep)] == [True, False, True]
    assert [bare.had(header(1 << 20), v) for v in (plain, smap, smep)] == [True, True, False]


def test_a_run_has_the_cpus_that_it_wrote_down() -> None:
    told = processors.Processor(models.named("skylake-x")[0], FOUND, ("ept-ad-walk-bit0",), 0).as_json()
    without = processors.Processor(models.WITHOUT_MBEC, Capabilities({0x48B: 2 << 32}, 40), (), 0).as_json()
    made = {cpus.EMULATED: {cpus.WITH: told, cpus.WITHOUT: without}}
    under = cpus.of_run(made)
    assert under(True) == FOUND.cpu() and not under(False).mbec
    assert cpus.model_of(made).name == "skylake-x" and cpus.model_of({}) == models.USUAL
    assert cpus.told(made) == "skylake-x with ept-ad-walk-bit0" and cpus.told({}) == ""
    assert under(True) != Cpu()
