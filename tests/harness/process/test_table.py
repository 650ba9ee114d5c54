"""Tables: the same plain text wherever they go."""

from __future__ import annotations

import unicodedata

import pytest

from harness.process import table

ROWS = [
    ("level", "seconds", "what", "where"),
    (0, "cached", "nothing", ""),
    (18, "1234.5", "[bold]x[/] :smile: 'a' 1.5 https://example.org", "/a/folder"),
    (7, "", "  led by blanks", "end"),
]


def by_hand(rows: list[tuple[object, ...]], right: tuple[int, ...]) -> list[str]:
    """The same table, written without a library."""
    widths = [max(len(str(row[n])) for row in rows) for n in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = zip(map(str, row), widths, strict=True)
        lines.append("  ".join(c.rjust(w) if n in right else c.ljust(w) for n, (c, w) in enumerate(cells)).rstrip())
    return lines


@pytest.mark.parametrize("environment", [{}, {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "20"}])
@pytest.mark.parametrize("right", [(), (0, 1)])
def test_plain_text(environment: dict[str, str], right: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert table.lines(ROWS, right) == by_hand(ROWS, right)


def test_a_long_cell_is_not_broken() -> None:
    assert table.lines([("a", "x " * 2000 + "end", "b")]) == ["a  " + "x " * 2000 + "end  b"]


def test_what_would_steer_a_terminal_is_shown() -> None:
    assert table.lines([("a\x1b[31m\r\nb\u202e", "c\td")]) == ["a\\x1b[31m\\r\\nb\\u202e  c\\td"]


def test_wide_characters_are_two_columns() -> None:
    lines = table.lines([("\u6f22\u5b57", "x"), ("abcde", "y")])
    assert lines == ["\u6f22\u5b57   x", "abcde  y"]
    assert unicodedata.east_asian_width("\u6f22") == "W"


def test_no_rows() -> None:
    assert table.lines([]) == []
