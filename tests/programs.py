"""Programs that only the tests need: Debian's packages of tests/packages.txt."""

import shutil
from pathlib import Path
from typing import Final

from harness.build import packages as toolbox

LIST: Final = Path(__file__).with_name("packages.txt")


def program(name: str) -> str:
    """The path of a program of the list.

    BuildError where a package of the list is missing: it names them all and how to get them, so the test that needs
    the program fails and is not skipped.
    """
    packages = toolbox.packages(LIST.read_text(encoding="utf-8"))
    toolbox.require(packages, target="test-packages")
    path = shutil.which(name)
    assert path is not None, f"{name} is no program of {LIST.name}"
    return path
