"""The checks run: each mirror function beside its C function, at every level."""

from harness.oracle.check import constants, places, reach
from harness.oracle.check.check import CASES, THOROUGH, Cases, Mismatch, differing, inside, minimise, run_c, seeded
from harness.oracle.check.reach import called, mirrored

__all__ = [
    "CASES",
    "THOROUGH",
    "Cases",
    "Mismatch",
    "called",
    "constants",
    "differing",
    "inside",
    "minimise",
    "mirrored",
    "places",
    "reach",
    "run_c",
    "seeded",
]
