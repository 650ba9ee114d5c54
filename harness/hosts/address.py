"""Addresses of lab machines as the user writes them: ``[ssh://][user@]host[:port]``, several with commas between.

``labgrid:TAG=VALUE,...`` are the places of a lab that have these tags.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from harness.errors import InputError
from harness.hosts.tags import is_labgrid, parse_tags

_FORM: Final = re.compile(
    r"(?:ssh://)?(?:(?P<user>[A-Za-z0-9_][\w.-]*)@)?(?P<host>\[[0-9a-fA-F:]+\]|[A-Za-z0-9_][\w.-]*)(?::(?P<port>\d{1,5}))?/?"
)


@dataclass(frozen=True, slots=True)
class Address:
    """The address says where and as whom: root and port 22 unless said otherwise."""

    user: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.user}@{host}:{self.port}"


def parse(text: str) -> Address:
    """One address; InputError says what one looks like."""
    match = _FORM.fullmatch(text)
    port = int(match["port"] or 22) if match else 0
    if match is None or not 1 <= port <= 65535:
        raise InputError(f"host {text!r} is not an address: write ssh://[user@]host[:port], as in ssh://root@lab1:22")
    return Address(match["user"] or "root", match["host"].strip("[]"), port)


def parse_all(text: str) -> list[Address]:
    """The function gives several addresses, each machine once.

    Raises InputError when one is no address, or names a machine twice.
    """
    found = [parse(part.strip()) for part in text.split(",")]
    if len(set(found)) != len(found):
        raise InputError(f"host {text!r} names a machine twice: it takes one level's modules at a time; name it once")
    return found


def check(text: str) -> None:
    """The text is addresses or tags.

    Raises InputError when it is neither.
    """
    if is_labgrid(text):
        parse_tags(text)
    else:
        parse_all(text)
