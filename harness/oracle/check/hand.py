"""A child of ``kvmirror check``: runs the checks it is asked for, by their number in the catalogue."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.oracle import serve
from harness.oracle.check.check import Checker
from harness.oracle.specs import SPECS


def make(setting: dict[str, Any]) -> Callable[[int], dict[str, Any]]:
    """The function makes what runs a check; ``setting`` has the levels' images, cases and seed, as ``Checker`` takes
    them.
    """
    images = {int(level): Path(path) for level, path in setting["images"].items()}
    checker = Checker(images, setting["cases"], setting["seed"])
    return lambda number: checker.run(SPECS[number]).row()


if __name__ == "__main__":
    serve(make)
