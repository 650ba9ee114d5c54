"""One synthetic run for the tests that only read it."""

from pathlib import Path

import pytest

from harness.report import facts
from harness.results.journal import Journal
from tests.harness.report import synthetic


@pytest.fixture(scope="session")
def journal_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal with one run of every level."""
    return synthetic.make(tmp_path_factory.mktemp("journal") / "j.sqlite")


@pytest.fixture(scope="session")
def report(journal_path: Path) -> facts.Report:
    """Its facts."""
    with Journal(journal_path) as journal:
        return facts.load(journal)
