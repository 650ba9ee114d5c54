"""An answer that an earlier run did not have is told in every format, and by the exit code."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest

from harness.cli.validate import _close
from harness.findings import Run
from harness.report import facts, grid, groups, html, junit, ktap, markdown
from harness.results import Answer, CellKey, Journal, Mark, NotReproduced, Verdict
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.vector import AccessVector

ROOT = Path(__file__).resolve().parents[3]
DONE, LOOP = Outcome(Kind.DONE), Outcome(Kind.LIVELOCK)
VECTOR = AccessVector()
KEY = CellKey(18, "1", "kvm", "std+mbec")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """A run in which nothing is wrong but that an earlier one saw something else."""
    found = Journal(tmp_path / "j.sqlite")
    run = found.begin(["kvmirror", "validate"], {})
    answer = Answer(VECTOR, DONE, DONE, None, Verdict(Mark.AGREE | Mark.AGAIN | Mark.NOT_REPRODUCED))
    told = NotReproduced(VECTOR.id, 7, LOOP, DONE)
    found.record(run, KEY, [answer], 1.0, {"not_reproduced": [told.as_json()], "earlier": {"7": 3}})
    found.end(run, "complete")
    return found


def test_every_format_tells_it(journal: Journal) -> None:
    report = facts.load(journal)
    found = groups.gather(journal, report)
    assert report.totals.not_reproduced == 1 and "1 answer not reproducible" in report.verdict
    assert any("not reproducible" in hurdle for hurdle in report.tested_by_hurdles(18))
    suite = ElementTree.fromstring(junit.render(report, found))
    (error,) = suite.iter("error")
    assert error.attrib["type"] == "not reproducible" and f"{VECTOR.id}: run 7 saw livelock" in str(error.text)
    lines = ktap.render(report, found).splitlines()
    assert lines[-1].startswith("not ok") and any(line.endswith("2 reproducible") for line in lines)
    assert f"{VECTOR.id}` | 7 | livelock | done" in markdown.render(report)
    page = html.render(report, grid.gather(journal, report))
    assert "Not reproducible: answered otherwise than before" in page


def test_the_command_tells_it_and_its_exit_code_is_1(journal: Journal, capsys: pytest.CaptureFixture[str]) -> None:
    args = argparse.Namespace(new=False, json=False)
    assert _close(Run.open(journal), args, 1.0) == 1
    told = capsys.readouterr().out
    assert f"NOT REPRODUCIBLE: level 18, parameter 1: {VECTOR.id}\n     run 7 saw livelock, this run done" in told
    args.json = True
    assert _close(Run.open(journal), args, 1.0) == 1
    body = json.loads(capsys.readouterr().out)
    jsonschema.validate(body, json.loads((ROOT / "docs" / "schema.json").read_text()))
    assert [entry["vector"] for entry in body["not_reproduced"]] == [VECTOR.id]
    assert body["earlier_runs"] == [7]
