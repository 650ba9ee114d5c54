"""What is printed of the stored run is as it was frozen: reports, findings, mails, exit codes."""

from __future__ import annotations

import json

import pytest

from tests.golden import core_run, doors, freeze, stored


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return freeze.outputs(tmp_path_factory.mktemp("stored"))


@pytest.mark.parametrize("name", sorted(path.name for path in freeze.OUTPUTS.iterdir()))
def test_what_is_printed_of_the_stored_run_is_what_it_was(name: str, outputs: dict[str, str]) -> None:
    assert outputs.get(name, "") == (freeze.OUTPUTS / name).read_text(encoding="utf-8"), freeze.ANEW.format("outputs")


def test_every_output_of_the_stored_run_is_frozen(outputs: dict[str, str]) -> None:
    assert set(outputs) == {path.name for path in freeze.OUTPUTS.iterdir()}, freeze.ANEW.format("outputs")


def test_the_stored_run_has_what_a_report_can_say() -> None:
    """Every mark that the core run it is of has."""
    found = {mark for cell in stored.load()["cells"] for answer in cell["answers"] for mark in doors.marks(answer[2])}
    assert found >= {"AGREE", "FINDING", "NOT_APPLICABLE", "BLOCKED", "ENTRY_FAILURE", "TAKEN"}


def test_the_stored_run_has_the_causes_of_the_core_run() -> None:
    known = json.loads((freeze.OUTPUTS / "findings.json").read_text(encoding="utf-8"))
    core = json.loads(core_run.FROZEN.read_text(encoding="utf-8"))["findings"]
    assert [one["cause"] for one in known] == [one["cause"] for one in core]
