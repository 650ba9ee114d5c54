"""``kvmirror where``: from a function or a line of the kernel, of the mirror or of a patch to the other two."""

from __future__ import annotations

import argparse
import difflib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.build import Cache
from harness.cli.commands import Commands
from harness.cli.common import add_command
from harness.errors import InputError
from harness.oracle.check import places
from harness.series import folder, pinned
from kvmodel.mirrors import Mirror, kernel_path

NO_SOURCE: Final = (
    "the kernel's source is not in the cache, so that lines of C are not told; 'kvmirror build' brings it"
)


@dataclass(frozen=True, slots=True)
class Located:
    """This is one answer: a C function with its place in C, in the mirror (None: not mirrored), and the patches."""

    c_file: str
    c_line: int | None
    function: str
    mirror: str | None
    mirror_line: int | None
    patches: tuple[int, ...]

    def __str__(self) -> str:
        c = self.c_file if self.c_line is None else f"{self.c_file}:{self.c_line}"
        mirror = "not mirrored" if self.mirror is None else f"{self.mirror}:{self.mirror_line}"
        patches = f"  patches {' '.join(map(str, self.patches))}" if self.patches else ""
        return f"{mirror}  {c} {self.function}{patches}"


def add_parser(commands: Commands) -> None:
    """The function adds the command."""
    parser = add_command(
        commands,
        "where",
        "where a function of KVM is: in the mirror, in C, in the patches",
        "where make_spte",
        "where mmu/spte.c:180",
        "where kvmodel/mmu/spte.py:120",
        "where patches/0015-KVM-x86-mmu-Extend-make_spte-to-understand-MBEC.patch:50",
    )
    parser.add_argument("what", nargs="+", metavar="FUNCTION|FILE:LINE", help="a name of C or of the mirror, or a line")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The command prints a line an answer."""
    tree = Cache().lookup("linux-source", {"tarball": pinned.SHA256})
    found = [place for what in args.what for place in places_of(what, tree)]
    if args.json:
        rows = [{name: getattr(place, name) for name in Located.__dataclass_fields__} for place in found]
        print(json.dumps({"schema": 1, "source": tree is not None, "places": rows}, indent=1))
        return 0
    for place in found:
        print(place)
    if tree is None:
        print(NO_SOURCE)
    return 0


def places_of(what: str, tree: Path | None) -> list[Located]:
    """The function gives the answers to one question. ``tree`` is the kernel's source, None where it is not
    there.

    Raises InputError for what neither the kernel's mirrored files, the mirror nor a patch has.
    """
    file, colon, number = what.rpartition(":")
    if not colon:
        return _of_function(what, tree)
    if not number.isdecimal() or not int(number):
        raise InputError(f"where {what}: {number!r} must be the number of a line, from 1; write FILE:LINE")
    line = int(number)
    if file.endswith(".py"):
        return _of_python(what, file, line, tree)
    if file.endswith((".patch", ".mbox", ".eml")):
        return _of_patch(what, file, line, tree)
    return _of_c(what, file, line, tree)


def _place(mirror: Mirror, tree: Path | None) -> Located:
    path = kernel_path(mirror.file)
    line = None if tree is None else places.c_line(tree, path, mirror.function)
    return Located(path, line, mirror.function, places.python_file(mirror), places.python_line(mirror), mirror.patches)


def _of_function(name: str, tree: Path | None) -> list[Located]:
    found = places.of_function(name)
    if not found:
        known = places.known_names()
        near = [n for n in known if n.startswith(name)][:3] or difflib.get_close_matches(name, known, 3, 0.6)
        hint = f"did you mean {', '.join(near)}?" if near else "'kvmirror check --list' has what is mirrored"
        raise InputError(f"where {name}: no function of that name is mirrored; {hint}")
    return [_place(mirror, tree) for mirror in found]


def _within(path: str, function: str, tree: Path | None) -> list[Located]:
    """The mirrors of a C function of this very file; what is not mirrored is said so."""
    found = [m for m in places.of_file(path) if any(c.partition(" ")[2] == function for c in m.origins)]
    if found:
        return [_place(mirror, tree) for mirror in found]
    line = places.c_line(tree, path, function) if tree is not None and function else None
    patches = places.touched(places.changes(folder.read())).get((path, function), set())
    return [Located(path, line, function or "(outside any function)", None, None, tuple(sorted(patches)))]


def _of_c(what: str, file: str, line: int, tree: Path | None) -> list[Located]:
    known = places.known_files()
    path = known.get(file)
    if path is None:
        near = difflib.get_close_matches(file, known, 3, 0.6)
        hint = f"did you mean {', '.join(near)}?" if near else f"such as {', '.join(sorted(known)[:3])}"
        raise InputError(f"where {what}: {file} is no file of the kernel that is mirrored; {hint}")
    if tree is None:
        return [_place(mirror, tree) for mirror in places.of_file(path)]
    length = len((tree / path).read_text(encoding="utf-8").splitlines())
    if line > length:
        raise InputError(f"where {what}: {path} of Linux {pinned.VERSION} has {length} lines; name one of these")
    return _within(path, places.c_function(tree, path, line), tree)


def _of_python(what: str, file: str, line: int, tree: Path | None) -> list[Located]:
    own = places.KVMODEL / file.rpartition("kvmodel/")[2]
    if not own.is_file():
        raise InputError(
            f"where {what}: there is no {own.relative_to(places.KVMODEL.parent)}; name a file of the mirror"
        )
    function = places.python_function(own, line)
    module = ".".join(own.relative_to(places.KVMODEL).with_suffix("").parts)
    found = [m for m in places.of_function(function) if m.module == module]
    if not found:
        raise InputError(
            f"where {what}: that line is in {function or 'no function'}, which mirrors no function of KVM; "
            "name a line of one that does"
        )
    return [_place(mirror, tree) for mirror in found]


def _of_patch(what: str, file: str, line: int, tree: Path | None) -> list[Located]:
    series = folder.read()
    name = Path(file).name
    number = next((patch.number for patch in series.patches if patch.path.name == name), None)
    if number is None:
        raise InputError(f"where {what}: the series has no patch file {name}; 'kvmirror series show' lists the patches")
    row = next((row for row in places.changes(series) if (row.patch, row.line) == (number, line)), None)
    if row is None:
        raise InputError(f"where {what}: that line is part of no hunk; name one within the diff")
    return _within(row.path, row.function, tree)
