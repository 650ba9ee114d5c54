"""What came of it: outcomes judged, the journal that keeps them, and a run of it in rows."""

from harness.results import cpus, journal, of_series, parts, rows
from harness.results.answer import (
    BARE_HOST,
    FORESEEN_HOST,
    KVM_HOST,
    Answer,
    Cell,
    CellKey,
    Judged,
    Judgement,
    NotReproduced,
)
from harness.results.coding import contract_json, contract_of, outcome_json, outcome_of
from harness.results.cpus import Under
from harness.results.journal import FORESEEN, LEFT_OUT, Journal, OfRun, Recorded, RunInfo, Sighting
from harness.results.of_series import RunSeries
from harness.results.parts import PartAsked
from harness.results.rows import Aside, Row, RuleRow, asked_at, below, cell_order
from harness.results.said import Said
from harness.results.verdict import GIVEN, UNHEARD, Contract, Mark, Verdict, departing, judge, stands

__all__ = [
    "BARE_HOST",
    "FORESEEN",
    "FORESEEN_HOST",
    "GIVEN",
    "KVM_HOST",
    "LEFT_OUT",
    "UNHEARD",
    "Answer",
    "Aside",
    "Cell",
    "CellKey",
    "Contract",
    "Journal",
    "Judged",
    "Judgement",
    "Mark",
    "NotReproduced",
    "OfRun",
    "PartAsked",
    "Recorded",
    "Row",
    "RuleRow",
    "RunInfo",
    "RunSeries",
    "Said",
    "Sighting",
    "Under",
    "Verdict",
    "asked_at",
    "below",
    "cell_order",
    "contract_json",
    "contract_of",
    "cpus",
    "departing",
    "journal",
    "judge",
    "of_series",
    "outcome_json",
    "outcome_of",
    "parts",
    "rows",
    "stands",
]
