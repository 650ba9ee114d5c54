"""The source of a level for the oracle: the pristine kernel, and an overlay with the KVM folders as they are there.

A whole kernel tree a level would be 1.4 GiB; a level differs from its base in the files its patches name. The
overlay comes before the pristine tree in the compiler's search path.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from harness.oracle.image.build import Kbuild
from harness.series import State

# Whole folders, so that a file includes its neighbour of the same level.
FOLDERS: Final = ("arch/x86/kvm", "arch/x86/include", "virt/kvm")


def overlay(pristine: Path, state: State, folder: Path) -> Kbuild:
    """Make the overlay in ``folder``: the files of ``state`` are the level's, None for one that is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in FOLDERS:
        shutil.copytree(pristine / name, folder / name, dirs_exist_ok=True)
    for name, data in state.items():
        target = folder / name
        if data is None:
            target.unlink(missing_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
    return Kbuild(pristine, folder)
