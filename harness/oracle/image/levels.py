"""Images of levels in the build cache, and the prepared kernel tree whose command line and headers they use."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.build import GIB, Cache, kernel, needs
from harness.oracle.image import build
from harness.oracle.image.source import overlay
from harness.series import Series, State, base_state, states

RECIPE: Final = 1  # counts changes of how an image is made that the glue's files do not show
ROOM: Final = GIB // 2
MAKERS: Final = ("build.py", "constants.py")


@dataclass(frozen=True, slots=True)
class Prepared:
    """The tree is prepared: ``pristine`` is the base's source, ``build`` a build tree of it in which one object was
    made, ``key`` of both.
    """

    pristine: Path
    build: Path
    key: str


def prepare(cache: Cache, linux: kernel.Linux | None = None) -> Prepared:
    """A configured build tree with the generated headers: no kernel is built. FetchError, InputError, BuildError."""
    pristine = kernel.source(cache, linux)
    inputs = {
        "source": pristine.name,
        "config": needs.key(needs.read(kernel.NEEDS)),
        "compiler": kernel.compiler_version(),
        "recipe": RECIPE,
    }

    def make(folder: Path) -> None:
        log = cache.log("oracle-prepared")
        # Without ccache: the command line is kept, and objects of levels are never the same twice.
        plain = ["CC=gcc"]
        kernel.configure(cache, pristine, folder, log=log, variables=plain)
        kernel.make(cache, pristine, folder, ["arch/x86/kvm/mmu/spte.o"], log=log, variables=plain)

    place = cache.entry("oracle-prepared", inputs, make, needs=ROOM, lines=400, title="headers for the oracle")
    return Prepared(pristine, place, place.name)


def glue_digest() -> str:
    """The digest is of the files that images are made with."""
    h = hashlib.sha256()
    for path in (*sorted(build.GLUE.iterdir()), *(Path(__file__).with_name(n) for n in MAKERS)):
        h.update(path.name.encode() + b"\0" + path.read_bytes())
    return h.hexdigest()


def image(cache: Cache, prepared: Prepared, state: State, title: str) -> Path:
    """The function gives the image of a level whose files are ``state``.

    Raises CompileError when it does not compile.
    """
    inputs = {
        "prepared": prepared.key,
        "files": {name: None if data is None else hashlib.sha256(data).hexdigest() for name, data in state.items()},
        "glue": glue_digest(),
    }

    def make(folder: Path) -> None:
        tree = overlay(prepared.pristine, state, folder / "source")
        build.build(folder, prepared.build, tree)
        shutil.rmtree(folder / "source")

    return cache.entry("oracle", inputs, make, needs=ROOM, title=f"oracle, {title}") / "image"


def levels(cache: Cache, series: Series, wanted: Sequence[int], linux: kernel.Linux | None = None) -> dict[int, Path]:
    """The function gives the images of the levels ``wanted``.

    Raises SeriesError when a patch does not apply.
    Raises CompileError when a level does not compile.
    Raises FetchError when the source is not to be had.
    Raises BuildError when the machine cannot build it.
    """
    prepared = prepare(cache, linux)
    made = states(series, prepared.pristine, max(wanted)) if max(wanted, default=0) else []
    found = {}
    for level in wanted:
        state = made[level - 1].state if level else base_state(series, prepared.pristine)
        found[level] = image(cache, prepared, state, f"level {level}")
    return found
