"""What of the kernel is mirrored where: the registry that ``@mirrors`` fills as the mirror is imported.

A C file is named as in ``arch/x86/kvm`` (``mmu/spte.c``), as ``asm/...`` in ``arch/x86/include``, as ``virt/...`` or
``include/...`` from the kernel's root. ``room`` says where the mirror has a C file: ``P.c`` is ``P.py``, its parts
``P_*.py`` beside it; ``P.h`` is ``P.py`` as well, and ``P_h.py`` where that name is taken, by a ``P.c`` beside it or a
folder ``P``.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Final, TypeVar

import kvmodel

F = TypeVar("F", bound=Callable[..., object])

APART: Final = ("machine", "question", "sdm")  # the folders that mirror nothing


@dataclass(frozen=True, slots=True)
class Mirror:
    """A Python function and the C functions that it mirrors, with the patches that change those."""

    module: str  # in kvmodel: mmu.spte
    name: str
    origins: tuple[str, ...]  # the first is the one that it is called by: "mmu/spte.c make_spte"
    patches: tuple[int, ...]

    @property
    def c(self) -> str:
        """The C file and function as steps name them."""
        return self.origins[0]

    @property
    def file(self) -> str:
        """The C file, short."""
        return self.c.partition(" ")[0]

    @property
    def function(self) -> str:
        """The C function."""
        return self.c.partition(" ")[2]


_REGISTRY: Final[dict[tuple[str, str], Mirror]] = {}


def mirrors(*origins: str, patches: tuple[int, ...] = ()) -> Callable[[F], F]:
    """A function mirrors these C functions (``"mmu/spte.c make_spte"``); ``patches`` change them or are asked for here.

    The function itself is given back: a call of it costs nothing more.
    """

    def register(function: F) -> F:
        assert isinstance(function, FunctionType)
        module = function.__module__.removeprefix("kvmodel.")
        _REGISTRY[module, function.__qualname__] = Mirror(module, function.__qualname__, origins, patches)
        return function

    return register


def modules() -> Iterator[str]:
    """Every module of the mirror, as it is called in kvmodel: ``mmu.spte``."""
    for found in pkgutil.walk_packages(kvmodel.__path__, "kvmodel."):
        name = found.name.removeprefix("kvmodel.")
        if not found.ispkg and name.partition(".")[0] not in APART:
            yield name


def registry() -> Mapping[tuple[str, str], Mirror]:
    """All that is mirrored, by module and function; the whole mirror is imported first."""
    for name in modules():
        importlib.import_module(f"kvmodel.{name}")
    return _REGISTRY


def of(module: str, name: str) -> Mirror:
    """What the function ``name`` of ``module`` mirrors. KeyError where it mirrors nothing."""
    return _REGISTRY[module.removeprefix("kvmodel."), name]


def kernel_path(file: str) -> str:
    """The path of a short C file in the kernel's tree."""
    first = file.partition("/")[0]
    if first == "asm":
        return f"arch/x86/include/{file}"
    return file if first in ("virt", "include") else f"arch/x86/kvm/{file}"


def room(file: str) -> str:
    """The module that has a short C file, as it is called in kvmodel, but for the ``_h`` of a header."""
    for folder, own in (("virt/kvm/", "virt/"), ("asm/", "include/asm/")):
        if file.startswith(folder):
            file = own + file.removeprefix(folder)
    return file.rpartition(".")[0].replace("/", ".").replace("-", "_")
