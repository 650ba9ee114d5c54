"""Words of a mail, made fit to be kept as one line and harmless to print."""

from __future__ import annotations

from typing import Final

from harness.process import escaped, seen

MOST: Final = 160  # characters of a subject or a name in a message
_JOINERS: Final = "\u200c\u200d"  # Persian and Indian names are written with them


def harmless(text: str, most: int = MOST) -> str:
    """``text`` on one line for a terminal: what moves the cursor, turns the writing direction or cannot be seen is
    written as its escape, and what is longer than ``most`` characters is cut."""
    short = text if len(text) <= most else text[: most - 3] + "..."
    return escaped(short, keep=_JOINERS)


def flattened(text: str) -> str:
    """``text`` on one line without any character that cannot be seen; the rest stays as it is."""
    return " ".join("".join(" " if c in "\t\r\n" else c if seen(c) or c in _JOINERS else "" for c in text).split())


def decoded(data: bytes) -> str:
    """The function gives bytes that should be UTF-8 as text; where they are not, as Latin-1, which is what git
    guesses.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")
