"""What made-up runs of several tests are made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.results import Journal

PARTS = ("image", "emulator", "file_system", "probe", "client")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """What a made-up run is made of."""
    found = {name: tmp_path / name for name in PARTS}
    for name, path in found.items():
        path.write_text(name)
    return found


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "j.sqlite")
