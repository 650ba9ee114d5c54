"""What it means: answers that the manual does not allow, by cause, each as small as it gets."""

from harness.findings import minimise
from harness.findings.departures import Departure
from harness.findings.group import Finding, weight
from harness.findings.minimise import PROVENANCE
from harness.findings.run import Run, finding_json

__all__ = [
    "PROVENANCE",
    "Departure",
    "Finding",
    "Run",
    "finding_json",
    "minimise",
    "weight",
]
