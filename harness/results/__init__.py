"""What came of it: outcomes judged, and the journal that keeps them."""

from harness.results import cpus, journal
from harness.results.cpus import Under
from harness.results.journal import (
    LEFT_OUT,
    Answer,
    CellKey,
    Journal,
    contract_json,
    outcome_json,
    outcome_of,
    param_text,
)
from harness.results.verdict import UNHEARD, Contract, Mark, Verdict, departing, judge, stands

__all__ = [
    "LEFT_OUT",
    "UNHEARD",
    "Answer",
    "CellKey",
    "Contract",
    "Journal",
    "Mark",
    "Under",
    "Verdict",
    "contract_json",
    "cpus",
    "departing",
    "journal",
    "judge",
    "outcome_json",
    "outcome_of",
    "param_text",
    "stands",
]
