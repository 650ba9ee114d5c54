"""Recordings to read: of the small stored run, and what a stranger may have made of one."""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.findings import Run
from harness.recording import container, making
from harness.results import Journal
from tests.golden import doors, stored

Lines = list[dict[str, Any]]


def journal(path: Path) -> Path:
    """A journal with the stored run: real answers of a real run."""
    doors.write_run(path, stored.load())
    return path


def recording(folder: Path, *, times: bool = True) -> Path:
    """The recording of the stored run."""
    path = folder / "stored.kvm"
    with Journal(journal(folder / "stored.sqlite")) as kept:
        making.write(making.of_run(Run.open(kept), times=times), path)
    return path


def lines(path: Path) -> Lines:
    """The lines of a recording between the first and the last."""
    return [json.loads(row) for row in lzma.decompress(path.read_bytes()).splitlines()[1:-1]]


def forged(path: Path, change: Callable[[Lines], object]) -> Path:
    """The recording with its lines changed by somebody who knows how the checksum is made."""
    body = lines(path)
    change(body)
    path.write_bytes(container.packed(body))
    return path


def cell(body: Lines) -> dict[str, Any]:
    """The first cell that has answers."""
    found: dict[str, Any] = next(line["cell"] for line in body if "cell" in line and line["cell"]["asked"])
    return found


def about(body: Lines) -> dict[str, Any]:
    """What it says of its run."""
    found: dict[str, Any] = next(line["run"] for line in body if "run" in line)
    return found
