"""What it means: answers that the manual does not allow, by cause, each as small as it gets."""

from harness.findings import causes, group, minimise, of_run
from harness.findings.departures import Departure
from harness.findings.group import Finding, weight
from harness.findings.minimise import PROVENANCE
from harness.findings.of_run import BARE_HOST, Row

__all__ = [
    "BARE_HOST",
    "PROVENANCE",
    "Departure",
    "Finding",
    "Row",
    "causes",
    "group",
    "minimise",
    "of_run",
    "weight",
]
