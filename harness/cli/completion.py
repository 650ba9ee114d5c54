"""``kvmirror completion``: what a shell completes, written out of the command line's own definition."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness.cli.common import LAST_LEVEL
from harness.questions import core, selection

SHELLS: Final = ("bash", "zsh", "fish")
EXAMPLES: Final = """\
examples:
  kvmirror completion bash >~/.local/share/bash-completion/completions/kvmirror
  kvmirror completion zsh >~/.zfunc/_kvmirror        with 'fpath+=~/.zfunc' before compinit in ~/.zshrc
  kvmirror completion fish >~/.config/fish/completions/kvmirror.fish
"""
_NUMBERS: Final = {"levels", "naive", "patches"}  # comma-separated lists
_NUMBER: Final = {"level", "patch"}
_FILES: Final = {"FILE", "DIR", "PATH", "SOURCE"}


@dataclass(frozen=True, slots=True)
class Slot:
    """What may stand in one place: words, several of them with commas between, or a file's name."""

    words: tuple[str, ...] = ()
    commas: bool = False
    files: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """One command: its words, its subcommands, its options with what follows each (None: nothing does)."""

    path: tuple[str, ...]
    subcommands: tuple[str, ...]
    options: tuple[tuple[str, str, Slot | None], ...]  # option, its help, its value
    operands: Slot


def add_parser(commands: Any, whole: Callable[[], argparse.ArgumentParser]) -> None:
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
    """The script for one of SHELLS."""
    found = list(commands_of(parser))
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](found)


