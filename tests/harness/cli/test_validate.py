"""What ``kvmirror validate`` prints of a run that it made."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from harness.cli.validate import Table, _close
from harness.findings import Run
from harness.questions import Setting, plan
from harness.results import KVM_HOST, Answer, CellKey, Journal, judge, of_series
from harness.run import Done
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.vector import AccessVector

DONE = Outcome(Kind.DONE)


@pytest.mark.parametrize("mirrored", [True, False])
def test_without_a_mirror_nothing_is_said_of_drift(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mirrored: bool
) -> None:
    provenance: dict[str, Any] = {of_series.ASKED: {"no_mirror": not mirrored}}
    works = list(plan([AccessVector()], [0], [Setting()]))
    with Journal(tmp_path / "j.sqlite") as journal:
        number = journal.begin([], provenance)
        predicted = DONE if mirrored else None
        answer = Answer(AccessVector(), DONE, predicted, None, judge(predicted, None, DONE))
        journal.record(number, CellKey(0, "unset", KVM_HOST, "std"), [answer], 1.0, {})
        journal.end(number, "complete")
        table = Table(works, journal, number, quiet=False, mirrored=mirrored)
        table.done(Done(works[0].load))
        args = argparse.Namespace(new=False, json=False)
        assert _close(Run.open(journal, number), args, 1.0) == 0
    head, row, _, summary, *rest = capsys.readouterr().out.splitlines()
    shown = dict(zip(head.split(), row.split(), strict=True))
    assert shown["agree"] == "1"
    if mirrored:
        assert (shown["drift"], shown["traced"], shown["ev-drift"]) == ("0", "0", "0") and "0 drift" in summary
    else:
        assert (shown["drift"], shown["traced"], shown["ev-drift"]) == ("-", "-", "-")
        assert "no mirror was asked" in summary and not any("drift" in line or "differ" in line for line in rest)
        assert "drift" not in summary
