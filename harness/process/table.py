"""Tables in plain text, laid out by rich: the same bytes on a terminal, in a pipe and in a file."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from typing import Final

from harness.process.progress import escaped

WIDE: Final = 1 << 14  # columns: a line is never broken or cut, a terminal wraps it
GAP: Final = 2  # columns between two cells


def lines(rows: Sequence[Sequence[object]], right: Collection[int] = ()) -> list[str]:
    """A line each row (the first may be the titles), every column as wide as its widest cell; the columns numbered in
    ``right`` (from 0) are set to the right. Characters that would steer a terminal come as their escapes."""
    from rich.console import Console  # here: most commands print no table, and rich takes time to load
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, GAP, 0, 0))
    for number in range(max(map(len, rows), default=0)):
        table.add_column(justify="right" if number in right else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(escaped(str(cell), keep="")) for cell in row))
    out = io.StringIO()
    Console(file=out, width=WIDE, color_system=None, force_terminal=False, force_jupyter=False).print(table)
    return [line.rstrip() for line in out.getvalue().splitlines()] if rows else []