def commands_of(parser: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> Iterator[Command]:
    """The command line as a list of commands."""
    children: dict[str, argparse.ArgumentParser] = {}
    options: list[tuple[str, str, Slot | None]] = []
    operands = Slot()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            children = dict(action.choices)
        elif action.option_strings:
            value = None if action.nargs == 0 else _slot(action, "level" in {a.dest for a in parser._actions})
            about = (action.help or "").replace("%%", "%")
            options += [(name, about, value) for name in action.option_strings]
        else:
            operands = _slot(action, False)
    yield Command(path, tuple(children), tuple(options), operands)
    for name, child in children.items():
        yield from commands_of(child, (*path, name))


def _slot(action: argparse.Action, one_level: bool) -> Slot:
    if action.choices:
        return Slot(tuple(map(str, action.choices)))
    if action.dest in _NUMBERS:
        return Slot(tuple(map(str, range(LAST_LEVEL + 1))), commas=True)
    if action.dest in _NUMBER:
        return Slot(tuple(map(str, range(LAST_LEVEL + 1))))
    if action.dest == "param":
        return Slot((*selection.PARAM_VALUES, *(() if one_level else ("all",))))
    if action.dest in ("vectors", "ids"):
        return Slot(core.NAMES)
    if action.type is Path or action.metavar in _FILES:
        return Slot(files=True)
    return Slot()


@dataclass(frozen=True, slots=True)
class Tables:
    """The command line as branches of ``case``, which bash and zsh read alike."""

    paths: str  # pattern of every command's words
    values: str  # what may follow an option, by command/option
    words: str  # what else may stand, by command

    @classmethod
    def of(cls, commands: list[Command]) -> Tables:
        """From the commands."""
        values: list[str] = []
        words: list[str] = []
        for c in commands:
            path = " ".join(c.path)
            for name, _, value in c.options:
                if value is not None:
                    values.append(f"    {shlex.quote(f'{path}/{name}')}) {_choose(value)} ;;")
            everything = " ".join((*c.subcommands, *c.operands.words))
            files = " files=1" if c.operands.files else ""
            names = shlex.quote(" ".join(name for name, _, _ in c.options))
            words.append(f"    {shlex.quote(path)}) offer={shlex.quote(everything)} flags={names}{files} ;;")
        paths = " | ".join(shlex.quote(" ".join(c.path)) for c in commands if c.path)
        return cls(paths, "\n".join(values), "\n".join(words))


def _bash(commands: list[Command]) -> str:
    tables = Tables.of(commands)
    return f"""\
# kvmirror's completion for bash; written by 'kvmirror completion bash'.
_kvmirror() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} prev= where= longer= offer= flags= files= commas= head= at
  COMPREPLY=()
  for ((at = 1; at < COMP_CWORD; at++)); do
    longer="${{where:+$where }}${{COMP_WORDS[at]}}"
    case $longer in
    {tables.paths}) where=$longer ;;
    esac
    # The last option that stands before the cursor: its values may be several.
    case ${{COMP_WORDS[at]}} in -*) prev=${{COMP_WORDS[at]}} ;; esac
  done
  [[ ${{COMP_WORDS[COMP_CWORD - 1]}} == "$prev" || $prev == --vectors ]] || prev=
  [[ $cur == -* ]] && prev=
  case $where/$prev in
{tables.values}
    *)
      case $where in
{tables.words}
      esac
      [[ $cur == -* ]] && offer=$flags files=
      ;;
  esac
  if [[ $commas && $cur == *,* ]]; then
    head=${{cur%,*}},
    cur=${{cur##*,}}
  fi
  while IFS= read -r at; do COMPREPLY+=("$head$at"); done < <(compgen -W "$offer" -- "$cur")
  if [[ $files ]]; then
    while IFS= read -r at; do COMPREPLY+=("$at"); done < <(compgen -f -- "$cur")
  fi
}}
complete -o filenames -F _kvmirror kvmirror
"""


def _zsh(commands: list[Command]) -> str:
    tables = Tables.of(commands)
    return f"""\
#compdef kvmirror
# kvmirror's completion for zsh; written by 'kvmirror completion zsh'.
_kvmirror() {{
  emulate -L zsh
  local cur=$words[CURRENT] prev= where= longer= offer= flags= files= commas= at
  for ((at = 2; at < CURRENT; at++)); do
    longer="${{where:+$where }}$words[at]"
    case $longer in
    {tables.paths}) where=$longer ;;
    esac
    case $words[at] in -*) prev=$words[at] ;; esac
  done
  [[ $words[CURRENT-1] == "$prev" || $prev == --vectors ]] || prev=
  [[ $cur == -* ]] && prev=
  case $where/$prev in
{tables.values}
    *)
      case $where in
{tables.words}
      esac
      [[ $cur == -* ]] && offer=$flags files=
      ;;
  esac
  [[ -n $commas ]] && compset -P '*,'
  compadd -- ${{=offer}}
  [[ -n $files ]] && _files
}}
_kvmirror "$@"
"""


def _choose(slot: Slot) -> str:
    offer = f"offer={shlex.quote(' '.join(slot.words))}"
    return offer + (" commas=1" if slot.commas else "") + (" files=1" if slot.files else "")


_FISH_HEAD: Final = """\
# kvmirror's completion for fish; written by 'kvmirror completion fish'.
complete -c kvmirror -f
function __kvmirror_behind
    # Whether the last option before the cursor is this one: its values may be several.
    set -l found (commandline -opc | string match -- '-*')
    test (count $found) -gt 0; and test "$found[-1]" = $argv[1]
end
"""


def _fish(commands: list[Command]) -> str:
    lines = []
    for c in commands:
        if c.path:
            below = f"; and not __fish_seen_subcommand_from {' '.join(c.subcommands)}" if c.subcommands else ""
            when = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in c.path) + below
        else:
            when = "__fish_use_subcommand"
        start = f"complete -c kvmirror -n {shlex.quote(when)}"
        for name in c.subcommands:
            lines.append(f"{start} -a {name}")
        if c.operands.words:
            lines.append(f"{start} -a {shlex.quote(' '.join(c.operands.words))}")
        if c.operands.files:
            lines.append(f"{start} -F")
        for name, about, value in c.options:
            flag = f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
            lines.append(f"{start} {flag}{_fish_value(value)} -d {shlex.quote(about)}")
            if name == "--vectors" and value is not None:
                several = shlex.quote(f"{when}; and __kvmirror_behind --vectors")
                lines.append(f"complete -c kvmirror -n {several} -a {shlex.quote(' '.join(value.words))}")
    return _FISH_HEAD + "\n".join(lines) + "\n"


def _fish_value(slot: Slot | None) -> str:
    if slot is None:
        return ""
    if slot.files:
        return " -r -F"
    words = " ".join(slot.words)
    if slot.commas:
        words = f'(__fish_complete_list , \'string split " " "{words}"\')'
    return f" -x -a {shlex.quote(words)}"
