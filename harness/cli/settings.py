"""Defaults of the user's own, from one TOML file found in the usual places.

The command line beats the environment, the environment beats ``./kvmirror.toml`` (or the file that ``--config`` names,
alone), and that beats ``$XDG_CONFIG_HOME/kvmirror/config.toml``. Whatever a file says that is no setting, has the wrong
type or no sense is refused by name: a misspelt key that is ignored would be a run of something else.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness import places
from harness.build import archive, cache
from harness.errors import InputError
from harness.hosts import address, board
from harness.questions import core, selection
from harness.results import journal

HERE: Final = Path("kvmirror.toml")

Reader = Callable[[object, Path], object]
"""Turns what a file (or a variable, as text) says into a value; ValueError says why it cannot."""


def _text(value: object, _: Path) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text: write it in quotes")
    return value


def _levels(value: object, folder: Path) -> str:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else _text(value, folder)
    selection.levels(text, None)  # which levels there are, the series says
    return text


def _param(value: object, folder: Path) -> str:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else _text(value, folder)
    if "=" not in text:  # what a name is worth, the series says
        selection.params(text)
    return text


def _vectors(value: object, folder: Path) -> list[str]:
    names = value.split() if isinstance(value, str) else value
    if not isinstance(names, list) or not names:
        raise ValueError(f'{value!r} is no list of vectors: write them as in ["thin"]')
    for name in names:
        if not _text(name, folder).startswith("@") and name not in core.NAMES:
            selection.vector(name)
    return names


def _count(value: object, _: Path) -> int:
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{value!r} is no number of jobs: write 1 or more, without quotes")
    return value


def _path(value: object, folder: Path) -> Path:
    return folder / Path(_text(value, folder)).expanduser()


def _present(value: object, folder: Path) -> Path:
    path = _path(value, folder)
    if not path.exists():
        raise ValueError(f"there is no {path}")
    return path


def _linux(value: object, folder: Path) -> Path | archive.Debian:
    named = archive.named(_text(value, folder))
    return named if isinstance(named, archive.Debian) else _present(value, folder)


def _hosts(value: object, folder: Path) -> str:
    names = value if isinstance(value, list) else [value]
    text = ",".join(_text(name, folder) for name in names)
    address.check(text)
    return text


def _seconds(value: object, _: Path) -> float:
    try:
        seconds = float(value) if isinstance(value, (int, float, str)) else -1
    except ValueError:
        seconds = -1
    if isinstance(value, bool) or seconds < 0:
        raise ValueError(f"{value!r} is no number of seconds: write 0 or more, without quotes")
    return seconds


def _machine(value: Any, folder: Path) -> str:
    if _text(value, folder) not in board.MACHINES:
        raise ValueError(f"{value!r} is no machine type that L1 runs on: write {board.names()}")
    return str(value)


@dataclass(frozen=True, slots=True)
class Default:
    """One key: the option it is the default of (``dest`` as argparse has it; none: the variable alone)."""

    key: str
    dest: str
    variable: str
    read: Reader
    meaning: str
    example: str
    unset: Callable[[], str]  # what holds where nobody sets it


SETTINGS: Final = (
    Default("levels", "levels", "KVMIRROR_LEVELS", _levels, "levels of validate, build and check", '"0,11,16-18"',
            lambda: "all"),
    Default("param", "param", "KVMIRROR_PARAM", _param, "parameters of validate: unset, 0, 1, all, MODULE.NAME=VALUE",
            '"all"', lambda: "all"),
    Default("vectors", "vectors", "KVMIRROR_VECTORS", _vectors, "vectors of validate: core, thin, parts, ids, @FILE",
            '["core"]', lambda: "core"),
    Default("jobs", "jobs", "KVMIRROR_HOSTS", _count, "hosts side by side", "2",
            lambda: "2 emulated ones, or all of a lab"),
    Default("make_jobs", "", "KVMIRROR_JOBS", _count, "compilations side by side", "2", lambda: "one a processor"),
    Default("linux", "linux", "KVMIRROR_LINUX", _linux, "another kernel: tarball, source tree, or debian:VERSION",
            '"~/src/linux-6.12.8.tar.xz"', lambda: "Linux 6.12.8, fetched"),
    Default("series", "series", "KVMIRROR_SERIES", _present, "another series' folder", '"~/src/series"',
            lambda: "patches/"),
    Default("bochs", "bochs", "KVMIRROR_BOCHS", _present, "your own emulator", '"/opt/bochs/bin/bochs"',
            lambda: "built here"),
    Default("journal", "journal", "KVMIRROR_JOURNAL", _path, "where runs are kept", '"~/kvmirror.sqlite"',
            lambda: str(journal.default_path())),
    Default("cache", "", cache.ENVIRONMENT, _path, "where builds are kept", '"/var/cache/kvmirror"',
            lambda: str(cache.default_root())),
    Default("host.address", "host", "KVMIRROR_HOST", _hosts, "lab machines instead of emulated hosts",
            '["ssh://root@lab1", "ssh://root@lab2:2222"]', lambda: "emulated hosts"),
    Default("host.coordinator", "coordinator", "LG_COORDINATOR", _text, "labgrid's coordinator, of labgrid: addresses",
            '"lab.example.org:20408"', lambda: "127.0.0.1:20408"),
    Default("host.wait", "place_wait", "KVMIRROR_PLACE_WAIT", _seconds, "seconds in labgrid's queue where others have "
            "all places", "600", lambda: "0"),
    Default("host.key", "host_key", "KVMIRROR_HOST_KEY", _present, "the private key to log in with",
            '"~/.ssh/id_ed25519"', lambda: "the user's own keys and agent"),
    Default("host.known_hosts", "known_hosts", "KVMIRROR_KNOWN_HOSTS", _present, "where the machines' keys are",
            '"~/.ssh/known_hosts"', lambda: "~/.ssh/known_hosts"),
    Default("host.qemu", "host_qemu", "KVMIRROR_HOST_QEMU", _text, "QEMU there: a path, or a name on root's PATH",
            '"/opt/qemu/bin/qemu-system-x86_64"', lambda: "qemu-system-x86_64"),
    Default("host.boot_command", "boot_command", "KVMIRROR_BOOT_COMMAND", _text, "boots the machines: a command that "
            "runs here", '"./boot.sh {host} {kernel}"', lambda: "no command: they run the kernel already"),
    Default("host.boot_restore_command", "boot_restore_command", "KVMIRROR_BOOT_RESTORE_COMMAND", _text,
            "boots what they ran before", '"./boot.sh {host} default"', lambda: "no command"),
    Default("host.l1_machine", "l1_machine", "KVMIRROR_L1_MACHINE", _machine, "QEMU's machine type for L1",
            '"pc"', lambda: board.names() + ", the first that QEMU has"),
)  # fmt: skip
BY_KEY: Final = {s.key: s for s in SETTINGS}


@dataclass(frozen=True, slots=True)
class Value:
    """The record is of a setting's value and who said so."""

    value: object
    source: str


