"""The same run twice on a real host: the second one asks its sample, and says the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import main
from harness.findings import Run
from harness.results import Journal, Mark

pytestmark = pytest.mark.live


def test_a_run_repeated_asks_a_sample_and_says_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "j.sqlite"
    words = ["validate", "--levels", "18", "--param", "1", "--vectors", "thin", "--journal", str(path)]
    codes = [main.main(words), main.main(words), main.main([*words, "--fresh"])]
    assert codes == [1, 1, 1]  # the same finding each time
    out = capsys.readouterr().out
    assert "are taken from run 1, where all that they rest on was the same" in out
    with Journal(path) as journal:
        first, second, third = (
            {(key.machine, a.vector.id): (a.seen, a.verdict.marks) for key, a in journal.answers(number)}
            for number in (1, 2, 3)
        )
        assert first.keys() == second.keys() == third.keys()
        how = Mark.EARLIER | Mark.AGAIN
        for key, (seen, marks) in second.items():
            assert seen.matches(first[key][0]) and marks & ~how == first[key][1]
        assert all(marks & how for _, marks in second.values())
        assert not any(marks & how for _, marks in (*first.values(), *third.values()))
        asked = [key for key, (_, marks) in second.items() if Mark.AGAIN in marks]
        cells = {machine for machine, _ in first}
        assert asked and {machine for machine, _ in asked} <= cells  # of a cell of few answers seldom any is
        assert Run.open(journal, 2).totals.not_reproduced == 0
