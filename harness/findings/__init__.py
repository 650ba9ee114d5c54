"""What it means: answers that the manual does not allow, by cause, each as small as it gets."""

from harness.findings import left_out, minimise, of_run
from harness.findings.departures import Departure, symptom, symptom_of
from harness.findings.group import Finding, weight
from harness.findings.left_out import Became, LeavingOut, Part, Without
from harness.findings.minimise import PROVENANCE
from harness.findings.of_run import BARE_HOST, Row

__all__ = [
    "BARE_HOST",
    "PROVENANCE",
    "Became",
    "Departure",
    "Finding",
    "LeavingOut",
    "Part",
    "Row",
    "Without",
    "left_out",
    "minimise",
    "of_run",
    "symptom",
    "symptom_of",
    "weight",
]
