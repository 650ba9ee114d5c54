"""Wrong mirrors and wrong series made on purpose, and who notices."""

from harness.oracle.mutate import hand, mutants, mutation, observed, patches, sharp
from harness.oracle.mutate.equivalent import EQUIVALENT
from harness.oracle.mutate.kept import Kept, earlier
from harness.oracle.mutate.mutants import Mutant
from harness.oracle.mutate.mutation import Live, MutantVerdict
from harness.oracle.mutate.patches import PatchVerdict

__all__ = [
    "EQUIVALENT",
    "Kept",
    "Live",
    "Mutant",
    "MutantVerdict",
    "PatchVerdict",
    "earlier",
    "hand",
    "mutants",
    "mutation",
    "observed",
    "patches",
    "sharp",
]
