"""A recording's file: lines of JSON packed by xz, the last of which is the checksum of all before it.

``xzcat FILE`` shows it. Whatever somebody sent is read with bounds: no more than EXPANDED_MAX bytes are ever unpacked,
in no more than MEMORY of a dictionary, line by line.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from harness.errors import InputError

FORMAT: Final = "kvmirror-recording"
VERSION: Final = 1
PACKED_MAX: Final = 64 << 20  # bytes of a file; the core at all levels has 55 KiB
EXPANDED_MAX: Final = 256 << 20  # bytes of its text, as far as the reader allows them
RUN_MAX: Final = 64 << 20  # bytes of a run's text; the core at all levels has 5 MB
LINE_MAX: Final = 8 << 20  # bytes of one line: a cell and its traces
MEMORY: Final = 96 << 20  # bytes that unpacking may take; what is written here needs 9 MiB
_PRESET: Final = 6
_MAGIC: Final = b"\xfd7zXZ\x00"
_SQLITE: Final = b"SQLite format 3\x00"
_ANOTHER: Final = "ask for it again, or have it recorded anew with 'kvmirror record'"


def refuse(path: Path | str, reason: str, mend: str = _ANOTHER) -> NoReturn:
    """Nothing of a recording that is none is believed.

    Raises InputError with its name, what is wrong with it, and what to do.
    """
    raise InputError(f"recording {path}: {reason}; {mend}")


def is_recording(path: Path) -> bool:
    """The value says whether a file begins as a recording does; what is in it is not looked at."""
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def line(value: object) -> bytes:
    """The text of a recording has one such line a value."""
    return json.dumps(value, separators=(",", ":")).encode("ascii") + b"\n"


def packed(values: Iterable[object], kind: str = FORMAT) -> bytes:
    """The file has these lines: the same bytes for the same values from the same liblzma."""
    text = b"".join([line({"format": kind, "version": VERSION}), *map(line, values)])
    text += line({"sha256": hashlib.sha256(text).hexdigest()})
    return lzma.compress(text, format=lzma.FORMAT_XZ, preset=_PRESET)


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A file that was found whole is its text, which ``end`` ends without the last line, and the checksum, which names
    it.
    """

    path: Path
    text: bytes
    end: int
    sha256: str

    def values(self) -> Iterator[Any]:
        """The lines behind the first come one by one, each decoded when its turn has come.

        Raises InputError when one is no JSON.
        """
        file = io.BytesIO(self.text)  # shares the bytes: they may be many
        file.readline()
        while file.tell() < self.end:
            yield decoded(self.path, file.readline())


def decoded(path: Path, row: bytes) -> Any:
    """The value is what the JSON of a line says.

    Raises InputError when it is none, or too long.
    """
    if len(row) > LINE_MAX:
        refuse(path, f"a line of it has {len(row):,} bytes, and none has more than {LINE_MAX:,}")
    try:
        return json.loads(row.decode("ascii"), parse_constant=_no_number, object_pairs_hook=_named_once)
    except (ValueError, RecursionError) as error:
        refuse(path, f"a line of it is no JSON ({type(error).__name__})")


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of which each name is there once: readers take one or the other of two."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name twice")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(text)


def unpacked(path: Path, kind: str = FORMAT, most: int = EXPANDED_MAX) -> Unpacked:
    """The text of a file, of ``most`` bytes, is given once the file has been found whole.

    Raises InputError when it is no recording, truncated, altered, of a newer kvmirror, or too large.
    """
    data = _bytes(path)
    text, whole = _expanded(path, data, most)
    _check_version(path, text, whole, kind)
    if not whole:
        refuse(path, "it is truncated: its end is missing")
    end = text.rfind(b"\n", 0, len(text) - 1) + 1
    told = decoded(path, text[end:])
    if not (isinstance(told, dict) and set(told) == {"sha256"} and isinstance(told["sha256"], str)):
        refuse(path, "it is truncated: its last line is not its checksum")
    found = hashlib.sha256(memoryview(text)[:end]).hexdigest()
    if told["sha256"] != found:
        refuse(path, f"it was altered: its SHA-256 is {found}, and it was recorded with another")
    return Unpacked(path, text, end, found)


def _bytes(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > PACKED_MAX and path.is_file():
            refuse(path, f"it has {size:,} bytes, and no recording has more than {PACKED_MAX:,}")
        with path.open("rb") as file:
            data = file.read(PACKED_MAX + 1)
    except OSError as error:
        refuse(path, f"cannot be read: {error.strerror}", "name a file that 'kvmirror record' wrote")
    if data.startswith(_SQLITE):
        refuse(path, "it is a journal", f"'kvmirror record --journal {path} FILE' makes a recording of its latest run")
    if not data:
        refuse(path, "it is empty")
    if not _MAGIC.startswith(data[: len(_MAGIC)]):
        refuse(path, "it is not a recording: it does not begin as an xz file", "name a file of 'kvmirror record'")
    return data


def _expanded(path: Path, data: bytes, most: int) -> tuple[bytes, bool]:
    """The function gives what is in the xz file, and whether the file is whole."""
    unpacker = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=MEMORY)
    try:
        text = unpacker.decompress(data, max_length=most + 1)
    except MemoryError:
        refuse(path, "unpacking it takes more memory than any recording needs")
    except lzma.LZMAError as error:
        if "emory" in str(error):
            refuse(path, "unpacking it takes more memory than any recording needs")
        refuse(path, f"it is damaged: {error}")
    if len(text) > most:
        refuse(path, f"{len(data):,} bytes unpack to more than {most:,}: no recording does")
    if unpacker.unused_data:
        refuse(path, f"{len(unpacker.unused_data):,} bytes follow its end")
    return text, unpacker.eof


def _check_version(path: Path, text: bytes, whole: bool, kind: str) -> None:
    """The first line says what the file is, before anything else of it is believed."""
    row, end, _ = text[:4096].partition(b"\n")
    if not end and not whole:
        refuse(path, "it is truncated: nothing of it is there")
    first = decoded(path, row) if end and row.startswith(b"{") else None
    if not isinstance(first, dict) or first.get("format") != kind:
        refuse(path, f"it is an xz file, but not a {kind.removeprefix('kvmirror-')}", "name a file that kvmirror wrote")
    version = first.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        refuse(path, "it does not say its version")
    if version > VERSION:
        refuse(
            path,
            f"it is of a newer kvmirror (version {version} of the format, and this one reads {VERSION})",
            "read it with a kvmirror as new as the one that wrote it",
        )
