"""Debian packages as files: unpacked without root and without installing, and the libraries a program needs."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Final

from harness.errors import BuildError
from harness.process import programs

_LIBRARY_FOLDERS: Final = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib64", "lib64", "usr/lib")
_NEEDED = re.compile(r"\((NEEDED)\)\s+Shared library: \[([^]]+)\]")
_RUNPATH = re.compile(r"\((?:RUNPATH|RPATH)\)\s+Library r(?:un)?path: \[([^]]+)\]")


def unpack(debs: Iterable[Path], root: Path) -> None:
    """The files of the packages are unpacked under ``root``; no maintainer script runs.

    Raises BuildError for a broken package.
    """
    for deb in debs:
        done = programs.run(["dpkg-deb", "-x", str(deb), str(root)], check=False)
        if done.returncode:
            raise BuildError(f"{deb.name} cannot be unpacked: {done.stderr.strip()}: remove it and try again")


def _dynamic(file: Path) -> str:
    """readelf's words on a file's dynamic section; BuildError where it is no ELF file."""
    done = programs.run(["readelf", "-d", str(file)], check=False)
    if done.returncode:
        raise BuildError(f"{file} is not an ELF file: {done.stderr.strip()}")
    return done.stdout


def needed(file: Path) -> set[str]:
    """The file itself needs the libraries with these sonames.

    Raises BuildError when it is no ELF file.
    """
    return {match[2] for match in _NEEDED.finditer(_dynamic(file))}


def closure(root: Path, binaries: Iterable[str], stubs: Container[str] = ()) -> dict[str, Path]:
    """The ``binaries`` (paths below ``root``) have these shared libraries, all the way: soname to the real file.

    What a library of ``stubs`` needs in its turn is not followed.

    Raises BuildError, which names a library that is nowhere under ``root``.
    """
    found: dict[str, Path] = {}
    queue = [root / binary for binary in binaries]
    while queue:
        file = queue.pop()
        section = _dynamic(file)
        run_path = [p.lstrip("/") for m in _RUNPATH.finditer(section) for p in m[1].split(":")]
        for match in _NEEDED.finditer(section):
            soname = match[2]
            if soname in found:
                continue
            for folder in (*run_path, *_LIBRARY_FOLDERS):
                candidate = root / folder / soname
                if candidate.exists():
                    found[soname] = candidate.resolve()
                    if soname not in stubs:
                        queue.append(found[soname])
                    break
            else:
                raise BuildError(
                    f"{file.name} needs {soname}, which no unpacked package has: "
                    "add its package to the list in harness/rootfs.py"
                )
    return found
