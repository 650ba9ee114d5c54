"""Counters of instrumented objects: read from the host, added up, and given to gcov, which makes lines of them.

The stream's layout is in images/coverage/kvmirror_coverage.c, that of the files for gcov in gcc's gcov-io.h (from gcc
12 on: lengths in bytes, a checksum behind the stamp).
"""

from __future__ import annotations

import json
import shutil
import struct
import tempfile
from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness.coverage.build import Instrumented
from harness.errors import HostError, InfraError
from harness.process import programs

MAGIC: Final = 0x67636461  # "gcda"
FUNCTION: Final = 0x01000000  # gcov's tags
ARCS: Final = 0x01A10000
_OBJECT: Final = struct.Struct("<5I")
_FUNCTION: Final = struct.Struct("<4I")


@dataclass(frozen=True, slots=True)
class Function:
    """What gcc calls a function, to be found again in its notes; ``arcs`` is how many counters it has."""

    ident: int
    lines: int
    graph: int
    arcs: int


@dataclass(frozen=True, slots=True)
class Object:
    """The record has one object file's functions and their counters in a row. ``version`` and ``stamp`` tie it to its
    notes.
    """

    version: int
    stamp: int
    checksum: int
    functions: tuple[Function, ...]
    values: array[int]

    def plus(self, other: Object, sign: int = 1) -> Object:
        """The function gives the sum, or with ``sign`` -1 the difference.

        Raises InfraError when they are not of the same build.
        """
        if (self.stamp, self.functions) != (other.stamp, other.functions):
            raise InfraError("counters of two builds of an object cannot be added: load modules of one build only")
        values = array("q", (a + sign * b for a, b in zip(self.values, other.values, strict=True)))
        return Object(self.version, self.stamp, self.checksum, self.functions, values)

    def gcda(self) -> bytes:
        """The function gives the counters as gcov reads them."""
        words = [struct.pack("<4I", MAGIC, self.version, self.stamp, self.checksum)]
        at = 0
        for f in self.functions:
            values = self.values[at : at + f.arcs]
            at += f.arcs
            words.append(struct.pack("<5I", FUNCTION, 12, f.ident, f.lines, f.graph))
            words.append(struct.pack("<2I", ARCS, 8 * f.arcs) + values.tobytes())
        return b"".join(words)


Counters = dict[str, Object]
"""Objects by the name that the compiler gave their file of counters."""


def parse(data: bytes) -> Counters:
    """The function reads what the host's file holds.

    Raises HostError when it is cut short.
    """
    found: Counters = {}
    at = 0
    try:
        while at < len(data):
            words, version, stamp, checksum, count = _OBJECT.unpack_from(data, at)
            at += _OBJECT.size
            name = data[at : at + 4 * words].rstrip(b"\0").decode()
            at += 4 * words
            functions: list[Function] = []
            values: array[int] = array("q")
            for _ in range(count):
                functions.append(function := Function(*_FUNCTION.unpack_from(data, at)))
                at += _FUNCTION.size
                values.frombytes(data[at : at + 8 * function.arcs])
                at += 8 * function.arcs
            if not name or len(values) != sum(f.arcs for f in functions):
                raise ValueError("an object is cut short")
            one = Object(version, stamp, checksum, tuple(functions), values)
            found[name] = found[name].plus(one) if name in found else one
    except (struct.error, ValueError) as error:
        raise HostError(f"the counters of the instrumented modules cannot be read: {error}; run it again") from error
    return found


def add(total: Counters, more: Mapping[str, Object], sign: int = 1) -> None:
    """Add ``more`` to ``total``, or with ``sign`` -1 take it away; an object that is not there counted nothing."""
    for name, one in more.items():
        nothing = Object(one.version, one.stamp, one.checksum, one.functions, array("q", bytes(len(one.values) * 8)))
        total[name] = total.get(name, nothing).plus(one, sign)


@dataclass(frozen=True, slots=True)
class CountedLine:
    """The record is of a line that has code: how often it ran, and of how many ways out of its conditions each how
    often.
    """

    count: int
    ways: tuple[int, ...] = ()


Lines = dict[tuple[str, int], list[CountedLine]]
"""By file and number (from 1); one item a copy, since an inline function is in many objects."""


def lines(counters: Counters, modules: Instrumented) -> Lines:
    """The function gives the lines of every object that is instrumented, those of one that counted nothing with
    zeros.

    Raises InfraError when gcov is missing or is not of the compiler that built the modules.
    """
    counted = {modules.object(name): one for name, one in counters.items()}
    folder = Path(tempfile.mkdtemp(prefix="kvmirror-gcov-"))
    try:
        files = []
        for number, (name, notes) in enumerate(modules.notes.items()):
            path = folder / f"{number}.gcno"  # two objects may have the same name in different folders
            path.symlink_to(notes)
            if name in counted:
                path.with_suffix(".gcda").write_bytes(counted[name].gcda())
            files.append(path.name)
        words = ["gcov", "--json-format", "--branch-probabilities", "--stdout"]
        done = programs.run([*words, *files], cwd=folder, check=False)
    finally:
        shutil.rmtree(folder)
    if done.returncode:
        raise InfraError(
            f"gcov does not take the counters ({programs.tail(done.stderr, 1)}): "
            "it must be of the gcc that built the modules"
        )
    return _lines((json.loads(row) for row in done.stdout.splitlines()), modules.source)


def _lines(documents: Iterable[dict[str, Any]], source: Callable[[str], str]) -> Lines:
    found: Lines = {}
    for document in documents:
        for file in document["files"]:
            path = source(file["file"])
            for line in file["lines"]:
                ways = tuple(branch["count"] for branch in line["branches"])
                found.setdefault((path, line["line_number"]), []).append(CountedLine(line["count"], ways))
    return found
