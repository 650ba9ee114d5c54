"""Which functions of the mirror a check reaches, and which only the vectors that ``kvmirror validate`` asks.

The registry of ``kvmodel.mirrors`` is the list of what is mirrored.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Final

import kvmodel
from harness.oracle.specs import Spec
from harness.questions import PARAM_FROM, PARAM_VALUES, core
from harness.results import cpus
from kvmodel import machine, mirrors
from kvmodel.mirrors import Mirror
from kvmodel.question.vector import AccessVector, NxVector, Vector
from kvmodel.series import LAST

EACH: Final = 12  # vectors of a part of the core that are predicted
BEYOND: Final = 40  # of a part beyond it: sequences differ more
LEVELS: Final = (0, 11, LAST)
KVMODEL: Final = Path(next(iter(kvmodel.__path__)))


def origins(registry: Mapping[tuple[str, str], Mirror] | None = None) -> list[tuple[str, str, str]]:
    """The function gives every mirrored C function (``mmu/spte.c make_spte``) with the Python function's module and
    name.
    """
    found = mirrors.registry() if registry is None else registry
    return [(c, mirror.module, mirror.name) for mirror in found.values() for c in mirror.origins]


def module_of(file: Path, folder: Path = KVMODEL) -> str:
    """The function gives the module that ``file`` is, as seen from the package in ``folder``: ``mmu.spte``."""
    return ".".join(file.relative_to(folder).with_suffix("").parts)


def mirrored() -> dict[str, str]:
    """The function gives every mirrored C function with the (first) Python function that mirrors it."""
    return {name: f"{module}.{function}" for name, module, function in reversed(origins())}


def reached(specs: Iterable[Spec]) -> set[str]:
    """The function gives the C functions that some check reaches."""
    return {name for spec in specs for name in spec.functions}


def unreached(specs: Iterable[Spec]) -> list[str]:
    """The mirrored functions that no check names; vectors must reach them."""
    known = reached(specs)
    return [name for name in sorted(mirrored()) if name not in known]


@contextlib.contextmanager
def called() -> Iterator[set[tuple[str, str]]]:
    """The block collects the functions of kvmodel that are called in it: (module, name), there when the block ends."""
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
    """The function gives vectors of every part that ``kvmirror validate`` asks, taken evenly."""
    for parts, each in ((core.CORE, EACH), (core.BEYOND | core.TRACED, BEYOND)):
        for part in parts.values():
            found = list(part())
            yield from found[:: max(1, len(found) // each)]


def nowhere(seen: Collection[tuple[str, str]], registry: Mapping[tuple[str, str], Mirror] | None = None) -> list[str]:
    """The function gives the mirrored functions that are not in ``seen``: C name and Python function."""
    return [f"{name} ({at}.{function})" for name, at, function in origins(registry) if (at, function) not in seen]
