"""What the user sees while long work goes on: standard error only, one line for each piece of work.

On a terminal the lines update themselves (``screen``); elsewhere a plain line comes every few seconds. Work that ends
within two seconds says nothing.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from harness.process.screen import Screen

QUIET: Final = 2.0  # seconds before a piece of work is spoken of
REDRAW: Final = 0.25  # seconds between updates on a terminal
PLAIN_EVERY: Final = 10.0  # seconds between plain lines of one piece of work
BAR: Final = 20  # characters


def duration(seconds: float) -> str:
    """The text is ``seconds`` as 9 s, 3:07 or 1:02:45."""
    whole = int(seconds + 0.5)
    if whole < 60:
        return f"{whole} s"
    minutes, second = divmod(whole, 60)
    return f"{minutes}:{second:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{second:02}"


def escaped(text: str, keep: str = "\n\t") -> str:
    """The text, which may be a host's or a mail's, has as escapes what cannot be seen, but for ``keep``."""
    if text.isprintable():
        return text
    return "".join(c if seen(c) or c in keep else ascii(c)[1:-1] for c in text)


def seen(character: str) -> bool:
    """The character is one that can be seen, or a blank of any width: True."""
    return character.isprintable() or unicodedata.category(character) == "Zs"


class Task:
    """A piece of work has a name, how far it is, and a note.

    The fraction done comes from ``step``/``total`` where the work counts, else from the lines of its ``log``
    against ``lines`` (what an earlier build wrote, or a rough figure), else from ``seconds`` an earlier one took.
    """

    def __init__(self, name: str, *, total: int, log: Path | None, lines: int, seconds: float) -> None:
        self.name = name
        self.total = total
        self.step = 0
        self.note = ""
        self.log = log
        self.lines = lines
        self.seconds = seconds
        self.started = time.monotonic()
        self.spoken = 0.0  # when a plain line was written last
        self._log_read = 0
        self._log_lines = 0

    @property
    def elapsed(self) -> float:
        """This many seconds have gone by since its start."""
        return time.monotonic() - self.started

    def advance(self, by: int = 1) -> None:
        """``by`` more of ``total`` are done."""
        self.step += by

    def logged(self) -> int:
        """The log has this many lines so far."""
        if self.log is not None:
            with contextlib.suppress(OSError), self.log.open("rb") as file:
                file.seek(self._log_read)
                while chunk := file.read(1 << 20):
                    self._log_read += len(chunk)
                    self._log_lines += chunk.count(b"\n")
        return self._log_lines

    def fraction(self) -> float | None:
        """This is how much is done, 0 to 1; None when there is nothing to tell it by."""
        if self.total:
            return min(1.0, self.step / self.total)
        if self.log is not None and self.lines:
            return min(0.99, self.logged() / self.lines)
        if self.seconds:
            return min(0.99, self.elapsed / self.seconds)
        return None

    def left(self) -> float | None:
        """These seconds are still to go, as far as one can tell."""
        done = self.fraction()
        if done is None:
            return None
        by_pace = self.elapsed * (1 - done) / done if done > 0.02 else None
        if self.seconds:
            by_record = max(self.seconds - self.elapsed, self.seconds * (1 - done))
            return by_record if by_pace is None else done * by_pace + (1 - done) * by_record
        return by_pace

    def more(self) -> str:
        """What is said besides name and bar: elapsed, estimate, note."""
        done, left = self.fraction(), self.left()
        parts = [duration(self.elapsed)]
        if left is not None and done is not None and done < 1:
            parts.append(f"about {duration(left)} left")
        if self.note:
            parts.append(escaped(self.note))
        return "  ".join(parts)

    def text(self) -> str:
        """The text is one plain line: name, bar, elapsed, estimate, note."""
        done = self.fraction()
        bar = ""
        if done is not None:
            full = round(done * BAR)
            bar = f"[{'#' * full}{'.' * (BAR - full)}] {done:4.0%}  "
        return f"{self.name:24}  {bar}{self.more()}"


class Progress:
    """The object has all the work under way, and the thread that draws it."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._lock = threading.RLock()
        self._tasks: list[Task] = []
        self._screen: Screen | None = None  # made when something is first drawn
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()

    @property
    def stream(self) -> TextIO:
        """This is where it is written: standard error as it is now."""
        return self._stream or sys.stderr

    @property
    def terminal(self) -> bool:
        """Lines can be rewritten: True."""
        return self.stream.isatty() and os.environ.get("TERM") != "dumb"

    @contextlib.contextmanager
    def task(
        self, name: str, *, total: int = 0, log: Path | None = None, lines: int = 0, seconds: float = 0
    ) -> Iterator[Task]:
        """A piece of work is told of as long as the block runs."""
        task = Task(name, total=total, log=log, lines=lines, seconds=seconds)
        with self._lock:
            self._tasks.append(task)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
                self._thread.start()
            self._wake.set()
        try:
            yield task
        except BaseException:
            self._finish(task, "given up")
            raise
        self._finish(task, "done")

    def say(self, text: str) -> None:
        """The text gets a line of its own, above the work under way."""
        with self._lock:
            self._erase()
            self._write(escaped(text) + "\n")
            self._draw()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The terminal is the caller's in the block (a table on standard output, a prompt)."""
        with self._lock:
            self._erase()
            try:
                yield
                sys.stdout.flush()
            finally:
                self._draw()

    def _finish(self, task: Task, how: str) -> None:
        with self._lock:
            self._erase()
            self._tasks.remove(task)
            if task.elapsed >= QUIET:
                self._ended(task.name, how, f"after {duration(task.elapsed)}")
            self._draw()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            with self._lock:
                if not self._tasks:
                    self._wake.clear()
                    continue
                if self.terminal:
                    self._draw()
                else:
                    self._plain()
            time.sleep(REDRAW)

    def _plain(self) -> None:
        now = time.monotonic()
        for task in self._tasks:
            if now - (task.spoken or task.started) >= (PLAIN_EVERY if task.spoken else QUIET):
                task.spoken = now
                self._write(task.text().rstrip() + "\n")

    def _erase(self) -> None:
        if self._screen is not None:
            with _whatever_the_stream():
                self._screen.erase()

    def _draw(self) -> None:
        rows = [(t.name, t.fraction(), t.more()) for t in self._tasks if t.elapsed >= QUIET]
        if rows and self.terminal:
            with _whatever_the_stream():
                self._on_screen().draw(rows)

    def _ended(self, name: str, how: str, more: str) -> None:
        if self.terminal:
            with _whatever_the_stream():
                self._on_screen().ended(name, how, more)
        else:
            self._write(f"{name:24}  {how} {more}\n")

    def _on_screen(self) -> Screen:
        from harness.process.screen import Screen

        if self._screen is None or self._screen.stream is not self.stream:
            self._screen = Screen(self.stream)
        return self._screen

    def _write(self, text: str) -> None:
        with _whatever_the_stream():
            self.stream.write(text)
            self.stream.flush()


def _whatever_the_stream() -> contextlib.suppress:
    """A terminal that goes away must not end the work."""
    return contextlib.suppress(OSError, ValueError)


PROGRESS: Final = Progress()
"""The one of this process: two of them would write over each other."""
