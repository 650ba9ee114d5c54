"""The kernel that a series is for: the one that ours is pinned to, and the version of any other's source."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from harness.errors import InputError

VERSION: Final = "6.12.8"
SHA256: Final = "3f258de1f486f02871255d100e8cdf0b9daec4d14994b9fe46184d984120f254"  # linux_6.12.8.orig.tar.xz
FIELDS: Final = ("VERSION", "PATCHLEVEL", "SUBLEVEL")


def version(makefile: str, name: str) -> str:
    """A kernel's Makefile says this version, as 6.12.8 or 7.3.0-rc2.

    Raises InputError, naming ``name``, where the Makefile is no kernel's.
    """
    parts = [re.search(rf"^{field}[ \t]*=[ \t]*(\d+)[ \t]*$", makefile, re.M) for field in FIELDS]
    numbers = [part[1] for part in parts if part]
    if len(numbers) != len(FIELDS):
        raise InputError(
            f"{name} is no kernel source: its Makefile names no {', '.join(FIELDS[:-1])} and {FIELDS[-1]}; "
            "name a kernel's tarball or source tree"
        )
    extra = re.search(r"^EXTRAVERSION[ \t]*=[ \t]*(\S*)[ \t]*$", makefile, re.M)
    return ".".join(numbers) + (extra[1] if extra else "")


def of_tree(tree: Path, name: str) -> str:
    """A source tree has this version.

    Raises InputError, naming ``name``, where it is no kernel.
    """
    if not (tree / "Makefile").is_file() or not (tree / "Kconfig").is_file():
        raise InputError(
            f"{name} is no kernel source: it has no Makefile and Kconfig; name a kernel's tarball or source tree"
        )
    return version((tree / "Makefile").read_text(encoding="utf-8", errors="replace"), name)