def user_file() -> Path:
    """A user keeps defaults for every folder in this file."""
    return places.user_config() / "config.toml"


def files(named: Path | None) -> list[Path]:
    """The function gives the files that count, weakest first.

    Raises InputError when the one that was named is not there.
    """
    if named is not None:
        if not named.is_file():
            raise InputError(f"--config {named}: there is no such file; 'kvmirror config --example' prints one")
        return [named]
    return [path for path in (user_file(), HERE) if path.is_file()]


def read(path: Path) -> dict[str, Value]:
    """The function gives what a file sets.

    Raises InputError, which names the file, the key, the reason and the mend.
    """
    try:
        body = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: {error}; 'kvmirror config --example' prints a file that is right") from error
    found: dict[str, Value] = {}
    for key, value in _flat(body, path):
        if key not in BY_KEY:
            near = difflib.get_close_matches(key, BY_KEY, 1)
            mend = f"did you mean {near[0]!r}?" if near else f"keys are {', '.join(BY_KEY)}"
            raise InputError(f"{path}: there is no setting {key!r}; {mend}")
        found[key] = Value(_read(BY_KEY[key], value, path.parent, f"{path}: {key}"), str(path))
    return found


def _flat(body: Mapping[str, Any], path: Path) -> Iterator[tuple[str, Any]]:
    for key, value in body.items():
        if isinstance(value, dict):
            for inner, what in value.items():
                yield f"{key}.{inner}", what
        elif key == "host":
            raise InputError(
                f"{path}: host is a table: write [host] and under it address = {BY_KEY['host.address'].example}"
            )
        else:
            yield key, value


def _read(setting: Default, value: object, folder: Path, where: str) -> object:
    try:
        return setting.read(value, folder)
    except (ValueError, InputError) as error:
        raise InputError(f"{where}: {error} (it sets the {setting.meaning})") from error


def load(named: Path | None = None) -> dict[str, Value]:
    """The function gives every setting that a file or the environment sets, by key."""
    found: dict[str, Value] = {}
    for path in files(named):
        found |= read(path)
    for setting in SETTINGS:
        if text := os.environ.get(setting.variable):
            value = _read(setting, text, Path(), f"{setting.variable}={text}")
            found[setting.key] = Value(value, setting.variable)
    return found


def apply(parser: argparse.ArgumentParser, values: Mapping[str, Value]) -> None:
    """The values become the defaults of the options of ``parser`` and its subcommands."""
    actions = {action.dest: action for action in parser._actions}
    for setting in SETTINGS:
        # One level's --param is a question of its own, not the range of a run.
        if setting.key in values and setting.dest in actions and not (setting.key == "param" and "level" in actions):
            actions[setting.dest].default = values[setting.key].value
    for action in actions.values():
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                apply(child, values)


@contextlib.contextmanager
def environment(values: Mapping[str, Value]) -> Iterator[None]:
    """For the block, what no option takes is in the environment, where the code that wants it looks."""
    wanted = {s.variable: str(values[s.key].value) for s in SETTINGS if not s.dest and s.key in values}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, old in before.items():
            if old is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = old


def example() -> str:
    """A file with every setting, as comments: what is wanted is uncommented."""
    lines = [
        f"# kvmirror's defaults. Save as ./{HERE} or {user_file()}.",
        "# The command line beats the environment, the environment beats this file.",
    ]
    table = ""
    for setting in SETTINGS:
        *tables, name = setting.key.split(".")
        if tables and tables[0] != table:
            table = tables[0]
            lines += ["", f"[{table}]"]
        lines += [f"# {setting.meaning} ({setting.variable})", f"#{name} = {setting.example}"]
    return "\n".join(lines) + "\n"
