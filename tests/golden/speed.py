"""Predictions a second, CPU time, the median of three: ``python -m tests.golden.speed``. A figure, no test."""

from __future__ import annotations

import sys
import time
from statistics import median
from typing import Final

from tests.golden import doors

TIMES: Final = 3
EVERY: Final = 2  # of the core, one access vector in so many


def main() -> int:
    """Print the two figures."""
    asked = [one for one in doors.part("core") if doors.kind(one) == "AccessVector"][::EVERY]
    for level, param in ((0, None), (16, True)):
        doors.predict_alone(level, param, asked[:100])  # what is made once for a level is no part of the figure
        seconds = []
        for _ in range(TIMES):
            begun = time.process_time()
            doors.predict_alone(level, param, asked)
            seconds.append(time.process_time() - begun)
        each = ", ".join(f"{len(asked) / one:,.0f}" for one in seconds)
        value = "unset" if param is None else str(int(param))
        print(f"level {level:2}, parameter {value}: {len(asked) / median(seconds):,.0f} a second ({each})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
