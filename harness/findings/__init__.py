"""What it means: answers that the manual does not allow, by cause, each as small as it gets."""

from harness.findings import causes, group, minimise
from harness.findings.departures import Departure
from harness.findings.foreseen import foresight
from harness.findings.group import Finding, weight
from harness.findings.minimise import PROVENANCE
from harness.findings.run import Run, finding_json

__all__ = [
    "PROVENANCE",
    "Departure",
    "Finding",
    "Run",
    "causes",
    "finding_json",
    "foresight",
    "group",
    "minimise",
    "weight",
]
