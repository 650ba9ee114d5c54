"""Which functions of the mirror a check reaches, and which only the vectors that ``kvmirror validate`` asks.

The mirror's docstrings begin with the C file and function; that is the list of what is mirrored.
"""

from __future__ import annotations

import ast
import contextlib
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Final

import kvmodel
from harness.oracle.specs import Spec
from harness.questions import PARAM_FROM, PARAM_VALUES, core
from harness.results import cpus
from kvmodel import machine
from kvmodel.question.vector import AccessVector, NxVector, Vector
from kvmodel.series import LAST

EACH: Final = 12  # vectors of a part of the core that are predicted
BEYOND: Final = 40  # of a part beyond it: sequences differ more
LEVELS: Final = (0, 11, LAST)
KVMODEL: Final = Path(next(iter(kvmodel.__path__)))
_ORIGIN: Final = re.compile(r"((?:include/|kvm/|virt/|asm/|vmx/|mmu/)?[\w/.-]+\.[chS]) ([A-Za-z_]\w*)")


def origins(package: Path | None = None) -> list[tuple[str, str, str]]:
    """Every Python function that mirrors a C function (``mmu/spte.c make_spte``): that, its module and its name."""
    folder = package or KVMODEL
    found = []
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and (match := _ORIGIN.match(ast.get_docstring(node) or "")):
                file = match[1].removeprefix("kvm/")
                name = f"{'mmu/mmu.c' if file == 'mmu.c' else file} {match[2]}"
                found.append((name, module_of(path, folder), node.name))
    return found


def module_of(file: Path, folder: Path = KVMODEL) -> str:
    """The module that ``file`` is, as seen from the package in ``folder``: ``mmu.spte``."""
    return ".".join(file.relative_to(folder).with_suffix("").parts)


def mirrored(package: Path | None = None) -> dict[str, str]:
    """Every mirrored C function with the (first) Python function that mirrors it."""
    return {name: f"{module}.{function}" for name, module, function in reversed(origins(package))}


def reached(specs: Iterable[Spec]) -> set[str]:
    """The C functions that some check reaches."""
    return {name for spec in specs for name in spec.functions}


def unreached(specs: Iterable[Spec]) -> list[str]:
    """The mirrored functions that no check names; vectors must reach them."""
    known = reached(specs)
    return [name for name in sorted(mirrored()) if name not in known]


@contextlib.contextmanager
def called() -> Iterator[set[tuple[str, str]]]:
    """Collects the functions of kvmodel that are called meanwhile: (module, name), there when the block ends."""
    seen: set[tuple[str, str]] = set()
    codes: set[CodeType] = set()
    before = sys.gettrace()

    def note(frame: FrameType, _event: str, _arg: object) -> None:
        codes.add(frame.f_code)

    sys.settrace(note)
    try:
        yield seen
    finally:
        sys.settrace(before)
        files = {c: Path(c.co_filename) for c in codes}
        seen.update((module_of(f), c.co_name) for c, f in files.items() if f.is_relative_to(KVMODEL))


def by_vectors(levels: Sequence[int] = LEVELS) -> set[tuple[str, str]]:
    """The functions of kvmodel (module, name) that a validate run calls: a spread of every part of its space is
    predicted, with the texts of its tracepoints where it is an access."""
    with called() as seen:
        for vector in spread():
            cpu = cpus.emulated(vector.machine.env.cpu_mbec)
            for level in levels:
                for param in PARAM_VALUES.values() if level >= PARAM_FROM else (None,):
                    machine.predict(level, param, cpu, vector)
                    asked = vector.asked if isinstance(vector, NxVector) else vector
                    if isinstance(asked, AccessVector):
                        machine.events(level, param, cpu, asked)
    return seen


def spread() -> Iterator[Vector]:
    """Vectors of every part that ``kvmirror validate`` asks, taken evenly."""
    for parts, each in ((core.CORE, EACH), (core.BEYOND | core.TRACED, BEYOND)):
        for part in parts.values():
            found = list(part())
            yield from found[:: max(1, len(found) // each)]


def nowhere(seen: Collection[tuple[str, str]], package: Path | None = None) -> list[str]:
    """The mirrored functions that are not in ``seen``: C name and Python function."""
    return [f"{name} ({at}.{function})" for name, at, function in origins(package) if (at, function) not in seen]
