"""Which functions of the mirror a check reaches, and which only the vectors that ``kvmirror validate`` asks.

The mirror's docstrings begin with the C file and function; that is the list of what is mirrored.
"""

from __future__ import annotations

import ast
import contextlib
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Final

import kvmodel
from harness import cpus, vectors
from harness.oracle.spec import Spec
from harness.sequences import SEQUENCES
from kvmodel import machine
from kvmodel.series import LAST

_ORIGIN: Final = re.compile(r"((?:include/|kvm/|virt/|asm/|vmx/|mmu/)?[\w/.-]+\.[chS]) ([A-Za-z_]\w*)")


def mirrored(package: Path | None = None) -> dict[str, str]:
    """Every mirrored C function (``mmu/spte.c make_spte``) with the Python function that mirrors it."""
    folder = package or Path(next(iter(kvmodel.__path__)))
    found: dict[str, str] = {}
    for path in sorted(folder.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and (match := _ORIGIN.match(ast.get_docstring(node) or "")):
                file = match[1].removeprefix("kvm/")
                name = f"{'mmu/mmu.c' if file == 'mmu.c' else file} {match[2]}"
                found.setdefault(name, f"{path.stem}.{node.name}")
    return found


def reached(specs: Iterable[Spec]) -> set[str]:
    """The C functions that some check reaches."""
    return {name for spec in specs for name in spec.functions}


def unreached(specs: Iterable[Spec]) -> list[str]:
    """The mirrored functions that no check names; vectors must reach them."""
    known = reached(specs)
    return [name for name in sorted(mirrored()) if name not in known]


@contextlib.contextmanager
def called() -> Iterator[set[tuple[str, str]]]:
    """Collects the functions of kvmodel that are called meanwhile: (module, name)."""
    seen: set[tuple[str, str]] = set()
    before = sys.gettrace()

    def note(frame: FrameType, _event: str, _arg: object) -> None:
        code = frame.f_code
        if "/kvmodel/" in code.co_filename:
            seen.add((Path(code.co_filename).stem, code.co_name))

    sys.settrace(note)
    try:
        yield seen
    finally:
        sys.settrace(before)


def by_vectors(every: int = 31) -> set[tuple[str, str]]:
    """The functions of kvmodel (module, name) called for each ``every``-th vector of the core, and the sequences."""
    asked = [*vectors.core(), *(v for part in SEQUENCES.values() for v in part())]
    with called() as seen:
        for level, param in ((0, None), (LAST, True)):
            for vector in asked[::every]:
                machine.predict(level, param, cpus.emulated(vector.machine.env.cpu_mbec), vector)
    return seen
