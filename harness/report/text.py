"""Foreign text made harmless: subjects, notes and names come from mails and guests, and are shown, never obeyed.

One rule for every format: a character that does not show as itself (control, bidirectional override, line or
paragraph separator, lone surrogate, not a character) is written as its escape, ``\\x1b`` or ``\\u202e``, and
lines stay the format's own.
"""

from __future__ import annotations

import re
import textwrap
import unicodedata
from typing import Final

MAIL_WIDTH: Final = 72  # columns of a mail to the list
NAME_MAX: Final = 400  # characters of a foreign name that are shown
PARAGRAPH_MAX: Final = 2000  # characters of a mail's paragraph

_HIDDEN = {"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"}
_PLAIN = re.compile(r"[ -~]*")


def plain(text: object, limit: int | None = None) -> str:
    """The function gives ``text`` on one line, hidden characters as escapes, cut at ``limit`` with a count of
    the rest.
    """
    raw = str(text)
    if not _PLAIN.fullmatch(raw):
        raw = "".join(_shown(c) if unicodedata.category(c) in _HIDDEN else c for c in raw)
    if limit is not None and len(raw) > limit:
        return f"{raw[:limit]}... ({len(raw) - limit} more characters)"
    return raw


def _shown(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def markdown(text: object) -> str:
    """The function gives ``plain`` text in which Markdown and HTML see nothing of their own, fit for a table's cell."""
    escaped = plain(text, NAME_MAX).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # "@" and "#12" and "!12" would call people and link issues in a merge request.
    return re.sub(r"([\\`*_{}\[\]()#+!|~@$])", r"\\\1", escaped)


def code(text: object) -> str:
    """The function gives ``plain`` text as Markdown code, fit for a table's cell."""
    raw = plain(text, NAME_MAX)
    fence = "`" * (max((len(run) for run in re.findall(r"`+", raw)), default=0) + 1)
    pad = " " if raw.startswith("`") or raw.endswith("`") else ""
    return f"{fence}{pad}{raw}{pad}{fence}".replace("|", "\\|")


def ktap(text: object) -> str:
    """``plain`` text as a KTAP description: without ``#``, which would begin a directive."""
    return " ".join(plain(text, NAME_MAX).replace("#", "No.").split()) or "unnamed"


def wrapped(text: object, indent: str = "", first: str | None = None) -> list[str]:
    """``plain`` text as lines of at most MAIL_WIDTH columns; a word that is longer is broken."""
    return textwrap.wrap(
        plain(text, PARAGRAPH_MAX),
        MAIL_WIDTH,
        initial_indent=indent if first is None else first,
        subsequent_indent=indent,
        break_on_hyphens=False,
    ) or [indent.rstrip()]


def command_lines(command: str) -> list[str]:
    """The function gives a shell command of plain words as lines of at most MAIL_WIDTH columns that can be pasted
    whole.

    A word too long for a line (a vector's id) goes on in the next line's first column after a backslash.
    """
    lines: list[str] = []
    line = ""
    for word in plain(command).split(" "):
        if not line:
            line = word
        elif len(line) + 1 + len(word) <= MAIL_WIDTH - 2:
            line += " " + word
        else:
            lines.append(line + " \\")
            line = word
        while len(line) > MAIL_WIDTH - 1:
            cut = line.rfind(".", 1, MAIL_WIDTH - 2) + 1 or MAIL_WIDTH - 1
            lines.append(line[:cut] + "\\")
            line = line[cut:]
    return [*lines, line]


def duration(seconds: float) -> str:
    """The text is like ``1 h 02 min``, ``3 min 07 s`` or ``4.2 s``."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    if whole >= 60:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{seconds:.1f} s"
