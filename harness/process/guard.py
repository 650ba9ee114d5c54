"""The guard of ``programs``, run as a program: ends the process groups of a parent that died without doing so.

Reads "+GROUP" and "-GROUP" lines. When the pipe closes the parent is gone, and so must be the groups left.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time


def main() -> None:
    """The guard keeps the list until the parent is gone, then ends what is on it."""
    left: set[int] = set()
    for line in sys.stdin:
        (left.add if line[0] == "+" else left.discard)(int(line[1:]))
    for number in (signal.SIGTERM, signal.SIGKILL):
        for group in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, number)
        if left and number == signal.SIGTERM:
            time.sleep(1)


if __name__ == "__main__":
    main()
