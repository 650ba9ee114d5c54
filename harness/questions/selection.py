"""What the user selects on the command line: levels, parameter values, vectors."""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path

from harness.errors import InputError
from harness.questions import core, parameters
from kvmodel.question.program import program_of_file
from kvmodel.question.reading import parse
from kvmodel.question.vector import Vector, VectorError

PARAM_VALUES: dict[str, bool | None] = {"unset": None, "0": False, "1": True}


def levels(text: str, last: int | None, option: str = "--levels") -> list[int]:
    """The function gives ``0,11,16-18`` or ``all`` as sorted levels, each once.

    ``last``: the highest level of the series that is asked; None where that is not known yet, and only the form counts.
    ``option`` is what the user wrote it behind.

    Raises InputError, which names the part that is none.
    """
    if text == parameters.ALL:
        return list(range((last or 0) + 1))
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if not match:
            raise InputError(
                f"{option} {text!r}: {part!r} is no level; write numbers and ranges, as in {_example(last)}"
            )
        low, high = int(match[1]), int(match[2] or match[1])
        if low > high:
            raise InputError(f"{option} {text!r}: the range {part!r} runs backwards; write {high}-{low}")
        if last is not None and high > last:
            raise InputError(
                f"{option} {text!r}: level {high} is unknown, this series has levels 0 to {last}; name one of these"
            )
        found.update(range(low, high + 1))
    return sorted(found)


def _example(last: int | None) -> str:
    return "0,11,16-18" if last is None else f"0,11,16-{last}" if last > 16 else f"0-{last}"


def settings(text: str) -> list[parameters.Setting]:
    """The function gives ``unset``, ``0``, ``1`` or ``all`` of the mirrored series' parameter.

    Raises InputError for another one.
    """
    found = parameters.chosen(text, (parameters.OWN,))
    if any(setting != parameters.Setting.own_value(setting.own) for setting in found):
        raise InputError(f"--param {text}: the mirror knows {parameters.OWN.name} alone; write unset, 0 or 1")
    return found


def params(text: str) -> list[bool | None]:
    """The function gives ``settings`` as the mirror takes them."""
    return [setting.own for setting in settings(text)]


def vector_list(names: list[str]) -> list[Vector]:
    """The function gives vectors named by id, as a part or a whole space (``core.NAMES``), or in a file
    (``@FILE``).

    Raises InputError when a name is none, or the file cannot be read.
    """
    chosen: dict[str, Vector] = {}
    for name in names:
        for vector in _named(name):
            chosen.setdefault(vector.id, vector)
    return list(chosen.values())


def _named(name: str) -> list[Vector]:
    if (found := core.named(name)) is not None:
        return found
    if name.startswith("@"):
        try:
            lines = Path(name[1:]).read_text(encoding="utf-8").split()
        except OSError as error:
            raise InputError(f"vector file {name[1:]}: {error.strerror}; name a file with one id a line") from error
        return [vector(line) for line in lines]
    return [vector(name)]


def program_file(name: str) -> Vector:
    """The function gives the program in the file ``name``. Raises InputError with the file, the line and the mend where
    it holds none.

    Raises InputError, with the file, the line and the mend, when it holds none.
    """
    try:
        text = Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise InputError(f"--program {name}: {why}; name a file with one step a line") from error
    try:
        return program_of_file(text)
    except VectorError as error:
        raise InputError(f"--program {name}: {error}") from error


def vector(name: str) -> Vector:
    """The function gives the vector of an id, in full or in short. Raises InputError where it is none.

    Raises InputError when it is none.
    """
    try:
        return parse(name)
    except VectorError as error:
        if "." in name:
            raise InputError(f"{error}; 'kvmirror vectors' lists what can be asked") from error
        near = get_close_matches(name, core.NAMES, 3) or [n for n in core.NAMES if name in n]
        meant = f"did you mean {' or '.join(near)}? The" if near else "the"
        raise InputError(
            f"{name!r} names no vectors: {meant} parts are {', '.join(core.NAMES)} ('kvmirror vectors' says what each "
            "is for); or write an id, as e4k.l1=r--u.fetch.mbec=on"
        ) from error
