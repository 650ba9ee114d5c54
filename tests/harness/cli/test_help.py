"""Every command teaches: what it does and how it is typed."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator

import pytest

from harness.cli import main


def parsers(parser: argparse.ArgumentParser, path: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    yield path or "kvmirror", parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield from parsers(child, f"{path} {name}".strip())


ALL = dict(parsers(main.parser()))


@pytest.mark.parametrize("name", ALL)
def test_a_command_says_what_it_does_and_shows_examples_that_parse(name: str) -> None:
    text = ALL[name].format_help()
    assert ALL[name].description
    examples = re.findall(r"(?m)^  (kvmirror .*?)(?:  .*)?$", text.replace(" \\\n      ", " "))
    assert examples
    for line in examples:
        words = shlex.split(line.replace("<patch.eml", "").split(" >")[0])
        assert callable(main.parser().parse_args(words[1:]).run)


@pytest.mark.parametrize("name", ALL)
def test_every_option_is_explained(name: str) -> None:
    for action in ALL[name]._actions:
        if action.option_strings and action.dest != "format":
            assert action.help, (name, action.option_strings)
