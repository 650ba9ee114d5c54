"""KVM's modules of a level as gcc instruments them, with the module of ours that hands their counters out.

They are built in the kernel's working tree from the level's files and a longer Makefile, and kept under a kind of their
own. ccache is left out: it would answer from text without line numbers, and lines are what this is about.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness import places
from harness.build import BaseKernel, Cache, kernel
from harness.build import modules as levels
from harness.errors import BuildError, CompileError
from harness.process import programs
from harness.series import Series, State, level_state

KIND: Final = "coverage"
RECIPE: Final = 1  # counts changes of how they are built
OLDEST: Final = 12  # gcc's version: older ones lay out their counters otherwise
MODULE: Final = "kvmirror_coverage"
SOURCE: Final = places.IMAGES / "coverage" / f"{MODULE}.c"
KVM: Final = "arch/x86/kvm"
MAKEFILE: Final = f"{KVM}/Makefile"
# As the kernel's own gcov build has them, a loop's counters not gathered in registers; and functions counted before
# they are inlined, so that an inline function's lines are counted as one function's.
FLAGS: Final = "-fprofile-arcs -ftest-coverage -fno-tree-loop-im -fno-early-inlining"
ADDITION: Final = f"""
ccflags-y += {FLAGS}
obj-m += {MODULE}.o
CFLAGS_REMOVE_{MODULE}.o := {FLAGS}
"""


@dataclass(frozen=True, slots=True)
class Instrumented:
    """Instrumented modules, as a host loads them; ``coverage`` is ours and goes first.

    ``source_dir`` and ``build_dir`` are where they were built: names in counters and notes begin with them.
    """

    folder: Path
    source_dir: str
    build_dir: str

    @property
    def irqbypass(self) -> Path | None:
        """This is irqbypass.ko, which is not instrumented; None where the image has it built in."""
        path = self.folder / levels.OPTIONAL
        return path if path.exists() else None

    @property
    def kvm(self) -> Path:
        """This is the instrumented kvm.ko."""
        return self.folder / "kvm.ko"

    @property
    def kvm_intel(self) -> Path:
        """This is the instrumented kvm-intel.ko."""
        return self.folder / "kvm-intel.ko"

    @property
    def coverage(self) -> Path:
        """This is the module that has the counters."""
        return self.folder / f"{MODULE}.ko"

    @property
    def notes(self) -> dict[str, Path]:
        """These are gcc's notes of every object, by the name that ``object`` gives it."""
        folder = self.folder / "notes"
        return {str(path.relative_to(folder).with_suffix("")): path for path in sorted(folder.rglob("*.gcno"))}

    def object(self, counters: str) -> str:
        """The function gives an object's name in the tree, without its ending, from the name that gcc gave its file of
        counters.
        """
        return str(Path(os.path.normpath(counters.removeprefix(f"{self.build_dir}/"))).with_suffix(""))

    def source(self, name: str) -> str:
        """The function gives a source's path in the kernel's tree, from its name in the notes."""
        return os.path.normpath(name.removeprefix(f"{self.source_dir}/"))


def modules(cache: Cache, series: Series, level: int, *, linux: kernel.Linux | None = None) -> Instrumented:
    """The function gives the instrumented modules of a level.

    Raises BuildError for a compiler that is too old.
    Raises CompileError when the level does not compile.
    Raises SeriesError when a patch does not apply.
    """
    found = re.match(r"\d+", programs.run(["gcc", "-dumpversion"], error=BuildError).stdout)
    if found is None or int(found[0]) < OLDEST:
        raise BuildError(f"gcc {OLDEST} or newer is needed for instrumented modules: {kernel.compiler_version()}")
    base = kernel.base(cache, linux)
    return of_state(cache, base, level_state(series, base.pristine, level), f"level {level}, instrumented")


def of_state(cache: Cache, base: BaseKernel, state: State, name: str) -> Instrumented:
    """The instrumented modules of the base with the files of ``state``; ``name`` is for messages."""
    makefile = state.get(MAKEFILE) or (base.pristine / MAKEFILE).read_bytes()
    state = state | {MAKEFILE: makefile + ADDITION.encode(), f"{KVM}/{MODULE}.c": SOURCE.read_bytes()}
    key = levels.key_of(base, state) | {"instrumented": RECIPE}
    folder = cache.entry(
        KIND, key, lambda place: _build(cache, base, state, place), needs=levels.ROOM, title=name, lines=120
    )
    where = json.loads((folder / "where.json").read_text(encoding="utf-8"))
    return Instrumented(folder, where["source"], where["build"])


def _build(cache: Cache, base: BaseKernel, state: State, folder: Path) -> None:
    with kernel.working(cache, base):
        levels.into_source(base, state)
        kernel.make(
            cache,
            base.source_dir,
            base.build_dir,
            ["modules"],
            log=cache.log(KIND),
            error=CompileError,
            env={"CCACHE_DISABLE": "1"},
        )
        for file, path in {**levels.MODULES, f"{MODULE}.ko": f"{KVM}/{MODULE}.ko"}.items():
            if file != levels.OPTIONAL or (base.build_dir / path).exists():
                shutil.copy2(base.build_dir / path, folder / file)
        for part in (KVM, "virt/kvm"):
            for notes in sorted((base.build_dir / part).rglob("*.gcno")):
                there = folder / "notes" / notes.relative_to(base.build_dir)
                there.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(notes, there)
    where = {"source": str(base.source_dir), "build": str(base.build_dir)}
    (folder / "where.json").write_text(json.dumps(where) + "\n", encoding="utf-8")
