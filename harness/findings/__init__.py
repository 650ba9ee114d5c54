"""What it means: answers that the manual does not allow, by cause, each as small as it gets."""

from harness.findings import causes, group, left_out, minimise
from harness.findings.departures import WORDS, Departure, Symptom, symptom, symptom_of
from harness.findings.foreseen import foresight
from harness.findings.group import Finding, common, weight
from harness.findings.left_out import Became, LeavingOut, LeftOut, LeftOutPart
from harness.findings.minimise import PROVENANCE
from harness.findings.run import Run, finding_json

__all__ = [
    "PROVENANCE",
    "WORDS",
    "Became",
    "Departure",
    "Finding",
    "LeavingOut",
    "LeftOut",
    "LeftOutPart",
    "Run",
    "Symptom",
    "causes",
    "common",
    "finding_json",
    "foresight",
    "group",
    "left_out",
    "minimise",
    "symptom",
    "symptom_of",
    "weight",
]
