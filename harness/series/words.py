"""Words of a mail, made fit to be kept as one line and harmless to print."""

from __future__ import annotations

import unicodedata
from typing import Final

MOST: Final = 160  # characters of a subject or a name in a message
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Co", "Cn"})
_JOINERS: Final = "\u200c\u200d"  # Persian and Indian names are written with them


def _unseen(character: str) -> bool:
    return unicodedata.category(character) in _UNSEEN and character not in _JOINERS


def harmless(text: str, most: int = MOST) -> str:
    """``text`` on one line for a terminal: what moves the cursor, turns the writing direction or cannot be seen is
    written as its escape, and what is longer than ``most`` characters is cut."""
    short = text if len(text) <= most else text[: most - 3] + "..."
    return "".join(c.encode("unicode_escape").decode() if _unseen(c) else c for c in short)


def flattened(text: str) -> str:
    """``text`` on one line without any character that cannot be seen; the rest stays as it is."""
    return " ".join("".join(" " if c in "\t\r\n" else "" if _unseen(c) else c for c in text).split())


def decoded(data: bytes) -> str:
    """The function gives bytes that should be UTF-8 as text; where they are not, as Latin-1, which is what git
    guesses.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")
