"""The source of a level for the oracle: the pristine kernel, and an overlay with the KVM folders patched.

A whole kernel tree a level would be 1.4 GiB; a level differs from its base in the files its patches name. The
overlay comes before the pristine tree in the compiler's search path.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from harness import proc
from harness.errors import SeriesError
from harness.oracle.build import Tree

# Whole folders, so that a file includes its neighbour of the same level.
FOLDERS: Final = ("arch/x86/kvm", "arch/x86/include", "virt/kvm")

_TARGET: Final = re.compile(r"^(?:\+\+\+ b|--- a)/(\S+)", re.M)


def touched(patch: Path) -> list[str]:
    """The files that a patch names. SeriesError when one would lie outside the kernel tree."""
    names = _TARGET.findall(patch.read_text(encoding="utf-8"))
    for name in names:
        if ".." in PurePosixPath(name).parts:
            raise SeriesError(f"{patch}: it names {name}, which is outside the kernel tree: remove that hunk")
    return sorted(set(names))


def overlay(pristine: Path, patches: Sequence[Path], folder: Path) -> Tree:
    """Make the overlay of ``pristine`` with ``patches`` applied in ``folder`` (empty or missing).

    Applied without fuzz, as a hunk with fuzz may land in another function. SeriesError when a patch does not apply.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in FOLDERS:
        shutil.copytree(pristine / name, folder / name, dirs_exist_ok=True)
    _take(pristine, {f for p in patches for f in touched(p)}, folder)
    for patch in patches:
        done = proc.run(
            ["patch", "-d", folder, "-p1", "--fuzz=0", "--batch", "--forward", "--no-backup-if-mismatch", "-s", "-i", patch],
            check=False,
        )
        if done.returncode:
            raise SeriesError(f"{patch.name} does not apply: {proc.tail(done.stdout, 4)}; rebase it")
    return Tree(pristine, folder)


def _take(pristine: Path, names: Iterable[str], folder: Path) -> None:
    for name in names:
        target = folder / name
        if not target.exists() and (pristine / name).exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(pristine / name, target)
