"""``kvmirror completion``: what a shell completes, written by shtab out of the command line's own definition."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Final

from harness.cli.commands import Commands
from harness.cli.common import LAST_LEVEL
from harness.questions import core, selection

SHELLS: Final = ("bash", "zsh", "fish")
EXAMPLES: Final = """\
examples:
  kvmirror completion bash >~/.local/share/bash-completion/completions/kvmirror
  kvmirror completion zsh >~/.zfunc/_kvmirror        with 'fpath+=~/.zfunc' before compinit in ~/.zshrc
  kvmirror completion fish >~/.config/fish/completions/kvmirror.fish
"""
_LISTS: Final = {"levels", "naive", "patches"}  # comma-separated lists of numbers
_NUMBER: Final = {"level", "patch"}
_FILES: Final = {"FILE", "DIR", "PATH", "SOURCE"}
_LEVELS: Final = {
    "bash": f"""\
_kvmirror_levels() {{
  local last={LAST_LEVEL} at
  local -a found
  for ((at = 1; at < ${{#COMP_WORDS[@]}}; at++)); do
    [[ ${{COMP_WORDS[at]}} == --series ]] || continue
    [[ ${{COMP_WORDS[at + 1]}} == = ]] && ((at++))
    found=("${{COMP_WORDS[at + 1]/#\\~\\//$HOME/}}"/*.patch)
    [[ -e ${{found[0]}} ]] && last=${{#found[@]}}
  done
  seq -s ' ' 0 "$last"
}}
_kvmirror_list() {{
  local head=
  [[ $1 == *,* ]] && head=${{1%,*}},
  compgen -P "$head" -W "$(_kvmirror_levels)" -- "${{1##*,}}"
}}
_kvmirror_number() {{ compgen -W "$(_kvmirror_levels)" -- "$1"; }}""",
    "zsh": f"""\
_kvmirror_levels() {{
  local last={LAST_LEVEL}
  local at=$words[(I)--series]
  local -a found
  (( at )) && found=(${{(Q)~words[at+1]}}/*.patch(N))
  (( $#found )) && last=$#found
  compadd -- {{0..$last}}
}}
_kvmirror_list() {{ compset -P '*,'; _kvmirror_levels }}
_kvmirror_number() {{ _kvmirror_levels }}""",
    "fish": f"""\
function _kvmirror_levels
  set -l last {LAST_LEVEL}
  set -l words (commandline -opc)
  if set -l at (contains -i -- --series $words); and set -q words[(math $at + 1)]
    set -l folder (string replace -r '^~/' "$HOME/" -- $words[(math $at + 1)])
    set -l found $folder/*.patch
    test (count $found) -gt 0; and set last (count $found)
  end
  seq 0 $last
end
function _kvmirror_list
  __fish_complete_list , _kvmirror_levels
end
function _kvmirror_number
  _kvmirror_levels
end""",
}
"""Levels as a shell offers them: of the series whose folder stands behind ``--series``, a patch a file, else ours."""


def _shells(function: str) -> dict[str, str | dict[str, str]]:
    """What shtab needs to have ``function`` of _LEVELS complete a place."""
    return {"bash": function, "zsh": function, "fish": f"({function})", "preamble": _LEVELS}


_BEHIND: Final = {
    "zsh": """\
_kvmirror_behind() {
  local option=$1; shift
  local -a options=(${(M)words[1,CURRENT-1]:#-*})
  [[ $options[-1] == $option ]] && compadd -- "$@"
}""",
    "fish": """\
function _kvmirror_behind
  set -l options (commandline -opc | string match -- '-*')
  if test (count $options) -gt 0; and test "$options[-1]" = $argv[1]
    printf '%s\\n' $argv[2..-1]
  end
end""",
}
"""Words that are offered as long as the last option before the cursor is the one named first."""


def add_parser(commands: Commands, whole: Callable[[], argparse.ArgumentParser]) -> None:
    """Add the command; ``whole`` gives the command line to complete."""
    parser = commands.add_parser(
        "completion",
        help="what makes a shell complete commands, options, levels and vectors",
        description="Prints a script for the shell, written out of the command line as it is; no key starts Python.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=SHELLS)
    parser.set_defaults(run=lambda args: _print(args.shell, whole()))


def _print(shell: str, parser: argparse.ArgumentParser) -> int:
    print(script(shell, parser), end="")
    return 0


def script(shell: str, parser: argparse.ArgumentParser) -> str:
    """The function gives the script for one of SHELLS. ``parser`` is marked for shtab by this: take another one to
    parse with. ``parser`` is marked for shtab by this: take another one to parse with.
    """
    import shtab  # here: every command starts through this module, and one needs it

    for command in list(commands_of(parser).values()):
        one_level = "level" in {a.dest for a in command._actions}
        for action in command._actions:
            _mark(action, one_level)
        if shell != "bash":
            _mark_several(command)
    text = shtab.complete(parser, shell, root_prefix=parser.prog).rstrip() + "\n"
    # shtab writes (*): for operands that may be several, of which zsh completes one; *: is what zsh calls the rest.
    return text.replace('"(*):', '"*:') if shell == "zsh" else text


def commands_of(parser: argparse.ArgumentParser, path: str = "") -> dict[str, argparse.ArgumentParser]:
    """The function gives the command line as its commands, by the words that lead to each."""
    found = {path: parser}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                found |= commands_of(child, f"{path} {name}".strip())
    return found


def _mark(action: argparse.Action, one_level: bool) -> None:
    """Tell shtab what may stand in a place; a command with ``--level`` asks for one value of the parameter."""
    if action.choices or action.nargs == 0:
        return
    if action.dest in _LISTS:
        action.complete = _shells("_kvmirror_list")  # type: ignore[attr-defined]
    elif action.dest in _NUMBER:
        action.complete = _shells("_kvmirror_number")  # type: ignore[attr-defined]
    elif action.dest == "param":
        action.choices = (*selection.PARAM_VALUES, *(() if one_level else ("all",)))
    elif action.dest in ("vectors", "ids"):
        action.choices = core.NAMES
    elif action.type is Path or action.metavar in _FILES:
        action.complete = "file"  # type: ignore[attr-defined]


def _mark_several(command: argparse.ArgumentParser) -> None:
    """Have the second and later words of an option completed, of which shtab completes the first (but for bash)."""
    for action in [a for a in command._actions if a.option_strings and a.nargs == argparse.ONE_OR_MORE]:
        words = " ".join((action.option_strings[0], *map(str, action.choices or ())))
        more = command.add_argument(f"more {action.dest}", nargs="+", help=action.help)
        more.complete = {  # type: ignore[attr-defined]
            "zsh": f" _kvmirror_behind {words}",  # with the space zsh adds no arguments of its own
            "fish": f"(_kvmirror_behind {words})",
            "preamble": _BEHIND,
        }
