"""The guard of ``programs``, run as a program: ends the process groups of a parent that died without doing so, and
removes its folders.

Reads "+GROUP" and "-GROUP" lines, a group's number or a folder's path. When the pipe closes the parent is gone, and so
must be what is left.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time


def main() -> None:
    """The guard keeps the list until the parent is gone, then ends and removes what is on it."""
    told: set[str] = set()
    for line in sys.stdin:
        (told.add if line[0] == "+" else told.discard)(line[1:].rstrip("\n"))
    left = {int(one) for one in told if one.isdigit()}
    for number in (signal.SIGTERM, signal.SIGKILL):
        for group in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, number)
        if left and number == signal.SIGTERM:
            time.sleep(1)
    for folder in told:
        if not folder.isdigit():
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
