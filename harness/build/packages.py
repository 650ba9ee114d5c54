"""The system packages kvmirror needs, and whether they are there."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness import places
from harness.errors import BuildError

LIST: Final = places.PACKAGES / "harness" / "packages.txt"
FOLDERS: Final = "/usr/sbin:/sbin"  # where a user's PATH may not lead


@dataclass(frozen=True, slots=True)
class Package:
    """This is a Debian package and what shows that it is there: a program's name or a pattern of a file's path."""

    name: str
    sign: str

    @property
    def present(self) -> bool:
        """The program or the file is there: True."""
        if self.sign.startswith("/"):
            return any(Path("/").glob(self.sign[1:]))
        return bool(shutil.which(self.sign) or shutil.which(self.sign, path=FOLDERS))


def packages(text: str | None = None) -> list[Package]:
    """The function gives the list in packages.txt (or ``text`` of that form)."""
    if text is None:
        text = LIST.read_text(encoding="utf-8")
    found = []
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if words:
            name, sign = words
            found.append(Package(name, sign))
    return found


def require(wanted: list[Package] | None = None, target: str = "setup") -> None:
    """Every package is there.

    Raises BuildError when one is missing; it names every such package and how to get it: by make's ``target``, or by
    hand.
    """
    missing = [p.name for p in (packages() if wanted is None else wanted) if not p.present]
    if missing:
        raise BuildError(
            f"{len(missing)} system packages are missing: run `make {target}`, or as root "
            f"`apt-get install --no-install-recommends {' '.join(missing)}`"
        )
