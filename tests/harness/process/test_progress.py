"""What a terminal shows while work goes on, and what is written where there is none."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import time
from collections.abc import Iterator

import pyte
import pytest

from harness.process import Progress

COLUMNS, LINES = 100, 12
HOSTILE = "\x1b[2J\x1b[31m[bold]:smile:\r\x07"
SHOWN = r"\x1b[2J\x1b[31m[bold]:smile:\r\x07"


class Terminal(io.StringIO):
    """A terminal, with what stands on it."""

    def isatty(self) -> bool:
        return True

    @property
    def lines(self) -> list[str]:
        """What is seen now."""
        screen = pyte.Screen(COLUMNS, LINES)
        pyte.Stream(screen).feed(self.getvalue().replace("\n", "\r\n"))
        return [line.rstrip() for line in screen.display if line.strip()]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    monkeypatch.setenv("LINES", str(LINES))
    yield Terminal()


def untimed(text: str) -> str:
    """``text`` without its seconds: a busy machine takes more of them."""
    return re.sub(r"\b\d+ s\b", "N s", text)


def work(out: io.StringIO) -> Progress:
    """Two pieces of work, of which the second has a note that somebody else wrote."""
    progress = Progress(out)
    with progress.task("one", total=4) as one, progress.task("two") as two:
        one.advance(2)
        two.note = HOSTILE
        one.started -= 15
        two.started -= 5
        time.sleep(0.7)
        if isinstance(out, Terminal):
            assert [line.split()[0] for line in out.lines] == ["one", "two"]
            assert "50%" in out.lines[0] and "about N s left" in untimed(out.lines[0]) and SHOWN in out.lines[1]
        progress.say("said " + HOSTILE)
        with progress.paused():
            if isinstance(out, Terminal):
                assert out.lines == ["said " + SHOWN]
            out.write("a row\n")
        time.sleep(0.4)
        if isinstance(out, Terminal):
            assert [line.split()[0] for line in out.lines] == ["said", "a", "one", "two"]
    return progress


def test_lines_rewrite_themselves_and_nothing_is_left(terminal: Terminal) -> None:
    work(terminal)
    assert [untimed(line) for line in terminal.lines] == [
        "said " + SHOWN,
        "a row",
        "two                       done after N s",
        "one                       done after N s",
    ]
    assert "\x1b[32mdone" in terminal.getvalue()
    assert "\x1b[?25l" not in terminal.getvalue()  # a process that is killed leaves the cursor


def test_a_line_that_is_too_long_is_cut(terminal: Terminal) -> None:
    with Progress(terminal).task("one") as one:
        one.started -= 5
        one.note = "x" * 200
        time.sleep(0.6)
        assert len(terminal.lines) == 1 and terminal.lines[0].endswith("x\u2026")


def test_work_that_fails_says_so(terminal: Terminal) -> None:
    progress = Progress(terminal)
    with pytest.raises(KeyError), progress.task("one") as one:
        one.started -= 5
        raise KeyError
    assert [untimed(line) for line in terminal.lines] == ["one                       given up after N s"]


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1")])
def test_no_colour_where_none_is_wanted(
    variable: str, value: str, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    work(terminal)
    assert "\x1b[3" not in terminal.getvalue() and "\x1b[9" not in terminal.getvalue()


def test_more_work_than_lines_stays_on_the_terminal(terminal: Terminal) -> None:
    progress = Progress(terminal)
    tasks = [progress.task(f"task {n}") for n in range(30)]
    for task in tasks:
        task.__enter__().started -= 5
    time.sleep(0.6)
    assert len(terminal.lines) <= LINES
    for task in tasks:
        task.__exit__(None, None, None)
    assert all("done after" in line for line in terminal.lines)


@pytest.mark.parametrize("term", ["dumb", ""])
def test_plain_lines_where_there_is_no_terminal(term: str, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    if term:
        monkeypatch.setenv("TERM", term)
        out = type("Dumb", (io.StringIO,), {"isatty": lambda self: True})()
    monkeypatch.setenv("FORCE_COLOR", "1")
    work(out)
    assert untimed(out.getvalue()) == (
        "one                       [##########..........]  50%  N s  about N s left\n"
        f"two                       N s  {SHOWN}\n"
        f"said {SHOWN}\n"
        "a row\n"
        "two                       done after N s\n"
        "one                       done after N s\n"
    )


def test_rich_is_not_loaded_without_a_terminal() -> None:
    code = "import sys, harness.cli.main as c; c.parser(); print('rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
