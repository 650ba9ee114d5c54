"""Which of the lines that a series adds run on real KVM: instrumented modules, their counters, and who wrote a line."""

from harness.coverage import build, counters
from harness.coverage.counting import Counted, collect
from harness.coverage.lines import Covered, Reach, Written, judge

__all__ = [
    "Counted",
    "Covered",
    "Reach",
    "Written",
    "build",
    "collect",
    "counters",
    "judge",
]
