"""What a recording may hold, in types: whatever it says is held against them before anything believes it.

``fits`` takes Python's own type hints, so that a new field of an outcome or of a CPU is known here at once.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, Final

from harness.jsonable import Json
from harness.process import escaped, seen
from harness.recording.container import refuse
from harness.results import LEFT_OUT

NUMBER_MAX: Final = 1 << 128  # of a code, an address, a count: the widest is an MSR's value with two flags above
TEXT_MAX: Final = 20_000  # characters of one text
DEPTH_MAX: Final = 12  # of lists and objects in one another

# What our own code reads of a run's provenance and of a cell's facts; what else is there is carried along.
PROVENANCE: Final[dict[str, Any]] = {
    "series": dict[str, int | bool | str],
    "patches": list[dict[str, str | int | bool | None]],
    "kernel": dict[str, Any] | str,
    "config": dict[str, Any] | str,
    "bochs": dict[str, Any] | str,
    "qemu": str,
    "compiler": str,
    "probe": str,
    "commit": str,
    "host": str,
    "lab": list[str],
    "lab_cpu": dict[str, bool | int],
    "cpus": dict[str, dict[str, Any]],
    "asked": dict[str, Any],
    LEFT_OUT: dict[str, list[str]],
    "modules": dict[str, dict[str, str]],
}
FACTS: Final[dict[str, Any]] = {
    "collapsed": dict[str, int],
    "counters": dict[str, int],
    "livelocks": dict[str, str],
    "warnings": list[str],
    "deaths": list[str],
    "msrs": list[str],
    "refused": list[str],
    "properties": dict[str, bool],
    "cpu": dict[str, Any],
    "virtual_cpu": dict[str, Any],
    "earlier": dict[str, int],
    "not_reproduced": list[dict[str, Any]],
    "board": str,
    "parameter": str | None,
    "mbec_offered": bool,
}


def shown(value: Json) -> Json:
    """The value becomes JSON in which no text steers a terminal: what a host said is written down as its escapes."""
    match value:
        case str():
            return escaped(value, keep="")
        case Mapping():
            return {str(shown(key)): shown(inner) for key, inner in value.items()}
        case list() | tuple():
            return [shown(inner) for inner in value]
        case _:
            return value


def harmless_json(path: Path, what: str, value: object, depth: int = 0) -> None:
    """Every text and number of ``value`` is looked at.

    Raises InputError when a text would steer a terminal or is absurdly long, or a number is absurdly large.
    """
    if depth > DEPTH_MAX:
        refuse(path, f"{what} holds lists in lists {depth} deep")
    match value:
        case str():
            if len(value) > TEXT_MAX:
                refuse(path, f"{what} has a text of {len(value):,} characters")
            if not value.isprintable() and not all(map(seen, value)):  # the former takes a hundredth of the time
                refuse(path, f"{what} has a text with control characters: {value[:60]!a}")
        case bool() | None:
            pass
        case int():
            if abs(value) >= NUMBER_MAX:
                refuse(path, f"{what} has a number of {value.bit_length()} bits")
        case float():
            if not -1e18 < value < 1e18:
                refuse(path, f"{what} has a number that is absurdly large")
        case dict():
            for key, inner in value.items():
                harmless_json(path, what, key, depth)
                harmless_json(path, what, inner, depth + 1)
        case list():
            for inner in value:
                harmless_json(path, what, inner, depth + 1)
        case _:
            pass  # JSON has no other


def known(path: Path, what: str, body: Any, forms: Mapping[str, Any]) -> dict[str, Any]:
    """``body`` is given back once it is an object of harmless values, each of the type that ``forms`` names.

    Raises InputError when it is not.
    """
    if not isinstance(body, dict):
        refuse(path, f"{what} is not an object")
    harmless_json(path, what, body)
    for name, hint in forms.items():
        if name in body and not fits(body[name], hint):
            refuse(path, f"{what}: {name!r} is not what it has to be ({_words(hint)})")
    return body


def _words(hint: object) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def fits(value: object, hint: Any) -> bool:
    """The value says whether ``value`` is of the type ``hint``, all the way down; a truth is no number."""
    if hint is Any:
        return True
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return any(fits(value, one) for one in args)
    if origin is tuple:
        return isinstance(value, tuple) and all(fits(inner, args[0]) for inner in value)
    if origin in (list, frozenset):
        return isinstance(value, origin) and all(fits(inner, args[0]) for inner in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(k, args[0]) and fits(v, args[1]) for k, v in value.items())
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < NUMBER_MAX
    if is_dataclass(hint) and isinstance(hint, type):
        hints = _hints(hint)
        return isinstance(value, hint) and all(fits(getattr(value, f.name), hints[f.name]) for f in fields(hint))
    return isinstance(value, hint) and (not isinstance(value, Enum) or value in type(value))
