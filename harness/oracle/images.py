"""Images of levels in the build cache, and the prepared kernel tree whose command line and headers they use."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness import kernel
from harness.cache import GIB, Cache, sha256
from harness.oracle import build
from harness.oracle.source import overlay

RECIPE: Final = 1  # counts changes of how an image is made that the glue's files do not show
ROOM: Final = GIB // 2
PATCHES: Final = Path(__file__).resolve().parents[2] / "patches"


@dataclass(frozen=True, slots=True)
class Prepared:
    """``pristine``: the base's source; ``build``: a build tree of it in which one object was made; ``key`` of both."""

    pristine: Path
    build: Path
    key: str


def patches(folder: Path = PATCHES) -> list[Path]:
    """The patches of a series in order."""
    return sorted(folder.glob("[0-9]*.patch"))


def prepare(cache: Cache, linux: Path | None = None) -> Prepared:
    """A configured build tree with the generated headers: no kernel is built. FetchError, InputError, BuildError."""
    pristine = kernel.source(cache, linux)
    inputs = {
        "source": pristine.name,
        "config": sha256(kernel.FRAGMENT),
        "compiler": kernel.compiler_version(),
        "recipe": RECIPE,
    }

    def make(folder: Path) -> None:
        log = cache.log("oracle-prepared")
        # Without ccache: the command line is kept, and objects of levels are never the same twice.
        plain = ["CC=gcc"]
        fragment = f"KCONFIG_ALLCONFIG={kernel.FRAGMENT}"
        kernel.make(cache, pristine, folder, ["allnoconfig"], log=log, variables=[*plain, fragment])
        kernel.make(cache, pristine, folder, ["arch/x86/kvm/mmu/spte.o"], log=log, variables=plain)

    place = cache.entry("oracle-prepared", inputs, make, needs=ROOM, lines=400, title="headers for the oracle")
    return Prepared(pristine, place, place.name)


def glue_digest() -> str:
    """A digest of the files that images are made with."""
    h = hashlib.sha256()
    for path in (*sorted(build.GLUE.iterdir()), *(Path(__file__).with_name(n) for n in ("build.py", "constants.py"))):
        h.update(path.name.encode() + b"\0" + path.read_bytes())
    return h.hexdigest()


def image(cache: Cache, prepared: Prepared, series: Sequence[Path], title: str) -> Path:
    """The image with the patches ``series`` applied. SeriesError, CompileError when they do not apply or compile."""
    inputs = {
        "prepared": prepared.key,
        "patches": [sha256(path) for path in series],
        "glue": glue_digest(),
    }

    def make(folder: Path) -> None:
        tree = overlay(prepared.pristine, series, folder / "source")
        build.build(folder, prepared.build, tree)
        shutil.rmtree(folder / "source")

    return cache.entry("oracle", inputs, make, needs=ROOM, title=f"oracle, {title}") / "image"
