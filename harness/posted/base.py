"""The kernel that an imported series stands on, as series.toml names it."""

from __future__ import annotations

import hashlib
import re
import tarfile
from pathlib import Path
from typing import Final

from harness.errors import InputError
from harness.posted.sources import CommitLine
from harness.series import GitTree, pinned

MAKEFILE: Final = re.compile(r"[^/]+/(Makefile|Kconfig)")
UNKNOWN: Final = "unknown"


def of(linux: Path | None) -> dict[str, str]:
    """The function gives version and hash of the kernel that ``linux`` names: a tarball, a git tree (its HEAD) or a
    folder. Without ``linux`` it is the kernel that is built by default.

    Raises InputError when it is no kernel.
    """
    if linux is None:
        return {"version": pinned.VERSION, "sha256": pinned.SHA256}
    linux = linux.expanduser().absolute()
    name = f"--linux {linux}"
    if linux.is_file():
        return {"version": pinned.version(_in_tarball(linux, name), name), "sha256": _sha256(linux)}
    if not linux.is_dir():
        raise InputError(f"{name}: there is no such file or folder; name a kernel's tarball or source tree")
    if (linux / ".git").exists():
        tree = GitTree(linux)
        commit = tree.git("rev-parse", "HEAD").decode().strip()
        return {"version": pinned.version(_in_commit(tree, commit), name), "commit": commit}
    return {"version": pinned.of_tree(linux, name)}


def of_line(line: CommitLine) -> dict[str, str]:
    """The function gives version and commit on which a range of commits stands, whatever is checked out; the version is
    ``unknown`` where that commit is no kernel.
    """
    try:
        return {"version": pinned.version(line.makefile, "it"), "commit": line.base}
    except InputError:
        return {"version": UNKNOWN, "commit": line.base}


def _in_commit(tree: GitTree, commit: str) -> str:
    try:
        return tree.git("show", f"{commit}:Makefile").decode("utf-8", "replace")
    except InputError:
        return ""


def _in_tarball(tarball: Path, name: str) -> str:
    """The Makefile at the top of a kernel's tarball; it is read only as far as that."""
    found: dict[str, str] = {}
    try:
        with tarfile.open(tarball, "r|*") as archive:
            for member in archive:
                top = MAKEFILE.fullmatch(member.name.removeprefix("./"))
                if top and member.isfile() and member.size < 1 << 20 and (file := archive.extractfile(member)):
                    found[top[1]] = file.read().decode("utf-8", "replace")
                    if len(found) == 2:
                        return found["Makefile"]
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InputError(f"{name} cannot be read as a tarball: {error}; name a kernel's tarball") from error
    raise InputError(
        f"{name} is no kernel's tarball: it has no Makefile and Kconfig in its one folder; name one that has"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
