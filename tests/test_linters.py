"""The linters of `make lint`, each a test; its message is the tool's own output."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def commands() -> list[str]:
    """The recipe of the Makefile's lint, which is the one list of the linters."""
    recipe = re.search(r"(?m)^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert recipe is not None
    return [line.removeprefix("\t@$(VENV)/bin/") for line in recipe[1].splitlines()]


def test_the_linters_are_these() -> None:
    assert [command.split()[0] for command in commands()] == ["ruff", "ruff", "mypy"]


@pytest.mark.parametrize("command", commands())
def test_linter_is_content(command: str) -> None:
    argv = [sys.executable, "-m", *shlex.split(command)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"{command}:\n{done.stdout}{done.stderr}", pytrace=False)
