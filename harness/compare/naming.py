"""What is compared, as it is typed: a run, or one level of it, by number or by its journal's path."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.errors import InputError
from harness.questions import Setting

FORMS: Final = (
    "write a run's number, JOURNAL:RUN, a journal's or a recording's path, and behind each of these @LEVEL or "
    "@LEVEL/PARAM"
)

_AT: Final = re.compile(r"(?P<run>.*)@(?P<level>\d+)(?:/(?P<param>[^/@]*))?", re.DOTALL)
_IN_JOURNAL: Final = re.compile(r"(?P<path>.+):(?P<run>\d+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Name:
    """One of the two: ``journal`` None is the user's own, ``run`` None its latest, ``level`` None all that it asked."""

    text: str
    journal: Path | None = None
    run: int | None = None
    level: int | None = None
    param: str | None = None

    def __str__(self) -> str:
        return self.text

    @property
    def short(self) -> str:
        """This is the name without the folders of its journal, for others to read."""
        if self.journal is None:
            return self.text
        run = "" if self.run is None else f":{self.run}"
        level = "" if self.level is None else f"@{self.level}"
        return f"{self.journal.name}{run}{level}" + ("" if self.param is None else f"/{self.param}")


def _setting(text: str, param: str) -> str:
    """The parameters of a name as a journal writes them; InputError where they are none."""
    try:
        return str(Setting.parse(param))
    except InputError:
        raise InputError(
            f"{text!r}: the parameter {param!r} is not one of unset, 0, 1; write one of these, or of another series "
            "MODULE.NAME=VALUE"
        ) from None


def parse(text: str) -> Name:
    """The function reads ``text`` as a name; whether the run is there shows when it is read. Whether the run is there
    shows when it is read.

    Raises InputError when it cannot be a name.
    """
    level, param, rest = None, None, text
    if (at := _AT.fullmatch(text)) and not Path(text).is_file():
        rest, level, param = at["run"], int(at["level"]), at["param"]
        param = None if param is None else _setting(text, param)
    elif not text:
        raise InputError(f"'' names no run: {FORMS}")
    if rest == "":
        return Name(text, None, None, level, param)
    if re.fullmatch(r"[0-9]+", rest):
        return Name(text, None, int(rest), level, param)
    inside = _IN_JOURNAL.fullmatch(rest)
    if inside and not Path(rest).is_file():
        return Name(text, Path(inside["path"]).expanduser(), int(inside["run"]), level, param)
    return Name(text, Path(rest).expanduser(), None, level, param)
