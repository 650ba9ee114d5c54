"""What came of it: outcomes judged, and the journal that keeps them."""

from harness.results import cpus, journal, of_series
from harness.results.cpus import Under
from harness.results.journal import (
    LEFT_OUT,
    Answer,
    CellKey,
    Journal,
    contract_json,
    outcome_json,
    outcome_of,
)
from harness.results.of_series import RunSeries
from harness.results.verdict import Contract, Mark, Verdict, departing, judge, stands

__all__ = [
    "LEFT_OUT",
    "Answer",
    "CellKey",
    "Contract",
    "Journal",
    "Mark",
    "RunSeries",
    "Under",
    "Verdict",
    "contract_json",
    "cpus",
    "departing",
    "journal",
    "judge",
    "of_series",
    "outcome_json",
    "outcome_of",
    "stands",
]
