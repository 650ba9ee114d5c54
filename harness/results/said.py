"""What a run says of a patch in a word and a half, ``yes, exactly`` or ``no, hunk 3``: whether, and how."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

UNKNOWN: Final = "not recorded"
_NO: Final = re.compile(r"no\b")


@dataclass(frozen=True, slots=True)
class Said:
    """``holds`` None: the run did not write it down, or in words that are no yes or no. ``text``: as it is shown."""

    holds: bool | None = None
    text: str = UNKNOWN

    def __str__(self) -> str:
        return self.text

    @classmethod
    def of(cls, holds: bool, how: str = "") -> Said:
        """The text says ``yes`` or ``no``, and how."""
        word = "yes" if holds else "no"
        return cls(holds, f"{word}, {how}" if how else word)

    @classmethod
    def read(cls, value: object) -> Said:
        """The function reads it from a run's provenance, where it is a text, a truth or a table of such."""
        if value is None:
            return cls()
        if isinstance(value, bool):
            return cls.of(value)
        text = words(value)
        return cls(False if _NO.match(text) else True if text.startswith("yes") else None, text)


def words(value: object) -> str:
    """The function gives a value of a run's provenance in words."""
    match value:
        case None:
            return UNKNOWN
        case bool():
            return "yes" if value else "no"
        case dict():
            return ", ".join(f"{k} {words(v)}" for k, v in value.items())
        case list() | tuple():
            return ", ".join(map(str, value))
        case _:
            return str(value)
