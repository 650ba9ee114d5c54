"""Module parameters that a series adds: declared in series.toml, found in the diffs of its patches.

A parameter is what one of the kernel's ``module_param`` macros (include/linux/moduleparam.h) makes of a file of KVM:
the name that ``insmod`` takes, and the type that the kernel reads its value as.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from harness.jsonable import Json
from harness.series.mail import FileDiff, Hunk

MODULES: Final = ("kvm", "kvm_intel")  # as /sys/module has them: those that a level loads
SWITCH: Final = ("0", "1")  # all the values of a bool
TYPES: Final = frozenset(  # those whose value is one word
    ("bool", "invbool", "bint", "charp", "byte", "hexint", "short", "ushort", "int", "uint", "long", "ulong", "ullong")
)
NAME: Final = re.compile(r"[A-Za-z_]\w*")
VALUE: Final = re.compile(r"[\w.:/+@%-]+")
_MACRO = re.compile(
    r"\bmodule_param(?P<kind>_named|_cb|_call|_string|_array_named|_array|_hw_named|_hw_array|_hw)?(_unsafe)?"
    r"\s*\((?P<arguments>[^;)]*)"
)
_TYPE_AT: Final = {"": 1, "_named": 2, "_hw": 1, "_hw_named": 2}  # the argument that is the type


@dataclass(frozen=True, slots=True)
class Parameter:
    """This is a module parameter that levels ``first_level`` to ``last_level`` (None: the last) have.

    ``module`` is kvm or kvm_intel. ``values`` are those that a run gives it by name, beside leaving it unset.
    ``type`` is the kernel's word for it (bool, int, charp), empty where the macro does not tell.
    """

    module: str
    name: str
    values: tuple[str, ...]
    first_level: int
    last_level: int | None = None
    type: str = ""

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"

    @property
    def key(self) -> tuple[str, str]:
        """The key is module and name."""
        return self.module, self.name

    @property
    def switch(self) -> bool:
        """The parameter can be 0 and 1 alone: True."""
        return self.type == "bool"

    def at(self, level: int) -> bool:
        """The parameter is there at ``level``: True."""
        return self.first_level <= level and (self.last_level is None or level <= self.last_level)

    @property
    def row(self) -> dict[str, Json]:
        """This is its table in series.toml."""
        row: dict[str, Json] = {"module": self.module, "name": self.name}
        row |= {"type": self.type} if self.type else {}
        row |= {"values": list(self.values), "first_level": self.first_level}
        return row | ({} if self.last_level is None else {"last_level": self.last_level})


def of_row(row: Mapping[str, Any], last: int) -> Parameter:
    """The function reads a ``[[parameter]]`` table of a series of ``last`` patches.

    Raises KeyError or ValueError when it is none.
    """
    said = Parameter(
        row["module"], row["name"], tuple(row["values"]), row["first_level"], row.get("last_level"), row.get("type", "")
    )
    if said.module not in MODULES:
        raise ValueError(f"the parameter {said}: its module is {said.module!r}, not one of {', '.join(MODULES)}")
    if not NAME.fullmatch(said.name):
        raise ValueError(f"the parameter {said}: {said.name!r} is no name of a parameter")
    if unknown := set(row) - {"module", "name", "values", "first_level", "last_level", "type"}:
        raise ValueError(f"the parameter {said}: there is no key {sorted(unknown)[0]!r} of a parameter")
    for value in said.values:
        if not isinstance(value, str) or not VALUE.fullmatch(value):
            raise ValueError(f'the parameter {said}: {value!r} is no value; write values as text, as in ["0", "1"]')
    levels = (said.first_level, last if said.last_level is None else said.last_level)
    if not all(isinstance(level, int) for level in levels) or not 1 <= levels[0] <= levels[1] <= last:
        raise ValueError(f"the parameter {said}: levels {levels[0]} to {levels[1]} are not among 1 to {last}")
    return said


def module_of(path: str) -> str | None:
    """The function gives the module that a file of the tree is made into, as /sys/module names it; None where no level
    loads it.
    """
    if path.startswith("arch/x86/kvm/vmx/"):
        return "kvm_intel"
    if path.startswith("arch/x86/kvm/svm/"):
        return None
    return "kvm" if path.startswith(("arch/x86/kvm/", "virt/kvm/")) else None


def found(patches: Iterable[Sequence[FileDiff]]) -> list[Parameter]:
    """The function finds the parameters that the diffs of the patches, from patch 1 on, add to the modules that a level
    loads.

    One that a later patch takes out again ends at the level below that patch. A bool gets both its values; what the
    values of another type may be no diff tells, and they stay empty.
    """
    known: dict[tuple[str, str], Parameter] = {}
    for level, files in enumerate(patches, 1):
        before, after = _declared(files, "-"), _declared(files, "+")
        for key in before.keys() - after.keys() & known.keys():
            if known[key].first_level < level:
                known[key] = replace(known[key], last_level=level - 1)
        for (module, name), kind in after.items():
            if (module, name) in before:
                continue
            values = SWITCH if kind == "bool" else ()
            first = known[module, name].first_level if (module, name) in known else level
            known[module, name] = Parameter(module, name, values, first, None, kind)
    return sorted(known.values(), key=lambda p: (p.first_level, p.key))


def _declared(files: Iterable[FileDiff], side: str) -> dict[tuple[str, str], str]:
    """Module, name and type of each parameter that stands in the hunks, on the old (-) or the new (+) side."""
    return {
        (module, name): kind
        for file in files
        if (module := module_of(file.path)) is not None
        for hunk in file.hunks
        for name, kind in _macros(hunk, side)
    }


def _macros(hunk: Hunk, side: str) -> Iterator[tuple[str, str]]:
    text = "\n".join(row[1:] for row in hunk.rows if row[:1] in (" ", side, ""))
    for macro in _MACRO.finditer(text):
        arguments = [argument.strip() for argument in macro["arguments"].split(",")]
        if NAME.fullmatch(arguments[0]):
            yield arguments[0], _type(macro["kind"] or "", arguments)


def _type(kind: str, arguments: Sequence[str]) -> str:
    """The kernel's word for the type; of a parameter with functions of its own, what those of the kernel say."""
    if kind == "_string":
        return "charp"
    if kind == "_cb":
        word = arguments[1].removeprefix("&param_ops_") if len(arguments) > 1 else ""
    else:
        at = _TYPE_AT.get(kind)
        word = arguments[at] if at is not None and len(arguments) > at else ""
    return word if word in TYPES else ""
