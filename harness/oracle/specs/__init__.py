"""The checks as data: a C entry, its inputs, and the mirror function that must give the same."""

from harness.oracle.specs.catalogue import SPECS
from harness.oracle.specs.spaces import MASK64, flat, spread
from harness.oracle.specs.spec import Row, Side, Spec, State, answers

__all__ = [
    "MASK64",
    "SPECS",
    "Row",
    "Side",
    "Spec",
    "State",
    "answers",
    "flat",
    "spread",
]
