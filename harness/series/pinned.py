"""The kernel that a series is for: the one that ours is pinned to, and the version of any other's source."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from harness.errors import InputError

VERSION: Final = "6.12.8"
SHA256: Final = "3f258de1f486f02871255d100e8cdf0b9daec4d14994b9fe46184d984120f254"  # linux_6.12.8.orig.tar.xz


def version(tree: Path, name: Path) -> str:
    """The version in a source tree's Makefile, as 6.12.8. InputError, naming ``name``, where it is no kernel."""
    try:
        text = (tree / "Makefile").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    parts = [re.search(rf"^{field}\s*=\s*(\d+)\s*$", text, re.M) for field in ("VERSION", "PATCHLEVEL", "SUBLEVEL")]
    if not (tree / "Kconfig").exists() or not all(parts):
        raise InputError(f"{name} is no kernel source: its Makefile names no VERSION, PATCHLEVEL and SUBLEVEL")
    return ".".join(p[1] for p in parts if p)
