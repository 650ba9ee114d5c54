"""What a kernel's tracepoints look like, from its own ``format`` files: nothing about a field's place is assumed."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from harness.errors import InputError

_FIELD: Final = re.compile(
    r"field:(?P<type>[^;]*?)(?P<name>\w+)(?:\[\w*\])?;\s*offset:(?P<offset>\d+);\s*size:(?P<size>\d+);\s*signed:(?P<signed>\d)"
)
_ID: Final = re.compile(r"^ID: (\d+)$", re.MULTILINE)
_NAME: Final = re.compile(r"^name: (\w+)$", re.MULTILINE)
_SYMBOL: Final = re.compile(r"\{\s*(0x[0-9a-fA-F]+|\d+)\s*,\s*\"([^\"]*)\"\s*\}")
_WIDTHS: Final = {1: "b", 2: "h", 4: "i", 8: "q"}


@dataclass(frozen=True, slots=True)
class FormatField:
    """A field has a place in its record: offset and size in bytes, and whether it is signed."""

    name: str
    offset: int
    size: int
    signed: bool

    def read(self, record: bytes) -> int:
        """The value is the field's number in ``record``, which is long enough."""
        code = _WIDTHS[self.size]
        found: int = struct.unpack_from("<" + (code if self.signed else code.upper()), record, self.offset)[0]
        return found


@dataclass(frozen=True, slots=True)
class EventFormat:
    """A tracepoint's record has a number and fields by name; the kernel says how it prints it."""

    name: str
    number: int
    fields: Mapping[str, FormatField]
    printed: str

    @property
    def size(self) -> int:
        """The value is how many bytes a record has at least."""
        return max(field.offset + field.size for field in self.fields.values())

    def has(self, *names: str) -> bool:
        """The value says whether the kernel's event carries all of these fields."""
        return all(name in self.fields for name in names)


def parsed(text: str, what: str) -> EventFormat:
    """A ``format`` file becomes an event's format.

    Raises InputError when it is none.
    """
    name, number = _NAME.search(text), _ID.search(text)
    fields = {}
    for match in _FIELD.finditer(text):
        size = int(match["size"])
        if size in _WIDTHS and "[" not in match[0].partition(";")[0]:
            fields[match["name"]] = FormatField(match["name"], int(match["offset"]), size, match["signed"] == "1")
    if name is None or number is None or "common_pid" not in fields or "common_type" not in fields:
        raise InputError(f"{what}: its format file is none that a kernel writes; is tracefs mounted there?")
    return EventFormat(name[1], int(number[1]), fields, text.partition("print fmt: ")[2])


def symbols(event: EventFormat) -> dict[int, str]:
    """The first table in what the event prints gives names: of ``kvm_exit`` those of VMX's exit reasons."""
    table = event.printed.partition("__print_symbolic(")[2].partition("})")[0] + "}"
    return {int(number, 0): name for number, name in _SYMBOL.findall(table)}


@dataclass(frozen=True)
class PageFormat:
    """A page of the ring buffer is what the kernel says in ``events/header_page``."""

    fields: Mapping[str, FormatField]

    @cached_property
    def size(self) -> int:
        """The value is how many bytes a page has."""
        data = self.fields["data"]
        return data.offset + data.size


def page(text: str) -> PageFormat:
    """``events/header_page`` becomes the format of the ring buffer's pages.

    Raises InputError when it is none.
    """
    found = {m["name"]: FormatField(m["name"], int(m["offset"]), int(m["size"]), False) for m in _FIELD.finditer(text)}
    if not {"timestamp", "commit", "data"} <= set(found) or not 512 <= found["data"].size <= 1 << 20:
        raise InputError("events/header_page is none that this kvmirror reads; is tracefs mounted there?")
    return PageFormat(found)
