"""``kvmirror config``: the defaults in effect, and who set each."""

from __future__ import annotations

import argparse
import json

from harness.cli import settings
from harness.cli.commands import Commands
from harness.process import table

EXAMPLES = """\
examples:
  kvmirror config
  kvmirror config --example >kvmirror.toml
"""


def add_parser(commands: Commands) -> None:
    """The function adds the command."""
    parser = commands.add_parser(
        "config",
        help="the defaults in effect, and who set each",
        description="Prints every setting with its value and where it comes from: the environment, a file, or nobody.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--example", action="store_true", help="a file with every setting, as comments")
    what.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The command prints the settings in effect."""
    if args.example:
        print(settings.example(), end="")
        return 0
    values: dict[str, settings.Value] = args.settings
    if args.json:
        print(json.dumps({key: {"value": _plain(v.value), "source": v.source} for key, v in values.items()}, indent=1))
        return 0
    print("\n".join(table.lines(lines(values))))
    return 0


def lines(values: dict[str, settings.Value]) -> list[tuple[str, str, str]]:
    """The lines have key, value and source of every setting."""
    found = []
    for setting in settings.SETTINGS:
        if setting.key in values:
            value = values[setting.key]
            found.append((setting.key, str(_plain(value.value)), value.source))
        else:
            found.append((setting.key, setting.unset(), "built in"))
    return found


def _plain(value: object) -> object:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return value if isinstance(value, int | str) else str(value)
