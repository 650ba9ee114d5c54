"""Places of a lab by their tags: ``labgrid:cpu=skylake,mbec=yes``, and why no place has them.

labgrid gives every place the tag ``name``: ``labgrid:name=lab1`` is that one place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from harness.errors import InputError

SCHEME: Final = "labgrid:"
EXAMPLE: Final = "labgrid:cpu=skylake,mbec=yes"
_TAG: Final = re.compile(r"(?P<key>[a-z][a-z0-9_]+)=(?P<value>[A-Za-z0-9_.-]+)")  # the key as labgrid takes it


@dataclass(frozen=True, slots=True)
class Tags:
    """Tags that a place must have, all of them."""

    wanted: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return " ".join(f"{key}={value}" for key, value in self.wanted)

    def match(self, name: str, tags: Mapping[str, str]) -> bool:
        """Whether the place ``name`` with these ``tags`` will do."""
        return not self.missing(name, tags)

    def missing(self, name: str, tags: Mapping[str, str]) -> list[str]:
        """The function gives the tags that the place lacks."""
        there = {**tags, "name": name}
        return [f"{key}={value}" for key, value in self.wanted if there.get(key) != value]

    def refused(self, places: Mapping[str, Mapping[str, str]]) -> str:
        """Why none of ``places`` (their tags by name) will do: which tag no place has, or which each one lacks."""
        if not places:
            return "the coordinator knows no place: labgrid-client create makes one"
        nowhere = []
        for key, value in self.wanted:
            values = {({**tags, "name": name}).get(key) for name, tags in places.items()}
            if value not in values:
                there = sorted(other for other in values if other is not None)
                nowhere.append(f"no place has {key}={value} ({_there(key, there)})")
        if nowhere:
            return "; ".join(nowhere)
        lacks = (f"{name} lacks {' '.join(self.missing(name, tags))}" for name, tags in sorted(places.items()))
        return f"no place has all of {self}: {'; '.join(lacks)}"


def _there(key: str, values: list[str]) -> str:
    return f"there is {', '.join(f'{key}={value}' for value in values)}" if values else f"no place has a tag {key}"


def is_labgrid(text: str) -> bool:
    """The address names places of a lab: True; a host's address does not."""
    return text.startswith(SCHEME)


def parse_tags(text: str) -> Tags:
    """The function gives the tags of an address.

    Raises InputError, which says what one looks like.
    """
    found: dict[str, str] = {}
    for part in text.removeprefix(SCHEME).split(","):
        match = _TAG.fullmatch(part.strip())
        if match is None:
            raise InputError(f"host {text!r}: {part.strip()!r} is no tag: write KEY=VALUE,..., as in {EXAMPLE}")
        if match["key"] in found:
            raise InputError(f"host {text!r} names the tag {match['key']} twice: a place has one value of it")
        found[match["key"]] = match["value"]
    return Tags(tuple(found.items()))
