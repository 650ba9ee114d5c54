"""``--cpu``: a run for each CPU that is named, and what goes on where one was interrupted."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from harness.cli import common, doctor, main, validate
from harness.errors import InputError
from harness.hosts import Capabilities, Model, models
from harness.results import Journal, of_series
from harness.run import Bench
from harness.run.processors import Processor

MANY = "skylake-x,tiger-lake,arrow-lake"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None, bool]]:
    """Each run's model, the CPUs it wrote down to be left, and whether it is the one that goes on."""
    seen: list[tuple[str, str | None, bool]] = []
    codes = {"skylake-x": 1, "tiger-lake": 3, "arrow-lake": 0, "icelake": 0}

    def run(args: argparse.Namespace, model: Model) -> int:
        seen.append((model.name, args.cpu, args.resume))
        return codes[model.name]

    monkeypatch.setattr(validate, "_run", run)
    return seen


def test_each_cpu_is_a_run_and_the_worst_is_the_exit_code(
    asked: list[tuple[str, str | None, bool]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["validate", "--cpu", MANY]) == 3
    assert asked == [
        ("skylake-x", MANY, False),
        ("tiger-lake", "tiger-lake,arrow-lake", False),
        ("arrow-lake", "arrow-lake", False),
    ]
    assert capsys.readouterr().out.splitlines() == [f"CPU {name}:" for name in MANY.split(",")]


def test_without_the_option_it_is_the_usual_one_and_nothing_is_said(
    asked: list[tuple[str, str | None, bool]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["validate"]) == 0
    assert asked == [("icelake", None, False)] and capsys.readouterr().out == ""


def test_a_run_that_goes_on_is_of_its_cpu_and_the_others_follow(
    asked: list[tuple[str, str | None, bool]], tmp_path: Path
) -> None:
    path = tmp_path / "j"
    with Journal(path) as journal:
        journal.begin([], {of_series.ASKED: {"cpu": "tiger-lake,arrow-lake"}})
    main.main(["validate", "--resume", "--journal", str(path)])
    assert asked == [("tiger-lake", "tiger-lake,arrow-lake", True), ("arrow-lake", "arrow-lake", False)]


def test_a_lab_machine_has_the_cpu_that_it_has() -> None:
    with pytest.raises(InputError, match="leave out --cpu, or --host"):
        common.chosen_cpus(argparse.Namespace(cpu="icelake", host="ssh://lab1"))


def test_a_command_for_one_cpu_takes_one() -> None:
    assert common.one_cpu(argparse.Namespace(cpu="tiger-lake")).name == "tiger-lake"
    with pytest.raises(InputError, match="name one CPU, as in skylake-x"):
        common.one_cpu(argparse.Namespace(cpu="all"))


def test_an_emulator_of_the_users_has_what_it_has(tmp_path: Path) -> None:
    words = [
        "run",
        "--level",
        "18",
        "--cpu",
        "icelake:no-advanced-info",
        "--bochs",
        str(tmp_path),
        "host.param.env=std",
    ]
    args = main.parser().parse_args(words)
    bench = Bench.of(args, common.one_cpu(args))
    with pytest.raises(InputError, match="an emulator of yours has what it has"):
        bench._build_bochs()


def test_doctor_says_what_each_cpu_has_and_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Capabilities({0x48B: (1 << 22 | 1 << 1) << 32, 0x48C: 1 | 1 << 16}, 39)
    monkeypatch.setattr(Bench, "build_bare", lambda self: None)
    monkeypatch.setattr(Bench, "processor", lambda self: Processor(self.model, told, ("large-page-bit12",), 2))
    args = main.parser().parse_args(["doctor", "--cpu", "skylake-x"])
    (line,) = doctor._emulated(args)
    assert (line.what, line.ok) == ("CPU skylake-x", True)
    assert "mbec, execonly, ept_2m; lacks ept_1g, ept_ad, advanced_info, unrestricted; 39 address bits" in line.found
    assert line.found.endswith("errata: large-page-bit12, 2 not known yet")


def test_every_model_has_a_name_for_a_command() -> None:
    for model in models.WITH_MBEC:
        assert common.chosen_cpus(argparse.Namespace(cpu=model.name)) == [model]
