"""What a run needs of a kernel's configuration, with other ways to it for other versions (images/kernel/needs.toml).

A need has one way or several, each a list of settings as in ``KVM=m`` or ``SMP=n``. Which of them a kernel takes only
its own Kconfig knows, so it is asked: the tree is configured with each need's first way, what it did not take is tried
the next way, and so on. What no way brings is lost, and the need says what falls away then.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness import places
from harness.errors import BuildError

FILE: Final = places.IMAGES / "kernel" / "needs.toml"
_SETTING: Final = re.compile(r"([A-Z0-9_]+)=(y|m|n)")
_KEYS: Final = {"name", "why", "ways", "without", "required", "where_known"}

Way = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Need:
    """This is one need. ``ways``: settings, the preferred way first; ``without``: what falls away where no way is
    taken.

    ``required``: nothing runs without it. ``where_known``: it counts only for a kernel whose Kconfig has the symbols,
    since others have the thing without asking.
    """

    name: str
    why: str
    ways: tuple[Way, ...]
    without: str
    required: bool = True
    where_known: bool = False

    @property
    def symbols(self) -> frozenset[str]:
        """The function gives the symbols that any of the ways sets."""
        return frozenset(setting.partition("=")[0] for way in self.ways for setting in way)


@dataclass(frozen=True, slots=True)
class Lost:
    """A need that a kernel did not take, with the settings that it has otherwise, and why as far as Kconfig says."""

    need: Need
    settings: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.need.name} ({'; '.join(self.settings)}): {self.need.without}"


@dataclass(frozen=True, slots=True)
class Settled:
    """A tree's answer: the fragment it was configured with at last, the needs that took another way than their first
    (name to way), and those that it lost."""

    fragment: str
    other_ways: dict[str, Way]
    lost: tuple[Lost, ...]


def read(path: Path = FILE) -> tuple[Need, ...]:
    """The needs of a file. BuildError names the need and the key that are wrong."""
    try:
        rows: list[dict[str, Any]] = tomllib.loads(path.read_text(encoding="utf-8"))["need"]
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError) as error:
        raise BuildError(f"{path} cannot be read: {error!r}") from error
    return tuple(_need(path, row) for row in rows)


def _need(path: Path, row: dict[str, Any]) -> Need:
    where = f"{path}: need {row.get('name', '(without a name)')!r}"
    if unknown := row.keys() - _KEYS:
        raise BuildError(f"{where}: the key {min(unknown)!r} is unknown; keys are {', '.join(sorted(_KEYS))}")
    if missing := {"name", "why", "ways", "without"} - row.keys():
        raise BuildError(f"{where}: the key {min(missing)!r} is missing")
    ways = tuple(tuple(way) for way in row["ways"])
    for setting in (setting for way in ways for setting in way):
        if not _SETTING.fullmatch(setting):
            raise BuildError(f"{where}: {setting!r} is no setting; write it as in KVM=m or SMP=n")
    return Need(row["name"], row["why"], ways, row["without"], row.get("required", True), row.get("where_known", False))


def key(needs: Sequence[Need]) -> list[object]:
    """What of the needs a kernel's build depends on: a word more in a reason builds nothing anew."""
    return [[need.name, need.ways, need.required, need.where_known] for need in needs]


def line(setting: str) -> str:
    """This is a setting as a .config has it."""
    name, value = setting.split("=")
    return f"# CONFIG_{name} is not set" if value == "n" else f"CONFIG_{name}={value}"


def fragment(ways: Sequence[Way]) -> str:
    """The fragment has the lines of some ways, each once."""
    return "".join(f"{text}\n" for text in dict.fromkeys(line(setting) for way in ways for setting in way))


def plain(needs: Sequence[Need]) -> str:
    """The fragment of a kernel that takes the first way of every need, and has no symbol of those ``where_known``."""
    return fragment([need.ways[0] for need in needs if not need.where_known])


def untaken(way: Way, config: str) -> tuple[str, ...]:
    """A .config has these settings of a way otherwise; the function gives each with what it has."""
    have = dict(re.findall(r"^CONFIG_(\w+)=(.*)$", config, re.M))
    pairs = (setting.split("=") for setting in way)
    return tuple(f"CONFIG_{name}={value} is {have.get(name, 'n')}" for name, value in pairs
                 if have.get(name, "n") != value)  # fmt: skip


def known(tree: Path, symbols: Collection[str]) -> frozenset[str]:
    """Some Kconfig file of a source tree defines these of the symbols."""
    pattern = re.compile(rf"^\s*(?:menu)?config\s+({'|'.join(map(re.escape, sorted(symbols)))})\s*$", re.M)
    found: set[str] = set()
    for path in tree.rglob("Kconfig*"):
        if path.is_file():
            found.update(pattern.findall(path.read_text(encoding="utf-8", errors="replace")))
    return frozenset(found)


def settle(needs: Sequence[Need], there: Collection[str], configure: Callable[[str], str]) -> Settled:
    """Each need is given its first way that a tree takes.

    ``there``: the symbols that its Kconfig defines; ``configure``: configures the tree with a fragment and gives back
    its .config.
    """
    asked = [need for need in needs if not need.where_known or need.symbols <= set(there)]
    at = {need.name: 0 for need in asked}
    while True:
        chosen = {need.name: need.ways[at[need.name]] for need in asked}
        text = fragment(list(chosen.values()))
        config = configure(text)
        refused = [need for need in asked if untaken(chosen[need.name], config)]
        again = [need for need in refused if at[need.name] + 1 < len(need.ways)]
        if not again:
            break
        for need in again:
            at[need.name] += 1
    return Settled(
        text,
        {name: way for name, way in chosen.items() if at[name]},
        tuple(Lost(need, _reasons(need, there, config)) for need in refused),
    )


def _reasons(need: Need, there: Collection[str], config: str) -> tuple[str, ...]:
    """The settings of all ways that were not taken, each with whether this kernel has the symbol at all."""
    found = []
    for text in dict.fromkeys(text for way in need.ways for text in untaken(way, config)):
        name = text.removeprefix("CONFIG_").partition("=")[0]
        why = "something that it depends on is missing" if name in there else "this kernel has no such symbol"
        found.append(f"{text}, {why}")
    return tuple(found)
