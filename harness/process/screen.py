"""Work under way on a terminal, drawn by rich: lines that rewrite themselves, and vanish before anything else comes.

Only ``progress`` uses it, and only where there is a terminal: whoever pipes the output never loads rich.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TextIO

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

NAME: Final = 24  # columns of a name, at least
BAR: Final = 20  # columns of the bar
STYLES: Final = {"done": "green", "given up": "red"}


class _Console(Console):
    """A console that leaves the cursor alone: a process that is killed must not take it along."""

    def show_cursor(self, show: bool = True) -> bool:
        """Does nothing; False says so."""
        return False


class Screen:
    """The screen has the lines on one terminal. Not for several threads at once: ``Progress`` holds its lock."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        # NO_COLOR is rich's own to heed; FORCE_COLOR and its like must not make a terminal of what is none.
        self._console = _Console(
            file=stream, force_terminal=True, force_jupyter=False, markup=False, highlight=False, emoji=False
        )
        self._live: Live | None = None

    def draw(self, rows: Iterable[tuple[str, float | None, str]]) -> None:
        """Show ``rows`` in place of those before: name, fraction done (0 to 1, None: unknown), what else is said."""
        grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
        grid.add_column(no_wrap=True, min_width=NAME)
        grid.add_column(no_wrap=True, width=BAR)
        grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        for name, done, more in rows:
            bar = "" if done is None else ProgressBar(total=1, completed=done, width=BAR)
            percent = "" if done is None else f"{done:4.0%}  "
            grid.add_row(Text(name), bar, Text(percent + more))
        if not grid.row_count:
            return
        if self._live is None:
            self._live = Live(
                console=self._console, transient=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
            )
            self._live.start()
        self._live.update(grid, refresh=True)

    def erase(self) -> None:
        """The lines are taken off the terminal."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def ended(self, name: str, how: str, more: str) -> None:
        """The line stays: a piece of work and how it ended."""
        self._console.print(Text.assemble(f"{name:{NAME}}  ", (how, STYLES[how]), f" {more}"), soft_wrap=True)
